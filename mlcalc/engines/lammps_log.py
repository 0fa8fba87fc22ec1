"""LAMMPS's log: thermodynamic output of one of its runs, with the units and the timestep that the log echoes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlcalc.errors import UsageError
from mlcalc.record import Record, Series, latest
from mlcalc.units import KILOCALORIE_PER_MOLE

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LammpsUnits:
    """energy_eV : of one unit of energy; time_ps : of one unit of time. Lengths are Å, temperatures K in both."""

    energy_eV: float
    time_ps: float


UNITS = {"metal": LammpsUnits(1.0, 1.0), "real": LammpsUnits(KILOCALORIE_PER_MOLE, 1e-3)}


def units_of(name: str | None, path: Path) -> LammpsUnits:
    """The unit system that a file or the user names.

    Raises
    ------
    UsageError
        if there is none, or one that is not known.
    """
    if name not in UNITS:
        what = "does not say its units" if name is None else f"has units {name!r}"
        raise UsageError(f"units: {path} {what}; mlcalc knows metal and real: give --units metal or --units real")
    return UNITS[name]


def declared_units(path: Path) -> str | None:
    """What a log of LAMMPS says of its units; None of any other file."""
    if not path.is_file():
        return None
    with open(path, errors="replace") as file:
        if not file.readline().startswith("LAMMPS ("):
            return None
        found = (re.match(r"units\s+(\w+)", line) for line in file)
        return next((match[1] for match in found if match), None)


@dataclass
class _Run:
    """One block of thermodynamic output, from its header to "Loop time"."""

    columns: list[str]
    timestep: float | None
    minimization: bool
    follows_on: bool  # nothing was changed since the run before
    rows: list[list[float]] = field(default_factory=list)
    n_atoms: int | None = None

    def column(self, name: str) -> Array | None:
        if name not in self.columns:
            return None
        return np.array([row[self.columns.index(name)] for row in self.rows], dtype=float)


#: Commands after which a run does not go on as the one before
_CHANGES = re.compile(
    r"(un)?fix|velocity|set|pair_\w+|bond_\w+|kspace_\w+|run_style|reset_timestep|timestep|change_box|displace_atoms|"
    r"read_\w+|delete_atoms|create_atoms|minimize|clear|thermo_style|thermo_modify|thermo"
)
_DEFAULT_TIMESTEP = {"metal": 0.001, "real": 1.0}


def read_log(path: Path, *, units: str | None = None, run: int | None = None) -> Record:
    """One run of a log; several `run` commands with nothing changed between them are one.

    Parameters
    ----------
    units : "metal" or "real", where the log does not say
    run : which one, from 1; the last unless given

    Raises
    ------
    UsageError
        for unknown units, a file without thermodynamic output, or a run that is not there.
    """
    scanner = _Scanner(units)
    for line in path.read_text(errors="replace").splitlines(keepends=True):
        scanner.take(line)
    runs = _joined([one for one in scanner.runs if one.rows])
    system = units_of(scanner.units, path)
    if not runs:
        raise UsageError(f"log: {path} has no thermodynamic output; let LAMMPS print it (thermo, run)")
    number = run if run is not None else max((k + 1 for k, one in enumerate(runs) if not one.minimization), default=1)
    if not 1 <= number <= len(runs):
        raise UsageError(f"run: got {number}, but {path} has {len(runs)} runs; give 1 to {len(runs)}")
    remarks = []
    if len(runs) > 1:
        last = ", the last" if run is None else ""
        remarks.append(f"{path.name} holds {len(runs)} runs; this is number {number}{last} (--run N for another)")
    if scanner.torn:
        remarks.append(f"{path.name} ends within a line, which is left out")
    series = _series(runs[number - 1], system, scanner.normalised, path)
    return Record(path.name, series=series, remarks=tuple(remarks))


class _Scanner:
    """Reads a log line by line."""

    def __init__(self, units: str | None) -> None:
        self.units = units
        self.normalised = False
        self.torn = False
        self.runs: list[_Run] = []
        self._timestep: float | None = None
        self._minimization, self._changed = False, True
        self._header_next = self._open = False

    def take(self, line: str) -> None:
        words = line.split()
        if not words:
            return
        if line.startswith("Per MPI rank memory"):
            self._header_next = True
        elif self._header_next:
            self._header(line, words)
        elif self._open:
            self._row(line, words)
        else:
            self._command(words)

    def _header(self, line: str, words: Sequence[str]) -> None:
        if line.startswith("---") and len(words) == 1:  # thermo_style yaml
            return
        if line.startswith("keywords:"):
            words = re.findall(r"'([^']*)'", line)
        self._header_next, self._open = False, True
        timestep = self._timestep or _DEFAULT_TIMESTEP.get(self.units or "")
        self.runs.append(_Run(list(words), timestep, self._minimization, not self._changed))
        self._minimization = self._changed = False

    def _row(self, line: str, words: Sequence[str]) -> None:
        run = self.runs[-1]
        if line.startswith("Loop time of"):
            self._open = False
            found = re.search(r"with (\d+) atoms", line)
            run.n_atoms = int(found[1]) if found else None
            return
        if line.lstrip().startswith("- ["):
            words = line.replace(",", " ").strip("- []\n").split()
        try:
            row = [float(word) for word in words]
        except ValueError:  # a warning, or what a fix prints
            return
        if not line.endswith("\n"):
            self.torn = True
        elif len(row) == len(run.columns):
            run.rows.append(row)

    def _command(self, words: Sequence[str]) -> None:
        name, last = words[0], words[-1]
        if name == "units" and len(words) == 2:
            self.units = last
        elif name == "timestep" and len(words) == 2 and "$" not in last:
            self._timestep = float(last)
        elif name == "minimize":
            self._minimization = True
        elif name == "thermo_modify" and "norm" in words:
            self.normalised = words[words.index("norm") + 1] == "yes"
        self._changed |= bool(_CHANGES.fullmatch(name))


def _joined(runs: Sequence[_Run]) -> list[_Run]:
    """Runs that go on as the one before are one; the line that both have is taken once."""
    joined: list[_Run] = []
    for run in runs:
        if joined and run.follows_on and joined[-1].columns == run.columns and not joined[-1].minimization:
            joined[-1].rows += run.rows
        else:
            joined.append(run)
    return joined


def _series(run: _Run, units: LammpsUnits, normalised: bool, path: Path) -> Series:
    steps = run.column("Step")
    time = run.column("Time")
    if steps is None and time is None:
        raise UsageError(f"log: {path} has neither Step nor Time; print one of them (thermo_style custom step …)")
    whole = None if steps is None else steps.astype(np.int64)
    if time is None and steps is not None and run.timestep is not None:
        time = (steps - steps[0]) * run.timestep
    if normalised and run.n_atoms is None:
        raise UsageError(f"log: {path} has energies by atom but not how many; give thermo_modify norm no")
    energy = units.energy_eV * (run.n_atoms or 1 if normalised else 1)
    name, conserved = _conserved(run)
    kinetic = run.column("KinEng")
    series = Series(
        time_ps=None if time is None else time * units.time_ps,
        steps=whole,
        conserved_eV=None if conserved is None else conserved * energy,
        conserved_name=name,
        conserved_for_sure=name not in ("TotEng", "PotEng + KinEng"),
        kinetic_eV=None if kinetic is None else kinetic * energy,
        temperature_K=run.column("Temp"),
        volume_A3=run.column("Volume"),
        n_atoms=run.n_atoms,
    )
    return series if whole is None else series.picked(latest(whole))


def _conserved(run: _Run) -> tuple[str, Array | None]:
    """The column that is conserved, or the nearest to it; what a thermostat took out is in Econserve and Ecouple."""
    total, potential, kinetic = (run.column(name) for name in ("TotEng", "PotEng", "KinEng"))
    name = "TotEng"
    if total is None and potential is not None and kinetic is not None:
        name, total = "PotEng + KinEng", potential + kinetic
    conserved, coupled = run.column("Econserve"), run.column("Ecouple")
    if conserved is not None:
        return "Econserve", conserved
    if total is not None and coupled is not None:
        return f"{name} + Ecouple", total + coupled
    return name, total
