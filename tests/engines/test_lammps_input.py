"""`mlcalc lammps input`: what it writes runs in LAMMPS, on the structure that was given."""

from __future__ import annotations

import re

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from lammps_runs import PICOSECOND, ROOT, by_tag, driven
from small_waters import few_waters, gentle_network

from mlcalc import cli
from mlcalc.engines.ase import MLCalculator
from mlcalc.potentials import load
from mlcalc.potentials.checkpoint import save_checkpoint


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with potentials (one with a space in its name) and a structure, which is the working directory."""
    save_checkpoint(tmp_path / "two heads.safetensors", gentle_network(), {"data": "none: random weights"})
    save_checkpoint(tmp_path / "energy.safetensors", gentle_network("C"), {"data": "none: random weights"})
    save_checkpoint(tmp_path / "direct.safetensors", gentle_network("NC"), {"data": "none: random weights"})
    ase.io.write(tmp_path / "box.xyz", few_waters())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*arguments: str) -> int:
    return cli.main(["lammps", "input", "--output", "water.in", "--steps", "2", "--stride", "1", *arguments])


def test_the_example_runs(tmp_path, monkeypatch):
    folder = ROOT / "examples" / "lammps"
    (tmp_path / "water.data").write_text((folder / "water.data").read_text())
    monkeypatch.chdir(tmp_path)
    text = (folder / "water.in").read_text()
    with driven(re.sub("run 250", "run 1", text)) as lmp:
        assert lmp.extract_global("ntimestep") == 1
        assert abs(lmp.get_thermo("temp") - 300) < 100


STRUCTURE = ("--structure", "box.xyz")
TWO = ("--potential", "two heads.safetensors")


@pytest.mark.parametrize("ensemble", ["nve", "langevin", "nvt", "npt", "minimize"])
def test_every_ensemble_runs(ensemble, here):
    assert write(*TWO, *STRUCTURE, "--ensemble", ensemble, "--temperature-K", "250", "--dtype", "float64") == 0
    text = (here / "water.in").read_text()
    assert ("run_style respa 2 8 " in text) == (ensemble != "minimize")
    assert re.search("timestep 0.004$", text, re.M) or ensemble == "minimize"
    with driven() as lmp:
        lmp.file("water.in")
        assert np.isfinite(lmp.get_thermo("etotal"))
        if ensemble == "nve":
            lmp.command("run 0")
    frames = ase.io.read("water.lammpstrj", index=":", format="lammps-dump-text")
    assert len(frames) == 3
    first = few_waters()
    moved = frames[0].positions - first.positions
    np.testing.assert_allclose(moved - 6.4 * np.round(moved / 6.4), 0, atol=1e-8)  # ten digits in the dump
    assert (frames[0].numbers == first.numbers).all()


def test_heat_of_the_bath_is_booked(here):
    """With a bath that moves the energy a lot, what LAMMPS calls econserve stays: 1 fs is short for argon."""
    ase.io.write("argon.xyz", bulk("Ar", cubic=True) * 2)
    bath = ("--ensemble", "langevin", "--temperature-K", "40", "--friction-per-ps", "20")
    options = ("--potential", "lennard_jones", "--structure", "argon.xyz", "--timestep-fs", "1", "--n-inner", "1")
    assert write(*options, *bath, "--steps", "1") == 0
    with driven() as lmp:
        lmp.commands_string((here / "water.in").read_text().replace("run 1", "run 0"))
        before = [lmp.get_thermo(name) for name in ("etotal", "econserve")]
        lmp.command("run 200")
        total, conserved = (
            lmp.get_thermo(name) - old for name, old in zip(("etotal", "econserve"), before, strict=True)
        )
    assert abs(conserved) < 0.02 * abs(total) and abs(total) > 0.01


def test_velocities_and_a_sheared_cell_are_kept(here):
    atoms = bulk("Ar")
    atoms = atoms * (2, 2, 2)
    atoms.rattle(0.1, seed=0)
    atoms.set_momenta(np.random.default_rng(0).normal(size=(8, 3)))
    ase.io.write("argon.xyz", atoms)
    assert write("--potential", "lennard_jones", "--structure", "argon.xyz", "--steps", "1", "--n-inner", "1") == 0
    with driven() as lmp:
        lmp.commands_string((here / "water.in").read_text().replace("run 1", "run 0"))
        atoms.calc = MLCalculator(load("lennard_jones", dtype=torch.float64))
        np.testing.assert_allclose(lmp.get_thermo("pe"), atoms.get_potential_energy(), rtol=1e-9)
        speed = np.linalg.norm(by_tag(lmp, lmp.numpy.extract_atom("v")), axis=1)
        # rotation leaves speeds as they are; LAMMPS's and ASE's units of time differ by 3e-8
        np.testing.assert_allclose(speed, np.linalg.norm(atoms.get_velocities(), axis=1) * PICOSECOND, rtol=1e-6)


def test_a_molecule_gets_a_box(here):
    ase.io.write("molecule.xyz", ase.Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    assert write(*TWO, "--structure", "molecule.xyz", "--n-inner", "1", "--dtype", "float64") == 0
    assert "boundary m m m" in (here / "water.in").read_text()
    with driven() as lmp:
        lmp.file("water.in")
        assert lmp.get_natoms() == 3


def test_a_potential_with_direct_forces_alone(here):
    assert write("--potential", "direct.safetensors", *STRUCTURE) == 0
    assert "forces direct" in (here / "water.in").read_text()
    with driven() as lmp:
        lmp.file("water.in")


def test_two_potentials(here):
    assert write("--slow", "energy.safetensors", "--fast", "direct.safetensors", *STRUCTURE, "--n-inner", "4") == 0
    with driven() as lmp:
        lmp.file("water.in")
        assert np.isfinite(lmp.get_thermo("etotal"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--potential", "energy.safetensors", *STRUCTURE, "--n-inner", "4"), "--fast"),
        ((*TWO, *STRUCTURE, "--ensemble", "minimize", "--n-inner", "4"), "conservative forces alone"),
        (("--potential", "direct.safetensors", *STRUCTURE, "--ensemble", "npt"), "virial"),
        (("--potential", "silicon-7net-0", *STRUCTURE), "knows only Si"),
        ((*TWO, "--structure", "nowhere.xyz"), "no file"),
        ((*TWO, "--structure", "tilted.xyz"), "right angles"),
        ((*TWO, "--structure", "molecule.xyz", "--ensemble", "npt"), "periodic in all directions"),
        ((*TWO, "--structure", "heavy.xyz"), "masses"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(arguments, words, here, capsys):
    water = few_waters()
    ase.io.write("molecule.xyz", ase.Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    water.set_masses([2.014 if k == 1 else mass for k, mass in enumerate(water.get_masses())])
    ase.io.write("heavy.xyz", water, columns=["symbols", "positions", "masses"])
    tilted = few_waters()
    tilted.set_cell([[6.4, 0, 0], [3, 6.4, 0], [0, 0, 6.4]])
    tilted.pbc = (True, False, True)
    ase.io.write("tilted.xyz", tilted)
    assert write(*arguments) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not (here / "water.in").exists() and not (here / "water.data").exists()
