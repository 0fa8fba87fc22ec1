"""The ASE calculator and dynamics: numbers, signs, caching, and the parts of ASE that people use."""

from __future__ import annotations

import ase
import ase.build
import numpy as np
import pytest
import torch
from ase import units
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from mlcalc.engines.ase import MLCalculator
from mlcalc.engines.ase_dynamics import MTSVelocityVerlet
from mlcalc.errors import UsageError
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.painn import PaiNN


def network() -> PaiNN:
    torch.manual_seed(0)
    small = PaiNN(["H", "O"], 3.0, channels=8, n_layers=2, n_radial=6, hidden=16, pair_channels=8)
    return small.double()


def water() -> ase.Atoms:
    """Eight waters on a skewed lattice, shaken."""
    molecule = ase.build.molecule("H2O")
    molecule.set_cell([[3.0, 0.3, 0.0], [0.1, 3.1, 0.2], [0.0, 0.4, 3.2]])
    molecule.pbc = True
    box = molecule.repeat(2)
    box.rattle(0.05, seed=1)
    return box


class Counting(MLCalculator):
    """Counts evaluations."""

    n_calls = 0

    def calculate(self, *arguments, **named) -> None:  # type: ignore[no-untyped-def]
        self.n_calls += 1
        super().calculate(*arguments, **named)


def test_one_evaluation_whatever_is_asked() -> None:
    atoms = water()
    atoms.calc = Counting(network())
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    atoms.calc.get_property("energies", atoms)
    atoms.calc.get_property("direct_forces", atoms)
    atoms.calc.get_property("free_energy", atoms)
    assert atoms.calc.n_calls == 1
    assert type(atoms.get_potential_energy()) is float
    assert atoms.get_potential_energy() == pytest.approx(atoms.calc.results["energies"].sum())


