"""i-PI in this process: what is evaluated, what is answered, and every kind of input run for a few steps."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from ipi_runs import argon, outputs, prepared, two_argons

from mlcalc import units
from mlcalc.cli import main
from mlcalc.engines.ipi import DriverSettings, IpiForces
from mlcalc.engines.ipi_run import run_input
from mlcalc.engines.ipi_settings import IpiInput, inner_steps
from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure

GLE = np.array([[0.1, 1.0], [-1.0, 2.0]])  # 1/ps; damps, couples, nothing more


@pytest.fixture(autouse=True)
def _quick_end(monkeypatch):
    """i-PI looks once a second whether it shall end."""
    monkeypatch.setattr("ipi.utils.softexit.SOFTEXITLATENCY", 0.01)


def test_units_are_those_of_ipi():
    from ipi.utils.units import unit_to_internal

    assert unit_to_internal("length", "angstrom", 1.0) == units.IPI_ANGSTROM
    assert unit_to_internal("energy", "electronvolt", 1.0) == units.IPI_ELECTRONVOLT


@pytest.mark.parametrize(
    ("n_inner", "more"),
    [
        (1, {}),
        (2, {}),
        (5, {}),
        (4, {"ensemble": "nvt"}),
        (3, {"ensemble": "nvt", "thermostat": "svr"}),
        (4, {"ensemble": "npt"}),
        (4, {"ensemble": "npt", "barostat": "flexible"}),
        (3, {"beads": 4, "ensemble": "nvt"}),
        (2, {"beads": 2, "ensemble": "npt"}),
    ],
    ids=str,
)
def test_an_outer_step_costs_m_minus_one_direct_and_one_joint_evaluation(n_inner, more, tmp_path):
    """For each bead. Whatever i-PI asks beyond that is answered from what is known, outputs at every step included."""
    counts = []
    for steps in (1, 4):
        path = prepared(tmp_path, two_argons(), argon(), steps=steps, timestep_fs=2.0, n_inner=n_inner, **more)
        counts.append(run_input(path, potentials={"mine": two_argons()}).counts)
    beads = more.get("beads", 1)
    assert counts[1] - counts[0] == Counter(direct=3 * beads * (n_inner - 1), joint=3 * beads)
    # the first step needs the forces at the start as well, where all beads lie in one place
    assert counts[0] == Counter(direct=beads * (n_inner - 1), joint=beads + 1)


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_one_kind_of_force_costs_one_evaluation_a_step(forces, tmp_path):
    settings = {"steps": 5, "timestep_fs": 2.0, "forces": forces, "n_inner": 1}
    path = prepared(tmp_path, two_argons(), argon(), **settings)
    assert run_input(path, potentials={"mine": two_argons()}).counts == {forces: 6}


def test_the_components_share_one_potential(tmp_path):
    path = prepared(tmp_path, two_argons(), argon(), steps=1)
    seen = []
    run_input(path, potentials={"mine": two_argons()}, prepare=lambda simulation: seen.append(simulation.fflist))
    assert seen[0]["conservative"].driver.shared is seen[0]["direct"].driver.shared


def asked(forces: IpiForces, component: str, atoms):
    """An answer in eV and Å."""
    cell = np.ascontiguousarray(atoms.cell.array.T) * units.IPI_ANGSTROM
    energy, force, virial, extras = forces.answer(component, cell, atoms.positions * units.IPI_ANGSTROM)
    back = units.IPI_ELECTRONVOLT
    return energy / back, force * units.IPI_ANGSTROM / back, virial / back, extras


def test_answers_do_not_depend_on_what_was_asked_before():
    """A wrong n_inner, components in any order, positions again: the count decides what it costs, never the answer."""
    potential, atoms = two_argons(), argon()
    frames = [atoms.copy() for _ in range(4)]
    for k, frame in enumerate(frames):
        frame.rattle(0.05, seed=k)
    forces = IpiForces(potential, atoms, n_inner=3)
    draw = np.random.default_rng(0)
    for _ in range(60):
        frame, component = frames[draw.integers(4)], ("conservative", "direct")[draw.integers(2)]
        structure = Structure.from_ase(frame)
        true = potential.evaluate(structure, neighbour_list(structure, potential.cutoff), potential.provides)
        _, force, _, _ = asked(forces, component, frame)
        np.testing.assert_allclose(force, getattr(true, f"{component}_force"), atol=1e-11)
    assert set(forces.counts) == {"direct", "joint"}


def test_the_direct_force_is_an_extra(tmp_path):
    atoms, potential = argon(), two_argons()
    forces = IpiForces(potential, atoms, extras=True)
    *_, extras = asked(forces, "conservative", atoms)
    structure = Structure.from_ase(atoms)
    true = potential.evaluate(structure, neighbour_list(structure, potential.cutoff), Wanted.DIRECT).direct_force
    scale = units.IPI_ELECTRONVOLT / units.IPI_ANGSTROM
    np.testing.assert_allclose(json.loads(extras)["direct_force"], true.ravel() * scale, atol=1e-14)
    path = prepared(tmp_path, potential, atoms, steps=2, direct_force_extra=True)
    run_input(path, potentials={"mine": potential})
    written = np.loadtxt((tmp_path / "simulation.direct_0").read_text().splitlines()[1:2])
    np.testing.assert_allclose(written, true.ravel() * scale, atol=1e-7)


def test_a_virial_that_is_not_there_is_no_number():
    atoms = argon()
    harmonic = Harmonic(atoms.positions, spring=1.0, curl=0.3)
    _, _, virial, _ = asked(IpiForces(harmonic, atoms), "conservative", atoms)
    assert np.isnan(virial).all()
    _, _, virial, _ = asked(IpiForces(harmonic, atoms, n_inner=2), "direct", atoms)
    assert (virial == 0).all()


KINDS = [
    {"ensemble": ensemble, "beads": beads, "forces": forces, "n_inner": n_inner, **more}
    for ensemble, more in [
        ("nve", {}),
        ("nvt", {"thermostat": "langevin"}),
        ("nvt", {"thermostat": "svr"}),
        ("nvt", {"thermostat": "gle", "gle_A": GLE}),
        ("nvt", {"thermostat": "gle", "gle_A": GLE, "gle_C": 100.0 * np.eye(2)}),
        ("npt", {}),
        ("npt", {"thermostat": "svr", "barostat": "flexible"}),
    ]
    for beads in (1, 3)
    for forces, n_inner in (("mts", 2), ("conservative", 1))
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(str(value) for value in kind.values())[:40])
def test_every_kind_of_input_runs(kind, tmp_path):
    """i-PI accepts it and takes the settings from it; the conserved quantity stays within what a start allows."""
    seen = []
    atoms = argon()
    path = prepared(tmp_path, two_argons(), atoms, steps=4, timestep_fs=4.0, temperature_K=100.0, **kind)
    outcome = run_input(path, potentials={"mine": two_argons()}, prepare=seen.append)
    assert outcome.steps == outcome.total == 4
    (system,) = seen[0].syslist
    assert system.motion.enstype == kind["ensemble"]
    assert system.beads.nbeads == kind["beads"]
    assert list(system.motion.nmts) == ([1, 2] if kind["forces"] == "mts" else [1])
    assert (tmp_path / "RESTART").exists()
    table = outputs(tmp_path)
    assert table[-1, 0] == 4
    np.testing.assert_allclose(table[-1, 1], 0.016, rtol=1e-7)  # ps
    # kT of one degree of freedom, 8.6 meV, of the 96 there are
    assert np.abs(table[:, 2] - table[0, 2]).max() < 8.6e-3


def test_settings_arrive_in_ipis_units(tmp_path):
    """Against the SI values of the atomic units (CODATA 2018): time 2.4188843266e-17 s, pressure 2.9421015697e13 Pa."""
    more = {"timestep_fs": 4.0, "temperature_K": 100.0, "pressure_GPa": 2.0, "barostat_tau_fs": 500.0}
    seen = []
    for folder, thermostat in (
        (tmp_path / "one", {"tau_fs": 70.0}),
        (tmp_path / "two", {"thermostat": "gle", "gle_A": GLE}),
    ):
        folder.mkdir()
        path = prepared(folder, two_argons(), argon(), steps=1, n_inner=2, ensemble="npt", **more, **thermostat)
        run_input(path, potentials={"mine": two_argons()}, prepare=seen.append)
    systems = [simulation.syslist[0] for simulation in seen]
    fs, pascal = 1e-15 / 2.4188843266e-17, 1 / 2.9421015697e13
    assert systems[0].motion.dt == pytest.approx(4.0 * fs, rel=1e-6)
    assert systems[0].motion.thermostat.tau == pytest.approx(70.0 * fs, rel=1e-6)
    assert systems[0].motion.barostat.tau == pytest.approx(500.0 * fs, rel=1e-6)
    assert systems[0].ensemble.pext == pytest.approx(2e9 * pascal, rel=1e-4)  # i-PI's own is off by 3e-5
    np.testing.assert_allclose(systems[1].motion.thermostat.A, GLE / (1000 * fs), rtol=1e-6)


def test_a_run_goes_on_from_restart(tmp_path):
    """17 digits stand in the file, so that only the thermostat's random numbers and round-off could differ."""
    atoms, potentials = argon(), {"mine": two_argons()}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        prepared(folder, two_argons(), atoms, steps=6, timestep_fs=4.0, n_inner=2, ensemble="nvt")
    run_input(whole / "input.xml", potentials=potentials)

    def stop_after_three(simulation):
        step = simulation.run_step

        def run_step(k):
            step(k)
            simulation.finished = k == 3  # i-PI leaves this step away

        simulation.run_step = run_step

    first = run_input(parts / "input.xml", potentials=potentials, prepare=stop_after_three)
    assert first.steps < first.total == 6
    second = run_input(parts / "RESTART", potentials=potentials)
    assert second.steps == 6
    np.testing.assert_allclose(outputs(parts)[-1], outputs(whole)[-1], rtol=1e-12)


