"""The laws of SIN(R): its parts as published, what it samples, its order, and no resonance where r-RESPA has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from coupled import KT, MASS, resting_centre, run
from scipy import stats
from scipy.integrate import cumulative_trapezoid
from torch import Tensor

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.integrators import noise, respa
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.phase import Phase, kick
from mlcalc.integrators.respa import Forces
from mlcalc.integrators.sin_r import SINR

CELL = torch.eye(3, dtype=torch.float64)
PERIOD_FS = 9.0  # of the fast springs: an O–H stretch
FAST = MASS * (2 * np.pi / units.from_femtoseconds(PERIOD_FS)) ** 2  # eV/Å²
SLOW = 0.02 * FAST


def moving(n_atoms: int, seed: int, width: float = 0.1) -> Phase:
    generator = torch.Generator().manual_seed(seed)
    positions, momenta = torch.randn(2, n_atoms, 3, generator=generator, dtype=torch.float64)
    masses = torch.full((n_atoms, 1), MASS, dtype=torch.float64)
    return Phase(width * positions, (MASS * KT) ** 0.5 * momenta, masses)


def split(fast: Callable[[Tensor], Tensor], slow: Callable[[Tensor], Tensor]) -> Callable[[Phase], Forces]:
    return lambda phase: Forces(slow(phase.positions), fast(phase.positions))


def sample(
    bath: SINR, phase: Phase, both: Callable[[Phase], Forces], timestep_fs: float, n_inner: int, n_steps: int
) -> list[Phase]:
    ensemble = Ensemble(bath)
    phase = ensemble.start(phase, CELL)
    forces, made = both(phase), []
    for k in range(n_steps):
        phase, forces = ensemble.step(
            phase,
            forces,
            lambda phase: both(phase).fast,
            both,
            units.from_femtoseconds(timestep_fs),
            n_inner,
            k * n_inner,
        )
        made.append(phase)
    return made


def test_a_kick_is_the_published_force_step() -> None:
    """v(t) = (v + a s)/ṡ, v₁(t) = v₁/ṡ, s = sinh(√b t)/√b + (h/b)(cosh(√b t) − 1), h = F v/kT, b = F²/(m kT)
    (Leimkuhler, Margul, Tuckerman 2013, with their L = 1), which keeps m v² + Q₁ v₁²/2 = kT."""
    bath, time = SINR(300.0), 0.7
    start = bath.conjugate(Ensemble(bath).start(moving(50, 1), CELL))
    force = torch.linspace(-2.0, 2.0, 150, dtype=torch.float64).reshape(50, 3)
    masses, scale = start.masses, (KT * start.masses).sqrt()
    v, v1 = bath.physical(start).momenta / masses, 1 / torch.cosh(start.momenta / scale)  # v₁ in its largest value
    after = bath.physical(kick(start, force, time))
    h, root = force * v / KT, force.abs() / (KT * masses).sqrt()
    s = torch.sinh(root * time) / root + h / root**2 * (torch.cosh(root * time) - 1)
    rate = torch.cosh(root * time) + h / root * torch.sinh(root * time)
    torch.testing.assert_close(after.momenta / masses, (v + force / masses * s) / rate, atol=1e-13, rtol=1e-10)
    assert after.own is not None
    v1_after = 1 / torch.cosh(after.own.reshape(2, 50, 3)[0] / scale)
    torch.testing.assert_close(v1_after, v1 / rate, atol=1e-13, rtol=1e-9)
    constraint = after.momenta.square() / masses + KT * (v1 / rate).square()
    torch.testing.assert_close(constraint, torch.full_like(constraint, KT), atol=0, rtol=1e-10)


def test_the_bath_is_the_published_one() -> None:
    """v₂ += t (Q₁ v₁² − kT)/Q₂; (v, v₁ e^(−v₂ t)) scaled back to the constraint; η = −v₂ (the same, with L = 1).
    Between two halves of both, noise on v₂, which is the same for the same ξ."""
    bath, time = SINR(300.0, friction_per_ps=50.0), 0.05
    start = bath.conjugate(Ensemble(bath).start(moving(50, 2), CELL))
    assert start.own is not None
    x, speed = start.momenta / (KT * MASS) ** 0.5, -start.own.reshape(2, 50, 3)[1]
    unit, rest = x.tanh(), 1 / x.cosh()  # v/c, and v₁ in its largest value: Q₁ v₁² = 2 kT rest²
    inertia = (0.01 * units.PICOSECOND) ** 2  # Q₂/kT
    keep = np.exp(-50.0 * time / units.PICOSECOND)
    speed = speed + time / 2 * (2 * rest**2 - 1) / inertia
    for half in range(2):
        shrunk = rest * torch.exp(-time / 2 * speed)
        size = (unit**2 + shrunk**2).sqrt()
        unit, rest = unit / size, shrunk / size
        if half == 0:
            speed = keep * speed - np.sqrt((1 - keep**2) / inertia) * noise.normal(speed, 0, 5)
    speed = speed + time / 2 * (2 * rest**2 - 1) / inertia
    after = bath.act(start, time, 5)
    assert after.own is not None
    torch.testing.assert_close((after.momenta / (KT * MASS) ** 0.5).tanh(), unit, atol=1e-12, rtol=0)
    torch.testing.assert_close(-after.own.reshape(2, 50, 3)[1], speed, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("large", [1e-9, 1.0, 30.0, 299.0, 301.0, 1e5])
def test_the_bath_stays_finite_however_fast_an_atom_was_kicked(large: float) -> None:
    bath = SINR(300.0)
    start = bath.conjugate(Ensemble(bath).start(moving(4, 3), CELL))
    scale = (KT * MASS) ** 0.5
    phase = replace(start, momenta=torch.full_like(start.momenta, -large * scale))
    after = bath.physical(bath.act(phase, 0.05, 0))
    assert after.own is not None
    assert bool(torch.isfinite(after.own).all()) and np.isfinite(after.heat)
    assert float(after.momenta.abs().max()) <= scale * (1 + 1e-14)
    x = after.own[0] / scale
    assert bool((x <= 0).all()) and float((x + large).abs().max()) < 1.5


@pytest.mark.parametrize(("regulation", "timestep_fs", "n_inner"), [(1.0, 0.5, 1), (1.0, 2.0, 4), (4.0, 2.0, 4)])
def test_a_well_and_its_velocities(regulation: float, timestep_fs: float, n_inner: int) -> None:
    """Positions normal with kT/k; x = p/(m c) with the density sech^L x, for which ⟨m v²⟩ = L/(L+1) kT.
    Springs are independent: a mean over time for each, then their scatter is the error. The step's own bias is below
    (ωΔt)²/24, 0.5 % at 0.5 fs."""
    spring = FAST + SLOW
    both = split(lambda q: -FAST * q, lambda q: -SLOW * q)
    start = moving(300, 4, (KT / spring) ** 0.5)
    phases = sample(SINR(300.0, regulation=regulation), start, both, timestep_fs, n_inner, round(500 / timestep_fs))
    used = phases[len(phases) // 5 :]
    squares = torch.stack([phase.positions.square() for phase in used]).mean(dim=0).flatten() * spring / KT
    assert float(squares.mean()) == pytest.approx(1.0, abs=0.005 + 4 * float(squares.std()) / 30.0)
    kinetic = torch.stack([phase.momenta.square() for phase in used]).mean(dim=0).flatten() / (MASS * KT)
    exact = regulation / (regulation + 1)
    assert float(kinetic.mean()) == pytest.approx(exact, abs=0.01 + 4 * float(kinetic.std()) / 30.0)
    last = used[-1]
    assert last.own is not None
    x = (last.own[0].flatten() / (regulation * MASS * KT) ** 0.5).numpy()
    grid = np.linspace(-20, 20, 4001)
    whole = cumulative_trapezoid(np.cosh(grid) ** -regulation, grid, initial=0)
    assert stats.kstest(x, lambda at: np.interp(at, grid, whole / whole[-1])).pvalue > 0.01


def test_inner_steps_must_be_short_all_the_same() -> None:
    """⟨q²⟩ is right with steps of a ninth of a period, and wrong by 42(1) % with two (500 atoms, 3000 steps)."""
    errors = []
    for timestep_fs in (1.0, 2.0):
        start = moving(200, 4, (KT / FAST) ** 0.5)
        phases = sample(SINR(300.0), start, split(lambda q: -FAST * q, torch.zeros_like), timestep_fs, 1, 500)
        squares = torch.stack([phase.positions.square() for phase in phases[100:]]).mean(dim=0).flatten() * FAST / KT
        errors.append((float(squares.mean()) - 1, float(squares.std()) / 600**0.5))
    (short, short_error), (long, long_error) = errors
    assert abs(short) < 0.01 + 4 * short_error
    assert abs(long - 0.42) < 0.01 + 4 * long_error


def test_a_double_well() -> None:
    """U = 2 kT (q² − 1)²: the places of 900 independent coordinates, by Kolmogorov and Smirnov against exp(−U/kT).
    All start in the right well; U split in a stiff and a soft part, outer steps of a sixth of a period in a well."""

    def whole(q: Tensor) -> Tensor:
        return -8 * KT * q * (q * q - 1)

    both = split(lambda q: 0.9 * whole(q), lambda q: 0.1 * whole(q))
    start = moving(300, 5)
    start = replace(start, positions=1 + 0 * start.positions, masses=0.01 * start.masses)
    last = sample(SINR(300.0, seed=2), start, both, 4.0, 4, 500)[-1]
    grid = np.linspace(-3, 3, 3001)
    exact = cumulative_trapezoid(np.exp(-2 * (grid**2 - 1) ** 2), grid, initial=0)
    assert (
        stats.kstest(last.positions.flatten().numpy(), lambda at: np.interp(at, grid, exact / exact[-1])).pvalue > 0.01
    )


@pytest.mark.parametrize("half_periods", [1, 2, 4])
def test_no_resonance(half_periods: int) -> None:
    """r-RESPA of two springs has a propagator of half trace cos φ − α sin φ, φ = ω Δt, α = k_slow Δt/(2 m ω). It is
    beyond 1 between nπ − 2 atan α and nπ, most at nπ − atan α. There SIN(R) keeps ⟨q²⟩ to some per cent."""
    angle = half_periods * np.pi
    angle -= np.arctan(SLOW / FAST * angle / 2)
    timestep_fs, n_inner = PERIOD_FS * angle / (2 * np.pi), 18 * half_periods
    both = split(lambda q: -FAST * q, lambda q: -SLOW * q)
    start = moving(80, 6, (KT / (FAST + SLOW)) ** 0.5)
    phase, forces = start, both(start)
    for _ in range(100):
        phase, forces = respa.step(
            phase, forces, lambda p: both(p).fast, both, units.from_femtoseconds(timestep_fs), n_inner
        )
    assert float(phase.positions.square().mean() / start.positions.square().mean()) > 100
    phases = sample(SINR(300.0), start, both, timestep_fs, n_inner, 120 // half_periods)
    squares = torch.stack([phase.positions.square() for phase in phases[5:]]).mean(dim=0).flatten() * (FAST + SLOW) / KT
    assert float(squares.mean()) == pytest.approx(1.0, abs=0.05 + 4 * float(squares.std()) / 240**0.5)


@pytest.mark.parametrize("n_inner", [1, 4])
def test_second_order(n_inner: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise the dynamics is deterministic: places after 16 fs against those with far shorter steps."""
    monkeypatch.setattr(noise, "normal", lambda like, *_: torch.zeros_like(like))
    ensemble = Ensemble(SINR(300.0, friction_per_ps=1e-9))
    start = ensemble.start(resting_centre(2, 3), CELL)

    def place(timestep_fs: float) -> Tensor:
        *_, end = run(ensemble, start, round(16 / timestep_fs), timestep_fs, n_inner)
        return end.positions

    exact, timesteps = place(1 / 16), np.array([0.5, 1.0, 2.0])
    errors = [float((place(float(timestep)) - exact).norm()) for timestep in timesteps]
    assert np.polyfit(np.log(timesteps), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("n_inner", [1, 4])
def test_the_ledger_closes(n_inner: int) -> None:
    """Records hold m v²/2 as kinetic energy, and a heat with which H' is conserved: Δt³ a step, so Δt² a time."""

    def conserved(phase: Phase) -> float:
        q = phase.positions.flatten()
        springs = torch.linspace(1.0, 2.5, 6, dtype=torch.float64)
        potential = float((springs * q * q).sum() / 2 + 40.0 * (q * q.roll(1)).sum() ** 2 / 2)
        return potential + float((phase.momenta.square() / (2 * phase.masses)).sum()) - phase.heat

    ensemble = Ensemble(SINR(300.0, time_ps=0.05, friction_per_ps=20.0))
    starts = list(run(ensemble, ensemble.start(resting_centre(2, 3), CELL), 100, 8.0, 1))[::5]
    timesteps, errors = np.array([0.5, 1.0, 2.0]), []
    for timestep in timesteps:
        ends = [next(run(ensemble, start, 1, float(timestep), n_inner)) for start in starts]
        errors.append(np.sqrt(np.mean([(conserved(e) - conserved(s)) ** 2 for s, e in zip(starts, ends, strict=True)])))
    assert np.polyfit(np.log(timesteps), np.log(errors), 1)[0] == pytest.approx(3.0, abs=0.2)
    heats = [end.heat - start.heat for start, end in zip(starts, ends, strict=True)]
    assert np.std(heats) > 20 * errors[-1]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: SINR(0.0), "temperature_K: got 0.0"),
        (lambda: SINR(300.0, time_ps=0.0), "time_ps: got 0.0"),
        (lambda: SINR(300.0, friction_per_ps=-1.0), "friction_per_ps: got -1.0"),
        (lambda: SINR(300.0, regulation=0.5), "regulation: got 0.5; give a number from 1"),
        (lambda: SINR(300.0, seed=-1), "seed: got -1"),
        (lambda: Ensemble(SINR(300.0), Barostat()), "barostat: got one with SINR, which knows no pressure"),
    ],
)
def test_unusable_settings_are_refused(make: Callable[[], object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        make()
