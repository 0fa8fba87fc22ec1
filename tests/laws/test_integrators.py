"""Order of convergence, limits, reversibility, cost: what any integrator must keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.integrators import respa, velocity_verlet
from mlcalc.integrators.phase import Phase
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.structure import Structure


@pytest.fixture
def wells() -> Structure:
    """Six atoms of three masses, away from the anchors at the origin."""
    generator = torch.Generator().manual_seed(1)
    positions = torch.randn(6, 3, generator=generator, dtype=torch.float64) * 0.3
    return Structure(
        positions,
        torch.tensor([1, 1, 8, 8, 18, 18]),
        torch.zeros(1, 3, 3, dtype=torch.float64),
        torch.zeros(1, 3, dtype=torch.bool),
        torch.tensor([1.0, 1.0, 16.0, 16.0, 40.0, 40.0], dtype=torch.float64),
        torch.zeros(6, dtype=torch.int64),
    )


class Anharmonic(Harmonic):
    """Wells with a quartic term: velocity Verlet conserves no shadow energy of simple form here."""

    def differentiable(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        made = super().differentiable(structure, neighbours, wanted)
        away = structure.positions - self._anchors_of(structure)
        squared = away.square().sum(dim=1, keepdim=True)
        extra = {
            "energy": (0.5 * squared.square()).sum().reshape(1),
            "conservative_force": -2 * squared * away,
            "direct_force": -2 * squared * away,
        }
        return Evaluation(
            **{
                name: None if getattr(made, name) is None else getattr(made, name) + value
                for name, value in extra.items()
            }
        )


def engine(potential: Harmonic, structure: Structure, forces: str, timestep_fs: float, n_inner: int) -> NativeEngine:
    momenta = maxwell_boltzmann(structure, 600.0, seed=2)
    return NativeEngine(potential, structure, forces=forces, timestep_fs=timestep_fs, n_inner=n_inner, momenta=momenta)


@pytest.mark.parametrize(
    ("forces", "n_inner", "asymmetry"), [("conservative", 1, 0.0), ("mts", 4, 0.0), ("mts", 4, 0.2)]
)
def test_energy_error_is_second_order(wells: Structure, forces: str, n_inner: int, asymmetry: float) -> None:
    """Slope of log(error) against log(Δt) is 2 (Tuckerman, Berne, Martyna 1992, section II)."""
    errors = []
    timesteps = np.array([0.4, 0.8, 1.6])
    for timestep in timesteps:
        run = engine(Anharmonic(spring=2.0, asymmetry=asymmetry), wells, forces, timestep, n_inner)
        record = run.run(round(80 / timestep))
        errors.append(np.abs(record.conserved - record.conserved[0]).max())
    slope = np.polyfit(np.log(timesteps), np.log(errors), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.1)


def test_one_inner_step_is_velocity_verlet_whatever_the_direct_force(wells: Structure) -> None:
    wild = engine(Harmonic(spring=2.0, asymmetry=0.9), wells, "mts", 1.0, 1).run(200)
    plain = engine(Harmonic(spring=2.0), wells, "conservative", 1.0, 1).run(200)
    np.testing.assert_allclose(wild.positions[-1], plain.positions[-1], atol=1e-12)


def test_equal_forces_are_velocity_verlet_at_the_inner_step(wells: Structure) -> None:
    split = engine(Anharmonic(spring=2.0), wells, "mts", 4.0, 8).run(25)
    plain = engine(Anharmonic(spring=2.0), wells, "conservative", 0.5, 1).run(200, stride=8)
    np.testing.assert_allclose(split.positions, plain.positions, atol=1e-12)


@pytest.mark.parametrize("n_inner", [1, 5])
def test_time_reversible(wells: Structure, n_inner: int) -> None:
    potential = Anharmonic(spring=2.0, asymmetry=0.3)
    forces = "mts" if n_inner > 1 else "conservative"
    there = engine(potential, wells, forces, 1.0, n_inner)
    there.run(100)
    back = NativeEngine(
        potential,
        wells.at(there.phase.positions),
        forces=forces,
        timestep_fs=1.0,
        n_inner=n_inner,
        momenta=-there.phase.momenta,
    )
    back.run(100)
    torch.testing.assert_close(back.phase.positions, wells.positions, atol=1e-11, rtol=0)


@pytest.mark.parametrize("n_inner", [1, 2, 8])
def test_a_cycle_costs_one_joint_evaluation_and_the_rest_direct(wells: Structure, n_inner: int) -> None:
    run = engine(Harmonic(), wells, "mts", 4.0, n_inner)
    before = dict(run.counts)
    run.run(10)
    assert before == {"joint": 1}
    assert run.counts["joint"] == 1 + 10
    assert run.counts["direct"] == 10 * (n_inner - 1)
    assert run.counts["conservative"] == run.counts["frame"] == 0


def test_respa_of_two_springs_is_exact_in_its_slow_limit() -> None:
    """With no fast force the scheme is velocity Verlet in the slow one; with no slow force, in the fast one at Δt/n."""
    mass = torch.ones(1, 1, dtype=torch.float64)
    start = Phase(torch.ones(1, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64), mass)

    def spring(q: torch.Tensor) -> torch.Tensor:
        return -q

    def none(q: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(q)

    def both(slow, fast):  # type: ignore[no-untyped-def]
        return lambda phase: respa.Forces(slow(phase.positions), fast(phase.positions))

    def pull(phase: Phase) -> torch.Tensor:
        return spring(phase.positions)

    def still(phase: Phase) -> torch.Tensor:
        return none(phase.positions)

    q = start.positions
    slow_only, _ = respa.step(start, both(spring, none)(start), still, both(spring, none), 0.3, 6)
    fast_only, _ = respa.step(start, both(none, spring)(start), pull, both(none, spring), 0.3, 6)
    whole, _ = velocity_verlet.step(start, spring(q), spring, 0.3)
    torch.testing.assert_close(slow_only.positions, whole.positions, atol=1e-15, rtol=0)
    phase, force = start, spring(q)
    for _ in range(6):
        phase, force = velocity_verlet.step(phase, force, spring, 0.05)
    torch.testing.assert_close(fast_only.momenta, phase.momenta, atol=1e-15, rtol=0)


def test_curl_does_the_work_that_the_power_says(wells: Structure) -> None:
    """dE/dt = Σ v·(f_direct − f_conservative): the integral of the recorded power is the change of energy."""
    record = engine(Harmonic(spring=2.0, asymmetry=0.02), wells, "direct", 0.1, 1).run(2000)
    work = np.trapezoid(record.power, record.time_ps)
    gained = record.conserved[-1] - record.conserved[0]
    assert abs(gained) > 0.01
    assert work == pytest.approx(gained, rel=1e-3)
