"""Trajectories: what is written is read back, and a crash at any moment loses at most the frame being written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.build
import numpy as np
import pytest
import torch

from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import RunError, UsageError
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.structure import Structure
from mlcalc.trajectory import Trajectory, TrajectoryWriter, read_trajectory


def run(path: Path, n_steps: int = 6) -> Trajectory:
    structure = Structure.from_ase(ase.build.bulk("Ar", cubic=True, a=5.3))
    engine = NativeEngine(
        LennardJones(),
        structure,
        forces="conservative",
        timestep_fs=5.0,
        momenta=maxwell_boltzmann(structure, 40.0, seed=0),
    )
    with TrajectoryWriter(path, structure, {**engine.provenance(), "seed": 0}) as writer:
        return engine.run(n_steps, writer=writer)


def test_round_trip_and_provenance(tmp_path: Path) -> None:
    made = run(tmp_path / "a.traj")
    read = read_trajectory(tmp_path / "a.traj")
    for name in ("positions", "momenta", "time_ps", "potential_energy", "kinetic_energy", "conserved", "cell"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
    assert read.n_frames == 7
    assert read.provenance["fingerprint"] == LennardJones().fingerprint
    assert read.provenance["integrator"] == "velocity Verlet"
    assert read.provenance["versions"]["torch"] == torch.__version__


def test_cut_at_any_byte_every_whole_frame_is_there(tmp_path: Path) -> None:
    run(tmp_path / "a.traj")
    data = (tmp_path / "a.traj").read_bytes()
    head = data.index(b"\n") + 1
    size = (len(data) - head) // 7
    for cut in [head, head + 1, head + size - 1, head + size, head + 3 * size + 5, len(data) - 1]:
        (tmp_path / "cut.traj").write_bytes(data[:cut])
        assert read_trajectory(tmp_path / "cut.traj").n_frames == (cut - head) // size


def test_a_damaged_frame_ends_the_record(tmp_path: Path) -> None:
    run(tmp_path / "a.traj")
    data = bytearray((tmp_path / "a.traj").read_bytes())
    head = data.index(b"\n") + 1
    size = (len(data) - head) // 7
    data[head + 2 * size + 40] ^= 1
    (tmp_path / "a.traj").write_bytes(data)
    assert read_trajectory(tmp_path / "a.traj").n_frames == 2


def test_files_of_the_format_before_are_read(tmp_path: Path) -> None:
    """Format 2 was this one without a layout, for frames without cell and state."""
    made = run(tmp_path / "a.traj")
    line, _, body = (tmp_path / "a.traj").read_bytes().partition(b"\n")
    head = json.loads(line)
    assert head.pop("layout") == {"n_state": 0, "moving_cell": False}
    old = json.dumps({**head, "format": "mlcalc-trajectory-2"}).encode()
    (tmp_path / "old.traj").write_bytes(old + b"\n" + body)
    read = read_trajectory(tmp_path / "old.traj")
    np.testing.assert_array_equal(read.positions, made.positions)
    assert read.cells is None and read.state is None
    with TrajectoryWriter.reopen(tmp_path / "old.traj") as writer:
        writer.append(made.frame(0))
    assert read_trajectory(tmp_path / "old.traj").n_frames == made.n_frames + 1


def test_cells_and_states_are_read_back(tmp_path: Path) -> None:
    structure = Structure.from_ase(ase.build.bulk("Ar", cubic=True, a=5.3))
    engine = NativeEngine(
        LennardJones(),
        structure,
        forces="conservative",
        timestep_fs=5.0,
        momenta=maxwell_boltzmann(structure, 40.0, seed=0),
        ensemble=Ensemble(NoseHoover(40.0), Barostat(0.01, 0.2)),
    )
    with TrajectoryWriter(tmp_path / "a.traj", structure, engine.provenance(), engine.layout) as writer:
        made = engine.run(6, writer=writer)
    read = read_trajectory(tmp_path / "a.traj")
    assert made.cells is not None and read.state is not None
    np.testing.assert_array_equal(read.cells, made.cells)
    np.testing.assert_array_equal(read.state, made.state)
    assert read.state.shape == (7, 9 + 2 * 3)
    np.testing.assert_array_equal(read.cell_of(-1), made.cells[-1])
    with (
        TrajectoryWriter(tmp_path / "b.traj", structure, engine.provenance()) as writer,
        pytest.raises(UsageError, match=r"layout=engine\.layout"),
    ):
        writer.append(engine.frame())


def test_survives_a_kill(tmp_path: Path) -> None:
    """A separate process writes without end and is killed with SIGKILL."""
    path = tmp_path / "killed.traj"
    program = "import sys; from pathlib import Path; from tests_trajectory import run; run(Path(sys.argv[1]), 10**7)"
    (tmp_path / "tests_trajectory.py").write_text(Path(__file__).read_text())
    places = [str(tmp_path), str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], env={**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    )
    try:
        deadline = time.monotonic() + 60
        while not (path.exists() and path.stat().st_size > 20_000):
            assert child.poll() is None, "the writing process ended by itself"
            assert time.monotonic() < deadline, "nothing was written"
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    record = read_trajectory(path)
    assert record.n_frames > 10
    np.testing.assert_allclose(np.diff(record.time_ps), 0.005, rtol=1e-6)
    assert np.isfinite(record.positions).all()


def test_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes three frames and then says what a full disk says."""
    path = tmp_path / "full.traj"
    structure = Structure.from_ase(ase.build.bulk("Ar", cubic=True, a=5.3))
    engine = NativeEngine(LennardJones(), structure, forces="conservative", timestep_fs=5.0)
    writer = TrajectoryWriter(path, structure, engine.provenance())
    whole = writer._file

    class Full:
        left = 3

        def write(self, data: bytes) -> int:
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return whole.write(data)

        def close(self) -> None:
            whole.close()

    monkeypatch.setattr(writer, "_file", Full())
    with writer, pytest.raises(RunError, match="No space left") as caught:
        engine.run(10, writer=writer)
    assert "\n" not in str(caught.value)
    assert read_trajectory(path).n_frames == 3


def test_files_are_not_overwritten_and_foreign_ones_refused(tmp_path: Path) -> None:
    run(tmp_path / "a.traj")
    with pytest.raises(UsageError, match="exists"):
        run(tmp_path / "a.traj")
    with pytest.raises(UsageError, match="no file"):
        read_trajectory(tmp_path / "b.traj")
    (tmp_path / "c.traj").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UsageError, match="not an mlcalc"):
        read_trajectory(tmp_path / "c.traj")
    with pytest.raises(UsageError, match="cannot write"):
        run(tmp_path / "missing" / "a.traj")
