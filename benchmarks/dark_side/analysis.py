"""Numbers of the page, from what is kept of the runs; every one by a diagnostic of mlcalc."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_masses

from dark_side.series import Curve, Kept
from mlcalc.diagnosis.bench import estimate
from mlcalc.diagnostics import nonconservative_power, nve_drift, random_walk
from mlcalc.diagnostics.autocorrelation import mean_with_error
from mlcalc.units import BOLTZMANN, PICOSECOND, temperature_from_kinetic

TEMPERATURE_K = 300.0
_FEWEST = 16  # frames


@dataclass(frozen=True)
class Number:
    """A value with its standard error; nan where there is none."""

    value: float
    error: float

    def __str__(self) -> str:
        return plus_minus(self.value, self.error)

    def over(self, other: Number) -> Number:
        """The ratio of two independent numbers."""
        ratio = self.value / other.value
        return Number(ratio, abs(ratio) * math.hypot(self.error / self.value, other.error / other.value))


def plus_minus(value: float, error: float) -> str:
    """Value and error, the error with two digits."""
    if not math.isfinite(value):
        return "–"
    if not error > 0 or not math.isfinite(error):
        return f"{value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}".replace("-", "−")


def heating(run: Kept) -> Number:
    """Rise of the kinetic temperature, K/ps, with an error that knows of its random walk."""
    kelvin = np.array([temperature_from_kinetic(k, 3 * run.n_atoms - 3) for k in run.kinetic_eV])
    if len(kelvin) < _FEWEST:
        return Number(math.nan, math.nan)
    walk = random_walk.fit(run.time_ps, kelvin)
    return Number(walk.slope, walk.slope_error)


def drift(run: Kept) -> Number:
    """Slope of the conserved energy, meV/atom/ps."""
    found = _drift(run).slope
    return Number(found.value, found.standard_error)


def foretold_drift(run: Kept) -> Number:
    """What the random walk of the conserved energy foretells, meV/atom/ps."""
    found = _drift(run).foretold
    return Number(found.value, found.standard_error)


def _drift(run: Kept) -> nve_drift.Drift:
    found: nve_drift.Drift = estimate(
        lambda: nve_drift.measure(run.time_ps, run.conserved_eV, run.n_atoms, TEMPERATURE_K)
    )[0]
    return found


def power(run: Kept, first_ps: float = math.inf) -> Number:
    """Of the non-conservative part during the first picoseconds, meV/atom/ps."""
    early = run.time_ps <= first_ps + 1e-9
    measured = estimate(
        lambda: nonconservative_power.measure(run.time_ps[early], run.power_eV_per_ps[early], run.n_atoms)
    )
    found = measured[0].per_atom
    return Number(found.value, found.standard_error)


def gained(run: Kept) -> tuple[float, float]:
    """meV/atom by which the energy rose over a whole run, and what the integral of the power says it should."""
    scale = 1000 / run.n_atoms
    work = float(np.trapezoid(run.power_eV_per_ps, run.time_ps))
    return float(run.conserved_eV[-1]) * scale, work * scale


def temperature(run: Kept, element: str) -> Number:
    """K, of frames after the run has settled."""
    return _mean(run.temperature_K[element][run.settled])


def last_temperature(run: Kept, element: str, last_ps: float = 0.5) -> float:
    """K, at the end of a run that does not come to rest."""
    late = run.time_ps > run.length_ps - last_ps
    return float(run.temperature_K[element][late].mean())


def temperature_difference(run: Kept) -> Number:
    """Of hydrogen over oxygen, K."""
    return _mean((run.temperature_K["H"] - run.temperature_K["O"])[run.settled])


def _mean(values: np.ndarray) -> Number:
    if len(values) < _FEWEST:
        return Number(math.nan, math.nan)
    value, error, _ = mean_with_error(values)
    return Number(value, error)


def finding(run: Kept, label: str) -> Number:
    """A number that `mlcalc diagnose` found."""
    found = run.findings.get(label)
    return Number(math.nan, math.nan) if found is None else Number(found.value, found.standard_error)


def apart(one: Curve, other: Curve) -> tuple[float, float]:
    """How far two curves are apart: mean of ((a − b)/σ)², which is 1 for chance alone, and the largest |a − b|."""
    n = min(len(one.y), len(other.y))
    sigma = np.hypot(one.error[:n], other.error[:n])
    known = sigma > 0.02 * sigma.max()  # where nothing happens there is no error either
    miss = (one.y[:n] - other.y[:n])[known]
    return float(np.mean((miss / sigma[known]) ** 2)), float(np.abs(miss).max())


def expected_slowdown(diffusion: float, time_fs: float) -> float:
    """Of a molecule of water whose own friction k_B T/D₀ a Langevin bath of a time constant adds m/τ to (Einstein).

    Parameters
    ----------
    diffusion : D₀, Å²/ps
    """
    mass = 2 * atomic_masses[1] + atomic_masses[8]
    friction = mass / (time_fs / 1000 * PICOSECOND**2)  # eV ps/Å²
    return 1 + diffusion * friction / (BOLTZMANN * TEMPERATURE_K)


def expected_excess(run: Kept) -> float:
    """K, at which velocity rescaling takes out again what the mean power of the run brings in."""
    time_ps = float(run.about["thermostat"]["time_ps"])
    return power(run).value * time_ps / (1000 * 1.5 * BOLTZMANN)


def lengths(runs: Mapping[str, Kept]) -> float:
    """ps, all runs together."""
    return sum(run.length_ps for run in runs.values())
