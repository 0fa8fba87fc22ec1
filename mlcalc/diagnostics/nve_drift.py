"""Drift of the conserved energy: the slope of a straight line, with an error that knows about autocorrelation.

The residuals of the line are correlated (the energy error of an integrator follows the vibrations), so the error of
ordinary least squares is too small. It is inflated by sqrt(τ), with τ the integrated autocorrelation time of the
residuals:

    slope = Σ (t−t̄) E / Σ (t−t̄)²,      error² = τ n/(n−2) · σ²_residual / Σ (t−t̄)²

In K/ps the drift is divided by 3 k_B: an energy of 3 k_B ΔT goes into an atom whose kinetic and potential parts share
it equally, as in a harmonic solid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mlcalc.diagnostics.autocorrelation import integrated_time
from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.units import BOLTZMANN

_FEWEST_INDEPENDENT = 10


@dataclass(frozen=True)
class Drift:
    """The same slope in two units: meV/atom/ps and K/ps."""

    per_atom: Finding
    kelvin: Finding


def measure(time_ps: ArrayLike, conserved_eV: ArrayLike, n_atoms: int) -> Drift:
    """Drift of the conserved energy.

    Parameters
    ----------
    time_ps : (n_frames,), ps; conserved_eV : (n_frames,), eV, of the whole system

    Raises
    ------
    UsageError
        for series of different lengths or with fewer than three frames, or values that are not finite.
    TooShortToTell
        if the residuals hold fewer than ten independent samples; `.estimate` is the Drift all the same.
    """
    time, energy = np.asarray(time_ps, dtype=float), np.asarray(conserved_eV, dtype=float)
    if time.shape != energy.shape or time.ndim != 1 or len(time) < 3:
        raise UsageError(f"time_ps, conserved_eV: got shapes {time.shape}, {energy.shape}; give three or more frames")
    if not (np.isfinite(time).all() and np.isfinite(energy).all()):
        raise UsageError("conserved_eV: not finite; cut the record before the run exploded")
    slope, error, independent = _line(time, energy)
    note = f"{len(time)} frames, {independent:.0f} independent, {time[-1] - time[0]:.3g} ps"
    scale = 1000 / n_atoms
    kelvin = 1 / (n_atoms * 3 * BOLTZMANN)
    drift = Drift(
        Finding("nve_drift", slope * scale, error * scale, "meV/atom/ps", note),
        Finding("nve_heating", slope * kelvin, error * kelvin, "K/ps", note),
    )
    if independent < _FEWEST_INDEPENDENT:
        raise TooShortToTell(
            f"nve_drift: {independent:.1f} independent samples in {time[-1] - time[0]:.3g} ps; "
            f"run long enough for {_FEWEST_INDEPENDENT}",
            drift,
        )
    return drift


def _line(time: np.ndarray, energy: np.ndarray) -> tuple[float, float, float]:
    """Slope, its standard error, and the number of independent residuals."""
    n = len(time)
    away = time - time.mean()
    spread = float((away**2).sum())
    slope = float((away * energy).sum()) / spread
    residual = energy - energy.mean() - slope * away
    tau = integrated_time(residual, fitted=2)
    variance = float((residual**2).sum()) / (n - 2)
    return slope, math.sqrt(tau * variance / spread), n / tau
