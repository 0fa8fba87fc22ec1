"""Files of any program → one record of the run; what a file is shows from how it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlcalc.engines import ase_output, ipi_output, lammps_dump, lammps_log
from mlcalc.errors import UsageError
from mlcalc.record import Frames, Record, Series, combine
from mlcalc.simulation.log import read_log
from mlcalc.trajectory import read_trajectory


@dataclass(frozen=True)
class ReadSettings:
    """What files do not say.

    Attributes
    ----------
    elements : symbols of LAMMPS's types 1, 2, …
    units : of LAMMPS, "metal" or "real"
    run : which run of a LAMMPS log, from 1; the last unless given
    interval_fs : fs, from frame to frame, of a trajectory without times
    skip_ps : ps, to leave out from the start
    """

    elements: tuple[str, ...] = ()
    units: str | None = None
    run: int | None = None
    interval_fs: float | None = None
    skip_ps: float = 0.0


def read_record(paths: Sequence[str | Path], settings: ReadSettings | None = None) -> Record:
    """One record of the files of one run: a trajectory, a log, or both; i-PI's positions and velocities.

    Raises
    ------
    UsageError
        for files that are missing, unknown, damaged beyond their last frame, or do not go together.
    """
    settings = settings or ReadSettings()
    if not paths:
        raise UsageError("files: got none; give a trajectory, a log or both")
    # a log says the units of the dump beside it
    declared = next(filter(None, map(lammps_log.declared_units, map(Path, paths))), None)
    if declared and settings.units not in (None, declared):
        raise UsageError(f"units: got {settings.units}, but the log says {declared}; leave it out")
    settings = replace(settings, units=settings.units or declared)
    records = [_read_one(Path(path), settings) for path in paths]
    return combine(records, interval_fs=settings.interval_fs, skip_ps=settings.skip_ps)


def _read_one(path: Path, settings: ReadSettings) -> Record:
    if not path.is_file():
        raise UsageError(f"files: no file {path}; give a trajectory or a log of mlcalc, ASE, i-PI or LAMMPS")
    with open(path, "rb") as file:
        start = file.read(4096).decode("utf-8", errors="replace")
    if not start.strip():
        raise UsageError(f"files: {path} is empty; give a trajectory or a log")
    first, _, rest = start.partition("\n")
    if first.startswith('{"format": "mlcalc-trajectory'):
        return _own_trajectory(path)
    if first.startswith("time_ps,n_inner"):
        return _own_log(path)
    if first.startswith("ITEM:"):
        return lammps_dump.read_dump(path, units=settings.units, elements=settings.elements)
    if first.startswith("LAMMPS (") or "\nPer MPI rank memory" in start:
        return lammps_log.read_log(path, units=settings.units, run=settings.run)
    if first.startswith(("# column", "# cols.")):
        return ipi_output.read_properties(path)
    if "CELL" in (comment := rest.partition("\n")[0]) and "Step:" in comment:
        return ipi_output.read_xyz(path)
    if first.startswith("Time["):
        return ase_output.read_log(path)
    return ase_output.read_trajectory(path)


def _own_trajectory(path: Path) -> Record:
    trajectory = read_trajectory(path)
    n = trajectory.n_frames
    if not n:
        raise UsageError(f"trajectory: {path} has no whole frame; let the run go on")
    frames = Frames(
        numbers=trajectory.numbers,
        masses=trajectory.masses,
        cell=np.stack([trajectory.cell_of(k) for k in range(n)]),
        periodic=trajectory.periodic,
        positions=trajectory.positions,
        velocities=trajectory.momenta / trajectory.masses[:, None],
        time_ps=trajectory.time_ps,
    )
    # what f_direct − f_conservative does to a run that it does not drive is no heating
    driven = trajectory.provenance.get("forces") == "direct" and np.isfinite(trajectory.power).all()
    series = Series(
        time_ps=trajectory.time_ps,
        conserved_eV=trajectory.conserved,
        conserved_name="conserved energy",
        kinetic_eV=trajectory.kinetic_energy,
        power_eV_per_ps=trajectory.power if driven else None,
        n_atoms=trajectory.n_atoms,
    )
    return Record(path.name, frames, series)


def _own_log(path: Path) -> Record:
    lines = read_log(path)
    if not lines:
        raise UsageError(f"log: {path} has no whole line; let the run go on")
    reduced = len({line.n_inner for line in lines}) > 1
    series = Series(
        time_ps=np.array([line.time_ps for line in lines]),
        conserved_eV=np.array([line.conserved_eV for line in lines]),
        conserved_name="conserved_eV",
        kinetic_eV=np.array([line.kinetic_eV for line in lines]),
        temperature_K=np.array([line.temperature_K for line in lines]),
        volume_A3=np.array([line.volume_A3 or np.nan for line in lines]),
    )
    remark = f"{path.name}: the inner steps were changed during the run; --skip-ps leaves out what was before"
    return Record(path.name, series=series, remarks=(remark,) if reduced else ())
