"""λ_ij against distance, with its noise floor, from sampled atoms of one or of many structures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mlcalc.diagnostics.pair_asymmetry import PairAsymmetry, from_blocks, from_pairs
from mlcalc.probes import differences
from mlcalc.probes.batches import Job
from mlcalc.probes.jacobian import element_noise
from mlcalc.probes.pairs import sample_pairs
from mlcalc.structure import Structure

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

_BIN = 0.75  # Å
_NEAREST = 0.5  # Å


def pair_profile(
    job: Job, n_atoms: int, *, seed: int = 0, by_differences: bool = False, progress: Progress | None = None
) -> PairAsymmetry:
    """λ_ij in bins of 0.75 Å.

    Derivatives give an atom's couplings with all others, both ways. Differences of forces give columns of the Jacobian
    alone, so that pairs are those among the sampled atoms; they are taken of the middle structure.

    Parameters
    ----------
    n_atoms : to sample, spread over the structures; 4 or more, since errors are by their spread

    Raises
    ------
    UsageError
        for forces that the potential does not have.
    GraphTooLarge
        if the derivatives of the largest structure do not fit into memory.
    """
    if by_differences or not job.potential.differentiates:
        return _by_differences(job, n_atoms, seed, progress)
    centres = spread(job.structure.atoms_per_system.tolist(), n_atoms, np.random.default_rng(seed))
    pairs = sample_pairs(job, centres, progress=progress)
    first = next(iter(centres))
    noise = element_noise(job.potential, job.structure.select([first]), job.forces, centres[first][0])
    return from_pairs(pairs, _edges(pairs.distance), noise)


def _by_differences(job: Job, n_atoms: int, seed: int, progress: Progress | None) -> PairAsymmetry:
    structure = job.structure.select([job.structure.n_systems // 2])
    atoms = block_atoms(structure, n_atoms, seed)
    columns = differences.jacobian_columns(job.potential, structure, job.forces, atoms, progress=progress)
    noise = differences.element_noise(job.potential, structure, job.forces, atoms[0])
    frame = structure.to_ase()[0][atoms]
    apart = frame.get_all_distances(mic=bool(frame.pbc.any()))
    return from_blocks(columns.reshape(-1, 3, len(atoms), 3)[atoms], apart, _edges(apart), noise)


def block_atoms(structure: Structure, n_wanted: int, seed: int) -> list[int]:
    """Half of them the nearest to a random atom, half at random: both near and far pairs are among them."""
    n_atoms = structure.n_atoms
    if n_atoms <= n_wanted:
        return list(range(n_atoms))
    draw = np.random.default_rng(seed)
    atoms = structure.to_ase()[0]
    centre = int(draw.integers(n_atoms))
    near = np.argsort(atoms.get_distances(centre, range(n_atoms), mic=bool(atoms.pbc.any())))[: (n_wanted + 1) // 2]
    rest = np.setdiff1d(np.arange(n_atoms), near)
    far = draw.choice(rest, size=n_wanted - len(near), replace=False)
    return sorted({*near.tolist(), *far.tolist()})


def spread(sizes: Sequence[int], n_centres: int, random: np.random.Generator) -> dict[int, list[int]]:
    """Random atoms of systems of these sizes, no atom twice: as many of them in each of evenly spaced systems."""
    systems = np.unique(np.linspace(0, len(sizes) - 1, min(len(sizes), n_centres)).round().astype(int))
    shares = np.array_split(np.arange(n_centres), len(systems))
    return {
        int(system): random.choice(sizes[system], min(len(share), sizes[system]), replace=False).tolist()
        for system, share in zip(systems, shares, strict=True)
    }


def _edges(distances: Array) -> list[float]:
    farthest = float(distances.max()) if distances.size else 0.0
    edges: list[float] = np.arange(_NEAREST, max(farthest + 1, 2.0), _BIN).tolist()
    return edges
