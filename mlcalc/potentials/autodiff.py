"""From atomic energies and direct forces over edge vectors to everything an Evaluation holds.

With g_ij = ∂E/∂r_ij for every edge i→j (r_ij = r_j − r_i + S·cell):

    force_i  = Σ_j g_ij − Σ_j g_ji          (minus the gradient)
    virial   = −Σ_ij r_ij ⊗ g_ij            (−dE/dstrain, r → r(1 + strain); half of a term to either atom)

One backward pass to the edge vectors gives both, whatever the model in between.
"""

from __future__ import annotations

import abc
import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.blocks import EDGES_PER_BLOCK, Block, blocks_of
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure, check_overlap


@dataclass(frozen=True)
class Graph:
    """What a model sees.

    Attributes
    ----------
    numbers : (n_atoms,), int64, atomic numbers
    centre, neighbour : (n_edges,), int64, sorted by centre
    vectors : (n_edges, 3), in the model's dtype, Å
    reverse : (n_edges,), int64, the edge j→i of each edge i→j, where the model asks for it
    n_atoms : int
    attached : whether direct forces must carry gradients
    structure : where the edges come from, for what they do not tell
    counted : (n_atoms,), bool, whose energies and direct forces count; None for all
    blocks : how to go through a system that is large for the memory; None for all at once
    """

    numbers: Tensor
    centre: Tensor
    neighbour: Tensor
    vectors: Tensor
    reverse: Tensor | None
    n_atoms: int
    attached: bool
    structure: Structure
    counted: Tensor | None = None
    blocks: tuple[Block, ...] | None = None


@dataclass(frozen=True)
class Outputs:
    """What a model gives for a Graph.

    Attributes
    ----------
    energies : (n_atoms,), eV
    slope : (n_edges, 3), eV/Å, derivative of their sum by the edge vectors
    direct : (n_atoms, 3), eV/Å, direct forces
    """

    energies: Tensor | None
    slope: Tensor | None
    direct: Tensor | None


