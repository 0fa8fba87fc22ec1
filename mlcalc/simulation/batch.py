"""Runs of many systems at once, each with files of its own, as single runs would have left them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import ase
import numpy as np
import torch

from mlcalc.engines.batch import BatchEngine
from mlcalc.engines.batch_size import fit_batches
from mlcalc.engines.momenta import maxwell_boltzmann
from mlcalc.engines.reports import Report
from mlcalc.errors import UsageError
from mlcalc.potentials.potential import Potential
from mlcalc.simulation.guard import EnergyGuard
from mlcalc.simulation.log import Line, LogWriter
from mlcalc.simulation.run import Progress, SimulationSettings, check_same, provenance_of
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame, Trajectory, TrajectoryWriter, read_trajectory


@dataclass(frozen=True)
class SystemOutcome:
    """How a system of a batch ended.

    Attributes
    ----------
    path : of its frames; its log lies beside it
    n_frames : in the file; time_ps : ps, of the last
    remark : why it ended before the others; empty if it did not
    """

    path: Path
    n_frames: int
    time_ps: float
    remark: str


def paths_of(path: Path, n_systems: int) -> list[Path]:
    """water.trajectory → water-0.trajectory, water-1.trajectory …"""
    digits = len(str(n_systems - 1))
    return [path.with_name(f"{path.stem}-{k:0{digits}d}{path.suffix}") for k in range(n_systems)]


def simulate_batch(
    potential: Potential,
    systems: Sequence[ase.Atoms],
    settings: SimulationSettings,
    path: str | Path,
    *,
    restart: bool = False,
    progress: Progress | None = None,
) -> list[SystemOutcome]:
    """Run many systems, as many at once as fit into memory, or go on with a run of them that was cut off.

    System k has frames and log at `path` with -k before the ending, and momenta and noise of seed + k: what `simulate`
    would write with that seed, to round-off. One that explodes or drifts is left, and the others go on.

    Parameters
    ----------
    systems : of any sizes
    settings : for all; `on_drift` cannot be "reduce"
    restart : go on after the last frame that all systems have which have not ended; bit for bit, as `simulate`
    progress : called at every report with (ps done, ps in all, note)

    Raises
    ------
    UsageError
        as `simulate`.
    RunError
        for a system that does not fit into memory, or a disk that is full.
    """
    if settings.on_drift == "reduce":
        raise UsageError(
            "on_drift: got 'reduce' for a batch; its systems share their inner steps: use stop or continue"
        )
    structure = Structure.from_ase(systems, dtype=torch.float64)
    paths = paths_of(Path(path), len(systems))
    outcomes: list[SystemOutcome] = []
    for numbers in fit_batches(potential, structure, forces=settings.forces):
        run = _Run(potential, structure.select(numbers), settings, numbers, [paths[k] for k in numbers])
        run.begin(restart)
        outcomes += run.to_the_end(progress)
    return outcomes


class _Run:
    """One batch; `numbers` of its systems in the whole set."""

    def __init__(
        self,
        potential: Potential,
        structure: Structure,
        settings: SimulationSettings,
        numbers: Sequence[int],
        paths: Sequence[Path],
    ) -> None:
        self.settings, self.numbers, self.paths = settings, numbers, paths
        thermostat = settings.held.thermostat
        first = 0 if thermostat is None else asdict(thermostat).get("seed", 0)
        self.engine = BatchEngine(
            potential,
            structure,
            forces=settings.forces,
            timestep_fs=settings.timestep_fs,
            n_inner=settings.n_inner,
            momenta=maxwell_boltzmann(structure, settings.temperature_K, settings.seed + numbers[0]),
            ensemble=settings.held,
            seeds=[first + number for number in numbers],
        )
        sizes = structure.atoms_per_system.tolist()
        self.guards = [EnergyGuard(size, settings.held.memory_ps) for size in sizes]
        self.lines: list[list[Line]] = [[] for _ in numbers]
        self.steps, self.fresh = 0, True
        self.last_ps = [0.0] * len(paths)

    def begin(self, restart: bool) -> None:
        """Make the files, or take up those that are there."""
        there = [path for path in self.paths if path.exists()] if restart else []
        records = [read_trajectory(path) for path in there]
        if len(there) == len(self.paths) and any(record.n_frames for record in records):
            return self._go_on(records)
        for path, record in zip(there, records, strict=True):
            if not record.n_frames:  # cut off before it began
                path.unlink()
        self.writers = [self._writer(k) for k in range(len(self.paths))]

    def _writer(self, k: int) -> TrajectoryWriter:
        return TrajectoryWriter(self.paths[k], self.engine.structure_of(k), self._provenance(k), self.engine.layout(k))

    def _provenance(self, k: int) -> dict:
        settings = replace(self.settings, seed=self.settings.seed + self.numbers[k])
        return provenance_of(self.engine.provenance(k), settings)

    def _go_on(self, records: Sequence[Trajectory]) -> None:
        for k, record in enumerate(records):
            check_same(record, self.engine.structure_of(k), self._provenance(k), self.paths[k])
        # frames of one report are written one after the other: who lacks more than the last one had ended before
        most = max(record.n_frames for record in records)
        alive = [k for k, record in enumerate(records) if record.n_frames >= most - 1]
        whole = min(records[k].n_frames for k in alive)
        if whole == 0:
            for path in self.paths:
                path.unlink()
            self.writers = [self._writer(k) for k in range(len(records))]
            return
        self.writers = [
            TrajectoryWriter.reopen(path, whole if k in alive else None) for k, path in enumerate(self.paths)
        ]
        self.engine.resume([records[k].frame(whole - 1) if k in alive else None for k in range(len(records))])
        self.steps, self.fresh = self.settings.stride * (whole - 1), False
        drifted = [k for k in alive if self._replay(k, records[k], whole)]
        for k in set(range(len(records))) - set(alive):
            self._replay(k, records[k], records[k].n_frames)
        self.engine.drop(drifted, "its energy had moved too far before")

    def _replay(self, k: int, record: Trajectory, n_frames: int) -> bool:
        """Write the log anew, and see whether the guard had spoken at the last frame."""
        moved = 0.0
        for j in range(n_frames):
            frame = record.frame(j)
            self.lines[k].append(self._line(k, frame))
            moved = self.guards[k].moved(frame.time_ps, frame.conserved)
            self.last_ps[k] = frame.time_ps
        return self._too_far(moved)

    def _too_far(self, moved: float) -> bool:
        # not a number where the potential has no energy
        return self.settings.on_drift == "stop" and moved > self.settings.max_energy_change_meV

    def _line(self, k: int, frame: Frame) -> Line:
        temperature = self.engine.temperature(frame.kinetic_energy, k)
        energies = (frame.potential_energy, frame.kinetic_energy, frame.conserved)
        return Line(frame.time_ps, self.settings.n_inner, temperature, *energies)

    def to_the_end(self, progress: Progress | None) -> list[SystemOutcome]:
        """Run what is left."""
        self.logs = [
            LogWriter(path.with_suffix(".log"), lines) for path, lines in zip(self.paths, self.lines, strict=True)
        ]
        self.progress, self.began = progress, (time.perf_counter(), self.steps)
        try:
            self.engine.advance(
                self.settings.steps - self.steps,
                self._frame,
                stride=self.settings.stride,
                first=self.fresh,
                on_report=self._report,
            )
        finally:
            for writer, log in zip(self.writers, self.logs, strict=True):
                writer.close()
                log.close()
        remarks = {k: ending.reason for k, ending in self.engine.endings.items()}
        return [
            SystemOutcome(path, self.writers[k].n_frames, self.last_ps[k], remarks.get(k, ""))
            for k, path in enumerate(self.paths)
        ]

    def _frame(self, k: int, frame: Frame) -> None:
        self.writers[k].append(frame)
        self.logs[k].append(self._line(k, frame))
        self.last_ps[k] = frame.time_ps

    def _report(self, report: Report) -> None:
        rows = zip(report.systems, report.time_ps, report.conserved, strict=True)
        moved = {k: self.guards[k].moved(float(time_ps), float(conserved)) for k, time_ps, conserved in rows}
        for k, change in moved.items():
            if self._too_far(change):
                self.engine.drop(
                    [k],
                    f"system {self.numbers[k]}: its conserved energy has moved by {change:.3g} meV/atom, more than "
                    f"{self.settings.max_energy_change_meV:g}; shorten the timestep or n_inner",
                )
        if self.progress is not None and report.systems:
            end, now = self.settings.steps * self.settings.timestep_fs / 1000, float(report.time_ps[0])
            took, since = time.perf_counter() - self.began[0], now - self.began[1] * self.settings.timestep_fs / 1000
            speed = f"{86.4 * since / took:.3g} ns/day each, " if since > 0 else ""
            note = f"{speed}{np.mean(report.temperature_K):.0f} K, {len(report.systems)} of {len(self.paths)} systems"
            self.progress(now, end, note)
