"""Radial distribution functions of a trajectory, by mdtraj, with errors from blocks.

    g_αβ(r) = V ⟨n_αβ(r)⟩ / (N_pairs 4π r² dr)

is 1 for atoms that know nothing of each other. mdtraj takes lengths and angles of a cell and turns it as it likes, so
positions go there as fractions of a reduced cell; and beyond half the cell's smallest width, where it would count pairs
of an incomplete shell without a word, distances are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase.cell import Cell
from ase.geometry import minkowski_reduce
from numpy.typing import ArrayLike, NDArray

from mlcalc.diagnostics.autocorrelation import few_samples
from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import TooShortToTell, UsageError

Array = NDArray[np.float64]
_BLOCKS = 8
_MOST_FRAMES = 400  # evenly picked: neighbouring frames say the same
_MOST_PAIRS = 200_000  # of a frame; beyond, some atoms stand for all
_AT_ONCE = 4_000_000  # distances
_NAMED = 3.0  # standard errors by which a peak is above 1


@dataclass(frozen=True)
class RadialDistribution:
    """Of one pair of elements.

    Attributes
    ----------
    pair : as "H-O"
    r : (n_bins,), Å, centres; g, standard_error : (n_bins,)
    peak, height : Å and 1, of the first peak; None where nothing rises above 1 by three standard errors
    """

    pair: str
    r: Array
    g: Array
    standard_error: Array
    peak: Finding | None
    height: Finding | None


def greatest_range(cells: ArrayLike) -> float:
    """Half the smallest distance of opposite faces over all cells, reduced, Å; cells : (n_frames, 3, 3)"""
    widths = [
        1 / np.linalg.norm(np.linalg.inv(cell), axis=0).max() for cell in _reduced(np.asarray(cells, dtype=float))
    ]
    return 0.5 * float(min(widths))


def measure(
    positions: ArrayLike,
    cells: ArrayLike,
    periodic: ArrayLike,
    elements: Sequence[str],
    *,
    r_max: float | None = None,
    bin_width: float = 0.05,
) -> tuple[RadialDistribution, ...]:
    """g(r) of every pair of elements.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3), Å, wrapped or not; cells : (n_frames, 3, 3), Å, rows are lattice vectors, any
        shape; periodic : (3,)
    elements : (n_atoms,), labels
    r_max : Å, at most `greatest_range` (which is the default, or 10 Å); bin_width : Å

    Raises
    ------
    UsageError
        if mdtraj is missing, the cell is not periodic in all directions, r_max reaches beyond half its smallest width,
        or r_max and bin_width leave no bin.
    TooShortToTell
        for fewer than eight frames; `.estimate` has the distributions all the same, with errors of 0.
    """
    r, h = np.asarray(positions, dtype=float), np.asarray(cells, dtype=float)
    if not np.asarray(periodic).all() or (np.abs(np.linalg.det(h)) < 1e-6).any():
        raise UsageError("radial_distribution: the cell is not periodic in three directions, so there is no density")
    picked = np.unique(np.linspace(0, len(r) - 1, min(len(r), _MOST_FRAMES)).astype(int))
    r, h = r[picked], _reduced(h[picked])
    most = greatest_range(h)
    end = min(10.0, most) if r_max is None else r_max
    if not 0 < end <= most * (1 + 1e-9):
        raise UsageError(
            f"r_max: got {end:g} Å; half the cell's smallest width is {most:.4g} Å, and shells beyond are incomplete; "
            "give at most that, or a larger cell"
        )
    n_bins = int(end / bin_width + 1e-9) if bin_width > 0 else 0
    if n_bins < 2:
        raise UsageError(f"bin_width: got {bin_width} Å up to {end:.3g} Å; give a width above 0 that leaves two bins")
    frames = _in_standard_cells(r, h)
    labels = np.asarray(elements)
    found = []
    for a, b in combinations_with_replacement(dict.fromkeys(elements), 2):
        pairs = _pairs(np.flatnonzero(labels == a), np.flatnonzero(labels == b), a == b)
        if len(pairs):
            found.append(_distribution(f"{a}-{b}", frames, pairs, n_bins, bin_width))
    if len(picked) < _BLOCKS:
        raise TooShortToTell(
            f"radial_distribution: {len(picked)} frames; {_BLOCKS} or more have an error", tuple(found)
        )
    return tuple(found)


def _reduced(cells: Array) -> Array:
    """The same lattices by their shortest vectors."""
    distinct, which = np.unique(cells, axis=0, return_inverse=True)
    return np.asarray([minkowski_reduce(cell)[0] for cell in distinct])[which.reshape(-1)]


def _in_standard_cells(positions: Array, cells: Array) -> list[tuple[Array, Array, Array]]:
    """(fractions as Å, lengths, angles) of each frame, turned as mdtraj turns the cell."""
    frames = []
    for r, cell in zip(positions, cells, strict=True):
        parameters = Cell(cell).cellpar()
        fractions = r @ np.linalg.inv(cell)
        turned = (fractions - np.floor(fractions)) @ Cell.fromcellpar(parameters).array
        frames.append((turned, parameters[:3], parameters[3:]))
    return frames


def _pairs(one: NDArray[np.intp], other: NDArray[np.intp], same: bool) -> NDArray[np.intp]:
    """(n_pairs, 2); of many atoms, an even choice of the first kind with all of the second."""
    keep = max(1, _MOST_PAIRS // max(1, len(other)))
    chosen = one[np.unique(np.linspace(0, len(one) - 1, min(len(one), keep)).astype(int))]
    if same and len(chosen) == len(one):
        first, second = np.triu_indices(len(one), 1)
        return np.stack([one[first], one[second]], axis=1)
    pairs = np.stack(np.meshgrid(chosen, other, indexing="ij"), axis=-1).reshape(-1, 2)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _distribution(
    pair: str, frames: list[tuple[Array, Array, Array]], pairs: NDArray[np.intp], n_bins: int, width: float
) -> RadialDistribution:
    blocks = []
    for block in np.array_split(np.arange(len(frames)), min(_BLOCKS, len(frames))):
        blocks.append(_mean_over([frames[k] for k in block], pairs, n_bins, width))
    g, n = np.array(blocks, dtype=float), len(blocks)
    r = np.asarray(width * (np.arange(n_bins) + 0.5), dtype=float)
    factor = few_samples(n) / math.sqrt(n) if n == _BLOCKS else 0.0
    error = g.std(axis=0, ddof=1 if n > 1 else 0) * factor
    peak, height = _first_peak(pair, r, g, error, factor * math.sqrt(n))
    return RadialDistribution(pair, r, g.mean(axis=0), error, peak, height)


def _mean_over(frames: list[tuple[Array, Array, Array]], pairs: NDArray[np.intp], n_bins: int, width: float) -> Array:
    """g of some frames, (n_bins,)"""
    try:
        import mdtraj
    except ImportError as error:
        raise UsageError("radial_distribution: it needs mdtraj; pip install 'mlcalc[formats]'") from error
    chunk = max(1, _AT_ONCE // len(pairs))
    total = np.zeros(n_bins)
    for start in range(0, len(frames), chunk):
        some = frames[start : start + chunk]
        positions, lengths, angles = (np.array(column) for column in zip(*some, strict=True))
        trajectory = mdtraj.Trajectory(positions / 10, None, unitcell_lengths=lengths / 10, unitcell_angles=angles)
        _, g = mdtraj.compute_rdf(trajectory, pairs, r_range=(0, n_bins * width / 10), n_bins=n_bins)
        total += len(some) * np.asarray(g, dtype=float)
    return total / len(frames)


def _first_peak(
    pair: str, r: Array, blocks: Array, error: Array, factor: float
) -> tuple[Finding | None, Finding | None]:
    """Place and height of the first rise above 1, with errors by the jackknife over blocks."""
    g = blocks.mean(axis=0)
    risen = np.flatnonzero(g > 1 + np.maximum(_NAMED * error, 0.05))
    if not len(risen):
        return None, None
    begin = int(risen[0])
    fallen = np.flatnonzero(g[begin:] < 1)
    inside = slice(begin, begin + int(fallen[0]) if len(fallen) else len(g))
    n = len(blocks)
    left_out = [_top(r, np.delete(blocks, k, axis=0).mean(axis=0), inside) for k in range(n)] if n > 1 else [(0.0, 0.0)]
    scatter = np.sqrt((n - 1) / n * ((np.array(left_out) - np.mean(left_out, axis=0)) ** 2).sum(axis=0)) * factor
    place, top = _top(r, g, inside)
    interpolation = 0.1 * (r[1] - r[0])
    return (
        Finding(f"first_peak_{pair}", place, math.hypot(float(scatter[0]), interpolation), "Å", f"{n} blocks"),
        Finding(f"first_peak_height_{pair}", top, float(scatter[1]), "1", f"{n} blocks"),
    )


def _top(r: Array, g: Array, inside: slice) -> tuple[float, float]:
    """Top of the parabola through the highest point and its neighbours."""
    k = inside.start + int(np.argmax(g[inside]))
    if not 0 < k < len(g) - 1:
        return float(r[k]), float(g[k])
    left, top, right = g[k - 1 : k + 2]
    curvature = left - 2 * top + right
    shift = 0.5 * (left - right) / curvature if curvature < 0 else 0.0
    return float(r[k] + shift * (r[1] - r[0])), float(top - 0.25 * (left - right) * shift)
