"""The laws of thermostats under multiple time stepping: what they sample, its order in Δt, limits, and the ledger."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from coupled import CELL, KT, MASS, NOTHING, TEMPERATURE, resting_centre, run, tangled
from scipy import stats
from scipy.linalg import solve_discrete_lyapunov

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.integrators import noise, respa
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.gle import GLE
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.integrators.phase import Phase, kinetic_energy
from mlcalc.integrators.respa import Forces
from mlcalc.integrators.thermostat import Thermostat

#: Antisymmetric couplings: with C = kT 1, A C + C Aᵀ is diagonal and positive
DRIFT = ((10.0, 30.0, 0.0), (-30.0, 60.0, 20.0), (0.0, -20.0, 15.0))


def bath(kind: str, temperature: float = TEMPERATURE) -> Thermostat:
    drift = ((20.0,),) if kind == "white GLE" else DRIFT
    return Langevin(temperature, 20.0) if kind == "Langevin" else GLE(temperature, drift)


class Linear:
    """The exact stationary state of one outer step in two springs (slow, fast; eV/Å²): the step is a linear map of
    (q, p, s) plus normal noise, x ← M x + L ξ, so its covariance solves Σ = M Σ Mᵀ + L Lᵀ. M and L are read off from
    the step itself, by an atom for each column."""

    def __init__(self, slow: float, fast: float, timestep_fs: float, n_inner: int) -> None:
        self.slow, self.fast = slow, fast
        self.timestep, self.n_inner = units.from_femtoseconds(timestep_fs), n_inner

    def step(self, thermostat: Thermostat, values: np.ndarray, n_own: int) -> np.ndarray:
        """One outer step of columns (q, p, s…)."""
        n = values.shape[1]
        q, p, *s = (torch.tensor(row)[:, None] * torch.tensor([1.0, 0, 0]) for row in values)
        own = torch.stack(s).flatten() if n_own else torch.zeros(0, dtype=torch.float64)
        phase = Phase(q, p, torch.full((n, 1), MASS, dtype=torch.float64), own=own)

        def both(phase: Phase) -> Forces:
            return Forces(-self.slow * phase.positions, -self.fast * phase.positions)

        phase, _ = Ensemble(thermostat).step(
            phase, both(phase), lambda phase: both(phase).fast, both, self.timestep, self.n_inner, 0
        )
        assert phase.own is not None
        rest = list(phase.own.reshape(n_own, n, 3)[..., 0].numpy())
        return np.array([phase.positions[:, 0].numpy(), phase.momenta[:, 0].numpy(), *rest])

    def covariance(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
        n_own = len(DRIFT) - 1 if kind == "GLE" else 0
        propagator = self.step(bath(kind, 0.0), np.eye(2 + n_own), n_own)
        n_kinds = 1 + n_own

        def unit(like: torch.Tensor, seed: int, count: int, stream: int = 0) -> torch.Tensor:
            made = torch.zeros(n_kinds, like.shape[-2], 3, dtype=torch.float64)
            for k in range(n_kinds):
                made[k, count * n_kinds + k, 0] = 1.0
            return made.reshape(like.shape)

        with monkeypatch.context() as patch:
            patch.setattr(noise, "normal", unit)
            spread = self.step(bath(kind), np.zeros((2 + n_own, self.n_inner * n_kinds)), n_own)
        return solve_discrete_lyapunov(propagator, spread @ spread.T)


@pytest.mark.parametrize("timestep_fs", [2.0, 10.0, 25.0])
@pytest.mark.parametrize("kind", ["Langevin", "white GLE", "GLE"])
def test_baoab_is_exact_in_a_well(kind: str, timestep_fs: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """<q²> = kT/k at any Δt, <p²>/m = kT (1 − (ωΔt)²/4) (Leimkuhler, Matthews 2013), to round-off.
    The same with coloured noise, which leaves the same normal distribution of momenta alone."""
    found = Linear(0.5, 1.5, timestep_fs, 1).covariance(kind, monkeypatch)
    omega = np.sqrt(2.0 / MASS) * units.from_femtoseconds(timestep_fs)
    assert found[0, 0] == pytest.approx(KT / 2.0, rel=1e-9)
    assert found[1, 1] == pytest.approx(MASS * KT * (1 - omega**2 / 4), rel=1e-9)


@pytest.mark.parametrize(("kind", "n_inner"), [("Langevin", 4), ("GLE", 4), ("GLE", 8)])
def test_positions_in_a_well_converge_as_the_square_of_the_step(
    kind: str, n_inner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    timesteps = np.array([2.0, 4.0, 8.0])
    errors = [
        abs(Linear(0.5, 1.5, timestep, n_inner).covariance(kind, monkeypatch)[0, 0] * 2.0 / KT - 1)
        for timestep in timesteps
    ]
    assert errors[-1] < 0.05
    assert np.polyfit(np.log(timesteps), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.15)


def test_a_free_particle_has_the_covariance_of_the_gle() -> None:
    """Whatever Δt: (p, s) of no force has C, here one of another temperature for each momentum."""
    thermostat = GLE(300.0, DRIFT, ((300.0, 0.0, 0.0), (0.0, 100.0, 0.0), (0.0, 0.0, 50.0)))
    phase = Phase(*torch.zeros(2, 20000, 3, dtype=torch.float64), torch.full((20000, 1), MASS, dtype=torch.float64))
    phase = replace(phase, own=thermostat.start(phase))
    for k in range(3):
        phase = thermostat.act(phase, 1.0 * units.PICOSECOND, k)
    assert phase.own is not None
    momenta = torch.cat([(phase.momenta / MASS**0.5)[None], phase.own.reshape(2, 20000, 3)])
    found = momenta.square().mean(dim=(1, 2)).numpy() / units.BOLTZMANN
    np.testing.assert_allclose(found, [300.0, 100.0, 50.0], rtol=4 * np.sqrt(2 / 60000))


def test_slow_motion_remembers_as_long_as_its_friction_says() -> None:
    """γ = A_pp − A_ps A_ss⁻¹ A_sp at zero frequency (Ceriotti, Bussi, Parrinello 2010)."""
    drift = np.array(DRIFT)
    friction = drift[0, 0] - drift[0, 1:] @ np.linalg.solve(drift[1:, 1:], drift[1:, 0])
    assert GLE(300.0, DRIFT).memory_ps == pytest.approx(1 / friction)
    assert GLE(300.0, ((1.0, 1.0), (-1.0, 0.0))).memory_ps == 0.0  # A_ss is singular: its friction has no bound
    assert Langevin(300.0, 4.0).memory_ps == 0.25


def test_the_white_gle_is_langevin_dynamics() -> None:
    start = resting_centre(2, 1)
    ends = []
    for thermostat in (Langevin(300.0, 20.0, seed=3), GLE(300.0, ((20.0,),), seed=3)):
        ensemble = Ensemble(thermostat)
        *_, end = run(ensemble, ensemble.start(start, CELL), 50, 8.0, 2)
        ends.append(end)
    torch.testing.assert_close(ends[0].positions, ends[1].positions, atol=1e-12, rtol=0)
    assert float(ends[0].heat) == pytest.approx(float(ends[1].heat), abs=1e-12)


@pytest.mark.parametrize(
    "thermostat", [Bussi(300.0, 0.02, external_field=True), NoseHoover(300.0, 0.02, external_field=True)], ids=repr
)
def test_energies_of_tangled_springs_are_canonical(thermostat: Thermostat) -> None:
    """2K/kT has the χ² distribution of its degrees of freedom (Kolmogorov–Smirnov, p > 0.01, fixed seeds), and
    <q ∂U/∂q> is kT for each (Tolman). Samples 80 fs apart: the autocorrelation time is some 20 fs."""
    ensemble = Ensemble(thermostat)
    kinetic, virial = [], []
    for k, phase in enumerate(run(ensemble, ensemble.start(resting_centre(2, 3), CELL), 2500, 8.0, 2)):
        if k > 100 and k % 10 == 0:
            kinetic.append(float(kinetic_energy(phase)) / KT)
            virial.append(-float((phase.positions * tangled(phase.positions)).sum()) / KT)
    assert stats.kstest(2 * np.array(kinetic), stats.chi2(6).cdf).pvalue > 0.01
    assert np.mean(virial) == pytest.approx(6.0, abs=4 * np.std(virial) / np.sqrt(len(virial)))


def test_a_free_gas_keeps_its_centre_at_rest() -> None:
    """Kinetic energy of 3N − 3 degrees of freedom; no force at all, so only the thermostat moves it."""
    thermostat = Bussi(300.0, 0.1)
    phase = Ensemble(thermostat).start(resting_centre(3, 5), CELL)
    kinetic = []
    for k in range(2000):
        phase = thermostat.act(phase, units.from_femtoseconds(100.0), k)
        kinetic.append(float(kinetic_energy(phase)) / KT)
    assert float(phase.momenta.sum(dim=0).abs().max()) < 1e-10
    assert stats.kstest(2 * np.array(kinetic[::5]), stats.chi2(6).cdf).pvalue > 0.01


@pytest.mark.parametrize("thermostat", [Bussi(300.0, 0.1), NoseHoover(300.0, 0.1)], ids=repr)
def test_a_thermostat_outside_is_two_halves_around_respa(thermostat: Thermostat) -> None:
    """T(Δt/2) r-RESPA T(Δt/2); and with one inner step it does not see what the fast force is."""
    start = resting_centre(2, 7)
    ensemble = Ensemble(thermostat)
    start = ensemble.start(start, CELL)
    (whole,) = run(ensemble, start, 1, 8.0, 4)
    half = units.from_femtoseconds(4.0)
    (between,) = run(Ensemble(), thermostat.act(start, half, 0), 1, 8.0, 4)
    parts = thermostat.act(between, half, 7)
    assert torch.equal(whole.positions, parts.positions) and torch.equal(whole.momenta, parts.momenta)


@pytest.mark.parametrize("n_inner", [1, 4])
def test_nose_hoover_is_time_reversible(n_inner: int) -> None:
    thermostat = NoseHoover(300.0, 0.02, length=4, external_field=True)
    start = Ensemble(thermostat).start(resting_centre(2, 3), CELL)
    *_, there = run(Ensemble(thermostat), start, 60, 4.0, n_inner)
    assert there.own is not None and start.own is not None
    place, speed = there.own.split(4)
    turned = replace(there, momenta=-there.momenta, own=torch.cat([place, -speed]))
    *_, back = run(Ensemble(thermostat), turned, 60, 4.0, n_inner)
    assert back.own is not None
    torch.testing.assert_close(back.positions, start.positions, atol=1e-8, rtol=0)
    torch.testing.assert_close(back.own[:4], start.own[:4], atol=1e-8, rtol=0)
    assert float((there.positions - start.positions).abs().max()) > 0.01


def conserved(phase: Phase) -> float:
    """Energy less heat of the tangled springs, U written out anew: with G = Σ q q', U = Σ k q²/2 + 40 G²/2."""
    q = phase.positions.flatten()
    springs = torch.linspace(1.0, 2.5, 6, dtype=torch.float64)
    potential = float((springs * q * q).sum() / 2 + 40.0 * (q * q.roll(1)).sum() ** 2 / 2)
    return potential + float(kinetic_energy(phase)) - float(phase.heat)


