"""Many systems, or copies of few, in passes that fit into memory.

A pass over some systems is a batch with its graphs kept. How many systems it takes follows from what the graphs of
earlier passes held by atom; a pass that turns out too large is tried again with half. Work on a system must depend on
the system alone, so that what comes out does not depend on how systems were put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from mlcalc.memory import free_bytes
from mlcalc.potentials.potential import Potential
from mlcalc.probes.field import Field, GraphTooLarge
from mlcalc.structure import Structure

T = TypeVar("T")

#: With more atoms than this in a pass a CPU gains nothing
_CPU_ATOMS = 256
#: bytes by atom before anything is known: several times what networks of water hold in float32
_GUESS = 8 * 2**20
_OF_FREE = 0.5  # planned for; `Field` stops a little above
_MOST_COPIES = 8


@dataclass(frozen=True)
class Batch:
    """Copies of some systems in one pass: the first copy of each, then the second of each, and so on.

    Attributes
    ----------
    systems : indices into the whole structure; copies : of each
    structure : the batch; field : its force
    """

    systems: tuple[int, ...]
    copies: int
    structure: Structure
    field: Field

    def along(self, directions: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """`Field.squares` by atom for a direction (n_atoms, 3) of every copy of every system, in their order."""
        odd, whole = self.field.squares(torch.cat(list(directions)).to(self.field.positions))
        sizes = [len(direction) for direction in directions]
        return list(odd.split(sizes)), list(whole.split(sizes))


@dataclass(frozen=True)
class Job:
    """What all passes share.

    Attributes
    ----------
    structure : one or many systems; forces : "direct" or "conservative"
    memory_bytes : that graphs may hold; half of what is free unless given
    """

    potential: Potential
    structure: Structure
    forces: str
    memory_bytes: float | None = None

    def batch(self, systems: Sequence[int], copies: int) -> Batch:
        """A batch; raises GraphTooLarge."""
        structure = self.structure.select(systems).replicated(copies)
        field = Field.at(self.potential, structure, self.forces, self.memory_bytes)
        return Batch(tuple(systems), copies, structure, field)

    def capacity(self, bytes_per_atom: float) -> int:
        """Atoms for the next pass."""
        device, room = self.potential.device, self.memory_bytes
        if room is None:
            room = _OF_FREE * free_bytes(device)
        most = _CPU_ATOMS if device.type == "cpu" else 2**31
        return int(min(most, room / max(1.0, bytes_per_atom)))  # some forces need no graph to speak of


def in_passes(job: Job, most_copies: int, work: Callable[[Batch], list[T]]) -> Iterator[tuple[int, T]]:
    """(system, what `work` found for it), for all systems; `work` gives one result for each system of its batch.

    Parameters
    ----------
    most_copies : of a system that are of use; so many are made as fit when all systems are in one pass, 1, 2, 4 or 8

    Raises
    ------
    GraphTooLarge
        if a single system does not fit.
    """
    sizes = job.structure.atoms_per_system.tolist()
    start, ceiling, capacity = 0, 2**31, job.capacity(_GUESS)
    while start < len(sizes):
        stop = _end(sizes, start, capacity)
        n_atoms, copies = sum(sizes[start:stop]), 1
        if stop - start == len(sizes):
            while 2 * copies <= min(most_copies, _MOST_COPIES) and 2 * copies * n_atoms <= capacity:
                copies *= 2
        try:
            found, bytes_per_atom = _one_pass(job, range(start, stop), copies, work)
        except (GraphTooLarge, torch.cuda.OutOfMemoryError) as error:
            if stop - start == copies == 1:
                raise _too_large(error, n_atoms) from error
            ceiling = capacity = copies * n_atoms // 2
            continue
        capacity = min(ceiling, job.capacity(bytes_per_atom))
        yield from zip(range(start, stop), found, strict=True)
        start = stop


def _one_pass(job: Job, systems: Sequence[int], copies: int, work: Callable[[Batch], list[T]]) -> tuple[list[T], float]:
    batch = job.batch(systems, copies)
    return work(batch), batch.field.bytes_per_atom


def groups(sizes: Sequence[int], capacity: int) -> Iterator[range]:
    """Consecutive systems with together at most `capacity` atoms, or one that is larger."""
    start = 0
    while start < len(sizes):
        yield range(start, start := _end(sizes, start, capacity))


def _end(sizes: Sequence[int], start: int, capacity: int) -> int:
    """So that sizes[start:end] hold at most `capacity` atoms, or are one."""
    stop, n_atoms = start + 1, sizes[start]
    while stop < len(sizes) and n_atoms + sizes[stop] <= capacity:
        n_atoms += sizes[stop]
        stop += 1
    return stop


def _too_large(error: Exception, n_atoms: int) -> GraphTooLarge:
    if isinstance(error, GraphTooLarge):
        return error
    return GraphTooLarge(
        f"structure: derivatives of the forces on {n_atoms} atoms do not fit into the memory of the device; use one "
        "with more memory, float32, or differences of forces"
    )