def sum_over(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Σ of rows of `values` that share an index: (n, …) → (size, …)."""
    return torch.zeros(size, *values.shape[1:], dtype=values.dtype, device=values.device).index_add(0, index, values)


class AutodiffPotential(Potential, nn.Module):
    """A potential written as energies and direct forces of a Graph; the rest follows by differentiation."""

    _where: Tensor
    needs_reverse = False  #: whether Graph.reverse shall be filled
    divides = False  #: whether `energies_and_direct` heeds Graph.blocks
    #: how many edges `evaluate` takes at a time, to bound its memory; None for what suits the device, 0 for all at once
    edges_per_block: int | None = None

    def __init__(self, name: str, cutoff: float, provides: Wanted, dtype: torch.dtype = torch.float64) -> None:
        nn.Module.__init__(self)
        self.name = name
        self.cutoff = cutoff
        self.provides = provides
        self.register_buffer("_where", torch.zeros((), dtype=dtype), persistent=False)

    @abc.abstractmethod
    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        """Energies by atom (n_atoms,) if ENERGY or a derivative is wanted, direct forces (n_atoms, 3) if DIRECT is."""

    def total_energies(self, energies: Tensor, graph: Graph) -> Tensor:
        """Add what does not depend on positions, in float64. (n_atoms,) → (n_atoms,), eV"""
        return energies.double()

    @property
    def device(self) -> torch.device:
        return self._where.device

    @property
    def dtype(self) -> torch.dtype:
        return self._where.dtype

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{type(self).__name__} {self.extra_repr()}".encode())
        for key, tensor in sorted(self.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        return self._evaluate(structure, neighbours, wanted, None)

    def evaluate_part(
        self, structure: Structure, neighbours: Neighbours, wanted: Wanted, counted: Tensor
    ) -> Evaluation:
        if not self.interaction_depth:
            return super().evaluate_part(structure, neighbours, wanted, counted)
        return self._evaluate(structure, neighbours, wanted, counted)

    def _evaluate(
        self, structure: Structure, neighbours: Neighbours, wanted: Wanted, counted: Tensor | None
    ) -> Evaluation:
        self.check_wanted(wanted)
        derivatives = bool(wanted & (Wanted.CONSERVATIVE | Wanted.VIRIAL))
        with torch.set_grad_enabled(derivatives):
            graph = self.graph(structure.at(structure.positions.detach()), neighbours, attached=False)
            graph = replace(graph, counted=counted, blocks=self._blocks(graph))
            if derivatives:
                graph.vectors.requires_grad_()
            return self._assemble(structure, graph, wanted)

    def _blocks(self, graph: Graph) -> tuple[Block, ...] | None:
        most = self.edges_per_block
        if most is None:
            most = EDGES_PER_BLOCK.get(graph.vectors.device.type, EDGES_PER_BLOCK["cuda"])
        if not self.divides or not most or len(graph.centre) <= 2 * most:
            return None
        return blocks_of(graph.centre, graph.n_atoms, most)

    def differentiable(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        self.check_wanted(wanted)
        with torch.enable_grad():
            graph = self.graph(structure, neighbours, attached=True)
            # a direct force alone needs no derivative by the edges, and with a frozen trunk no tape for it either
            if wanted & (Wanted.CONSERVATIVE | Wanted.VIRIAL) and not graph.vectors.requires_grad:
                graph.vectors.requires_grad_()
            return self._assemble(structure, graph, wanted)

    def graph(self, structure: Structure, neighbours: Neighbours, *, attached: bool) -> Graph:
        """The edges within the cutoff: those that only the skin holds cost as much as the others and give nothing."""
        vectors = neighbours.vectors(structure)
        keep = torch.nonzero(vectors.detach().square().sum(dim=1) < self.cutoff**2).squeeze(1)
        centre, neighbour = neighbours.centre[keep], neighbours.neighbour[keep]
        vectors = vectors.index_select(0, keep)
        check_overlap(structure, vectors.detach(), centre, neighbour)
        reverse = None
        if self.needs_reverse:
            renumbered = torch.empty_like(neighbours.centre)
            renumbered[keep] = torch.arange(len(keep), device=keep.device)
            reverse = renumbered[neighbours.reverse[keep]]
        edges = (centre, neighbour, vectors.to(self.dtype), reverse)
        return Graph(structure.numbers, *edges, structure.n_atoms, attached, structure)

    def _assemble(self, structure: Structure, graph: Graph, wanted: Wanted) -> Evaluation:
        raw, direct = self.energies_and_direct(graph, wanted)
        slope = None
        if raw is not None and wanted & (Wanted.CONSERVATIVE | Wanted.VIRIAL):
            (slope,) = torch.autograd.grad(_count(raw, graph).sum(), graph.vectors, create_graph=graph.attached)
        return self.assemble(structure, graph, wanted, Outputs(raw, slope, direct))

    def assemble(self, structure: Structure, graph: Graph, wanted: Wanted, outputs: Outputs) -> Evaluation:
        """What is wanted, from what was computed."""
        raw, slope, direct = outputs.energies, outputs.slope, outputs.direct

        def finish(value: Tensor | None) -> Tensor | None:
            return None if value is None else (value if graph.attached else value.detach()).to(structure.dtype)

        def both_ends(by_edge: Tensor, sign: int) -> Tensor:
            ends = [sum_over(by_edge, end, graph.n_atoms) for end in (graph.centre, graph.neighbour)]
            return ends[0] + sign * ends[1]

        conservative = virial = virials = energies = energy = None
        if slope is not None and wanted & Wanted.CONSERVATIVE:
            conservative = both_ends(slope, -1)
        if slope is not None and wanted & Wanted.VIRIAL:
            by_edge = -graph.vectors.unsqueeze(2) * slope.unsqueeze(1)
            virials = both_ends(0.25 * (by_edge + by_edge.transpose(1, 2)), 1)
            virial = sum_over(virials, structure.system, structure.n_systems)
        if raw is not None:
            energies = _count(self.total_energies(raw, graph), graph)
            energy = sum_over(energies, structure.system, structure.n_systems)
        direct = None if direct is None else _count(direct, graph)
        values = (energy, energies, conservative, direct, virial, virials)
        return Evaluation(*(finish(value) for value in values))


def _count(by_atom: Tensor, graph: Graph) -> Tensor:
    """Zero where an atom does not count, (n_atoms, …)."""
    if graph.counted is None:
        return by_atom
    return by_atom * graph.counted.view(-1, *[1] * (by_atom.dim() - 1))
