"""The command line: what it writes, how it ends, and one line for every mistake."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from small_waters import few_waters, gentle_network

from mlcalc import cli
from mlcalc.audit.result import read_result
from mlcalc.potentials.checkpoint import load_checkpoint, save_checkpoint
from mlcalc.potentials.compiled import CompiledPotential
from mlcalc.trajectory import read_trajectory


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a small checkpoint and a structure of eight water molecules."""
    folder = tmp_path_factory.mktemp("cli")
    save_checkpoint(folder / "small.safetensors", gentle_network(), {"data": "none: random weights"})
    ase.io.write(folder / "box.xyz", few_waters())
    return folder


def inputs(here):
    return ["--potential", str(here / "small.safetensors"), "--structure", str(here / "box.xyz")]


def quick_audit(here, folder, *more):
    return cli.main(["audit", *inputs(here), "--quick", "--output", str(folder), *more])


def fails(capsys, arguments, status=2):
    """Run, and return the one line on stderr."""
    try:
        got = cli.main(arguments)
    except SystemExit as end:  # argparse ends so
        got = end.code
    error = capsys.readouterr().err
    assert got == status, error
    lines = [line for line in error.splitlines() if "error" in line or "Traceback" in line]
    assert len(lines) == 1, error
    assert lines[0].startswith("mlcalc: error: ")
    assert "Traceback" not in error
    return lines[0]


@pytest.fixture(scope="module")
def audited(here, tmp_path_factory):
    """(folder, stdout, stderr) of one quick audit."""
    folder = tmp_path_factory.mktemp("audited")
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        assert quick_audit(here, folder / "out") == 0
    return folder / "out", out.getvalue(), error.getvalue()


def test_audit_writes_both_files_and_a_table_of_80_columns(audited):
    folder, out, error = audited
    table, _, paths = out.rpartition("\nreport")
    assert max(map(len, table.splitlines())) <= 80
    assert "molecular dynamics" in table
    assert str(folder) in paths
    result = read_result(folder / "result.json")
    assert result.subject.structure == "box.xyz"
    assert "<svg" in (folder / "report.html").read_text()
    # no terminal: a line for each stage, no bars
    assert "equilibration: done in" in error
    assert "\r" not in error


@pytest.fixture()
def no_computing(audited, monkeypatch):
    """`audit` returns what it found before, with a status of one's choice."""
    found = read_result(audited[0] / "result.json")

    def use(status):
        result = replace(found, overall=replace(found.overall, status=status))
        monkeypatch.setattr("mlcalc.audit.run.audit", lambda *_, **__: result)

    return use


@pytest.mark.parametrize(
    ("status", "fail_on", "expected"),
    [
        ("unsafe", "unsafe", 3),
        ("unsafe", "warning", 3),
        ("unsafe", "never", 0),
        ("with care", "unsafe", 0),
        ("with care", "warning", 3),
        ("too short to tell", "warning", 3),
        ("too short to tell", "unsafe", 0),
        ("safe", "warning", 0),
    ],
)
def test_fail_on(here, tmp_path, no_computing, status, fail_on, expected):
    no_computing(status)
    paths = ["--json", str(tmp_path / "a.json"), "--report", str(tmp_path / "b.html")]
    assert quick_audit(here, tmp_path, *paths, "--fail-on", fail_on) == expected
    assert read_result(tmp_path / "a.json").overall.status == status
    assert (tmp_path / "b.html").exists()
    assert not (tmp_path / "result.json").exists()


def test_run_writes_a_trajectory(here, tmp_path, capsys):
    path = tmp_path / "a.trajectory"
    arguments = [*inputs(here), "--steps", "6", "--stride", "2", "--n-inner", "4", "--output", str(path)]
    assert cli.main(["run", *arguments]) == 0
    record = read_trajectory(path)
    assert record.time_ps == pytest.approx([0, 0.004, 0.008, 0.012])
    assert record.provenance["n_inner"] == 4
    assert "4 frames" in capsys.readouterr().out
    assert "exists" in fails(capsys, ["run", *arguments])


