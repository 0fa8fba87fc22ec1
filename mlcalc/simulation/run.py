"""One run from start to end: frames and log as they come, guards, and exact continuation after a kill.

The record is a trajectory of our own format, whose last whole frame is all that a continuation needs: positions and
momenta in full precision, the cell and the variables of thermostat and barostat, the heat, and the time, which is the
number of the next random numbers as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch

from mlcalc.engines.native import Exploded, NativeEngine, maxwell_boltzmann
from mlcalc.errors import RunError, UsageError
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.potentials.potential import Potential
from mlcalc.simulation.guard import EnergyGuard
from mlcalc.simulation.log import Line, LogWriter, read_log
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame, Trajectory, TrajectoryWriter, read_trajectory

ENSEMBLES = ("nve", "langevin")
ON_DRIFT = ("stop", "reduce", "continue")


@dataclass(frozen=True)
class SimulationSettings:
    """What to run.

    Attributes
    ----------
    steps : outer steps, from the very start
    forces : "mts", "conservative" or "direct"
    timestep_fs : the OUTER step; n_inner : inner steps in it
    stride : outer steps from frame to frame
    ensemble : "nve", "langevin" (of `temperature_K`, `friction_per_ps` and `seed`), or any `Ensemble`
    temperature_K : of the momenta at the start
    friction_per_ps : 1/ps
    seed : of the starting momenta
    max_energy_change_meV : per atom; how far the conserved energy may move (see `EnergyGuard`)
    on_drift : what to do then: "stop", "reduce" (halve n_inner and go on; after an explosion too, from the last frame)
        or "continue"

    Raises
    ------
    UsageError
        for values that cannot be used.
    """

    steps: int
    forces: str = "mts"
    timestep_fs: float = 4.0
    n_inner: int = 8
    stride: int = 1
    ensemble: str | Ensemble = "nve"
    temperature_K: float = 300.0
    friction_per_ps: float = 1.0
    seed: int = 0
    max_energy_change_meV: float = 10.0
    on_drift: str = "stop"

    def __post_init__(self) -> None:
        for name, allowed in (("ensemble", ENSEMBLES), ("on_drift", ON_DRIFT)):
            value = getattr(self, name)
            if not isinstance(value, Ensemble) and value not in allowed:
                raise UsageError(f"{name}: got {value!r}; choose one of {', '.join(allowed)}")
        if not 1 <= self.stride <= self.steps:
            raise UsageError(
                f"stride: got {self.stride} of {self.steps} steps; give at least 1 and at most the number of steps"
            )
        if not self.max_energy_change_meV > 0:
            raise UsageError(f"max_energy_change_meV: got {self.max_energy_change_meV}; give a number above 0")

    @property
    def held(self) -> Ensemble:
        """The ensemble, whichever way it was given."""
        if isinstance(self.ensemble, Ensemble):
            return self.ensemble
        bath = None if self.ensemble == "nve" else Langevin(self.temperature_K, self.friction_per_ps, self.seed)
        return Ensemble(bath)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    n_frames : in the file; time_ps : ps, reached
    remarks : what the user must know, one line each
    """

    n_frames: int
    time_ps: float
    remarks: tuple[str, ...]


class _Drifted(Exception):
    """The conserved energy has moved too far."""

    def __init__(self, moved: float) -> None:
        super().__init__()
        self.moved = moved  # meV/atom


Progress = Callable[[float, float, str], None]


