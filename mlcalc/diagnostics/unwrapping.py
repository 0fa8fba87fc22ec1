"""Positions that go on across the cell's faces, from positions folded back into the cell.

    r_u(t + 1) = r_u(t) + d,    d = the nearest image of r(t + 1) − r(t) in the cell at t + 1

It adds displacements, not multiples of the cell, so that a cell that changes does not move atoms (J. T. Bullerjahn,
S. von Bülow, M. Heidari, J. Hénin, G. Hummer, J. Chem. Theory Comput. 19, 3406 (2023), doi:10.1021/acs.jctc.3c00308).
Right as long as no atom moves by half the cell from frame to frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def is_wrapped(positions: ArrayLike, cells: ArrayLike, periodic: ArrayLike) -> bool:
    """Whether some atom jumps by more than half the cell along a periodic lattice vector."""
    r, h = np.asarray(positions, dtype=float), np.asarray(cells, dtype=float)
    return bool(any(_images(r, h, k, np.asarray(periodic)).any() for k in range(1, len(r))))


def unwrap(positions: ArrayLike, cells: ArrayLike, periodic: ArrayLike) -> Array:
    """(n_frames, n_atoms, 3), Å, from positions of that shape and cells (n_frames, 3, 3), rows are lattice vectors."""
    r, h = np.asarray(positions, dtype=float), np.asarray(cells, dtype=float)
    steps = np.diff(r, axis=0)
    for k in range(1, len(r)):
        steps[k - 1] -= _images(r, h, k, np.asarray(periodic)) @ h[k]
    return np.asarray(np.concatenate([r[:1], r[0] + np.cumsum(steps, axis=0)]))


def _images(positions: Array, cells: Array, k: int, periodic: NDArray[np.bool_]) -> Array:
    """(n_atoms, 3), how many lattice vectors the step to frame k is too long"""
    if not periodic.any():
        return np.zeros(positions.shape[1:])
    rows = np.where(periodic[:, None], cells[k], 0.0)
    return np.asarray(np.round((positions[k] - positions[k - 1]) @ np.linalg.pinv(rows)) * periodic)
