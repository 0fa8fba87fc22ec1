"""LAMMPS against the ASE calculator and the native engine: the same edges, then the same numbers, then trajectories."""

from __future__ import annotations

import copy

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from lammps_runs import PICOSECOND, by_tag, driven, forces, pressures, set_up
from small_waters import few_waters, gentle_network

import mlcalc.units
from mlcalc.engines.ase import MLCalculator
from mlcalc.engines.lammps import Evaluator
from mlcalc.engines.native import NativeEngine
from mlcalc.neighbours import Neighbours, neighbour_list
from mlcalc.potentials import load
from mlcalc.potentials.checkpoint import save_checkpoint
from mlcalc.potentials.pretrained import water_box
from mlcalc.structure import Structure


def silicon() -> ase.Atoms:
    atoms = bulk("Si", cubic=True) * 2
    atoms.rattle(0.05, seed=1)
    return atoms


def seen_by_lammps(monkeypatch) -> list[tuple[Structure, Neighbours]]:
    """What LAMMPS asks for from now on: atoms and edges."""
    seen = []
    evaluate = Evaluator.evaluate

    def note(self, wanted, by_atom):
        evaluate(self, wanted, by_atom)
        atoms, edges = copy.deepcopy((self._atoms, self._neighbours))  # LAMMPS's memory is gone when it ends
        seen.append((atoms, edges))

    monkeypatch.setattr(Evaluator, "evaluate", note)
    return seen


CASES = {
    "water": (water_box, "water", ("H", "O"), "conservative"),
    "silicon": (silicon, "silicon-7net-0", ("Si",), "direct"),
}


@pytest.mark.parametrize("case", CASES)
def test_edges_energy_forces_virial(case, tmp_path, monkeypatch):
    make, name, species, kind = CASES[case]
    atoms = make()
    seen = seen_by_lammps(monkeypatch)
    start = set_up(atoms, tmp_path / "data", species)
    style = f"pair_style mlcalc {name} dtype float64 forces {kind}\npair_coeff * * {' '.join(species)}\n"
    # the sum makes LAMMPS compute what it sums
    by_atom = "compute e all pe/atom\ncompute sum all reduce sum c_e\nthermo_style custom step pe press c_sum\nrun 0"
    with driven(start + style + by_atom) as lmp:
        energy, found = lmp.get_thermo("pe"), forces(lmp)
        energies = by_tag(lmp, lmp.numpy.extract_compute("e", 1, 1))
        pressure = pressures(lmp)

    structure, edges = seen[0]
    expected = neighbour_list(structure, edges.cutoff)
    keep = edges.vectors(structure).norm(dim=1) < edges.cutoff
    for name_of_part in ("centre", "neighbour", "shift"):
        assert torch.equal(getattr(edges, name_of_part)[keep], getattr(expected, name_of_part)), name_of_part

    atoms.calc = MLCalculator(load(name, dtype=torch.float64), kind)
    # LAMMPS reads 16 digits of the positions; all else is round-off
    np.testing.assert_allclose(energy, atoms.get_potential_energy(), rtol=1e-12)
    np.testing.assert_allclose(found, atoms.get_forces(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(energies, atoms.get_potential_energies(), rtol=0, atol=1e-9)
    if case == "water":  # the other has no virial; LAMMPS's constant of pressure differs from ASE's by 1e-7
        np.testing.assert_allclose(pressure, -atoms.get_stress() / units.bar, rtol=1e-6, atol=1e-3)


def in_motion(atoms: ase.Atoms, temperature: float) -> ase.Atoms:
    thermalize_momenta(atoms, temperature_K=temperature, rng=np.random.default_rng(0))
    return atoms


def set_velocities(lmp, atoms: ase.Atoms) -> None:
    """In LAMMPS's units, by ID."""
    n_atoms = len(atoms)
    ids = lmp.numpy.extract_atom("id")[:n_atoms]
    lmp.numpy.extract_atom("v")[:n_atoms] = atoms.get_velocities()[ids - 1] * PICOSECOND


def unwrapped(lmp, atoms: ase.Atoms) -> np.ndarray:
    """Positions as they would be had LAMMPS never wrapped them; the atoms started inside the box or were wrapped."""
    moved = by_tag(lmp, lmp.numpy.extract_atom("x"))
    there = atoms.positions
    return moved + atoms.cell[0, 0] * np.round((there - moved) / atoms.cell[0, 0])


@pytest.mark.parametrize(("case", "n_steps"), [("argon", 500), ("water", 100)])
def test_nve_follows_the_ase_class(case, n_steps, tmp_path):
    """At constant energy; both sides with LAMMPS's unit of time, so only round-off is left.

    benchmarks/lammps_steps.py compares 500 steps of 192 atoms of water.
    """
    save_checkpoint(tmp_path / "gentle.safetensors", gentle_network(), {"data": "none: random weights"})
    argon = case == "argon"
    name = "lennard_jones" if argon else f"{tmp_path}/gentle.safetensors"
    atoms = in_motion(bulk("Ar", cubic=True) * 2 if argon else few_waters(), 100)
    step = 0.005 if argon else 0.0005
    run = f"""
    pair_style mlcalc {name} dtype float64
    pair_coeff * * {"Ar" if argon else "H O"}
    fix 1 all nve
    timestep {step}
    thermo {n_steps}
    """
    with driven(set_up(atoms, tmp_path / "data", ("Ar",) if argon else ("H", "O")) + run) as lmp:
        set_velocities(lmp, atoms)
        lmp.command(f"run {n_steps}")
        energy = lmp.get_thermo("pe") + lmp.get_thermo("ke")
        atoms.calc = MLCalculator(load(name, dtype=torch.float64))
        before = atoms.positions.copy()
        VelocityVerlet(atoms, step * PICOSECOND).run(n_steps)
        assert np.abs(atoms.positions - before).max() > 0.3
        # two such runs go apart exponentially, from 1e-16; measured here: 1e-12
        np.testing.assert_allclose(unwrapped(lmp, atoms), atoms.positions, rtol=0, atol=1e-10)
        np.testing.assert_allclose(energy, atoms.get_total_energy(), rtol=0, atol=1e-10)


def test_multiple_time_steps_follow_the_native_engine(tmp_path):
    """Bundled potential, four inner steps; LAMMPS's unit of time once more."""
    atoms = in_motion(few_waters(), 300)
    start = set_up(atoms, tmp_path / "data", ("H", "O"))
    run = """
    pair_style mlcalc water dtype float64
    pair_coeff * * H O
    run_style respa 2 4 inner 1 1.0 1.5 outer 2
    fix 1 all nve
    timestep 0.002
    """
    femtosecond = PICOSECOND / mlcalc.units.PICOSECOND  # LAMMPS's in ours
    engine = NativeEngine(
        load("water", dtype=torch.float64), Structure.from_ase(atoms), forces="mts", timestep_fs=2 * femtosecond,
        n_inner=4, momenta=torch.tensor(atoms.get_momenta()),
    )  # fmt: skip
    record = engine.run(10)
    with driven(start + run) as lmp:
        set_velocities(lmp, atoms)
        lmp.command("run 10")
        atoms.positions = record.positions[-1]
        np.testing.assert_allclose(unwrapped(lmp, atoms), atoms.positions, rtol=0, atol=1e-10)
        np.testing.assert_allclose(lmp.get_thermo("etotal"), record.conserved[-1], rtol=0, atol=1e-9)