def test_forces_and_stress_are_derivatives_on_a_triclinic_cell() -> None:
    """Central differences of the energy: of positions, and of the strain of cell and atoms."""
    atoms = water()
    atoms.calc = MLCalculator(network())
    force, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    step = 1e-4
    for atom, axis in ((0, 0), (7, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[atom, axis] += sign * step
            energies.append(moved.get_potential_energy())
        assert -(energies[0] - energies[1]) / (2 * step) == pytest.approx(force[atom, axis], abs=1e-6)
    for a, b in ((0, 0), (1, 2), (2, 0)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            strained = atoms.copy()
            strained.calc = MLCalculator(network())
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(strained.get_potential_energy())
        numeric = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        assert numeric == pytest.approx(stress[a, b], abs=1e-7)


def test_direct_forces_do_not_touch_autograd() -> None:
    atoms = water()
    atoms.calc = MLCalculator(network(), non_conservative=True)
    assert atoms.calc.forces == "direct"
    direct = atoms.get_forces()
    assert "stress" not in atoms.calc.results
    both = water()
    both.calc = MLCalculator(network())
    both.get_forces()
    np.testing.assert_allclose(direct, both.calc.results["direct_forces"], atol=1e-12)
    assert np.abs(direct - both.get_forces()).max() > 1e-3


def test_global_state_of_torch_is_left_alone() -> None:
    before = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state().sum())
    atoms = water()
    atoms.calc = MLCalculator(network().float())
    state = torch.get_rng_state().sum()
    atoms.get_forces()
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before[:2]
    assert torch.equal(torch.get_rng_state().sum(), state)


def test_argon_works_with_optimisers_filters_eos_vibrations_and_md(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Lattice constant of fcc argon with this potential: the three routes agree with one another."""
    crystal = ase.build.bulk("Ar", cubic=True, a=5.35)
    crystal.calc = MLCalculator(LennardJones())
    BFGS(FrechetCellFilter(crystal), logfile=None).run(fmax=1e-5)
    relaxed = crystal.get_volume()
    volumes, energies = [], []
    for scale in np.linspace(0.98, 1.02, 5):
        strained = crystal.copy()
        strained.set_cell(crystal.cell.array * scale, scale_atoms=True)
        strained.calc = MLCalculator(LennardJones())
        volumes.append(strained.get_volume())
        energies.append(strained.get_potential_energy())
    assert EquationOfState(volumes, energies).fit()[0] == pytest.approx(relaxed, rel=1e-3)

    dimer = ase.Atoms("Ar2", positions=[[0, 0, 0], [3.6, 0, 0]])
    dimer.calc = MLCalculator(LennardJones())
    BFGS(dimer, logfile=None).run(fmax=1e-6)
    # minimum of the pair potential, σ 2^(1/6), moved a little by the envelope
    assert dimer.get_distance(0, 1) == pytest.approx(3.4 * 2 ** (1 / 6), rel=2e-2)
    vibrations = Vibrations(dimer, name=str(tmp_path / "vib"))
    vibrations.run()
    # harmonic frequency of a Lennard-Jones dimer: k = 72 ε / (2^(1/3) σ²), reduced mass m/2
    k = 72 * 0.01034 / (2 ** (1 / 3) * 3.4**2)
    expected = (
        np.sqrt(k / (dimer.get_masses()[0] / 2)) * units._hbar * 1e10 / np.sqrt(units._e * units._amu) / units.invcm
    )
    assert vibrations.get_frequencies()[-1].real == pytest.approx(expected, rel=0.05)

    hot = crystal.repeat(2)
    hot.calc = MLCalculator(LennardJones())
    MaxwellBoltzmannDistribution(hot, temperature_K=40, rng=np.random.default_rng(0))
    before = hot.get_total_energy()
    VelocityVerlet(hot, 2 * units.fs).run(50)
    assert hot.get_total_energy() == pytest.approx(before, abs=1e-4)


def test_mts_ends_a_step_with_results_in_place() -> None:
    atoms = water()
    atoms.calc = Counting(network())
    MaxwellBoltzmannDistribution(atoms, temperature_K=100, rng=np.random.default_rng(0))
    seen = []
    dynamics = MTSVelocityVerlet(atoms, 1.0 * units.fs, n_inner=4)
    dynamics.attach(lambda: seen.append(atoms.get_total_energy()), interval=1)
    dynamics.run(5)
    assert atoms.calc.n_calls == 1  # the first; every later one was the integrator's own
    fresh = atoms.copy()
    fresh.calc = MLCalculator(network())
    np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-10)
    np.testing.assert_allclose(atoms.get_stress(), fresh.get_stress(), atol=1e-10)
    assert len(seen) == 6


def test_mts_notices_atoms_that_were_moved_between_steps() -> None:
    atoms = water()
    atoms.calc = MLCalculator(network())
    dynamics = MTSVelocityVerlet(atoms, 1.0 * units.fs, n_inner=2)
    dynamics.run(1)
    atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
    dynamics.run(1)
    fresh = atoms.copy()
    fresh.calc = MLCalculator(network())
    np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-10)


def test_mts_refuses_what_it_cannot_do() -> None:
    atoms = water()
    for timestep, n_inner, word in ((0.0, 8, "timestep"), (-1.0, 8, "timestep"), (1.0, 0, "n_inner")):
        atoms.calc = MLCalculator(network())
        with pytest.raises(UsageError, match=word):
            MTSVelocityVerlet(atoms, timestep, n_inner)
    atoms.calc = MLCalculator(network(), "direct")
    with pytest.raises(UsageError, match="conservative"):
        MTSVelocityVerlet(atoms, 1.0)
    argon = ase.build.bulk("Ar", cubic=True)
    argon.calc = MLCalculator(LennardJones())
    with pytest.raises(UsageError, match="direct"):
        MTSVelocityVerlet(argon, 1.0)
    with pytest.raises(UsageError, match="H, O"):
        foreign = ase.build.bulk("Ar", cubic=True)
        foreign.calc = MLCalculator(network())
        foreign.get_forces()
