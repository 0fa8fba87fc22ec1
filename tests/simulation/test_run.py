"""Whole runs: frames, log, exact continuation after a cut or a kill, guards, and files for other programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import ase
import ase.io
import mdtraj
import numpy as np
import pytest
from ase.build import bulk

from mlcalc import units
from mlcalc.errors import RunError, UsageError
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.gle import GLE
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.integrators.sin_r import SINR
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.simulation.formats import check_ending, export
from mlcalc.simulation.guard import EnergyGuard
from mlcalc.simulation.log import Line, LogWriter, read_log
from mlcalc.simulation.plot import plot_log
from mlcalc.simulation.run import SimulationSettings, simulate
from mlcalc.trajectory import read_trajectory


def argon() -> ase.Atoms:
    return bulk("Ar", cubic=True, a=5.4) * (2, 2, 2)


def two_potentials() -> TwoPotentials:
    """A slightly softer fast force: multiple time stepping with something to correct."""
    return TwoPotentials(LennardJones(epsilon=0.0100, cutoff=5.0), LennardJones(cutoff=5.0))


SETTINGS = SimulationSettings(steps=24, timestep_fs=8.0, n_inner=4, stride=2, temperature_K=60.0, seed=3)


ENSEMBLES = {
    "nve": "nve",
    "langevin": "langevin",
    "bussi": Ensemble(Bussi(60.0, 0.1, seed=3)),
    "nose-hoover": Ensemble(NoseHoover(60.0, 0.1)),
    "gle": Ensemble(GLE(60.0, ((5.0, 2.0), (-2.0, 4.0)), seed=3)),
    "sin-r": Ensemble(SINR(60.0, seed=3)),
    "npt": Ensemble(NoseHoover(60.0, 0.1), Barostat(0.01, 0.5)),
    "npt, full": Ensemble(GLE(60.0, ((5.0, 2.0), (-2.0, 4.0))), Barostat(0.01, 0.5, "full")),
}


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize(("cut", "ahead"), [(0, 3), (1, None), (5, -2), (9, 3)])
def test_a_run_that_was_cut_goes_on_to_the_same_bits(
    tmp_path: Path, ensemble: str, cut: int, ahead: int | None
) -> None:
    settings = replace(SETTINGS, ensemble=ENSEMBLES[ensemble])
    simulate(two_potentials(), argon(), settings, tmp_path / "whole.trajectory")
    whole = (tmp_path / "whole.trajectory").read_bytes()
    head = whole.index(b"\n") + 1
    size = (len(whole) - head) // 13
    (tmp_path / "cut.trajectory").write_bytes(whole[: head + cut * size + size // 3])
    log = (tmp_path / "whole.log").read_text()
    if ahead is not None:  # of the frames by as many lines; torn in a line
        (tmp_path / "cut.log").write_text(log[: len(log) * (cut + ahead) // 13])
    simulate(two_potentials(), argon(), settings, tmp_path / "cut.trajectory", restart=True)
    assert (tmp_path / "cut.trajectory").read_bytes() == whole
    assert (tmp_path / "cut.log").read_text() == log


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """A separate process is killed with SIGKILL at some moment; the restarted run ends as one that was never killed."""
    structure = tmp_path / "argon.xyz"
    ase.io.write(structure, argon())
    command = [sys.executable, "-m", "mlcalc", "run", "--potential", "lennard_jones", "--structure", str(structure)]
    command += ["--forces", "conservative", "--timestep-fs", "4", "--steps", "300", "--temperature-K", "60"]
    command += ["--ensemble", "langevin", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(name: str, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, "--output", str(tmp_path / name), *more], env=environment)

    path = tmp_path / "killed.trajectory"
    child = run("killed.trajectory")
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size > 30_000):
        assert child.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert read_trajectory(path).n_frames < 301
    assert run("killed.trajectory", "--restart").wait() == 0
    assert run("whole.trajectory").wait() == 0
    assert path.read_bytes() == (tmp_path / "whole.trajectory").read_bytes()


def test_a_run_can_be_made_longer_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.trajectory"
    simulate(two_potentials(), argon(), SETTINGS, path)
    simulate(two_potentials(), argon(), replace(SETTINGS, steps=30), path, restart=True)
    assert read_trajectory(path).n_frames == 16
    with pytest.raises(UsageError, match=r"temperature_K 60\.0, now it is 70\.0"):
        simulate(two_potentials(), argon(), replace(SETTINGS, temperature_K=70.0), path, restart=True)
    heavier = argon()
    heavier.set_masses(2 * heavier.get_masses())
    with pytest.raises(UsageError, match="other masses"):
        simulate(two_potentials(), heavier, SETTINGS, path, restart=True)
    with pytest.raises(UsageError, match="other atoms"):
        simulate(two_potentials(), argon()[:-1], SETTINGS, path, restart=True)
    other = TwoPotentials(LennardJones(epsilon=0.0101, cutoff=5.0), LennardJones(cutoff=5.0))
    with pytest.raises(UsageError, match="made with fingerprint"):
        simulate(other, argon(), SETTINGS, path, restart=True)
    with pytest.raises(UsageError, match="exists"):
        simulate(two_potentials(), argon(), SETTINGS, path)


def test_a_run_is_not_continued_in_another_ensemble(tmp_path: Path) -> None:
    path = tmp_path / "a.trajectory"
    simulate(two_potentials(), argon(), replace(SETTINGS, ensemble=ENSEMBLES["npt"]), path)
    for other in ("nve", "bussi", "nose-hoover", "npt, full"):
        with pytest.raises(UsageError, match=r"restart: .* was made with"):
            simulate(two_potentials(), argon(), replace(SETTINGS, ensemble=ENSEMBLES[other]), path, restart=True)


def test_a_cell_that_moves_is_exported_frame_by_frame(tmp_path: Path) -> None:
    simulate(two_potentials(), argon(), replace(SETTINGS, ensemble=ENSEMBLES["npt, full"]), tmp_path / "a.trajectory")
    record = read_trajectory(tmp_path / "a.trajectory")
    assert record.cells is not None and np.abs(record.cells[-1] - record.cell).max() > 0.01
    for ending in (".xyz", ".traj", ".h5"):
        export(record, tmp_path / f"a{ending}")
    for ending in (".xyz", ".traj"):
        np.testing.assert_allclose(ase.io.read(tmp_path / f"a{ending}", -1).cell, record.cells[-1], atol=1e-7)
    lengths = np.linalg.norm(record.cells, axis=2) / 10
    np.testing.assert_allclose(mdtraj.load(tmp_path / "a.h5").unitcell_lengths, lengths, rtol=1e-6)


def heating() -> tuple[Harmonic, ase.Atoms, SimulationSettings]:
    """Wells whose direct force has a curl: used alone it heats without end."""
    wells = ase.Atoms("Ar8", positions=np.random.default_rng(0).normal(0, 0.2, (8, 3)))
    settings = SimulationSettings(
        steps=4000, forces="direct", timestep_fs=2.0, n_inner=1, temperature_K=100.0, max_energy_change_meV=5.0
    )
    return Harmonic(spring=2.0, asymmetry=0.3), wells, settings


def test_a_run_that_heats_is_stopped_with_its_frames(tmp_path: Path) -> None:
    potential, wells, settings = heating()
    with pytest.raises(RunError, match=r"moved by .* meV/atom, more than 5.*conservative forces"):
        simulate(potential, wells, settings, tmp_path / "a.trajectory")
    conserved = read_trajectory(tmp_path / "a.trajectory").conserved
    moved = 1000 * np.abs(conserved - conserved[0]) / 8
    assert moved[-1] > 5 and (moved[:-1] <= 5).all()
    went_on = simulate(potential, wells, replace(settings, steps=len(conserved) + 9, on_drift="continue"),
                       tmp_path / "b.trajectory")  # fmt: skip
    assert went_on.n_frames == len(conserved) + 10


def respa_trace(slow: float, fast: float, mass: float, inner_fs: float, n_inner: int) -> float:
    """Trace of the propagator of one outer step in two springs (eV/Å²); stable where its modulus is below 2."""
    inner = units.from_femtoseconds(inner_fs)

    def kick(spring: float, time: float) -> np.ndarray:
        return np.array([[1, 0], [-spring * time, 1]])

    drift = np.array([[1, inner / mass], [0, 1]])
    inside = kick(fast, inner / 2) @ drift @ kick(fast, inner / 2)
    half = kick(slow, n_inner * inner / 2)
    return float(np.trace(half @ np.linalg.matrix_power(inside, n_inner) @ half))


def test_inner_steps_are_halved_until_energy_stays(tmp_path: Path) -> None:
    """Two springs whose outer step is unstable with eight inner steps and stable with one, as the trace says."""
    wells = ase.Atoms("Ar8", positions=np.random.default_rng(0).normal(0, 0.2, (8, 3)))
    potential = TwoPotentials(Harmonic(spring=1.0), Harmonic(spring=2.0))
    settings = SimulationSettings(
        steps=60, timestep_fs=144.0, n_inner=8, temperature_K=100.0, max_energy_change_meV=20.0, on_drift="reduce"
    )
    assert abs(respa_trace(1.0, 1.0, 39.95, 18.0, 8)) > 2 > abs(respa_trace(1.0, 1.0, 39.95, 18.0, 1))
    outcome = simulate(potential, wells, settings, tmp_path / "a.trajectory")
    assert outcome.time_ps == pytest.approx(60 * 0.144)
    lines = read_log(tmp_path / "a.log")
    used = sorted({line.n_inner for line in lines}, reverse=True)
    assert used[0] == 8 and used[-1] in (1, 2, 4)
    assert len(outcome.remarks) == len(used) - 1
    assert f"n_inner is {used[1]} from here on" in outcome.remarks[0]
    np.testing.assert_allclose(np.diff([line.time_ps for line in lines]), 0.144)  # frames keep their distance
    simulate(potential, wells, settings, tmp_path / "a.trajectory", restart=True)  # nothing is left to do
    assert read_log(tmp_path / "a.log") == lines


def test_an_explosion_between_frames_is_survived_with_fewer_inner_steps(tmp_path: Path) -> None:
    """The same springs, which fly apart before the second frame is written."""
    wells = ase.Atoms("Ar8", positions=np.random.default_rng(0).normal(0, 0.2, (8, 3)))
    potential = TwoPotentials(Harmonic(spring=1.0), Harmonic(spring=2.0))
    settings = SimulationSettings(
        steps=200, timestep_fs=144.0, n_inner=8, stride=20, temperature_K=100.0, max_energy_change_meV=50.0,
        on_drift="reduce",
    )  # fmt: skip
    outcome = simulate(potential, wells, settings, tmp_path / "a.trajectory")
    assert outcome.time_ps == pytest.approx(200 * 0.144)
    assert "exploded" in outcome.remarks[0] and "gone back to 0 ps" in outcome.remarks[0]
    record = read_trajectory(tmp_path / "a.trajectory")
    np.testing.assert_allclose(np.diff(record.time_ps), 20 * 0.144)
    assert np.isfinite(record.conserved).all()
    with pytest.raises(RunError, match="exploded"):
        simulate(potential, wells, replace(settings, on_drift="continue"), tmp_path / "b.trajectory")


def test_the_guard_looks_back_as_far_as_the_bath_remembers() -> None:
    """1 meV/atom/ps for 20 ps: 20 in all, 2 in a window of 2 ps."""
    whole, window = EnergyGuard(4), EnergyGuard(4, window_ps=2.0)
    times = np.arange(0, 20.001, 0.5)
    assert [whole.moved(t, 0.004 * t) for t in times][-1] == pytest.approx(20)
    assert max(window.moved(t, 0.004 * t) for t in times) == pytest.approx(2)


def test_settings_are_checked() -> None:
    for wrong, word in (
        ({"ensemble": "npt"}, "ensemble: got 'npt'; choose one of nve, langevin"),
        ({"on_drift": "panic"}, "on_drift: got 'panic'"),
        ({"stride": 25}, "stride: got 25 of 24 steps"),
        ({"max_energy_change_meV": 0.0}, "max_energy_change_meV: got 0.0"),
    ):
        with pytest.raises(UsageError, match=word):
            replace(SETTINGS, **wrong)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "a.trajectory"
    simulate(two_potentials(), argon(), SETTINGS, path)
    return path


@pytest.mark.parametrize("ending", [".xyz", ".extxyz", ".traj"])
def test_ase_reads_what_is_exported(recorded: Path, tmp_path: Path, ending: str) -> None:
    record = read_trajectory(recorded)
    export(record, tmp_path / f"a{ending}")
    frames = ase.io.read(tmp_path / f"a{ending}", ":")
    assert len(frames) == record.n_frames
    np.testing.assert_allclose(frames[-1].positions, record.positions[-1], atol=1e-7)
    np.testing.assert_allclose(frames[-1].get_momenta(), record.momenta[-1], atol=1e-7)
    np.testing.assert_allclose(frames[-1].cell, record.cell)
    assert frames[-1].info["time_ps"] == pytest.approx(record.time_ps[-1])


@pytest.mark.parametrize(("ending", "precision"), [(".h5", 1e-5), (".xtc", 1e-2)])
def test_mdtraj_reads_what_is_exported(recorded: Path, tmp_path: Path, ending: str, precision: float) -> None:
    """Å; XTC rounds to 0.001 nm."""
    record = read_trajectory(recorded)
    export(record, tmp_path / f"a{ending}")
    topology = {}
    if ending == ".xtc":
        export(record, tmp_path / "topology.h5")
        topology["top"] = mdtraj.load(tmp_path / "topology.h5").topology
    read = mdtraj.load(tmp_path / f"a{ending}", **topology)
    np.testing.assert_allclose(10 * read.xyz, record.positions, atol=precision)
    np.testing.assert_allclose(read.time, record.time_ps, rtol=1e-5)
    np.testing.assert_allclose(10 * read.unitcell_lengths[0], [10.8] * 3, rtol=1e-5)


def test_unknown_endings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"output: got run\.dcd; let the name end in \.trajectory, \.xyz"):
        check_ending("run.dcd")


def test_a_trajectory_is_not_converted_into_itself(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="copy the file"):
        export(read_trajectory(recorded), tmp_path / "b.trajectory")


def test_a_log_plots_itself(recorded: Path, tmp_path: Path) -> None:
    lines = read_log(recorded.with_suffix(".log"))
    assert len(lines) == 13
    plot_log(lines, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="1 whole lines"):
        plot_log(lines[:1], tmp_path / "b.png")


def test_foreign_logs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        read_log(tmp_path / "none.log")
    (tmp_path / "other.log").write_text("Step Temp\n1 300\n")
    with pytest.raises(UsageError, match="not a log"):
        read_log(tmp_path / "other.log")
    with LogWriter(tmp_path / "own.log", [Line(0.0, 8, 300.0, -1.0, 0.5, -0.5)]):
        pass
    assert read_log(tmp_path / "own.log") == [Line(0.0, 8, 300.0, -1.0, 0.5, -0.5)]
    with (tmp_path / "own.log").open("a") as file:
        file.write("0.1,8,three\n")
    with pytest.raises(UsageError, match="not 7 numbers"):
        read_log(tmp_path / "own.log")
