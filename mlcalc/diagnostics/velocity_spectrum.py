"""Velocity autocorrelation and its power spectrum, the vibrational density of states, by element.

    C_α(t) = Σ_{i∈α} m_i ⟨v_i(0)·v_i(t)⟩ / Σ_{i∈α} m_i ⟨v_i²⟩
    g_α(ν) = 3 · 4 ∫_0^∞ C_α(t) cos(2πνt) dt,    ∫_0^∞ g_α dν = 3

(P. H. Berens, D. H. J. Mackay, G. M. White, K. R. Wilson, J. Chem. Phys. 79, 2375 (1983), doi:10.1063/1.446044). By the
Wiener–Khinchin theorem g is the power spectrum of the velocities: the mean over segments of the record that overlap by
half, each under a Hann window (P. D. Welch, IEEE Trans. Audio Electroacoust. 15, 70 (1967)), and its error their
scatter. Wavenumbers ν/c are in cm⁻¹. A line is as wide as the resolution, which is that of the segments' length.
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
from mlcalc.units import WAVENUMBER_OF_TERAHERTZ

Array = NDArray[np.float64]
_HANN_WIDTH = 1.44  # full width at half maximum of a line, in inverse lengths of a segment
_FEWEST_SEGMENTS, _FEWEST_FRAMES = 4, 32
_OVERLAP = math.sqrt(19 / 18)  # half-overlapping Hann segments are correlated by 1/6 in amplitude
_BLOCKS = 8
_ATOMS_AT_ONCE = 1000
_LONGEST_PS = 1.0
_INTERPOLATION = 0.1  # error of a peak's place between two points, in their distance
_FOLDED = 0.01  # of the kinetic energy in the last twentieth of the spectrum


@dataclass(frozen=True)
class VelocitySpectrum:
    """Of one element.

    Attributes
    ----------
    element : label
    lag_ps, correlation, correlation_error : (n_lags,), C(t) and its standard error
    wavenumber : (n,), cm⁻¹; density, standard_error : (n,), degrees of freedom an atom in 1 cm⁻¹
    peak : cm⁻¹, where the density is highest
    folded : share of the kinetic energy in the last twentieth of the spectrum; more than 0.01 tells of motions that are
    too
        fast for the frames' distance and appear at wrong wavenumbers
    """

    element: str
    lag_ps: Array
    correlation: Array
    correlation_error: Array
    wavenumber: Array
    density: Array
    standard_error: Array
    peak: Finding
    folded: float

    @property
    def is_folded(self) -> bool:
        return self.folded > _FOLDED


def measure(
    time_ps: ArrayLike, velocities: ArrayLike, masses: ArrayLike, elements: Sequence[str], *, resolution: float = 20.0
) -> tuple[VelocitySpectrum, ...]:
    """Spectrum of each element.

    Parameters
    ----------
    time_ps : (n_frames,), ps, evenly spaced; velocities : (n_frames, n_atoms, 3), in any unit; masses : (n_atoms,)
    elements : (n_atoms,), labels
    resolution : cm⁻¹, width of a line; wider where the record is too short for four segments

    Raises
    ------
    UsageError
        for shapes that do not fit, uneven times, or fewer than 16 frames.
    TooShortToTell
        for segments of fewer than 32 frames; `.estimate` has the spectra all the same.
    """
    v, m, labels = np.asarray(velocities, dtype=float), np.asarray(masses, dtype=float), np.asarray(elements)
    spacing = interval(time_ps)
    if v.ndim != 3 or v.shape != (len(np.asarray(time_ps)), len(m), 3) or len(labels) != len(m):
        raise UsageError(
            f"time_ps, velocities, masses: got shapes {np.shape(time_ps)}, {v.shape}, {m.shape}; give (n_frames,), "
            "(n_frames, n_atoms, 3), (n_atoms,)"
        )
    if len(v) < 2 * _BLOCKS or not resolution > 0:
        raise UsageError(f"velocities, resolution: got {len(v)} frames, {resolution} cm⁻¹; give 16 or more, above 0")
    wanted = _HANN_WIDTH * WAVENUMBER_OF_TERAHERTZ / resolution / spacing
    length = max(8, min(math.ceil(wanted), int(len(v) / (1 + (_FEWEST_SEGMENTS - 1) / 2))))
    weighted = v * np.sqrt(m)[:, None]
    found = tuple(_spectrum(name, spacing, weighted[:, labels == name], length) for name in dict.fromkeys(elements))
    if length < _FEWEST_FRAMES:
        raise TooShortToTell(
            f"velocity_spectrum: {len(v)} frames make segments of {length}; record {3 * _FEWEST_FRAMES} or more", found
        )
    return found


def _spectrum(element: str, spacing: float, weighted: Array, length: int) -> VelocitySpectrum:
    """weighted : (n_frames, n_atoms, 3), velocities times the square root of the mass"""
    # some atoms at a time: transforms of all of a large system would not fit into memory
    parts = np.array_split(weighted, -(-weighted.shape[1] // _ATOMS_AT_ONCE), axis=1)
    lags, correlation, correlation_error = _correlation(parts, spacing)
    segments = np.sum([_segments(part, length) for part in parts], axis=0)
    wavenumber = np.asarray(np.fft.rfftfreq(length, spacing) * WAVENUMBER_OF_TERAHERTZ, dtype=float)
    # 3 degrees of freedom an atom in all, by the trapezoidal rule
    segments = segments * 3 / (np.trapezoid(segments.mean(axis=0), wavenumber) or 1.0)
    density, n = segments.mean(axis=0), len(segments)
    error = segments.std(axis=0, ddof=1) * _OVERLAP * few_samples(n) / math.sqrt(n)
    left_out = np.array([_peak(wavenumber, np.delete(segments, k, axis=0).mean(axis=0)) for k in range(n)])
    scatter = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum())) * few_samples(n) * _OVERLAP
    width = _HANN_WIDTH * wavenumber[1]
    peak = Finding(
        f"peak_{element}", _peak(wavenumber, density), math.hypot(scatter, _INTERPOLATION * wavenumber[1]), "cm⁻¹",
        f"{n} segments of {spacing * length:.3g} ps, resolution {width:.3g} cm⁻¹, up to {wavenumber[-1]:.0f} cm⁻¹",
    )  # fmt: skip
    top = density[int(0.95 * len(density)) :].sum() / (density.sum() or 1.0)
    return VelocitySpectrum(element, lags, correlation, correlation_error, wavenumber, density, error, peak, float(top))


def _segments(weighted: Array, length: int) -> Array:
    """Power spectrum of each half-overlapping segment, over all atoms and directions, (n_segments, n_frequencies)."""
    window = np.hanning(length + 1)[:-1, None, None]
    starts = range(0, len(weighted) - length + 1, max(1, length // 2))
    powers = []
    for start in starts:
        amplitude = np.fft.rfft(window * weighted[start : start + length], axis=0)
        powers.append((np.abs(amplitude) ** 2).sum(axis=(1, 2)))
    return np.array(powers)


def _correlation(parts: list[Array], spacing: float) -> tuple[Array, Array, Array]:
    """(lags, C, its error) up to 1 ps or half a block, from blocks."""
    length = len(parts[0]) // _BLOCKS
    n_lags = max(2, min(length // 2, round(_LONGEST_PS / spacing)) + 1)
    blocks = np.zeros((_BLOCKS, n_lags))
    for k in range(_BLOCKS):
        for part in parts:
            spectrum = np.fft.rfft(part[k * length : (k + 1) * length].reshape(length, -1), 2 * length, axis=0)
            blocks[k] += np.fft.irfft((np.abs(spectrum) ** 2).sum(axis=1))[:n_lags]
    blocks /= length - np.arange(n_lags)
    values = blocks / (blocks.mean(axis=0)[0] or 1.0)
    error = values.std(axis=0, ddof=1) * few_samples(_BLOCKS) / math.sqrt(_BLOCKS)
    return np.asarray(spacing * np.arange(n_lags), dtype=float), values.mean(axis=0), error


def _peak(wavenumber: Array, density: Array) -> float:
    """Top of the parabola through the logarithm of the highest point and its neighbours."""
    k = int(np.argmax(density))
    if not 0 < k < len(density) - 1 or density[k - 1 : k + 2].min() <= 0:
        return float(wavenumber[k])
    left, top, right = np.log(density[k - 1 : k + 2])
    curvature = left - 2 * top + right
    return float(wavenumber[k] + wavenumber[1] * (0.5 * (left - right) / curvature if curvature else 0.0))