def test_run_takes_an_ensemble(tmp_path, capsys):
    crystal = bulk("Ar", cubic=True, a=5.4)
    crystal.rattle(0.05, seed=0)
    ase.io.write(tmp_path / "argon.xyz", crystal)
    where = ["run", "--potential", "lennard_jones", "--structure", str(tmp_path / "argon.xyz"), "--steps", "4"]
    path = ["--output", str(tmp_path / "a.trajectory")]
    npt = ["--ensemble", "npt", "--thermostat", "nose-hoover", "--barostat", "full", "--pressure-GPa", "0.01"]
    assert cli.main([*where, *npt, "--temperature-K", "60", *path]) == 0
    record = read_trajectory(tmp_path / "a.trajectory")
    assert record.provenance["barostat"] == {"pressure_GPa": 0.01, "time_ps": 1.0, "shape": "full", "seed": 0}
    assert record.provenance["thermostat"]["length"] == 3
    assert record.cells.shape == (5, 3, 3)
    for wrong, words in (
        (["--ensemble", "nvt", "--pressure-GPa", "1"], "pressure-GPa: got 1.0 with ensemble nvt"),
        (["--ensemble", "nvt", "--thermostat", "bussi", "--thermostat-time-ps", "0"], "--thermostat-time-ps: got 0"),
        (["--ensemble", "langevin", "--friction-per-ps", "0"], "--friction-per-ps: got 0"),
        (["--ensemble", "npt", "--temperature-K", "0"], "--temperature-K: got 0"),
        ([*npt, "--potential", "harmonic"], "no virial (stress)"),
        ([*npt, "--forces", "direct"], "direct forces have no virial"),
    ):
        assert words in fails(capsys, [*where, *wrong, "--output", str(tmp_path / "b.trajectory")])


def test_run_with_heavy_hydrogen_and_long_outer_steps(here, tmp_path, capsys):
    where = ["run", *inputs(here), "--steps", "2", "--n-inner", "4", "--hydrogen-mass", "3"]
    path = tmp_path / "a.trajectory"
    bath = ["--ensemble", "nvt", "--thermostat", "sin-r", "--regulation", "2"]
    assert cli.main([*where, *bath, "--output", str(path)]) == 0
    assert "note: SIN(R): positions are those of 300 K" in capsys.readouterr().out
    record = read_trajectory(path)
    assert set(record.masses[record.numbers == 1]) == {3.0}
    assert record.provenance["thermostat"]["regulation"] == 2.0
    friction = ["--ensemble", "langevin", "--hydrogen-friction-per-ps", "20"]
    assert cli.main([*where, *friction, "--output", str(tmp_path / "b.trajectory")]) == 0
    assert read_trajectory(tmp_path / "b.trajectory").provenance["thermostat"]["hydrogen_friction_per_ps"] == 20.0
    unchanged = [*where[:-1], "1.008", *bath, "--output", str(path), "--restart"]
    assert "other masses" in fails(capsys, unchanged)


def test_run_takes_the_forces_that_there_are(tmp_path, capsys):
    ase.io.write(tmp_path / "copper.xyz", bulk("Cu", cubic=True))
    where = ["--potential", "ase:ase.calculators.emt:EMT", "--structure", str(tmp_path / "copper.xyz")]
    path = tmp_path / "a.trajectory"
    assert cli.main(["run", *where, "--steps", "2", "--output", str(path)]) == 0
    assert read_trajectory(path).provenance["forces"] == "conservative"
    line = fails(capsys, ["run", *where, "--steps", "2", "--n-inner", "4", "--output", str(tmp_path / "b.trajectory")])
    assert "it goes with --forces mts only" in line
    assert not (tmp_path / "b.trajectory").exists()


def test_run_compiles_what_it_needs(here, tmp_path, capsys, monkeypatch):
    """Which kinds of evaluation; compiling itself is tested in test_compiled.py. Others' potentials are left alone."""
    asked = []

    def load_cached(name, kinds, *, dtype, progress, **_):
        asked.append((Path(name).name, kinds))
        progress(kinds[0], 0, len(kinds))
        return CompiledPotential(load_checkpoint(name).to(dtype), {})

    monkeypatch.setattr("mlcalc.potentials.package_cache.load_cached", load_cached)
    foreign = "ase:ase.calculators.lj:LennardJones?epsilon=1e-4&sigma=1.0&rc=3.0"
    where = ["run", "--compile", "--structure", str(here / "box.xyz"), "--steps", "1", "--n-inner", "1"]
    own, kinds = str(here / "small.safetensors"), []
    for k, more in enumerate(([], ["--forces", "direct"], ["--fast", foreign], ["--fast", own])):
        assert cli.main([*where, "--slow", own, *more, "--output", str(tmp_path / f"{k}.trajectory")]) == 0
        kinds.append([kind for _, kind in asked])
        asked.clear()
    both, direct, conservative = ("direct", "joint"), ("direct",), ("conservative",)
    assert kinds == [[both], [direct], [conservative], [direct, conservative]]
    assert "leave it out" in fails(capsys, [*where, "--potential", foreign])
    assert "cuda-graphs: they are for GPUs" in fails(capsys, [*where, "--potential", own, "--cuda-graphs"])


