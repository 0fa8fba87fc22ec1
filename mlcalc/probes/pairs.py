"""Couplings of sampled atoms with all others, for λ_ij against distance at any size.

The unit vector v of a coordinate of atom i picks out a row of the Jacobian as Jᵀv and a column as Jv. Three of each
give J_ij and J_ji for every other atom j: six reverse passes give as many pairs as atom i has others in its reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcalc.probes.batches import Batch, Job, in_passes
from mlcalc.structure import Structure

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PairSamples:
    """Pairs (i, j) of sampled atoms i with the others, each pair once; those without any coupling are left out.

    Attributes
    ----------
    centre : (n_pairs,), which sampled atom, counted over all systems
    distance : (n_pairs,), Å, minimum image
    antisymmetric : (n_pairs,), ‖J_ij − J_jiᵀ‖²/4, eV²/Å⁴
    total : (n_pairs,), (‖J_ij‖² + ‖J_ji‖²)/2, eV²/Å⁴
    """

    centre: NDArray[np.int64]
    distance: Array
    antisymmetric: Array
    total: Array


def sample_pairs(job: Job, centres: Mapping[int, Sequence[int]], *, progress: Progress | None = None) -> PairSamples:
    """Couplings of the given atoms of some systems.

    Parameters
    ----------
    centres : index of a system → indices of atoms within it
    progress : called with the number of atoms done, and of all

    Raises
    ------
    UsageError
        for forces that the potential does not have.
    GraphTooLarge
        if the largest system does not fit into memory.
    """
    systems, atoms = list(centres), [list(some) for some in centres.values()]
    chosen = Job(job.potential, job.structure.select(systems), job.forces, job.memory_bytes)
    n_all, n_done = sum(map(len, atoms)), 0

    def work(batch: Batch) -> list[list[tuple[Array, Array, Array]]]:
        nonlocal n_done
        found: list[list[tuple[Array, Array, Array]]] = [[] for _ in batch.systems]
        frames = [chosen.structure.select([system]) for system in batch.systems]
        for first in range(0, max(len(atoms[system]) for system in batch.systems), batch.copies):
            # the n-th centre of a system is done in one of its copies; a system with fewer gets zeros
            turns = [(k, first + copy) for copy in range(batch.copies) for k in range(len(batch.systems))]
            lists = [atoms[system] for system in batch.systems]
            picks = [(frames[k].n_atoms, lists[k][n] if n < len(lists[k]) else None) for k, n in turns]
            odd, whole = _three_axes(batch, picks)
            for (k, n), (_, atom), o, w in zip(turns, picks, odd, whole, strict=True):
                if atom is not None:
                    found[k].append(_pairs(frames[k], lists[k][: n + 1], o, w))
                    n_done += 1
            if progress is not None:
                progress(min(n_done, n_all), n_all)  # a pass may be tried again
        return found

    by_system = [found for _, found in in_passes(chosen, max(map(len, atoms)), work)]
    by_centre = [one for found in by_system for one in found]
    which = [np.full(len(one[0]), k) for k, one in enumerate(by_centre)]
    columns = (np.concatenate(column) for column in zip(*by_centre, strict=True))
    return PairSamples(np.concatenate(which), *columns)


def _three_axes(batch: Batch, picks: Sequence[tuple[int, int | None]]) -> tuple[list[Tensor], list[Tensor]]:
    """Squares by atom, (n_atoms,), summed over the three coordinates of a picked atom (of n_atoms) of each copy."""
    totals: list[list[Tensor]] = []
    for axis in range(3):
        directions = [torch.zeros(n_atoms, 3, dtype=torch.float64) for n_atoms, _ in picks]
        for direction, (_, atom) in zip(directions, picks, strict=True):
            if atom is not None:
                direction[atom, axis] = 1.0
        odd, whole = batch.along(directions)
        totals.append([*odd, *whole])
    sums = [torch.stack(parts).sum(dim=0) for parts in zip(*totals, strict=True)]
    return sums[: len(picks)], sums[len(picks) :]


def _pairs(frame: Structure, centres: Sequence[int], odd: Tensor, whole: Tensor) -> tuple[Array, Array, Array]:
    """(distance, antisymmetric, total) of the last of the centres with all atoms but it and those before it."""
    (atoms,) = frame.to_ase()
    keep = whole.cpu().numpy() > 0
    keep[list(centres)] = False
    others = np.flatnonzero(keep)
    apart = atoms.get_distances(centres[-1], others, mic=bool(atoms.pbc.any())) if len(others) else np.empty(0)
    return apart, odd.cpu().numpy()[others], whole.cpu().numpy()[others]
