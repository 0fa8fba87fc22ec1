"""i-PI against ASE and the native engine: one evaluation, then trajectories; and the order of constant pressure."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ipi_runs import argon, outputs, prepared, two_argons
from small_waters import few_waters, gentle_network

from mlcalc import units
from mlcalc.engines.ase import MLCalculator
from mlcalc.engines.ipi import IpiForces
from mlcalc.engines.ipi_run import run_input
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.structure import Structure


@pytest.fixture(autouse=True)
def _quick_end(monkeypatch):
    """i-PI looks once a second whether it shall end."""
    monkeypatch.setattr("ipi.utils.softexit.SOFTEXITLATENCY", 0.01)


def test_one_evaluation_is_the_ase_calculators(make_network, make_water):
    """Energy, both forces and the virial, on a triclinic cell smaller than twice the cutoff; i-PI's units both ways."""
    from ipi.utils.units import unit_to_internal, unit_to_user

    network, atoms = make_network(), make_water()
    cell = np.ascontiguousarray(unit_to_internal("length", "angstrom", atoms.cell.array.T))
    positions = unit_to_internal("length", "angstrom", atoms.positions)
    forces = IpiForces(network, atoms, n_inner=3)
    answers = {component: forces.answer(component, cell, positions) for component in ("conservative", "direct")}
    energy, force, virial, _ = answers["conservative"]
    atoms.calc = MLCalculator(network)
    per_length = unit_to_internal("energy", "electronvolt", 1.0) / unit_to_internal("length", "angstrom", 1.0)
    np.testing.assert_allclose(unit_to_user("energy", "electronvolt", energy), atoms.get_potential_energy(), rtol=1e-12)
    np.testing.assert_allclose(force / per_length, atoms.get_forces(), atol=1e-11)
    np.testing.assert_allclose(answers["direct"][1] / per_length, atoms.calc.results["direct_forces"], atol=1e-11)
    # the virial of ASE's own driver for i-PI: −stress · volume
    expected = -atoms.get_stress(voigt=False) * atoms.get_volume()
    np.testing.assert_allclose(unit_to_user("energy", "electronvolt", virial), expected, atol=1e-10)


def test_a_cell_is_turned_with_its_atoms(make_network, make_water, tmp_path):
    """i-PI knows only cells with a along x and b in the xy plane; energy and pressure stay what they were."""
    network, atoms = make_network(), make_water()
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    path = prepared(tmp_path, network, atoms, steps=1, ensemble="npt", n_inner=2, timestep_fs=0.1)
    virial: list[float] = []

    def look(simulation):
        virial.append(np.trace(simulation.syslist[0].forces.vir))

    run_input(path, potentials={"mine": network}, prepare=look)
    atoms.calc = MLCalculator(network)
    # positions have eight decimals in the file
    np.testing.assert_allclose(outputs(tmp_path)[0, 5], atoms.get_potential_energy(), atol=1e-5)
    trace = -np.trace(atoms.get_stress(voigt=False)) * atoms.get_volume()
    np.testing.assert_allclose(virial[0] / units.IPI_ELECTRONVOLT, trace, atol=1e-4)


def ipi_time_ratio() -> float:
    """i-PI's fs over ours: its constants for fs, Å, eV and amu do not quite fit each other."""
    from ipi.utils.units import unit_to_internal

    names = {"length": "angstrom", "energy": "electronvolt", "mass": "dalton", "time": "femtosecond"}
    one = {family: unit_to_internal(family, unit, 1.0) for family, unit in names.items()}
    return one["time"] / (one["length"] * np.sqrt(one["mass"] / one["energy"])) / units.FEMTOSECOND


@pytest.mark.parametrize(("forces", "n_inner"), [("conservative", 1), ("direct", 1), ("mts", 1), ("mts", 4)])
def test_trajectories_are_the_native_engines(forces, n_inner, tmp_path):
    """From the same momenta, in i-PI's own unit of time: what is left is round-off."""
    from ipi.utils.units import unit_to_internal

    network = gentle_network().double()
    path = prepared(tmp_path, network, few_waters(), steps=20, timestep_fs=2.0, forces=forces, n_inner=n_inner)
    atoms = ase.io.read(tmp_path / "input.xyz")
    structure = Structure.from_ase(atoms)
    momenta = maxwell_boltzmann(structure, 300.0, seed=1)
    end: list[np.ndarray] = []

    def set_momenta(simulation):
        system = simulation.syslist[0]
        mass, energy = (unit_to_internal(*unit, 1.0) for unit in (("mass", "dalton"), ("energy", "electronvolt")))
        system.beads.p = momenta.numpy().ravel() * np.sqrt(mass * energy)
        end.append(system.beads)

    run_input(path, potentials={"mine": network}, prepare=set_momenta)
    engine = NativeEngine(
        network, structure, forces=forces, timestep_fs=2.0 * ipi_time_ratio(), n_inner=n_inner, momenta=momenta
    )
    record = engine.run(20)
    free = atoms.positions + record.time_ps[-1] * units.PICOSECOND * momenta.numpy() / atoms.get_masses()[:, None]
    assert np.abs(record.positions[-1] - free).max() > 0.005  # Å; the forces matter
    ours = np.array(end[0].q).reshape(-1, 3) / units.IPI_ANGSTROM
    np.testing.assert_allclose(ours, record.positions[-1], rtol=0, atol=1e-9)
    if forces != "direct":
        kinetic, potential = outputs(tmp_path)[:, 4:6].T
        np.testing.assert_allclose(kinetic + potential, record.conserved, rtol=0, atol=1e-9)


def test_constant_pressure_conserves_to_second_order(tmp_path):
    """With inner steps and the whole virial in the outer one. Half the step, a quarter of the error (Trotter)."""
    errors = []
    for part, (steps, timestep) in enumerate([(32, 16.0), (64, 8.0)]):
        folder = tmp_path / str(part)
        folder.mkdir()
        path = prepared(
            folder, two_argons(), argon(), steps=steps, timestep_fs=timestep, n_inner=2, ensemble="npt",
            temperature_K=60.0, tau_fs=1e7, barostat_tau_fs=200.0,
        )  # fmt: skip
        # without its thermostat the cell moves by Newton's laws alone, so that nothing random hides the order
        text = path.read_text()
        bath = "<thermostat mode='langevin'> <tau units='femtosecond'> 200 </tau> </thermostat>"
        assert bath in text
        path.write_text(text.replace(bath, ""))
        run_input(path, potentials={"mine": two_argons()})
        table = outputs(folder)
        assert np.ptp(table[:, 7]) > 0.02 * table[0, 7]  # the volume moves
        errors.append(np.std(table[:, 2]))
    assert 3.0 < errors[0] / errors[1] < 5.0, errors