@pytest.mark.parametrize("n_inner", [1, 4])
@pytest.mark.parametrize(
    "thermostat", [Bussi(300.0, 0.05, external_field=True), NoseHoover(300.0, 0.05, external_field=True)], ids=repr
)
def test_energy_less_heat_is_conserved_to_second_order(thermostat: Thermostat, n_inner: int) -> None:
    """A single step is wrong by order Δt³, and so a time by Δt²: the same starts, from a run, for each Δt."""
    ensemble = Ensemble(thermostat)
    starts = list(run(ensemble, ensemble.start(resting_centre(2, 3), CELL), 200, 8.0, 1))[::10]
    timesteps, errors = np.array([1.0, 2.0, 4.0]), []
    for timestep in timesteps:
        ends = [next(run(ensemble, start, 1, timestep, n_inner)) for start in starts]
        errors.append(np.sqrt(np.mean([(conserved(e) - conserved(s)) ** 2 for s, e in zip(starts, ends, strict=True)])))
    assert np.polyfit(np.log(timesteps), np.log(errors), 1)[0] == pytest.approx(3.0, abs=0.15)


def test_noise_is_a_function_of_seed_count_and_stream() -> None:
    like = torch.zeros(2, 3)
    first = noise.normal(like, 1, 2)
    assert torch.equal(first, noise.normal(like, 1, 2))
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, noise.BAROSTAT)):
        assert not torch.equal(first, noise.normal(like, *other))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Bussi(0.0), "temperature_K: got 0.0"),
        (lambda: Bussi(300.0, 0.0), "time_ps: got 0.0"),
        (lambda: Bussi(300.0, float("inf")), "time_ps: got inf"),
        (lambda: NoseHoover(300.0, -1.0), "time_ps: got -1.0"),
        (lambda: NoseHoover(300.0, length=0), "length: got 0"),
        (lambda: GLE(300.0, ((0.0,),)), "real part 0"),
        (lambda: GLE(300.0, ((1.0, 2.0),)), r"drift_per_ps: got a shape of \(1, 2\)"),
        (lambda: GLE(300.0, ((1.0, 2.0), (3.0,))), "drift_per_ps: got a shape"),
        (lambda: GLE(300.0, DRIFT, ((300.0,),)), r"covariance_K: got a shape of \(1, 1\)"),
        (lambda: GLE(300.0, DRIFT, ((300.0, 0, 0), (1, 300.0, 0), (0, 0, 300.0))), "not symmetric"),
        (lambda: GLE(300.0, DRIFT, ((300.0, 0, 0), (0, 10.0, 0), (0, 0, 5.0))), "no noise has that"),
        (lambda: Ensemble(300.0), "thermostat: got 300.0"),
        (lambda: Ensemble(None, Barostat()), "give a thermostat"),
        (lambda: Ensemble(Langevin(0.0), Barostat()), "above 0 K"),
        (lambda: Barostat(time_ps=0.0), "time_ps: got 0.0"),
        (lambda: Barostat(shape="flexible"), "shape: got 'flexible'; choose one of isotropic, full"),
        (lambda: Barostat(float("nan")), "pressure_GPa: got nan"),
    ],
)
def test_unusable_ensembles_are_refused(make, word: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=word):
        make()


