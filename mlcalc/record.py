"""What the files of any program say of a run, in one form: frames, and numbers by time.

Readers of each format are in `engines/`; each gives a `Record` with what its file has, and `combine` makes one of
several files of the same run, such as a dump and its log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mlcalc.errors import UsageError

Array = NDArray[np.float64]
_Part = TypeVar("_Part", "Frames", "Series")


@dataclass(frozen=True)
class Frames:
    """Configurations of a run.

    Attributes
    ----------
    numbers, masses : (n_atoms,), atomic numbers and amu
    cell : (n_frames, 3, 3), Å, rows are lattice vectors; periodic : (3,)
    positions : (n_frames, n_atoms, 3), Å, wrapped or not, or None
    velocities : (n_frames, n_atoms, 3), Å/time with time = Å·sqrt(amu/eV), or None
    time_ps : (n_frames,), ps, or None; steps : (n_frames,), of the program, or None
    """

    numbers: NDArray[np.int64]
    masses: Array
    cell: Array
    periodic: NDArray[np.bool_]
    positions: Array | None = None
    velocities: Array | None = None
    time_ps: Array | None = None
    steps: NDArray[np.int64] | None = None

    @property
    def n_frames(self) -> int:
        return len(self.cell)

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    def picked(self, which: NDArray[np.bool_]) -> Frames:
        """Some of the frames; which : (n_frames,)"""
        return _picked(self, which, ("cell", "positions", "velocities", "time_ps", "steps"))


@dataclass(frozen=True)
class Series:
    """Numbers of a run by time, (n,) each, None where the file has none.

    Attributes
    ----------
    time_ps : ps, or None; steps : of the program, or None
    conserved_eV : of the whole system; conserved_name : what the file calls it
    conserved_for_sure : the program calls it conserved; else it is at constant energy only
    temperature_K : K; volume_A3 : Å³; power_eV_per_ps : Σ v·(f_direct − f_conservative)
    n_atoms : of the system, or None
    """

    time_ps: Array | None = None
    steps: NDArray[np.int64] | None = None
    conserved_eV: Array | None = None
    conserved_name: str = ""
    conserved_for_sure: bool = True
    kinetic_eV: Array | None = None
    temperature_K: Array | None = None
    volume_A3: Array | None = None
    power_eV_per_ps: Array | None = None
    n_atoms: int | None = None

    @property
    def n_lines(self) -> int:
        columns = (self.time_ps, self.steps, self.conserved_eV, self.kinetic_eV, self.temperature_K)
        return next((len(column) for column in columns if column is not None), 0)

    def picked(self, which: NDArray[np.bool_]) -> Series:
        """Some of the lines; which : (n,)"""
        names = ("time_ps", "steps", "conserved_eV", "kinetic_eV", "temperature_K", "volume_A3", "power_eV_per_ps")
        return _picked(self, which, names)


def _picked(whole: _Part, which: NDArray[np.bool_], names: Sequence[str]) -> _Part:
    known = {name: getattr(whole, name) for name in names}
    return replace(whole, **{name: values[which] for name, values in known.items() if values is not None})


@dataclass(frozen=True)
class Record:
    """All that is known of a run; remarks are what the user must know of its files, one line each."""

    name: str
    frames: Frames | None = None
    series: Series | None = None
    remarks: tuple[str, ...] = ()


def latest(steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which lines stand: a run that was restarted goes back, and what it writes then replaces what it had written."""
    following = np.minimum.accumulate(np.append(steps, np.iinfo(np.int64).max)[::-1])[::-1]
    return np.asarray(steps < following[1:])


def combine(records: Sequence[Record], *, interval_fs: float | None = None, skip_ps: float = 0.0) -> Record:
    """One record of the files of one run.

    Frames without times take them from a log with the same steps, or with as many lines, or from `interval_fs`.

    Parameters
    ----------
    interval_fs : fs, from frame to frame, where the files do not say
    skip_ps : ps, to leave out from the start

    Raises
    ------
    UsageError
        for files that do not go together, or if nothing is left.
    """
    remarks = [remark for record in records for remark in record.remarks]
    all_frames = [record.frames for record in records if record.frames is not None]
    frames = all_frames[0] if all_frames else None
    for other in all_frames[1:]:
        assert frames is not None
        frames = _merged_frames(frames, other, remarks)
    series = _one_series([record for record in records if record.series is not None])
    if frames is not None:
        frames = _with_times(frames, series, interval_fs)
        if series is not None and series.time_ps is None and series.n_lines == frames.n_frames:
            series = replace(series, time_ps=frames.time_ps)  # energies of the frames themselves
    elif interval_fs is not None:
        raise UsageError(f"interval_fs: got {interval_fs:g} without frames; it goes with a trajectory")
    if skip_ps:
        frames, series = _without_start(frames, series, skip_ps)
    return Record(", ".join(record.name for record in records), frames, series, tuple(remarks))


