"""The laws of BAOAB: exact positions in a harmonic well, limits of its r-RESPA form, and the ledger of heat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlcalc import units
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import UsageError
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.phase import Phase
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure

KT = units.BOLTZMANN * 300.0


def anchors(n_atoms: int) -> torch.Tensor:
    """Too far apart for neighbours."""
    return 3.0 * torch.arange(n_atoms, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.0, 0.0])


def well(n_atoms: int, spring: float, asymmetry: float = 0.0) -> Harmonic:
    return Harmonic(anchors(n_atoms), spring=spring, asymmetry=asymmetry)


def wells(n_atoms: int) -> Structure:
    """Atoms of 20 amu in equilibrium at 300 K in wells of 2 eV/Å²."""
    generator = torch.Generator().manual_seed(1)
    away = torch.randn(n_atoms, 3, generator=generator, dtype=torch.float64) * (KT / 2) ** 0.5
    return Structure(
        anchors(n_atoms) + away,
        torch.full((n_atoms,), 10),
        torch.zeros(1, 3, 3, dtype=torch.float64),
        torch.zeros(1, 3, dtype=torch.bool),
        torch.full((n_atoms,), 20.0, dtype=torch.float64),
        torch.zeros(n_atoms, dtype=torch.int64),
    )


def engine(potential: Harmonic | TwoPotentials, n_atoms: int, timestep_fs: float, n_inner: int = 1) -> NativeEngine:
    structure = wells(n_atoms)
    return NativeEngine(
        potential,
        structure,
        forces="conservative" if n_inner == 1 and isinstance(potential, Harmonic) else "mts",
        timestep_fs=timestep_fs,
        n_inner=n_inner,
        momenta=maxwell_boltzmann(structure, 300.0, seed=2),
        ensemble=Ensemble(Langevin(300.0, friction_per_ps=20.0, seed=4)),
    )


@pytest.mark.parametrize("timestep_fs", [5.0, 15.0, 30.0])
def test_positions_are_exact_in_a_well_at_any_timestep(timestep_fs: float) -> None:
    """BAOAB in a harmonic well: <q²> = kT/k for every Δt, <p²>/m = kT (1 − (ωΔt)²/4) (Leimkuhler, Matthews 2013)."""
    run = engine(well(1000, 2.0), 1000, timestep_fs)
    record = run.run(600, stride=10)
    positions, momenta = record.positions[20:] - anchors(1000).numpy(), record.momenta[20:]
    omega = np.sqrt(2.0 / 20.0) * units.FEMTOSECOND * timestep_fs
    # frames 10 steps apart still remember one another; what is averaged over atoms within a frame does not
    by_frame = 2.0 * np.square(positions).mean(axis=(1, 2)) / KT
    kinetic = np.square(momenta).mean(axis=(1, 2)) / 20.0 / KT
    memory = max(1.0, 2 * 50.0 / (10 * timestep_fs))  # frames, from the friction: 1/γ = 50 fs, twice for both sides
    error = np.sqrt(2 / 3000 / (len(by_frame) / memory))
    assert by_frame.mean() == pytest.approx(1.0, abs=4 * error)
    assert kinetic.mean() == pytest.approx(1 - omega**2 / 4, abs=4 * error)
    assert omega**2 / 4 > 4 * error or timestep_fs == 5.0  # the deviation is seen where the step is long


def test_one_inner_step_is_baoab_whatever_the_fast_force() -> None:
    wild = engine(TwoPotentials(well(6, 9.0, asymmetry=0.9), well(6, 2.0)), 6, 5.0).run(100)
    plain = engine(well(6, 2.0), 6, 5.0).run(100)
    np.testing.assert_allclose(wild.positions[-1], plain.positions[-1], atol=1e-12)


def test_equal_forces_are_baoab_at_the_inner_step() -> None:
    split = engine(TwoPotentials(well(6, 2.0), well(6, 2.0)), 6, 20.0, n_inner=4).run(25)
    plain = engine(well(6, 2.0), 6, 5.0).run(100, stride=4)
    np.testing.assert_allclose(split.positions, plain.positions, atol=1e-12)
    np.testing.assert_allclose(split.heat, plain.heat, atol=1e-12)


@pytest.mark.parametrize(("n_inner", "order"), [(1, 2.0), (2, 1.0)])
def test_the_ledger_closes(n_inner: int, order: float) -> None:
    """What energy less heat gains or loses in 8 fs is the integrator's error; the heat itself is far larger.

    Second order for BAOAB; between two halves of a slow kick there is noise, and that costs one (see the module).
    """
    errors = []
    timesteps = np.array([1.0, 2.0, 4.0])
    for timestep in timesteps:
        potential = well(50, 2.0) if n_inner == 1 else TwoPotentials(well(50, 1.5), well(50, 2.0))
        run = engine(potential, 50, timestep, n_inner)
        record = run.run(round(2400 / timestep), stride=round(8 / timestep))
        gained = np.diff(record.conserved)
        errors.append(gained.std())
        assert abs(gained.mean()) < 4 * gained.std() / np.sqrt(len(gained))
        assert np.diff(record.heat).std() > 20 * errors[-1]
    assert np.polyfit(np.log(timesteps), np.log(errors), 1)[0] == pytest.approx(order, abs=0.25)


def test_a_cold_bath_takes_all_heat() -> None:
    structure = wells(20)
    momenta = maxwell_boltzmann(structure, 300.0, seed=2)
    run = NativeEngine(well(20, 2.0), structure, forces="conservative", timestep_fs=2.0, momenta=momenta,
                       ensemble=Ensemble(Langevin(0.0, 50.0)))  # fmt: skip
    record = run.run(1000)
    assert record.kinetic_energy[-1] < 1e-9
    assert record.heat[-1] == pytest.approx(-(record.potential_energy[0] + record.kinetic_energy[0]), rel=1e-2)


def test_hydrogen_may_have_a_friction_of_its_own() -> None:
    """p ← c p + noise of variance (1 − c²) m kT, c = exp(−γ t) of each atom; the ledger holds what each gained."""
    bath = Langevin(300.0, 2.0, hydrogen_friction_per_ps=50.0)
    numbers = torch.tensor([8, 1, 1]).repeat(2000)
    masses = torch.where(numbers == 1, 3.0, 16.0).double()[:, None]  # by number, not by mass: hydrogen may be heavy
    start = Phase(torch.zeros(6000, 3).double(), (1e3 * masses).expand(6000, 3), masses, numbers=numbers)
    assert bath.memory_ps == 0.5
    end = bath.act(start, 0.01 * units.PICOSECOND, 0)
    for number, friction in ((8, 2.0), (1, 50.0)):
        scaled = (end.momenta / masses.sqrt())[numbers == number]
        keep, mass = np.exp(-friction * 0.01), float(masses[numbers == number][0])
        n = scaled.numel()
        assert float(scaled.mean()) == pytest.approx(keep * 1e3 * mass**0.5, abs=4 * np.sqrt((1 - keep**2) * KT / n))
        assert float(scaled.var()) == pytest.approx((1 - keep**2) * KT, rel=4 * np.sqrt(2 / n))
    assert end.heat == pytest.approx(float(((end.momenta**2 - start.momenta**2) / (2 * masses)).sum()), rel=1e-12)


def test_equal_frictions_are_one_friction() -> None:
    structure = wells(6)
    structure = replace(structure, numbers=torch.tensor([1, 10, 1, 10, 1, 10]))
    momenta = maxwell_boltzmann(structure, 300.0, seed=2)
    ends = []
    for bath in (Langevin(300.0, 20.0, 4), Langevin(300.0, 20.0, 4, hydrogen_friction_per_ps=20.0)):
        run = NativeEngine(TwoPotentials(well(6, 1.5), well(6, 2.0)), structure, timestep_fs=8.0, n_inner=4,
                           momenta=momenta, ensemble=Ensemble(bath))  # fmt: skip
        ends.append(run.run(20))
    np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-13)
    np.testing.assert_allclose(ends[0].heat, ends[1].heat, atol=1e-13)


def test_noise_is_a_function_of_seed_and_step() -> None:
    like = torch.zeros(4, 3, dtype=torch.float64)
    bath = Langevin(300.0, seed=7)
    assert torch.equal(bath.noise(like, 5), bath.noise(like, 5))
    assert not torch.equal(bath.noise(like, 5), bath.noise(like, 6))
    assert not torch.equal(bath.noise(like, 5), Langevin(300.0, seed=8).noise(like, 5))
    many = torch.stack([bath.noise(like, k) for k in range(3000)])
    together = (many[1:] * many[:-1]).mean()
    assert abs(float(together)) < 4 / np.sqrt(many.numel())  # seeds in a row are not alike
    assert float(many.square().mean()) == pytest.approx(1.0, abs=4 * np.sqrt(2 / many.numel()))


def test_unusable_baths_are_refused() -> None:
    for wrong, word in (
        ({"friction_per_ps": 0.0}, "friction_per_ps: got 0.0"),
        ({"seed": -1}, "seed: got -1"),
        ({"hydrogen_friction_per_ps": -2.0}, "hydrogen_friction_per_ps: got -2.0"),
    ):
        with pytest.raises(UsageError, match=word):
            Langevin(300.0, **wrong)
    with pytest.raises(UsageError, match="temperature_K: got -1"):
        Langevin(-1)
    phase = Phase(torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 1))
    with pytest.raises(UsageError, match="no atomic numbers"):
        Ensemble(Langevin(300.0, hydrogen_friction_per_ps=5.0)).start(phase, torch.eye(3))
