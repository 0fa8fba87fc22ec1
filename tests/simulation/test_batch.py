"""Runs of many systems: files as of single runs, continuation after a kill, systems that end early."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk

from mlcalc import cli
from mlcalc.errors import UsageError
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.simulation.batch import paths_of, simulate_batch
from mlcalc.simulation.log import read_log
from mlcalc.simulation.run import SimulationSettings, simulate
from mlcalc.trajectory import Trajectory, TrajectoryWriter, read_trajectory

BOTH = TwoPotentials(LennardJones(epsilon=0.0100, cutoff=5.0), LennardJones(cutoff=5.0))
SETTINGS = SimulationSettings(steps=12, timestep_fs=8.0, n_inner=4, stride=2, temperature_K=60.0, seed=3)
SYSTEMS = [bulk("Ar", cubic=True, a=5.4).repeat(size) for size in ((1, 1, 1), (2, 1, 1), (1, 1, 1))]
ENSEMBLES = {
    "nve": "nve",
    "langevin": "langevin",
    "bussi": Ensemble(Bussi(60.0, 0.1, seed=3)),
    "nose-hoover": Ensemble(NoseHoover(60.0, 0.1)),
}


def everything(record: Trajectory) -> list[np.ndarray]:
    names = ("time_ps", "positions", "momenta", "potential_energy", "kinetic_energy", "heat", "power")
    return [getattr(record, name) for name in names] + ([] if record.state is None else [record.state])


def frames_of(path: Path) -> bytes:
    """What follows the header, which tells the number of steps."""
    return path.read_bytes().partition(b"\n")[2]


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_files_are_those_of_single_runs(ensemble: str, tmp_path: Path) -> None:
    settings = replace(SETTINGS, ensemble=ENSEMBLES[ensemble])
    outcomes = simulate_batch(BOTH, SYSTEMS, settings, tmp_path / "a.trajectory")
    for k, outcome in enumerate(outcomes):
        assert outcome.path == tmp_path / f"a-{k}.trajectory" and not outcome.remark
        own = replace(settings, seed=3 + k)
        if ensemble == "bussi":
            own = replace(own, ensemble=Ensemble(Bussi(60.0, 0.1, seed=3 + k)))
        single = tmp_path / f"single-{k}.trajectory"
        simulate(BOTH, SYSTEMS[k], own, single)
        together, alone = read_trajectory(outcome.path), read_trajectory(single)
        assert together.provenance == alone.provenance
        for there, here in zip(everything(together), everything(alone), strict=True):
            np.testing.assert_allclose(there, here, rtol=1e-9, atol=1e-10)
        there, here = (read_log(path.with_suffix(".log")) for path in (outcome.path, single))
        assert [line.time_ps for line in there] == [line.time_ps for line in here]
        # a single run goes on from where the batch has left off
        simulate(BOTH, SYSTEMS[k], replace(own, steps=14), outcome.path, restart=True)
        assert read_trajectory(outcome.path).n_frames == alone.n_frames + 1


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_run_that_was_cut_off_anywhere_goes_on_to_the_bit(ensemble: str, tmp_path: Path) -> None:
    """Killed after two of three systems had written their frame, the second in part."""
    settings = replace(SETTINGS, ensemble=ENSEMBLES[ensemble])
    whole = [one.path for one in simulate_batch(BOTH, SYSTEMS, settings, tmp_path / "whole.trajectory")]
    cut = tmp_path / "cut.trajectory"
    outcomes = simulate_batch(BOTH, SYSTEMS, replace(settings, steps=6), cut)
    with outcomes[1].path.open("r+b") as file:
        file.truncate(outcomes[1].path.stat().st_size - 50)
    TrajectoryWriter.reopen(outcomes[2].path, 3).close()
    outcomes[0].path.with_suffix(".log").unlink()
    assert [read_trajectory(one.path).n_frames for one in outcomes] == [4, 3, 3]
    rest = simulate_batch(BOTH, SYSTEMS, settings, cut, restart=True)
    for one, path in zip(rest, whole, strict=True):
        assert one.n_frames == 7
        assert frames_of(one.path) == frames_of(path)
        assert one.path.with_suffix(".log").read_text() == path.with_suffix(".log").read_text()
    simulate_batch(BOTH, SYSTEMS, settings, cut, restart=True)  # nothing is left to do
    assert [frames_of(one.path) for one in rest] == [frames_of(path) for path in whole]


@pytest.mark.parametrize(
    ("distance", "words", "n_frames"),
    [(2.25, "system 1: its conserved energy has moved by", 2), (2.0, "system 1: it exploded after 0.016 ps", 1)],
)
def test_a_system_that_drifts_or_explodes_ends_alone(
    distance: float, words: str, n_frames: int, tmp_path: Path
) -> None:
    """Two atoms so near that they part too fast for the step; a continuation remembers it, or finds it again."""
    systems = [SYSTEMS[0], ase.Atoms("Ar2", positions=[[0, 0, 0], [distance, 0, 0]]), SYSTEMS[2]]
    settings = replace(SETTINGS, max_energy_change_meV=50.0)
    outcomes = simulate_batch(BOTH, systems, settings, tmp_path / "a.trajectory")
    assert words in outcomes[1].remark and not outcomes[0].remark and not outcomes[2].remark
    assert [one.n_frames for one in outcomes] == [7, n_frames, 7]
    cut = tmp_path / "cut.trajectory"
    for steps in (2, 6, 12):
        again = simulate_batch(BOTH, systems, replace(settings, steps=steps), cut, restart=True)
        assert [one.n_frames for one in again] == [1 + steps // 2, n_frames, 1 + steps // 2] and again[1].remark
    for one, other in zip(outcomes, again, strict=True):
        assert frames_of(one.path) == frames_of(other.path)


def test_paths_sort_as_their_systems() -> None:
    paths = paths_of(Path("dir/a.trajectory"), 11)
    assert paths[0] == Path("dir/a-00.trajectory") and paths == sorted(paths)


def test_what_a_batch_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="on_drift: got 'reduce'"):
        simulate_batch(BOTH, SYSTEMS, replace(SETTINGS, on_drift="reduce"), tmp_path / "a.trajectory")
    simulate_batch(BOTH, SYSTEMS[:1], replace(SETTINGS, steps=2), tmp_path / "a.trajectory")
    with pytest.raises(UsageError, match=r"a-0.trajectory exists"):
        simulate_batch(BOTH, SYSTEMS[:1], SETTINGS, tmp_path / "a.trajectory")
    with pytest.raises(UsageError, match=r"restart: .*a-0.trajectory was made with stride 2, now it is 1"):
        simulate_batch(BOTH, SYSTEMS[:1], replace(SETTINGS, stride=1), tmp_path / "a.trajectory", restart=True)


def test_the_command_runs_replicas_and_screening_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write(tmp_path / "set.xyz", SYSTEMS[:2])
    where = ["run", "--potential", "lennard_jones", "--structure", str(tmp_path / "set.xyz"), "--steps", "2"]
    assert cli.main([*where, "--replicas", "2", "--all-frames", "--output", str(tmp_path / "many.xyz")]) == 0
    assert "4 systems, 0 of them ended early" in capsys.readouterr().out
    sizes = [len(ase.io.read(tmp_path / f"many-{k}.xyz", ":")[-1]) for k in range(4)]
    assert sizes == [4, 8, 4, 8]
    first, second = (read_trajectory(tmp_path / f"many-{k}.trajectory") for k in (0, 2))
    assert first.provenance["seed"] == 0 and second.provenance["seed"] == 2
    assert not np.array_equal(first.momenta[0], second.momenta[0])
    assert cli.main([*where, "--replicas", "2", "--output", str(tmp_path / "two.trajectory")]) == 0
    assert len(read_trajectory(tmp_path / "two-1.trajectory").numbers) == 8  # the last frame
