"""Mean-square displacement and the coefficient of self-diffusion.

    MSD(t) = ⟨|r_i(t₀ + t) − r_i(t₀)|²⟩,    D = slope of MSD / 6    (A. Einstein, Ann. Phys. 322, 549 (1905))

with the drift of the centre of mass taken out. The record is cut into blocks; each gives a slope between a tenth and a
half of its length, over all its time origins; D is their mean and their scatter its error. Displacements in one cell
are hindered by those of its images (I.-C. Yeh, G. Hummer, J. Phys. Chem. B 108, 15873 (2004), doi:10.1021/jp0477147):

    D_∞ = D + ξ k_B T / (6 π η L),    ξ = 2.837297

for a cubic cell of length L and the viscosity η of the liquid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcalc.diagnostics.autocorrelation import few_samples
from mlcalc.diagnostics.finding import Finding
from mlcalc.diagnostics.times import interval
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.units import BOLTZMANN, MILLIPASCAL_SECOND

Array = NDArray[np.float64]
_BLOCKS, _FEWEST_BLOCKS = 8, 4
_FEWEST, _FEWEST_FRAMES = 4, 20  # of a block: to fit a line at all, and to rely on it
_FIT = (0.1, 0.5)  # lags, in lengths of a block
_XI = 2.837297
_NEAR_ONE = 0.15  # an exponent closer to 1 is taken for diffusion


@dataclass(frozen=True)
class Diffusion:
    """Of one element.

    Attributes
    ----------
    element : label
    lag_ps : (n_lags,); displacement, standard_error : (n_lags,), Å², mean of the blocks and its error
    coefficient : D, Å²/ps (1 Å²/ps = 1e-8 m²/s), of the finite cell
    exponent : of MSD ∝ t^β over the fit; 1 is diffusion, 0 an atom that stays in its place
    """

    element: str
    lag_ps: Array
    displacement: Array
    standard_error: Array
    coefficient: Finding
    exponent: Finding

    @property
    def diffusive(self) -> bool:
        """Whether β is 1 within twice its error and 0.15."""
        return abs(self.exponent.value - 1) < _NEAR_ONE + 2 * self.exponent.standard_error


def measure(
    time_ps: ArrayLike, positions: ArrayLike, masses: ArrayLike, elements: Sequence[str], *, blocks: int = _BLOCKS
) -> tuple[Diffusion, ...]:
    """Diffusion of each element.

    Parameters
    ----------
    time_ps : (n_frames,), ps, evenly spaced
    positions : (n_frames, n_atoms, 3), Å, unwrapped; masses : (n_atoms,), amu
    elements : (n_atoms,), labels
    blocks : 4 or more; fewer are longer, so the slope is taken at later times, and its error is less certain

    Raises
    ------
    UsageError
        for shapes that do not fit, uneven times, fewer than four frames a block, fewer than four blocks, or a single
        atom: it is its centre of mass.
    TooShortToTell
        for fewer than 20 frames a block; `.estimate` has the results all the same.
    """
    r, m = np.asarray(positions, dtype=float), np.asarray(masses, dtype=float)
    spacing = interval(time_ps)
    labels = np.asarray(elements)
    if r.ndim != 3 or r.shape != (len(np.asarray(time_ps)), len(m), 3) or len(labels) != len(m):
        raise UsageError(
            f"time_ps, positions, masses: got shapes {np.shape(time_ps)}, {r.shape}, {m.shape}; give (n_frames,), "
            "(n_frames, n_atoms, 3), (n_atoms,)"
        )
    if blocks < _FEWEST_BLOCKS:
        raise UsageError(f"blocks: got {blocks}; give {_FEWEST_BLOCKS} or more, of which there can be an error")
    if len(r) < _FEWEST * blocks or len(m) < 2:
        raise UsageError(
            f"positions: got {len(r)} frames of {len(m)} atoms; give {_FEWEST * blocks} or more, of two or more"
        )
    relative = r - np.einsum("i,fix->fx", m / m.sum(), r)[:, None, :]
    length = len(r) // blocks
    parts = relative[len(r) - length * blocks :].reshape(blocks, length, len(m), 3)
    found = tuple(
        _diffusion(name, spacing, np.array([_displacement(part[:, labels == name]) for part in parts]))
        for name in dict.fromkeys(elements)
    )
    if length < _FEWEST_FRAMES:
        raise TooShortToTell(
            f"diffusion: {len(r)} frames; record {blocks * _FEWEST_FRAMES} or more for an error to rely on", found
        )
    return found


def finite_size_correction(temperature_K: float, length_A: float, viscosity_mPa_s: float) -> float:
    """ξ k_B T/(6 π η L), Å²/ps, to be added to D of a cubic cell of length L.

    Raises
    ------
    UsageError
        for a viscosity that is not above 0.
    """
    if not viscosity_mPa_s > 0:
        raise UsageError(f"viscosity_mPa_s: got {viscosity_mPa_s}; give a number above 0 (water at 298 K: 0.89)")
    return _XI * BOLTZMANN * temperature_K / (6 * math.pi * viscosity_mPa_s * MILLIPASCAL_SECOND * length_A)


def _displacement(positions: Array) -> Array:
    """MSD of one block at all its lags, over all time origins, (length,).

    |r(t₀ + t) − r(t₀)|² = r² + r² − 2 r·r, the last by Fourier transform (V. Calandrini et al., Collection SFN 12, 201
    (2011), doi:10.1051/sfn/201112010).
    """
    n = len(positions)
    flat = (positions - positions.mean(axis=0)).reshape(n, -1)
    spectrum = np.fft.rfft(flat, 2 * n, axis=0)
    products = np.fft.irfft((np.abs(spectrum) ** 2).sum(axis=1))[:n]
    squares = np.append((flat**2).sum(axis=1), 0.0)
    total = 2 * squares[:n].sum()
    sums = np.empty(n)
    for lag in range(n):
        total -= squares[lag - 1] + squares[n - lag] if lag else 0.0
        sums[lag] = total
    origins = n - np.arange(n)
    return np.asarray((sums - 2 * products) / origins / positions.shape[1])


def _diffusion(element: str, spacing: float, blocks: Array) -> Diffusion:
    n, length = blocks.shape
    first = max(1, round(_FIT[0] * length))
    last = max(first + 1, round(_FIT[1] * length))
    lag = spacing * np.arange(last + 1)
    fitted = slice(first, last + 1)
    slopes = np.polyfit(lag[fitted], blocks[:, fitted].T, 1)[0] / 6
    factor = few_samples(n) / math.sqrt(n)
    note = f"{n} blocks of {spacing * length:.3g} ps, slope from {lag[first]:.3g} to {lag[last]:.3g} ps"
    coefficient = Finding(
        f"diffusion_{element}", float(slopes.mean()), float(slopes.std(ddof=1)) * factor, "Å²/ps", note
    )
    exponents = np.array(
        [_exponent(lag[fitted], np.delete(blocks, k, axis=0)[:, fitted].mean(axis=0)) for k in range(n)]
    )
    error = math.sqrt((n - 1) / n * float(((exponents - exponents.mean()) ** 2).sum()))
    mean = blocks[:, : last + 1].mean(axis=0)
    exponent = Finding(f"exponent_{element}", _exponent(lag[fitted], mean[fitted]), error, "1", note)
    scatter = blocks[:, : last + 1].std(axis=0, ddof=1) * factor
    return Diffusion(element, lag, mean, scatter, coefficient, exponent)


def _exponent(lag: Array, displacement: Array) -> float:
    return float(np.polyfit(np.log(lag), np.log(np.maximum(displacement, 1e-300)), 1)[0])
