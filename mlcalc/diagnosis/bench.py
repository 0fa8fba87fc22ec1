"""What the diagnostics of one record share: its frames and series, the settings, and the place for results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from mlcalc.diagnosis.result import NONE, TOO_SHORT, Curve, Row
from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.record import Frames, Record, Series
from mlcalc.units import BOLTZMANN

Array = NDArray[np.float64]
NO_TIMES = "the files have no times; give --interval-fs, or the log of the run as well"
_REMEDIES = {
    "velocities": "write them (LAMMPS: dump … vx vy vz; i-PI: a trajectory of velocities; ASE: momenta)",
    "positions": "give the trajectory of positions as well",
}


@dataclass(frozen=True)
class DiagnosisSettings:
    """What to compare with, and how far to look.

    Attributes
    ----------
    temperature_K : K, that the run was meant to have
    r_max_A : Å, of radial distributions; half the cell's smallest width or 10 Å unless given
    viscosity_mPa_s : mPa·s, of the liquid, for the finite-size correction of diffusion
    """

    temperature_K: float | None = None
    r_max_A: float | None = None
    viscosity_mPa_s: float | None = None


class Bench:
    """The record up to an explosion, and what is found of it.

    Raises
    ------
    UsageError
        for a record with neither frames nor a series, or with nothing finite.
    """

    def __init__(self, record: Record, settings: DiagnosisSettings) -> None:
        if record.frames is None and record.series is None:
            raise UsageError(f"files: {record.name} have neither frames nor energies; give a trajectory or a log")
        self.name, self.settings = record.name, settings
        self.rows: list[Row] = []
        self.curves: list[Curve] = []
        self.remarks = list(record.remarks)
        self.series = None if record.series is None else self._finite_lines(record.series)
        self.frames = None if record.frames is None else self._finite_frames(record.frames)
        self.labels = [] if self.frames is None else [chemical_symbols[number] for number in self.frames.numbers]
        #: K, as wanted or else as measured
        self.temperature_K = settings.temperature_K

    def _finite_frames(self, frames: Frames) -> Frames:
        good = np.ones(frames.n_frames, dtype=bool)
        for values in (frames.positions, frames.velocities):
            if values is not None:
                good &= np.isfinite(values).all(axis=(1, 2))
        return frames if good.all() else frames.picked(self._until_first_bad(good, "frames"))

    def _finite_lines(self, series: Series) -> Series:
        if series.conserved_eV is None or np.isfinite(series.conserved_eV).all():
            return series
        return series.picked(self._until_first_bad(np.isfinite(series.conserved_eV), "energies"))

    def _until_first_bad(self, good: NDArray[np.bool_], what: str) -> NDArray[np.bool_]:
        first = int(np.argmin(good))
        if not first:
            raise UsageError(f"files: the {what} of {self.name} are not finite from the first on; look at how it began")
        self.remark(f"{what} are not finite from number {first + 1} on: the run exploded, the record is cut there")
        return np.asarray(np.arange(len(good)) < first)

    @property
    def n_atoms(self) -> int | None:
        """Of the trajectory, else of the log: as it says, or about 2K/3kT."""
        if self.frames is not None:
            return self.frames.n_atoms
        series = self.series
        if series is None or series.n_atoms is not None:
            return None if series is None else series.n_atoms
        if series.kinetic_eV is None or series.temperature_K is None or not series.temperature_K.mean() > 0:
            return None
        freedom = 2 * float(series.kinetic_eV.mean()) / (BOLTZMANN * float(series.temperature_K.mean()))
        self.remark(f"number of atoms, from kinetic energy and temperature: about {freedom / 3:.0f}")
        return max(1, round(freedom / 3))

    def having(self, what: str) -> Frames:
        """The frames, if they have "positions" or "velocities"."""
        if self.frames is None:
            raise UsageError("no trajectory among the files; give it as well")
        if getattr(self.frames, what) is None:
            raise UsageError(f"no {what} in these files; {_REMEDIES[what]}")
        return self.frames

    def moving(self) -> tuple[Frames, list[str]]:
        """Frames with velocities, and the atoms' labels, without atoms that are held in place."""
        frames = self.having("velocities")
        assert frames.velocities is not None
        moving = (frames.velocities != 0).any(axis=(0, 2))
        if moving.all():
            return frames, self.labels
        if not moving.any():
            raise UsageError("all velocities are zero; write velocities of the run itself")
        self.remark(f"{int((~moving).sum())} atoms never move; they are left out of temperatures and spectra")
        some = replace(
            frames,
            numbers=frames.numbers[moving],
            masses=frames.masses[moving],
            velocities=frames.velocities[:, moving],
            positions=None if frames.positions is None else frames.positions[:, moving],
        )
        return some, [label for label, moves in zip(self.labels, moving, strict=True) if moves]

    def add(self, diagnostic: str, label: str, finding: Finding, judgement: str = NONE, reason: str = "") -> None:
        """One row of the table."""
        self.rows.append(Row(diagnostic, label, finding, judgement, reason))

    def curve(self, diagnostic: str, label: str, names: tuple[str, str], x: Array, y: Array, error: Any = ()) -> None:
        """A function for figure and JSON; names of x and y with their units."""
        self.curves.append(Curve(diagnostic, label, *names, x, y, np.asarray(error, dtype=float)))

    def remark(self, text: str) -> None:
        """Something that the user must know, once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def too_short(self, diagnostic: str, reason: str) -> None:
        """Mark all rows of a diagnostic as estimates from too short a record."""
        self.remark(reason)
        self.rows = [
            replace(row, judgement=TOO_SHORT, reason=TOO_SHORT) if row.diagnostic == diagnostic else row
            for row in self.rows
        ]


def times(frames: Frames) -> Array:
    """(n_frames,), ps, or a UsageError."""
    if frames.time_ps is None:
        raise UsageError(NO_TIMES)
    return frames.time_ps


def estimate(measure: Callable[[], Any]) -> tuple[Any, str]:
    """(what was measured, "" or why the record is too short for it)"""
    try:
        return measure(), ""
    except TooShortToTell as error:
        return error.estimate, str(error)