def test_run_with_two_potentials(here, tmp_path, capsys):
    """An ASE calculator inside, the network outside; the trajectory says which they were."""
    path = tmp_path / "two.trajectory"
    fast = "ase:ase.calculators.lj:LennardJones?epsilon=1e-4&sigma=1.0&rc=3.0"
    where = ["--slow", str(here / "small.safetensors"), "--fast", fast, "--structure", str(here / "box.xyz")]
    assert cli.main(["run", *where, "--steps", "4", "--n-inner", "2", "--output", str(path)]) == 0
    record = read_trajectory(path)
    assert record.provenance["potential"].startswith(fast + " inside ")
    assert np.isfinite(record.conserved).all() and len(record.conserved) == 5
    assert "no such" in fails(capsys, ["run", *where[:2], "--fast", "no such.safetensors", "--steps", "1"])


def test_audit_of_an_ase_calculator(tmp_path, capsys):
    ase.io.write(tmp_path / "copper.xyz", bulk("Cu", cubic=True))
    where = ["--potential", "ase:ase.calculators.emt:EMT", "--structure", str(tmp_path / "copper.xyz")]
    assert cli.main(["audit", *where, "--quick", "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.partition("\nreport")[0].splitlines())) <= 80
    assert read_result(tmp_path / "out" / "result.json").asymmetry.conservative.note.startswith("8 directions")


def test_card(here, capsys):
    assert cli.main(["card", str(here / "small.safetensors")]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "none: random weights"


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert "torch" in capsys.readouterr().out
    assert cli.main([]) == 2
    for command in ("audit", "run", "train", "card"):
        with pytest.raises(SystemExit) as end:
            cli.main([command, "--help"])
        assert end.value.code == 0
        assert "exit status" in capsys.readouterr().out


def broken(name):
    """Structures that cannot be audited."""
    water = ase.Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=[8, 8, 8], pbc=True)
    if name == "unknown element":
        water.symbols[0] = "S"
    elif name == "not a number":
        water.positions[1, 2] = np.nan
    elif name == "overlap":
        water.positions[2] = water.positions[1] + 0.01
    elif name == "flat cell":
        water.cell[2] = water.cell[1]
    elif name == "empty":
        water = ase.Atoms(cell=[8, 8, 8], pbc=True)
    return water


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown element", "knows only H, O"),
        ("not a number", "atom 1 .* must be finite"),
        ("overlap", "atoms 1 and 2 are"),
        ("flat cell", "no volume"),
        ("empty", "no atoms"),
    ],
)
@pytest.mark.parametrize("command", ["audit", "run"])
def test_broken_structures(here, tmp_path, capsys, command, name, words):
    path = tmp_path / "broken.xyz"
    ase.io.write(path, broken(name), format="extxyz")
    more = ["--quick"] if command == "audit" else ["--steps", "2"]
    potential = str(here / "small.safetensors")
    output = ["--output", str(tmp_path / ("out" if command == "audit" else "out.trajectory"))]
    line = fails(capsys, [command, "--potential", potential, "--structure", str(path), *more, *output])
    assert re.search(words, line), line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--structure", "no-such.xyz"], "no file no-such.xyz"),
        (["--potential", "no-such.safetensors"], "no file no-such.safetensors"),
        (["--potential", "no-such-name"], "no-such-name"),
        (["--temperature-K", "1e9"], "temperature-K"),
        (["--temperature-K", "-5"], "temperature-K"),
        (["--temperature-K", "warm"], "got warm"),
        (["--temperature-K", "nan"], "temperature-K"),
        (["--inner-timestep-fs", "0"], "inner-timestep-fs"),
        (["--inner-timestep-fs=-0.5"], "inner-timestep-fs"),
        (["--n-inner", "0"], "n-inner"),
        (["--n-inner", "2.5"], "whole number"),
        (["--duration-ps", "0"], "duration-ps"),
        (["--duration-ps", "0.001"], "outer steps"),
        (["--device", "abacus"], "device"),
        (["--fail-on", "often"], "fail-on"),
        (["--no-such-option"], "no-such-option"),
    ],
)
def test_bad_arguments(here, tmp_path, capsys, arguments, words):
    line = fails(capsys, ["audit", *inputs(here), "--quick", "--output", str(tmp_path), *arguments])
    assert words in line


