"""Drift and power: errors that mean what they say, on series made with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from mlcalc.diagnostics import nonconservative_power, nve_drift, random_walk
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


def random_walk_series(rng: np.random.Generator, time: np.ndarray, diffusion: float) -> np.ndarray:
    """⟨(W(t+s) − W(t))²⟩ = diffusion · s."""
    return np.cumsum(rng.normal(size=len(time))) * np.sqrt(diffusion * (time[1] - time[0]))


@pytest.mark.parametrize(
    ("noise", "memory", "diffusion", "least"),
    [(0.01, 0.0, 0.0, 0.35), (0.01, 0.8, 0.0, 0.3), (0.01, 0.0, 2e-4, 0.7), (0.001, 0.0, 2e-4, 0.8)],
)
def test_the_error_of_the_slope_covers_the_truth(noise: float, memory: float, diffusion: float, least: float) -> None:
    """Series with a known slope: deviation over claimed error has a spread near 1, also where the energy walks.

    Below 1 where no walk is there: the error must allow for one that the noise would hide. An error that knew only of
    correlated noise was two to five times too small for the walks.
    """
    rng = np.random.default_rng(1)
    time, slope = np.linspace(0, 5, 600), 0.04
    pulls = []
    for _ in range(150):
        energy = slope * time + noise * autoregressive(rng, 600, memory) + random_walk_series(rng, time, diffusion)
        drift = nve_drift.measure(time, energy, 100)
        pulls.append((drift.slope.value - slope * 10) / drift.slope.standard_error)
    assert np.mean(pulls) == pytest.approx(0, abs=0.3)
    assert least < np.std(pulls) < 1.4


def test_diffusion_of_a_known_walk() -> None:
    """D by its definition, and its claimed error; a walk of noise alone has none."""
    rng = np.random.default_rng(2)
    time = np.linspace(0, 2, 500)
    walks = [random_walk.fit(time, random_walk_series(rng, time, 3.0) + 0.2 * rng.normal(size=500)) for _ in range(100)]
    found = np.array([(walk.diffusion, walk.diffusion_error) for walk in walks])
    assert found[:, 0].mean() == pytest.approx(3.0, rel=0.15)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.3)
    quiet = random_walk.fit(time, 0.2 * rng.normal(size=500))
    assert quiet.diffusion < 0.02 and quiet.diffusion_error < 0.05


@pytest.mark.parametrize("seed", range(8))
def test_a_vibration_that_comes_back_is_no_walk(seed: int) -> None:
    """A short record of an integrator's error: it follows a vibration of 36 fs, frames are 4 fs apart.

    From frame to frame it looks like a walk with D = 0.1; what it wanders in the whole record allows for 0.004.
    """
    rng = np.random.default_rng(seed)
    time = 0.004 * np.arange(60)
    phase = 2 * np.pi * time / 0.036 + np.cumsum(0.2 * rng.normal(size=60))
    walk = random_walk.fit(time, 0.03 * np.sin(phase) + 0.01 * rng.normal(size=60))
    assert walk.diffusion < 0.004 + walk.diffusion_error and walk.diffusion < 0.03


def test_a_walking_energy_heats_as_its_walk_foretells() -> None:
    """Oscillators at temperature T, kicked by a sin(x + φ) with φ at random: each gains a²/4m a kick on average.

    A kick is a function of positions, so phase-space volume is preserved, and the walk must foretell the gain. Mass and
    spring constant 1, momentum and position normal with variance kT; the energy is handed over in eV.
    """
    rng = np.random.default_rng(4)
    n, n_kicks, a, kt = 2000, 2000, 0.008, BOLTZMANN * 300
    x, p = rng.normal(size=(2, n)) * np.sqrt(kt)
    a *= np.sqrt(kt)
    energy = []
    for _ in range(n_kicks):
        energy.append(float(0.5 * (x**2 + p**2).sum()))
        p = p + a * np.sin(x / np.sqrt(kt) + rng.uniform(0, 2 * np.pi, n))
        x, p = x * np.cos(1.7) + p * np.sin(1.7), p * np.cos(1.7) - x * np.sin(1.7)
    time = 0.001 * np.arange(n_kicks)
    drift = nve_drift.measure(time, energy, n, 300.0)
    expected = 1000 * a**2 / 4 / 0.001  # meV by oscillator and ps
    assert drift.foretold is not None
    assert drift.foretold.value == pytest.approx(expected, abs=2 * drift.foretold.standard_error)
    assert drift.slope.value == pytest.approx(expected, abs=2 * drift.slope.standard_error)
    assert drift.foretold.standard_error < 0.35 * expected and drift.slope.standard_error < 0.35 * expected


@pytest.mark.parametrize("picoseconds", [0.5, 5.0])
def test_slope_and_forecast_of_a_walk_seldom_disagree(picoseconds: float) -> None:
    """Walks of 192 atoms that drift by D/2kT = 0.01 meV/atom/ps, under the noise of an integrator's error."""
    rng = np.random.default_rng(6)
    n_atoms, rate, kt = 192, 1e-5, BOLTZMANN * 300
    time = np.arange(0, picoseconds, 0.004)
    disagree = 0
    for _ in range(150):
        energy = n_atoms * rate * time + random_walk_series(rng, time, 2 * kt * n_atoms * rate)
        drift = nve_drift.measure(time, energy + n_atoms * 2.2e-5 * rng.normal(size=len(time)), n_atoms, 300.0)
        disagree += drift.per_atom == drift.slope
    assert disagree < 0.06 * 150


def test_slope_and_forecast_are_joined_only_where_they_agree() -> None:
    """A quiet energy with a steep slope is no walk: the slope stands alone. A flat one takes the forecast's error."""
    rng = np.random.default_rng(3)
    time, noise = np.linspace(0, 1, 250), 1e-4 * rng.normal(size=250)
    steep = nve_drift.measure(time, 0.1 * time + noise, 100, 300.0)
    assert steep.per_atom == steep.slope and steep.slope.value == pytest.approx(1.0, rel=0.01)
    walking = nve_drift.measure(time, random_walk_series(rng, time, 1e-4), 100, 300.0)
    assert walking.foretold is not None
    assert walking.per_atom.standard_error <= walking.foretold.standard_error < 0.3 * walking.slope.standard_error
    # D/2kT with D = 1e-4 eV²/ps, by atom of 100 in meV
    assert walking.foretold.value == pytest.approx(1e-4 / (2 * BOLTZMANN * 300) * 10, rel=0.5)


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
    for time, energy, word in (
        ([0, 1], [0, 1], "frames"),
        ([0, 1, 2, 3], [0, 1], "shapes"),
        ([0, 1, 2, 3], [0, 1, np.nan, 2], "finite"),
        ([0, 1, 2, 4], [0, 1, 1, 2], "evenly"),
        ([0, 1, 1, 2], [0, 1, 1, 2], "evenly"),
    ):
        with pytest.raises(UsageError, match=word):
            nve_drift.measure(time, energy, 3)
    with pytest.raises(UsageError, match="finite"):
        nonconservative_power.measure([0, 1, 2, 3], [0, np.nan, 1, 2], 3)
