"""Asymmetry of the coupling between two atoms against their distance.

    λ_ij = ‖J_ij − J_jiᵀ‖_F / (2 sqrt((‖J_ij‖² + ‖J_ji‖²)/2)),     J_ij = ∂F_i/∂r_j, 3 × 3

Bigi, Langer, Ceriotti (arXiv 2412.11569) find it near 1 at long distance for direct models: what little coupling is
left there is not that of any energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcalc.diagnostics.jacobian_asymmetry import ratio
from mlcalc.errors import UsageError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairAsymmetry:
    """λ_ij in bins of distance; empty bins are left out.

    Attributes
    ----------
    distance : (n_bins,), Å, mean of the pairs of the bin
    asymmetry, standard_error : (n_bins,), sqrt of the ratio of the bin's squared norms, and its error over pairs
    noise_floor : (n_bins,), λ_ij of couplings that differ by round-off alone
    n_pairs : (n_bins,)
    """

    distance: Array
    asymmetry: Array
    standard_error: Array
    noise_floor: Array
    n_pairs: NDArray[np.int64]


class Pairs(Protocol):
    """Couplings of some atoms, the centres, with others; see `mlcalc.probes.pairs.PairSamples`."""

    @property
    def centre(self) -> NDArray[np.int64]:
        """(n_pairs,), which centre"""

    @property
    def distance(self) -> Array:
        """(n_pairs,), Å"""

    @property
    def antisymmetric(self) -> Array:
        """‖J_ij − J_jiᵀ‖²/4, (n_pairs,)"""

    @property
    def total(self) -> Array:
        """(‖J_ij‖² + ‖J_ji‖²)/2, (n_pairs,)"""


def from_pairs(pairs: Pairs, edges: Sequence[float], noise: float = 0.0) -> PairAsymmetry:
    """Bin the couplings of some atoms with all others; errors are by the jackknife over those atoms.

    The pairs of one atom know of each other, so a bin needs four atoms or more.

    Parameters
    ----------
    edges, noise : as in `from_blocks`
    """
    which = np.digitize(pairs.distance, edges) - 1
    rows = []
    for k in range(len(edges) - 1):
        inside = (which == k) & (pairs.total > 0)
        _, centre = np.unique(pairs.centre[inside], return_inverse=True)
        parts = [np.bincount(centre, values[inside]) for values in (pairs.antisymmetric, pairs.total)]
        odd, whole = (part.astype(float) for part in parts)
        value, error = ratio(odd, whole) if len(whole) else (0.0, np.inf)
        if np.isfinite(error):
            floor = _floor(pairs.total[inside], noise)
            rows.append((pairs.distance[inside].mean(), value, error, floor, int(inside.sum())))
    return _from_rows(rows)


def from_blocks(blocks: ArrayLike, distances: ArrayLike, edges: Sequence[float], noise: float = 0.0) -> PairAsymmetry:
    """Bin the couplings of a set of atoms with one another.

    Parameters
    ----------
    blocks : (n, 3, n, 3), eV/Å², blocks[i, :, j, :] = J_ij among n atoms
    distances : (n, n), Å, minimum image
    edges : of the bins, Å
    noise : eV/Å², root-mean-square error of an element of J by round-off
    """
    jacobian, apart = np.asarray(blocks, dtype=float), np.asarray(distances, dtype=float)
    n = len(apart)
    if jacobian.shape != (n, 3, n, 3):
        raise UsageError(f"blocks: got shape {jacobian.shape}; distances of {n} atoms want ({n}, 3, {n}, 3)")
    i, j = np.triu_indices(n, 1)
    forward, backward = jacobian[i, :, j, :], jacobian[j, :, i, :].transpose(0, 2, 1)
    odd = ((forward - backward) ** 2).sum(axis=(1, 2)) / 4
    whole = ((forward**2).sum(axis=(1, 2)) + (backward**2).sum(axis=(1, 2))) / 2
    which = np.digitize(apart[i, j], edges) - 1
    rows = []
    for k in range(len(edges) - 1):
        inside = (which == k) & (whole > 0)
        if inside.sum() > 1:
            rows.append((apart[i, j][inside].mean(), *_bin(odd[inside], whole[inside], noise), int(inside.sum())))
    return _from_rows(rows)


def _from_rows(rows: Sequence[Sequence[float]]) -> PairAsymmetry:
    columns = list(zip(*rows, strict=True)) or [(), (), (), (), ()]
    distance, asymmetry, error, floor = (np.array(column, dtype=float) for column in columns[:4])
    return PairAsymmetry(distance, asymmetry, error, floor, np.array(columns[4], dtype=np.int64))


def _bin(odd: Array, whole: Array, noise: float) -> tuple[float, float, float]:
    """(λ, standard error over pairs by the jackknife, floor) of one bin."""
    n = len(odd)
    value = float(np.sqrt(odd.sum() / whole.sum()))
    left_out = np.sqrt((odd.sum() - odd) / (whole.sum() - whole))
    error = float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
    return value, error, _floor(whole, noise)


def _floor(whole: Array, noise: float) -> float:
    """λ_ij of a bin of which every element is wrong by `noise`."""
    return min(1.0, float(np.sqrt(9 * noise**2 / 2 / whole.mean())))
