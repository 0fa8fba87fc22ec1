"""Settings tried side by side: all steps with one number of inner steps, on all replicas, are one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mlcalc.audit import thresholds as limit
from mlcalc.diagnostics import nve_drift
from mlcalc.engines.batch import BatchEngine
from mlcalc.engines.momenta import maxwell_boltzmann
from mlcalc.engines.reports import Report
from mlcalc.errors import RunError, TooShortToTell, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure
from mlcalc.tuning.result import Trial

# between energies: a step's error oscillates with twice the frequency of a vibration, and 4 fs make a walk of that
_FRAME_FS = 1.0
_FEWEST_FRAMES = 24  # of which a drift can be told

Costs = Callable[[float, int], float]


@dataclass(frozen=True)
class Start:
    """Where all runs begin.

    Attributes
    ----------
    structure : one system, at equilibrium
    momenta : (replicas · n_atoms, 3), amu·Å/time, of one replica after the other
    """

    potential: Potential
    structure: Structure
    momenta: Tensor
    temperature_K: float

    @classmethod
    def of(cls, potential: Potential, structure: Structure, temperature_K: float, replicas: int, seed: int) -> Start:
        """With fresh momenta for each replica."""
        momenta = maxwell_boltzmann(structure.replicated(replicas), temperature_K, seed)
        return cls(potential, structure, momenta, temperature_K)

    @property
    def replicas(self) -> int:
        return len(self.momenta) // self.structure.n_atoms


@dataclass
class _Record:
    """The energy of one system, as it comes in."""

    time_ps: list[float] = field(default_factory=list)
    conserved: list[float] = field(default_factory=list)
    temperature_K: list[float] = field(default_factory=list)


def batched(potential: Potential, structure: Structure) -> bool:
    """Whether a potential takes more than one system at a time."""
    two = structure.replicated(2)
    try:
        energy = potential.evaluate(two, neighbour_list(two, potential.cutoff), Wanted.ENERGY).energy
    except (UsageError, RunError):
        return False
    return energy is not None and len(energy) == 2


def run_trials(
    start: Start,
    timesteps_fs: Sequence[float],
    n_inner: int,
    span_ps: float,
    cost: Costs,
    at_once: int,
    progress: Callable[[int, int], None],
) -> list[Trial]:
    """Each inner step on each replica, for `span_ps` or a few outer steps if these take longer.

    Parameters
    ----------
    cost : (inner step, n_inner) → ms of computing for a picosecond
    at_once : how many systems make a batch
    """
    steps = [step for step in timesteps_fs for _ in range(start.replicas)]
    parts = start.momenta.split(start.structure.n_atoms)
    records = [_Record() for _ in steps]
    exploded = np.zeros(len(steps), dtype=bool)
    for first in range(0, len(steps), at_once):
        chunk = slice(first, first + at_once)
        members = range(len(steps))[chunk]

        def show(done: int, total: int, members: range = members) -> None:
            progress(members.start + done * len(members) // total, len(steps))

        momenta = torch.cat([parts[k % start.replicas] for k in members])
        engine = _engine(start, steps[chunk], n_inner, momenta)
        _advance(engine, records[chunk], span_ps, show)
        for k, ending in engine.endings.items():
            exploded[first + k] = ending.exploded
    trials = []
    for place, step in enumerate(timesteps_fs):
        mine = slice(place * start.replicas, (place + 1) * start.replicas)
        drift, error, clear = _mean_drift(records[mine], n_inner * step, start.structure.n_atoms)
        lost = int(exploded[mine].sum())
        span = min((record.time_ps[-1] for record in records[mine] if record.time_ps), default=0.0)
        trials.append(
            Trial(
                timestep_fs=step,
                n_inner=n_inner,
                drift=math.nan if lost else drift,
                drift_error=math.nan if lost else error,
                clear=clear,
                span_ps=span,
                replicas=start.replicas,
                exploded=lost,
                ms_per_ps=cost(step, n_inner),
            )
        )
    return trials


def _engine(start: Start, timesteps_fs: Sequence[float], n_inner: int, momenta: Tensor) -> BatchEngine:
    return BatchEngine(
        start.potential,
        start.structure.replicated(len(timesteps_fs)),
        forces="conservative" if n_inner == 1 else "mts",
        timestep_fs=[n_inner * step for step in timesteps_fs],
        n_inner=n_inner,
        momenta=momenta,
        max_temperature_K=limit.EXPLOSION.value * start.temperature_K,
    )


def _advance(
    engine: BatchEngine, records: Sequence[_Record], span_ps: float, progress: Callable[[int, int], None]
) -> None:
    """Until every system has its span; those that have leave the batch."""
    wanted = [_outer_steps(span_ps, step) for step in engine.timesteps_fs]
    done = -1

    def note(report: Report) -> None:
        nonlocal done
        done += 1
        for place, system in enumerate(report.systems):
            record = records[system]
            record.time_ps.append(float(report.time_ps[place]))
            record.conserved.append(float(report.conserved[place]))
            record.temperature_K.append(float(report.temperature_K[place]))
        progress(done, max(wanted))
        engine.drop([system for system in report.systems if wanted[system] == done])

    engine.advance(max(wanted), lambda system, frame: None, on_report=note)
    progress(1, 1)


def _outer_steps(span_ps: float, outer_fs: float) -> int:
    every = _every(outer_fs)
    return max(math.ceil(1000 * span_ps / outer_fs - 1e-9), every * _FEWEST_FRAMES)


def _every(outer_fs: float) -> int:
    return max(1, round(_FRAME_FS / outer_fs))


def _mean_drift(records: Sequence[_Record], outer_fs: float, n_atoms: int) -> tuple[float, float, bool]:
    """meV/atom/ps and its standard error, over replicas; and whether it is more than a slow oscillation in each."""
    every = _every(outer_fs)
    found, clear = [], True
    for record in records:
        if len(record.time_ps) < 4 * every:
            return math.nan, math.nan, False
        times, energies = record.time_ps[::every], record.conserved[::every]
        try:
            drift = nve_drift.measure(times, energies, n_atoms, float(np.mean(record.temperature_K)))
        except TooShortToTell as short:
            assert isinstance(short.estimate, nve_drift.Drift)
            drift, clear = short.estimate, False
        found.append(drift.per_atom)
    errors = np.array([one.standard_error for one in found])
    return float(np.mean([one.value for one in found])), float(np.sqrt((errors**2).sum()) / len(found)), clear
