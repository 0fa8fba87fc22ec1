"""What ASE wrote, read back: against the energies of its own objects."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from mlcalc.diagnosis.read import ReadSettings, read_record
from mlcalc.errors import UsageError

STEP_FS = 4.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 steps of eight copper atoms: trajectory, log, extended XYZ."""
    folder = tmp_path_factory.mktemp("ase")
    copper = bulk("Cu", cubic=True) * (2, 1, 1)
    copper.calc = EMT()
    thermalize_momenta(copper, 400, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(
        copper, STEP_FS * units.fs, trajectory=str(folder / "run.traj"), logfile=str(folder / "run.log")
    )
    dynamics.run(20)
    ase.io.write(folder / "run.extxyz", ase.io.read(folder / "run.traj", ":"))
    return folder


@pytest.mark.parametrize("name", ["run.traj", "run.extxyz"])
def test_frames_and_energies_are_those_of_ase(folder: Path, name: str) -> None:
    record = read_record([folder / name], ReadSettings(interval_fs=STEP_FS))
    images = ase.io.read(folder / "run.traj", ":")
    frames, series = record.frames, record.series
    assert frames is not None and series is not None and frames.velocities is not None
    kinetic = 0.5 * np.einsum("fix,fix,i->f", frames.velocities, frames.velocities, frames.masses)
    assert np.allclose(kinetic, [atoms.get_kinetic_energy() for atoms in images], rtol=1e-5)
    assert np.allclose(series.conserved_eV, [atoms.get_total_energy() for atoms in images], atol=1e-6)
    assert not series.conserved_for_sure
    assert series.time_ps is not None and len(series.time_ps) == 21
    assert frames.time_ps == pytest.approx(0.001 * STEP_FS * np.arange(21))


def test_a_log_gives_the_times(folder: Path) -> None:
    record = read_record([folder / "run.log", folder / "run.traj"])
    assert record.frames is not None and record.series is not None
    assert record.frames.time_ps == pytest.approx(0.001 * STEP_FS * np.arange(21), abs=1e-4)
    assert np.allclose(
        record.series.temperature_K,
        [a.get_temperature() for a in ase.io.read(folder / "run.traj", ":")],
        atol=0.06,
    )
    later = read_record([folder / "run.traj"], ReadSettings(interval_fs=STEP_FS, skip_ps=0.04))
    assert later.frames is not None and later.frames.n_frames == 11
    alone = read_record([folder / "run.traj"])
    assert alone.frames is not None and alone.frames.time_ps is None


def test_what_a_killed_run_leaves(folder: Path, tmp_path: Path) -> None:
    for name in ("run.traj", "run.extxyz"):
        whole = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 3 // 4])
        record = read_record([tmp_path / name])
        assert record.frames is not None and 10 <= record.frames.n_frames < 21
        assert "ends within a frame" in record.remarks[0]
    (tmp_path / "run.log").write_text((folder / "run.log").read_text()[:-5])
    record = read_record([tmp_path / "run.log"])
    assert record.series is not None and record.series.time_ps is not None and len(record.series.time_ps) == 20


def test_what_cannot_be_used_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "what.dat").write_text("nobody knows this\n")
    (tmp_path / "empty.xyz").write_text("")
    for path, message in (("what.dat", "neither mlcalc nor ASE"), ("empty.xyz", "empty"), ("none.traj", "no file")):
        with pytest.raises(UsageError, match=message):
            read_record([tmp_path / path])
    with pytest.raises(UsageError, match="skip_ps.*no times"):
        read_record([folder / "run.traj"], ReadSettings(skip_ps=0.1))
    with pytest.raises(UsageError, match="interval_fs"):
        read_record([folder / "run.log"], ReadSettings(interval_fs=1.0))
    nameless = bulk("Cu")
    nameless.set_array("vel", np.ones((1, 3)))
    ase.io.write(tmp_path / "vel.extxyz", [nameless, nameless])
    record = read_record([tmp_path / "vel.extxyz"])
    assert record.frames is not None and record.frames.velocities is None
    assert "vel in units that it does not say" in record.remarks[0]