def test_unreadable_structure(here, tmp_path, capsys):
    path = tmp_path / "noise.xyz"
    path.write_text("this is no structure\n")
    assert "cannot read" in fails(capsys, ["audit", *inputs(here), "--structure", str(path), "--quick"])


def test_unwritable_output_is_seen_before_any_computing(here, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = fails(capsys, ["audit", *inputs(here), "--quick", "--output", str(tmp_path / "file" / "folder")])
    assert "cannot write" in line


@pytest.mark.parametrize(
    "command", [["run", "--steps", "1"], ["ipi", "input"], ["lammps", "input"], ["export", "water"]], ids=" ".join
)
def test_no_folder_is_made_for_a_mistyped_path(tmp_path, capsys, command):
    """Folders are made where the argument names a folder (audit, train), nowhere else."""
    path = str(tmp_path / "mistyped" / "file.trajectory")
    line = fails(capsys, [*command, path] if command[0] == "export" else [*command, "--output", path])
    assert f"output: cannot write {path}" in line and "there is no folder" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_disk(here, capsys, no_computing):
    no_computing("safe")
    arguments = ["audit", *inputs(here), "--quick", "--json", "/dev/full", "--report", "/dev/null"]
    assert "space" in fails(capsys, arguments, status=1)


def test_a_run_that_explodes(here, tmp_path, capsys):
    path = tmp_path / "a.trajectory"
    network_too_strong = ["--timestep-fs", "20", "--n-inner", "1", "--temperature-K", "20000", "--steps", "200"]
    line = fails(capsys, ["run", *inputs(here), *network_too_strong, "--output", str(path)], status=1)
    assert "exploded" in line
    assert read_trajectory(path).n_frames >= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--forces", "direct", "--n-inner", "4"], "n-inner"),
        (["--timestep-fs", "0"], "timestep-fs"),
        (["--timestep-fs", "-1"], "timestep-fs"),
        (["--stride", "100"], "stride"),
        (["--steps", "0"], "steps"),
    ],
)
def test_bad_arguments_of_run(here, tmp_path, capsys, arguments, words):
    output = ["--output", str(tmp_path / "x.trajectory")]
    assert words in fails(capsys, ["run", *inputs(here), "--steps", "2", *output, *arguments])


def test_train_from_a_file_to_a_checkpoint_that_runs(here, tmp_path, capsys):
    """The whole command: six labelled frames in, a checkpoint with a card out, and `mlcalc run` takes it."""
    draw, frames = np.random.default_rng(0), []
    for _ in range(6):
        frame = ase.io.read(here / "box.xyz")
        frame.rattle(0.03, rng=draw)
        frame.calc = SinglePointCalculator(frame, energy=draw.normal(), forces=draw.normal(0, 0.1, (len(frame), 3)))
        frames.append(frame)
    ase.io.write(tmp_path / "frames.xyz", frames)
    steps = [f"--steps-{stage}=2" for stage in ("direct", "conservative", "joint", "align")]
    few = [*steps, "--own-frames=2", "--validation-frames=2", "--cutoff=3", "--density-cutoff=2"]
    arguments = ["train", "--data", str(tmp_path / "frames.xyz"), "--units", "eV,Angstrom", *few]
    assert cli.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert str(tmp_path / "out" / "potential.safetensors") in out
    assert "conservative force" in out and "from scratch" in out
    assert cli.main(["card", str(tmp_path / "out" / "potential.safetensors")]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["data"]["training_frames"] == 4
    assert card["own_dynamics"]["frames"] == 1
    made = ["--potential", str(tmp_path / "out" / "potential.safetensors"), "--structure", str(here / "box.xyz")]
    assert cli.main(["run", *made, "--steps", "1", "--output", str(tmp_path / "x.trajectory")]) == 0


def test_train_states_units(here, tmp_path, capsys):
    arguments = ["train", "--data", str(here / "box.xyz"), "--output", str(tmp_path)]
    assert "--units" in fails(capsys, arguments)
    assert "furlong" in fails(capsys, [*arguments, "--units", "furlong"])
    assert "no key 'forces'" in fails(capsys, [*arguments, "--units", "eV,Angstrom"])


def test_traceback_is_shown_on_request(here, capsys):
    assert cli.main(["card", "no-such-file", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_is_quiet(monkeypatch, here, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlcalc.audit.run.audit", interrupted)
    assert cli.main(["audit", *inputs(here), "--quick", "--output", str(here)]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_does_not_wait_for_what_commands_need():
    code = "import sys; from mlcalc.cli import parser; parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "ase", "numpy", "rich"} & set(done.stdout.split())


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "mlcalc", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mlcalc ")
