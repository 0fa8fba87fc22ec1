"""Mean volume and density of a run at constant pressure, each with an error that knows about autocorrelation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mlcalc.diagnostics.autocorrelation import mean_with_error
from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.units import DALTON_PER_CUBIC_ANGSTROM

_FEWEST_INDEPENDENT = 10


@dataclass(frozen=True)
class BoxVolume:
    """volume : Å³; density : g/cm³, the mean of m/V, or None where the mass is unknown."""

    volume: Finding
    density: Finding | None


def measure(volume_A3: ArrayLike, mass: float | None = None) -> BoxVolume:
    """Mean of a series of volumes, (n_frames,), Å³; mass : amu, of the whole system.

    Raises
    ------
    UsageError
        for fewer than four volumes, or one that is not a positive number.
    TooShortToTell
        for fewer than ten independent samples; `.estimate` is the BoxVolume all the same.
    """
    values = np.asarray(volume_A3, dtype=float)
    if values.ndim != 1 or len(values) < 4 or not (np.isfinite(values) & (values > 0)).all():
        raise UsageError(f"volume_A3: got shape {values.shape}; give four or more finite volumes above 0, Å³")
    mean, error, independent = mean_with_error(values)
    note = f"{len(values)} frames, {independent:.0f} samples"
    density = None
    if mass is not None:
        value, its_error, _ = mean_with_error(mass * DALTON_PER_CUBIC_ANGSTROM / values)
        density = Finding("density", value, its_error, "g/cm³", note)
    found = BoxVolume(Finding("volume", mean, error, "Å³", note), density)
    if independent < _FEWEST_INDEPENDENT:
        raise TooShortToTell(
            f"volume: {independent:.1f} independent samples; run long enough for {_FEWEST_INDEPENDENT}", found
        )
    return found