def test_phases_that_a_thermostat_cannot_start_from_are_refused() -> None:
    phase = resting_centre(2, 1)
    with pytest.raises(UsageError, match="all are 0"):
        Ensemble(Bussi(300.0)).start(replace(phase, momenta=0 * phase.momenta), CELL)
    for thermostat in (Bussi(300.0), NoseHoover(300.0)):
        with pytest.raises(UsageError, match="they sum to"):
            Ensemble(thermostat).start(replace(phase, momenta=phase.momenta + 1.0), CELL)
    lonely = resting_centre(1, 1)
    with pytest.raises(UsageError, match="one atom"):
        Ensemble(NoseHoover(300.0)).start(lonely, CELL)


def test_without_an_ensemble_the_step_is_respa() -> None:
    start = resting_centre(2, 1)
    (ours,) = run(Ensemble(), start, 1, 8.0, 3)

    def both(phase: Phase) -> Forces:
        force = tangled(phase.positions)
        twist = torch.tensor([[0.0, 0.05, 0.0], [-0.05, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
        return Forces(force - (0.9 * force + force @ twist), 0.9 * force + force @ twist, NOTHING)

    plain, _ = respa.step(start, both(start), lambda phase: both(phase).fast, both, units.from_femtoseconds(8.0), 3)
    assert torch.equal(ours.positions, plain.positions)
