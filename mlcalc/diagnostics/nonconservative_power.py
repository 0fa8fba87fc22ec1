"""Power of the non-conservative part of a direct force, which foretells the heating of a run from a short one.

    dE/dt = Σ_i v_i · (F_direct,i − F_conservative,i)

holds exactly along a trajectory driven by the direct force, with E the potential's own energy plus kinetic energy. Its
mean over a run is the drift; it needs no long time base to rise above the fluctuations of the energy.
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
class Power:
    """The same mean power in two units: meV/atom/ps and K/ps."""

    per_atom: Finding
    kelvin: Finding


def measure(time_ps: ArrayLike, power_eV_per_ps: ArrayLike, n_atoms: int) -> Power:
    """Mean power of a record, with an error that knows about autocorrelation.

    Parameters
    ----------
    time_ps : (n_frames,), ps; power_eV_per_ps : (n_frames,), eV/ps, of the whole system

    Raises
    ------
    UsageError
        for series of different lengths, fewer than three frames, or values that are not finite.
    TooShortToTell
        if there are fewer than ten independent samples; `.estimate` is the Power all the same.
    """
    time, power = np.asarray(time_ps, dtype=float), np.asarray(power_eV_per_ps, dtype=float)
    if time.shape != power.shape or power.ndim != 1 or len(power) < 3:
        raise UsageError(f"time_ps, power_eV_per_ps: got {time.shape}, {power.shape}; give three or more frames")
    if not np.isfinite(power).all():
        raise UsageError("power_eV_per_ps: not finite; record both forces, and cut the record before an explosion")
    independent = len(power) / integrated_time(power)
    mean, error = float(power.mean()), float(power.std(ddof=1)) / math.sqrt(independent)
    note = f"{len(power)} frames, {independent:.0f} independent, {time[-1] - time[0]:.3g} ps"
    scale, kelvin = 1000 / n_atoms, 1 / (n_atoms * 3 * BOLTZMANN)
    found = Power(
        Finding("nonconservative_power", mean * scale, error * scale, "meV/atom/ps", note),
        Finding("predicted_heating", mean * kelvin, error * kelvin, "K/ps", note),
    )
    if independent < _FEWEST_INDEPENDENT:
        raise TooShortToTell(
            f"nonconservative_power: {independent:.1f} independent samples; run long enough for {_FEWEST_INDEPENDENT}",
            found,
        )
    return found