def simulate(
    potential: Potential,
    atoms: ase.Atoms,
    settings: SimulationSettings,
    path: str | Path,
    *,
    restart: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Run, or go on with a run that was cut off.

    Writes the frames to `path` and a log beside it (`path` with the ending .log).

    Parameters
    ----------
    restart : go on after the last whole frame of `path`; frames are those of a run that was never cut off, bit for bit
        on the same machine with as many threads. Starts afresh if there is no such file
    progress : called at every frame with (ps done, ps in all, note)

    Raises
    ------
    UsageError
        for unusable input, an existing `path` without `restart`, or a restart with another potential or other settings.
    RunError
        if the run explodes, the disk is full, or the conserved energy moves too far; frames so far are kept.
    """
    path = Path(path)
    run = _Run(potential, atoms, settings, path, progress)
    if restart and path.exists():
        run.go_on(read_trajectory(path))
    else:
        run.start()
    return run.to_the_end()


def provenance_of(made: dict[str, Any], settings: SimulationSettings) -> dict[str, Any]:
    """What a file says of a run: the engine's provenance and the settings."""
    made = {**made, **asdict(settings)}
    if isinstance(settings.ensemble, Ensemble):
        made["ensemble"] = settings.ensemble.name  # its parts stand under names of their own
    whole: dict[str, Any] = json.loads(json.dumps(made))  # as a file gives it back
    return whole


def check_same(record: Trajectory, structure: Structure, provenance: dict[str, Any], path: Path) -> None:
    """Refuse to go on with anything but the same run, which may only become longer.

    Raises
    ------
    UsageError
        naming what differs.
    """
    if not np.array_equal(record.numbers, structure.numbers.cpu().numpy()):
        raise UsageError(f"restart: {path} holds other atoms; give the structure of that run")
    if not np.array_equal(record.masses, structure.masses.cpu().numpy()):
        raise UsageError(f"restart: {path} holds other masses; give the structure and hydrogen mass of that run")
    free = {"steps", "on_drift", "max_energy_change_meV"}
    for name, value in provenance.items():
        before = record.provenance.get(name)
        if name not in free and before != value:
            raise UsageError(
                f"restart: {path} was made with {name} {before}, now it is {value}; give the same, or start "
                "a new run with another --output"
            )


class _Run:
    def __init__(
        self,
        potential: Potential,
        atoms: ase.Atoms,
        settings: SimulationSettings,
        path: Path,
        progress: Progress | None,
    ) -> None:
        self.potential, self.settings, self.path, self.progress = potential, settings, path, progress
        self.log_path = path.with_suffix(".log")
        self.structure = Structure.from_ase(atoms, device=potential.device, dtype=torch.float64)
        self.n_inner = settings.n_inner
        self.engine = self._engine()
        self.guard = EnergyGuard(self.structure.n_atoms, settings.held.memory_ps)
        self.lines: list[Line] = []  # of the log that a continuation finds
        thermostat = settings.held.thermostat
        self.remarks: list[str] = [thermostat.caveat] if thermostat is not None and thermostat.caveat else []
        self.last: Frame | None = None  # written, and sane
        self.fresh = True

    def _engine(self) -> NativeEngine:
        settings = self.settings
        return NativeEngine(
            self.potential,
            self.structure,
            forces=settings.forces,
            timestep_fs=settings.timestep_fs * self.n_inner / settings.n_inner,
            n_inner=self.n_inner,
            momenta=maxwell_boltzmann(self.structure, settings.temperature_K, settings.seed),
            ensemble=settings.held,
        )

    def _provenance(self) -> dict[str, Any]:
        return provenance_of(self.engine.provenance(), self.settings)

    def start(self) -> None:
        self.writer = TrajectoryWriter(self.path, self.structure, self._provenance(), self.engine.layout)

    def go_on(self, record: Trajectory) -> None:
        """Take up the state of the last whole frame; what was written after it goes."""
        check_same(record, self.structure, self._provenance(), self.path)
        if not record.n_frames:
            self.path.unlink()
            return self.start()
        last = record.frame(-1)
        self.lines = self._lines_of(record)
        for k, line in enumerate(self.lines):
            if k and line.n_inner != self.lines[k - 1].n_inner:
                self._count_from(self.lines[k - 1].time_ps, self.lines[k - 1].conserved_eV)
            self.guard.moved(line.time_ps, line.conserved_eV)
        self.n_inner = self.lines[-1].n_inner
        self.engine = self._engine()
        self.engine.resume(last)
        self.writer, self.fresh = TrajectoryWriter.reopen(self.path), False

    def _lines_of(self, record: Trajectory) -> list[Line]:
        """The log of the frames, whatever a crash has left of it; it alone knows where n_inner was reduced."""
        known = read_log(self.log_path) if self.log_path.exists() else []
        used = {line.time_ps: line.n_inner for line in known}
        lines, n_inner = [], self.settings.n_inner
        for k in range(record.n_frames):
            frame = record.frame(k)
            n_inner = used.get(frame.time_ps, n_inner)
            lines.append(self._line(frame, n_inner))
        return lines

    def _line(self, frame: Frame, n_inner: int) -> Line:
        temperature = self.engine.temperature(frame.kinetic_energy)
        energies = frame.potential_energy, frame.kinetic_energy, frame.conserved
        return Line(frame.time_ps, n_inner, temperature, *energies, self._volume(frame))

    def _volume(self, frame: Frame) -> float | None:
        """Å³, of a cell that is periodic in all directions."""
        if not self.structure.periodic.all():
            return None
        cell = self.structure.cell[0].cpu().numpy() if frame.cell is None else frame.cell
        return float(abs(np.linalg.det(cell)))

    @property
    def _end_ps(self) -> float:
        return self.settings.steps * self.settings.timestep_fs / 1000

    def to_the_end(self) -> Outcome:
        self.began = time.perf_counter(), self.engine.time_ps
        with self.writer, LogWriter(self.log_path, self.lines) as self.log:
            while self._left() > 0:
                try:
                    self.engine.advance(self._left(), self._frame, stride=self._stride(), first=self.fresh)
                except _Drifted as drifted:
                    self._reduce_after_drift(drifted.moved)
                except Exploded as exploded:
                    if self.settings.on_drift != "reduce" or self.last is None or not self._fewer():
                        raise
                    self._reduce(f"{exploded} (gone back to {self.last.time_ps:.4g} ps)", self.last)
                self.fresh = False
        return Outcome(self.writer.n_frames, self.engine.time_ps, tuple(self.remarks))

    def _left(self) -> int:
        """Outer steps to the end."""
        return round(1000 * (self._end_ps - self.engine.time_ps) / self.engine.timestep_fs)

    def _stride(self) -> int:
        return self.settings.stride * self.settings.n_inner // self.n_inner

    def _frame(self, frame: Frame) -> None:
        self.writer.append(frame)
        self.last = frame
        line = self._line(frame, self.n_inner)
        self.log.append(line)
        if self.progress is not None:
            took, since = time.perf_counter() - self.began[0], frame.time_ps - self.began[1]
            speed = f"{86.4 * since / took:.3g} ns/day, " if since else ""
            self.progress(frame.time_ps, self._end_ps, f"{speed}{line.temperature_K:.0f} K")
        moved = self.guard.moved(frame.time_ps, frame.conserved)
        if moved > self.settings.max_energy_change_meV and self.settings.on_drift != "continue":
            raise _Drifted(moved)

    def _fewer(self) -> list[int]:
        """At most half of the inner steps, in numbers that keep the frames' distance."""
        interval = self.settings.stride * self.settings.n_inner
        return [n for n in range(1, self.n_inner // 2 + 1) if interval % n == 0]

    def _reduce_after_drift(self, moved: float) -> None:
        """Halve n_inner, or stop where that is not wanted or not possible."""
        what = (
            f"run: the conserved energy has moved by {moved:.3g} meV/atom, more than "
            f"{self.settings.max_energy_change_meV:g}, after {self.engine.time_ps:.4g} ps with "
            f"{self.settings.forces} forces and n_inner {self.n_inner}"
        )
        if self.settings.on_drift == "stop" or not self._fewer():
            remedy = "give --on-drift reduce" if self._fewer() else "shorten the timestep or use conservative forces"
            raise RunError(f"{what}; {remedy}, or --on-drift continue to run all the same; frames are kept")
        self._reduce(what, self.engine.frame())

    def _reduce(self, what: str, last: Frame) -> None:
        """Go on from a frame with half of the inner steps."""
        self._count_from(last.time_ps, last.conserved)
        self.n_inner = self._fewer()[-1]
        self.remarks.append(f"{what}: n_inner is {self.n_inner} from here on")
        self.engine = self._engine()
        self.engine.resume(last)

    def _count_from(self, time_ps: float, conserved_eV: float) -> None:
        self.guard.forget()
        self.guard.moved(time_ps, conserved_eV)
