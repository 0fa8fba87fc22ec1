"""Errors of a radial distribution where a run is shorter than what the liquid remembers.

An atom of a viscous liquid keeps its surroundings for longer than the run. Blocks of time are then too much alike, and
their scatter is too small an error; different atoms are as different as they were.
"""

from __future__ import annotations

import numpy as np
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

Array = NDArray[np.float64]
_MOST_FRAMES = 400  # evenly picked


def error_by_atoms(
    positions: Array, cell: Array, one: NDArray[np.intp], other: NDArray[np.intp], r_max: float, n_bins: int
) -> Array:
    """(n_bins,) standard error of g(r), from what each atom of the first kind sees.

    Where both kinds are the same, each distance counts for two atoms, which doubles the variance of their mean.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3), Å; cell : (3, 3), Å, periodic, of any shape
    one, other : indices of two kinds of atoms, the same or without an atom in common
    r_max : Å, at most `radial_distribution.greatest_range`, within which rounding of fractions finds the nearest image
    """
    cell = minkowski_reduce(cell)[0]
    inverse = np.linalg.inv(cell)
    same = np.array_equal(one, other)
    edges = np.linspace(0, r_max, n_bins + 1)
    counts = np.zeros((len(one), n_bins + 1))
    picked = positions[np.linspace(0, len(positions) - 1, min(len(positions), _MOST_FRAMES)).astype(int)]
    for frame in picked:
        vectors = frame[one][:, None] - frame[other]
        distances = np.linalg.norm(vectors - np.round(vectors @ inverse) @ cell, axis=-1)
        distances[one[:, None] == other] = np.inf
        bins = np.minimum(distances * (n_bins / r_max), n_bins).astype(int)
        np.add.at(counts, (np.arange(len(one))[:, None], bins), 1)
    uniform = (len(other) - same) / abs(np.linalg.det(cell)) * 4 / 3 * np.pi * np.diff(edges**3)
    g = counts[:, :-1] / len(picked) / uniform
    return np.asarray(np.sqrt((1 + same) * g.var(axis=0, ddof=1) / len(one)))