def test_masses_and_open_boundaries_come_through(tmp_path):
    atoms = argon()[:4]
    atoms.pbc = False
    atoms.set_masses([36.0, 38.0, 40.0, 42.0])
    seen = []
    path = prepared(tmp_path, two_argons(), atoms, steps=2)
    run_input(path, potentials={"mine": two_argons()}, prepare=seen.append)
    from ipi.utils.units import unit_to_internal

    np.testing.assert_allclose(seen[0].syslist[0].beads.m / unit_to_internal("mass", "dalton", 1.0), atoms.get_masses())
    structure = Structure.from_ase(atoms)
    true = two_argons().evaluate(structure, neighbour_list(structure, 5.0), Wanted.ENERGY).energy
    np.testing.assert_allclose(outputs(tmp_path)[0, 5], float(true), rtol=1e-6)  # positions have 8 decimals in the file


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tau_fs": 0.0}, "tau_fs: got 0.0"),
        ({"barostat_tau_fs": -1.0}, "barostat_tau_fs: got -1.0"),
        ({"n_inner": 2.5}, "n_inner: got 2.5"),
        ({"beads": 0}, "beads: got 0"),
        ({"ensemble": "nvt", "thermostat": "gle"}, "needs its drift matrix"),
        ({"ensemble": "nvt", "thermostat": "gle", "gle_A": np.zeros((2, 2))}, "must damp"),
        ({"ensemble": "nvt", "thermostat": "gle", "gle_A": GLE, "gle_C": np.eye(3)}, "same shape"),
        ({"forces": "direct", "n_inner": 4}, "goes with forces 'mts' only"),
        ({"forces": "direct", "n_inner": 1, "ensemble": "npt"}, "no virial"),
        ({"port": 80}, "port: got 80"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        IpiInput(**settings)


def test_ratio_of_steps():
    assert inner_steps(4.0, 0.5) == 8
    assert inner_steps(0.3, 0.1) == 3
    with pytest.raises(UsageError, match=r"5\.71429 inner steps"):
        inner_steps(4.0, 0.7)


def test_constant_pressure_needs_a_virial_and_a_cell(tmp_path):
    atoms = argon()
    harmonic = Harmonic(atoms.positions, curl=0.3)
    with pytest.raises(UsageError, match="has no virial"):
        prepared(tmp_path, harmonic, atoms, ensemble="npt")
    slab = argon()
    slab.pbc = (True, True, False)
    with pytest.raises(UsageError, match="periodic in all three"):
        prepared(tmp_path, two_argons(), slab, ensemble="npt")
    # a hand-made input, too
    path = prepared(tmp_path, two_argons(), atoms, ensemble="npt", steps=1)
    with pytest.raises(UsageError, match="virial"):
        run_input(path, potentials={"mine": harmonic})


def test_inputs_that_ipi_refuses(tmp_path):
    path = prepared(tmp_path, two_argons(), argon(), steps=1)
    text = path.read_text()
    for old, new, words in [
        ("</simulation>", "", "input.xml is no XML"),
        ("'dynamics'", "'dinamics'", "i-PI refuses input.xml"),
        ("<nmts> [ 1, 8 ] </nmts>", "", "i-PI refuses input.xml .*mts levels"),
        ("n_inner:8", "n_inner:many", "give a whole number"),
        ("n_beads:1", "n_pearls:1", "unknown n_pearls"),
        ("structure:input.xyz", "structure:other.xyz", "structure: no file other.xyz"),
    ]:
        path.write_text(text.replace(old, new))
        with pytest.raises(UsageError, match=words):
            run_input(path, potentials={"mine": two_argons()})
    with pytest.raises(UsageError, match="no file"):
        run_input(tmp_path / "nothing.xml")


class Breaking(TwoPotentials):
    """Gives forces that are no numbers from some evaluation on."""

    left = 6

    def evaluate(self, structure, neighbours, wanted):
        self.left -= 1
        answer = super().evaluate(structure, neighbours, wanted)
        return (
            answer if self.left > 0 else replace(answer, direct_force=torch.full_like(answer.direct_force, torch.nan))
        )


def test_a_run_that_fails_keeps_its_state(tmp_path):
    """With one evaluation at the start and two in each step, the third step fails; the second's end is kept."""
    path = prepared(tmp_path, two_argons(), argon(), steps=5, n_inner=2, timestep_fs=4.0)
    breaking = Breaking(LennardJones(cutoff=4.5), LennardJones(cutoff=5.0))
    with pytest.raises(RunError, match=r"not finite.*; i-PI stopped in step 3, the state before it is in RESTART"):
        run_input(path, potentials={"mine": breaking})
    assert run_input(tmp_path / "RESTART", potentials={"mine": two_argons()}).steps == 5
    assert list(outputs(tmp_path)[:, 0]) == [0, 1, 2, 3, 4, 5]


def test_another_structure_is_refused():
    forces = IpiForces(LennardJones(cutoff=5.0), argon())
    with pytest.raises(UsageError, match="i-PI sends 4 atoms"):
        asked(forces, "conservative", argon()[:4])
    with pytest.raises(UsageError, match="forces: got 'fast'"):
        asked(forces, "fast", argon())


def test_parameters_survive_ipi():
    """Commas, colons, percent signs in a potential's name; i-PI's dictionaries know neither quotes nor escapes."""
    from ipi.utils.io.inputs.io_xml import read_dict

    settings = DriverSettings("ase:a.b:C?x=1,2&y={3%}", "my file.xyz", n_inner=4, n_beads=2, dtype="float64")
    text = ", ".join(f"{key}:{value}" for key, value in settings.as_parameters().items())
    assert DriverSettings.from_parameters(read_dict("{" + text + "}")) == settings


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argon().write("argon.xyz")
    what = ["--structure", "argon.xyz", "--potential", "lennard_jones"]
    how = ["--steps", "3", "--stride", "1", "--ensemble", "nvt", "--beads", "2"]
    assert main(["ipi", "input", *what, *how]) == 0
    assert main(["ipi", "run", "input.xml"]) == 0
    assert "3 of 3 steps; evaluations: 7 conservative" in capsys.readouterr().out
    assert main(["ipi", "input", *what[:2], "--potential", "harmonic", "--ensemble", "npt"]) == 2
    assert main(["ipi", "input", "--timestep-fs", "4", "--inner-timestep-fs", "0.7"]) == 2
    assert main(["ipi", "run", "RESTART"]) == 2  # it is finished
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "already run" in errors[2]
