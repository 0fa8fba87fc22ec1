"""Finds bonds of fixed length: with constraints, temperatures by element have no meaning without counting them.

For each of some atoms and the atom nearest to it: has the bond turned while its length did not change? Two free atoms
that have moved by a tenth of their distance have changed it by a percent or more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MOST_ATOMS, _MOST_FRAMES = 200, 20
_TURNED = 0.1  # of the bond's length, by which its end moves
_SPREAD = 1e-3  # of its length: tolerance of SHAKE, and digits of a text file


def find(positions: ArrayLike, cells: ArrayLike, periodic: ArrayLike) -> list[tuple[int, int]]:
    """Pairs of atoms (nearest neighbours of the first 200) whose distance is fixed.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3); cells : (n_frames, 3, 3), rows are lattice vectors; periodic : (3,)
    """
    r, h = np.asarray(positions, dtype=float), np.asarray(cells, dtype=float)
    axes = np.asarray(periodic, dtype=bool)
    if r.shape[1] < 2:
        return []
    frames = np.unique(np.linspace(0, len(r) - 1, min(len(r), _MOST_FRAMES)).astype(int))
    pairs = []
    for i in range(min(r.shape[1], _MOST_ATOMS)):
        apart = np.linalg.norm(_nearest_image(r[0] - r[0, i], h[0], axes), axis=1)
        apart[i] = np.inf
        j = int(np.argmin(apart))
        bond = np.array([_nearest_image(r[k, j] - r[k, i], h[k], axes) for k in frames])
        length = np.linalg.norm(bond, axis=1)
        turned = np.sqrt(((bond - bond.mean(axis=0)) ** 2).sum(axis=1).mean())
        if turned > _TURNED * length.mean() and length.std() < _SPREAD * length.mean():
            pairs.append((i, j))
    return pairs


def _nearest_image(
    vectors: NDArray[np.float64], cell: NDArray[np.float64], periodic: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Vectors (…, 3) without whole lattice vectors; exact for those shorter than half the cell's smallest width."""
    if not periodic.any():
        return vectors
    rows = np.where(periodic[:, None], cell, 0.0)
    return vectors - np.round(vectors @ np.linalg.pinv(rows)) * periodic @ rows