def _merged_frames(one: Frames, other: Frames, remarks: list[str]) -> Frames:
    """Positions of one file and velocities of another."""
    doubled = [name for name in ("positions", "velocities") if _both(one, other, name)]
    if doubled:
        raise UsageError(f"files: two of them have {doubled[0]}; give one file of each kind, of one run")
    if not np.array_equal(one.numbers, other.numbers):
        raise UsageError(f"files: they hold other atoms ({one.n_atoms} and {other.n_atoms}); give files of one run")
    clock = "steps" if one.steps is not None and other.steps is not None else "time_ps"
    ours, theirs = getattr(one, clock), getattr(other, clock)
    if ours is None or theirs is None:
        if one.n_frames != other.n_frames:
            raise UsageError(
                f"files: {one.n_frames} and {other.n_frames} frames without steps do not say which belong together; "
                "give files that were written at the same steps"
            )
    else:
        common = np.intersect1d(ours, theirs)
        if not len(common):
            raise UsageError("files: positions and velocities were written at different steps; write both at the same")
        if len(common) < max(len(ours), len(theirs)):
            remarks.append(f"positions and velocities have {len(common)} frames in common; the others are left out")
        one, other = one.picked(np.isin(ours, common)), other.picked(np.isin(theirs, common))
    missing = {field.name: getattr(other, field.name) for field in fields(Frames) if getattr(one, field.name) is None}
    return replace(one, **missing)


def _both(one: Frames, other: Frames, name: str) -> bool:
    return getattr(one, name) is not None and getattr(other, name) is not None


def _one_series(records: Sequence[Record]) -> Series | None:
    """A trajectory may have energies too; a log beside it knows better, for it may have more lines."""
    logs = [record for record in records if record.frames is None]
    if len(logs) > 1:
        raise UsageError(f"files: {logs[0].name} and {logs[1].name} are both logs; give one, of one run")
    found = [record.series for record in logs or records]
    return found[0] if found else None


def _with_times(frames: Frames, series: Series | None, interval_fs: float | None) -> Frames:
    if frames.time_ps is not None and interval_fs is not None:
        raise UsageError(f"interval_fs: got {interval_fs:g}, but the frames have times of their own; leave it out")
    if interval_fs is not None:
        count = np.arange(frames.n_frames) if frames.steps is None else frames.steps - frames.steps[0]
        return replace(frames, time_ps=interval_fs / 1000 * count / max(1, int(np.diff(count[:2]).sum())))
    if series is None or series.time_ps is None:
        return frames
    if frames.steps is not None and series.steps is not None and len(series.steps) > 1:
        # of a log with several runs one was chosen: its frames, by its clock
        inside = (frames.steps >= series.steps[0]) & (frames.steps <= series.steps[-1])
        if not inside.any():
            raise UsageError(
                f"files: frames of steps {frames.steps[0]} to {frames.steps[-1]}, a log of {series.steps[0]} to "
                f"{series.steps[-1]}; give files of the same run"
            )
        frames = frames.picked(inside)
        assert frames.steps is not None
        return replace(frames, time_ps=np.interp(frames.steps, series.steps, series.time_ps))
    if frames.time_ps is None and frames.n_frames == len(series.time_ps):
        return replace(frames, time_ps=series.time_ps)
    return frames


def _without_start(frames: Frames | None, series: Series | None, skip_ps: float) -> tuple[Frames | None, Series | None]:
    clocks = [part.time_ps for part in (frames, series) if part is not None]
    if any(clock is None for clock in clocks):
        raise UsageError(f"skip_ps: got {skip_ps:g}, but a file has no times; give --interval-fs or the log as well")
    begin = min((float(clock[0]) for clock in clocks if clock is not None), default=0.0) + skip_ps
    if any(float(clock[-1]) < begin for clock in clocks if clock is not None):
        raise UsageError(f"skip_ps: got {skip_ps:g}, but a file ends before; give less")
    if frames is not None and frames.time_ps is not None:
        frames = frames.picked(frames.time_ps >= begin)
    if series is not None and series.time_ps is not None:
        series = series.picked(series.time_ps >= begin)
    return frames, series
