"""Finds bonds of fixed length: with constraints a temperature by element has no meaning without their number.

Two free atoms approach each other as often and as fast as thermal motion makes them; rigid ones never do. For each of
some atoms and its nearest neighbour, with n along the bond,

    ρ = ⟨((v_i − v_j)·n)²⟩ / (⟨|v_i − v_j|²⟩/3)

is near 1 for free atoms (and above 0.1 for any bond that vibrates), and 0 but for round-off for a rigid bond.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RIGID = 0.01
_MOST_ATOMS, _MOST_FRAMES = 200, 20


def find(positions: ArrayLike, velocities: ArrayLike, cells: ArrayLike, periodic: ArrayLike) -> list[tuple[int, int]]:
    """Pairs of atoms (nearest neighbours of the first 200) whose distance is fixed.

    Parameters
    ----------
    positions, velocities : (n_frames, n_atoms, 3); cells : (n_frames, 3, 3), rows are lattice vectors; periodic : (3,)
    """
    r, v, h = (np.asarray(values, dtype=float) for values in (positions, velocities, cells))
    axes = np.asarray(periodic, dtype=bool)
    if r.shape[1] < 2:
        return []
    frames = np.unique(np.linspace(0, len(r) - 1, min(len(r), _MOST_FRAMES)).astype(int))
    pairs = []
    for i in range(min(r.shape[1], _MOST_ATOMS)):
        apart = np.linalg.norm(nearest_image(r[0] - r[0, i], h[0], axes), axis=1)
        apart[i] = np.inf
        j = int(np.argmin(apart))
        bond = np.array([nearest_image(r[k, j] - r[k, i], h[k], axes) for k in frames])
        length = np.linalg.norm(bond, axis=1, keepdims=True)
        relative = v[frames, j] - v[frames, i]
        whole = float((relative**2).sum())
        along = float(((relative * bond / np.maximum(length, 1e-9)).sum(axis=1) ** 2).sum())
        if whole > 0 and 3 * along / whole < _RIGID:
            pairs.append((i, j))
    return pairs


def nearest_image(
    vectors: NDArray[np.float64], cell: NDArray[np.float64], periodic: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Vectors (…, 3) without whole lattice vectors; exact for those shorter than half the cell's smallest width."""
    if not periodic.any():
        return vectors
    rows = np.where(periodic[:, None], cell, 0.0)
    inverse = np.linalg.pinv(rows)
    return vectors - np.round(vectors @ inverse) * periodic @ rows
