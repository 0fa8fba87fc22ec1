"""Drift and power: errors that mean what they say, on series made with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from mlcalc.diagnostics import nonconservative_power, nve_drift
from mlcalc.diagnostics.autocorrelation import integrated_time
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.units import BOLTZMANN


def autoregressive(rng: np.random.Generator, n: int, memory: float) -> np.ndarray:
    """x_t = memory·x_(t−1) + noise, unit variance; its integrated time is (1 + memory)/(1 − memory)."""
    x = np.empty(n)
    x[0] = rng.normal()
    noise = rng.normal(size=n) * np.sqrt(1 - memory**2)
    for t in range(1, n):
        x[t] = memory * x[t - 1] + noise[t]
    return x


def test_integrated_time_of_a_known_process() -> None:
    rng = np.random.default_rng(0)
    for memory in (0.0, 0.5, 0.9):
        times = [integrated_time(autoregressive(rng, 20000, memory)) for _ in range(5)]
        assert np.mean(times) == pytest.approx((1 + memory) / (1 - memory), rel=0.1)


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_the_error_of_the_slope_covers_the_truth(memory: float) -> None:
    """300 series with a known slope: deviation over claimed error has the spread 1."""
    rng = np.random.default_rng(1)
    time, slope = np.linspace(0, 5, 600), 0.04
    pulls = []
    for _ in range(300):
        drift = nve_drift.measure(time, slope * time + 0.01 * autoregressive(rng, 600, memory), 100)
        pulls.append((drift.per_atom.value - slope * 10) / drift.per_atom.standard_error)
    assert np.mean(pulls) == pytest.approx(0, abs=0.2)
    assert 0.85 < np.std(pulls) < 1.2


def test_units_of_the_slope() -> None:
    """1 eV/ps over 100 atoms is 10 meV/atom/ps; 3 k_B of it warms an atom by 1 K."""
    time = np.linspace(0, 1, 200)
    drift = nve_drift.measure(time, time + 1e-6 * np.random.default_rng(0).normal(size=200), 100)
    assert drift.per_atom.value == pytest.approx(10.0, rel=1e-4)
    assert drift.kelvin.value == pytest.approx(0.01 / (3 * BOLTZMANN), rel=1e-4)


def test_too_short_runs_say_so_and_keep_the_estimate() -> None:
    time = np.linspace(0, 1, 40)
    with pytest.raises(TooShortToTell) as caught:
        nve_drift.measure(time, np.sin(2 * np.pi * time), 10)
    assert isinstance(caught.value.estimate, nve_drift.Drift)
    with pytest.raises(TooShortToTell):
        nonconservative_power.measure(time[:5], np.arange(5.0), 10)


def test_mean_power_and_its_error() -> None:
    rng = np.random.default_rng(2)
    time, pulls = np.linspace(0, 2, 500), []
    for _ in range(200):
        found = nonconservative_power.measure(time, 3.0 + autoregressive(rng, 500, 0.7), 50)
        pulls.append((found.per_atom.value - 60.0) / found.per_atom.standard_error)
    assert 0.85 < np.std(pulls) < 1.2


def test_records_that_cannot_be_judged_are_refused() -> None:
    for time, energy in (([0, 1], [0, 1]), ([0, 1, 2], [0, 1]), ([0, 1, 2, 3], [0, 1, np.nan, 2])):
        with pytest.raises(UsageError):
            nve_drift.measure(time, energy, 3)
    with pytest.raises(UsageError, match="finite"):
        nonconservative_power.measure([0, 1, 2, 3], [0, np.nan, 1, 2], 3)
