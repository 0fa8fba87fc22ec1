"""Evaluations of constant shape, on a GPU replayed from CUDA graphs: for systems so small that launching a kernel takes
longer than running it.

All that depends on the neighbour list is made once for it, with a skin, and padded (padding.py). What depends on
positions is captured once for each kind of evaluation and set of shapes, and replayed with other positions in the same
memory (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). Each evaluation asks the device one question:
whether the lists still hold. On a CPU the same is done without capturing, which is of use for tests alone.

Edges in the skin and the padding are work that replaying must win back: benchmarks/compiled.py measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.autodiff import Graph
from mlcalc.potentials.compiled import KINDS, CompiledPotential, kind_of, only, tensors_in
from mlcalc.potentials.network import Network
from mlcalc.potentials.padding import Lists, lengths, make_lists, padded, room_for
from mlcalc.potentials.potential import Potential
from mlcalc.structure import SHORTEST_DISTANCE, Structure

_WARM_UP = 3  # calls before capturing: libraries and compiled kernels are loaded and set up in the first ones


@dataclass(frozen=True)
class _System:
    """Inputs of all evaluations of the same atoms, in memory that stays where it is.

    Attributes
    ----------
    structure : with the positions of the next evaluation
    origin : (n_atoms, 3), Å, the positions that the lists were made for
    lists : padded
    """

    structure: Structure
    origin: Tensor
    lists: Lists

    def is_of(self, other: Structure) -> bool:
        """The same atoms in the same cells; tensors that are the same object cost no question to the device."""
        pairs = [(getattr(self.structure, name), getattr(other, name)) for name in ("numbers", "system")]
        same = self.structure.n_systems == other.n_systems and self.structure.dtype == other.dtype
        return same and all(one is theirs or torch.equal(one, theirs) for one, theirs in pairs)


class GraphedPotential(CompiledPotential):
    """A network, compiled or not, whose evaluations have constant shapes.

    Parameters
    ----------
    potential : a network of ours or its compiled package
    skin : Å, how far lists reach beyond their cutoffs; best that of the engine's neighbour list

    Attributes
    ----------
    n_lists : how often lists were made
    n_shapes : how many sets of shapes there were; on a GPU each is captured anew
    """

    def __init__(self, potential: Potential, skin: float = 0.5) -> None:
        if isinstance(potential, Network):
            super().__init__(potential, {})
        elif isinstance(potential, CompiledPotential):
            super().__init__(potential.network, potential.programs)
        else:
            raise UsageError(f"potential: CUDA graphs are for networks of ours, not for {potential.name!r}")
        self.skin = skin
        self.n_lists = self.n_shapes = 0
        self._kinds = tuple(kind for kind, computes in KINDS.items() if not computes & ~self.provides)
        self._system: _System | None = None
        self._made_for: Neighbours | None = None
        self._replays: dict[Wanted, _Replay] = {}

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        self.check_wanted(wanted)
        if kind_of(wanted, self._kinds) is None:
            return self.network.evaluate(structure, neighbours, wanted)
        with torch.no_grad():
            structure = structure.at(structure.positions.detach())
            if self._made_for is not neighbours or self._system is None or not self._system.is_of(structure):
                self._make(structure, neighbours)
            found, valid, nearest = self._run(structure, wanted)
            if not valid:
                self._make(structure, neighbours)
                found, _, nearest = self._run(structure, wanted)
            if nearest < SHORTEST_DISTANCE:
                self.network.graph(structure, neighbours, attached=False)  # which says what is wrong
        return found

    def _make(self, structure: Structure, neighbours: Neighbours) -> None:
        """Lists for these positions, in the memory of the last ones if they fit."""
        self.n_lists += 1
        self._made_for = neighbours
        now = make_lists(self.network, structure, neighbours, self.skin)
        needed, old = lengths(now), self._system
        if old is not None and old.is_of(structure):
            room = lengths(old.lists)
            if all(room[name] > length for name, length in needed.items()):
                _copy(tensors_in(padded(now, room, self.cutoff)), tensors_in(old.lists))
                _copy((structure.cell, structure.positions), (old.structure.cell, old.origin))
                return
        else:
            room = {}
        self.n_shapes += 1
        self._replays.clear()
        room = {name: max(room_for(length), room.get(name, 0)) for name, length in needed.items()}
        own = structure.at(structure.positions.clone(), structure.cell.clone())
        self._system = _System(own, structure.positions.clone(), padded(now, room, self.cutoff))

    def _run(self, structure: Structure, wanted: Wanted) -> tuple[Evaluation, bool, float]:
        """The evaluation, whether the lists hold, and the shortest distance, Å."""
        system = self._system
        assert system is not None
        cell = structure.cell
        _copy((structure.positions,), (system.structure.positions,))
        if wanted not in self._replays:
            self._replays[wanted] = _Replay(lambda: self._evaluation(system, wanted), self.device)
        *values, asked = self._replays[wanted]()
        assert asked is not None
        changed = (cell - system.structure.cell).abs().max()
        moved, shortest, strained = torch.cat([asked, changed[None]]).tolist()
        # written so that not-a-number makes lists anew
        valid = moved <= (self.skin / 2) ** 2 and strained == 0
        return Evaluation(*values), valid, shortest**0.5

    def _evaluation(self, system: _System, wanted: Wanted) -> tuple[Tensor | None, ...]:
        """Fields of the Evaluation, and squares of the longest move and the shortest distance, Å²."""
        structure, lists = system.structure, system.lists
        kind = kind_of(wanted, self._kinds)
        assert kind is not None
        vectors = lists.vectors(structure.positions)
        edges = lists.centre, lists.neighbour, vectors.to(self.dtype), lists.reverse
        graph = Graph(structure.numbers, *edges, structure.n_atoms, False, structure)
        outputs = self.outputs(kind, graph, lists.places)
        found = self.network.assemble(structure, graph, wanted, only(outputs, wanted))
        moved = (structure.positions - system.origin).square().sum(dim=1).max()
        asked = torch.stack([moved, vectors.square().sum(dim=1).min()])
        return (*(getattr(found, field.name) for field in fields(found)), asked)


class _Replay:
    """A function without arguments, captured in a CUDA graph on a GPU."""

    def __init__(self, function: Callable[[], tuple[Tensor | None, ...]], device: torch.device) -> None:
        self._function = function
        self._graph = None
        if device.type != "cuda":
            return
        with torch.cuda.device(device):
            # warmed up on the stream that captures: libraries keep a handle and memory for each stream
            stream, here = torch.cuda.Stream(), torch.cuda.current_stream()
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    function()
            here.wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(self._graph, stream=stream):
                    self._outputs = function()
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise RunError(f"cuda graphs: cannot capture an evaluation ({reason}); do without them") from error

    def __call__(self) -> tuple[Tensor | None, ...]:
        if self._graph is None:
            return self._function()
        self._graph.replay()
        # the next replay writes to the same memory
        return tuple(None if value is None else value.clone() for value in self._outputs)


def _copy(new: list[Tensor] | tuple[Tensor, ...], old: list[Tensor] | tuple[Tensor, ...]) -> None:
    for mine, theirs in zip(new, old, strict=True):
        theirs.copy_(mine)
