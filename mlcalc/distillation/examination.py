"""What a student is good for: its error, its asymmetry, its cost, and the longest outer step that conserves energy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlcalc.audit import thresholds as limit
from mlcalc.diagnostics import jacobian_asymmetry, nve_drift
from mlcalc.diagnostics.finding import Finding
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import RunError, TooShortToTell
from mlcalc.evaluation import Wanted, required
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.network import Network
from mlcalc.potentials.potential import Potential
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.probes import products
from mlcalc.structure import Structure
from mlcalc.training.data import Frame
from mlcalc.trajectory import Frame as Record

Progress = Callable[[str, int, int], None]

_LADDER = (16, 12, 8, 6, 5, 4, 3, 2)  # the longest outer step costs least and is tried first
_ROUNDS = 3  # of timing
_EQUILIBRATION_PS, _EQUILIBRATION_INNER = 0.3, 4


@dataclass(frozen=True)
class Rung:
    """One run with multiple time stepping at constant energy.

    Attributes
    ----------
    drift, drift_error : meV/atom/ps; not a number where the run flew apart
    """

    n_inner: int
    outer_timestep_fs: float
    drift: float
    drift_error: float
    stable: bool


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes
    ----------
    force_error : meV/Å, root mean square on frames left out of training
    asymmetry : λ of the student's force; asymmetry_error : its standard error
    teacher_ms, student_ms : ms, of one evaluation of the forces, side by side
    rungs : in the order in which they were tried
    n_inner : the most inner steps that conserve energy on this system; 0 if none of the ladder's do
    """

    force_error: float
    asymmetry: float
    asymmetry_error: float
    teacher_ms: float
    student_ms: float
    rungs: tuple[Rung, ...]
    n_inner: int

    @property
    def cost_ratio(self) -> float:
        """Teacher over student."""
        return self.teacher_ms / self.student_ms

    @property
    def speed_up(self) -> float:
        """Of multiple time stepping over the teacher alone, at the same inner timestep, from the two costs."""
        if not self.n_inner:
            return 1.0
        return self.teacher_ms / (self.student_ms + self.teacher_ms / self.n_inner)

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "cost_ratio": self.cost_ratio, "speed_up": self.speed_up}


def force_error(student: Potential, frames: Sequence[Frame]) -> float:
    """meV/Å, root mean square of the student's direct force against the labels."""
    squares = []
    for one in frames:
        found = student.evaluate(one.structure, one.neighbours, Wanted.DIRECT)
        squares.append((required(found, "direct_force") - one.force).square().mean())
    return 1000 * float(torch.stack(squares).mean().sqrt())


def examine(
    student: Network,
    teacher: Potential,
    structure: Structure,
    frames: Sequence[Frame],
    *,
    temperature_K: float,
    inner_timestep_fs: float,
    ladder_ps: float,
    progress: Progress,
) -> Examination:
    """Measure everything; frames are those left out of training, dynamics begins at the structure."""
    asymmetry = _asymmetry(student, frames[-1].structure, progress)
    teacher_ms, student_ms = _costs(teacher, student, structure)
    rungs: list[Rung] = []
    pair = TwoPotentials(student, teacher)
    start, momenta = _equilibrated(pair, structure, inner_timestep_fs, temperature_K, progress)
    for n_inner in _LADDER:
        progress(f"ladder, {n_inner} inner steps", 0, 1)
        rungs.append(_rung(pair, start, momenta, n_inner, inner_timestep_fs, ladder_ps))
        progress(f"ladder, {n_inner} inner steps", 1, 1)
        if rungs[-1].stable:
            break
    return Examination(
        force_error=force_error(student, frames),
        asymmetry=asymmetry.value,
        asymmetry_error=asymmetry.standard_error,
        teacher_ms=teacher_ms,
        student_ms=student_ms,
        rungs=tuple(rungs),
        n_inner=rungs[-1].n_inner if rungs[-1].stable else 0,
    )


def _asymmetry(student: Network, structure: Structure, progress: Progress) -> Finding:
    samples = products.sample_products(
        student, structure, "direct", progress=lambda done, total: progress("asymmetry", done, total)
    )
    return jacobian_asymmetry.from_products(samples)


def _costs(teacher: Potential, student: Potential, structure: Structure) -> tuple[float, float]:
    """ms of one evaluation of the teacher's and of the student's force, in turn, medians."""

    def timed(potential: Potential, wanted: Wanted) -> float:
        here = structure.to(device=potential.device)
        neighbours = neighbour_list(here, potential.cutoff)
        if here.device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        potential.evaluate(here, neighbours, wanted)
        if here.device.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - began)

    pairs = [
        (timed(teacher, Wanted.ENERGY | Wanted.CONSERVATIVE), timed(student, Wanted.DIRECT)) for _ in range(_ROUNDS + 1)
    ]
    slow, fast = zip(*pairs[1:], strict=True)  # the first warms up
    return median(slow), median(fast)


def _equilibrated(
    pair: TwoPotentials, structure: Structure, inner_fs: float, temperature_K: float, progress: Progress
) -> tuple[Structure, Tensor]:
    """The structure and momenta after some time in a bath."""
    outer_fs = _EQUILIBRATION_INNER * inner_fs
    engine = NativeEngine(
        pair,
        structure,
        forces="mts",
        timestep_fs=outer_fs,
        n_inner=_EQUILIBRATION_INNER,
        momenta=maxwell_boltzmann(structure, 2 * temperature_K, seed=0),  # half of it becomes potential energy
        ensemble=Ensemble(Langevin(temperature_K, friction_per_ps=5.0)),
    )
    total = round(1000 * _EQUILIBRATION_PS / outer_fs)
    done = 0

    def count(record: Record) -> None:
        nonlocal done
        done += 1
        progress("equilibration", done, total)

    engine.advance(total, count, first=False)
    return structure.at(engine.phase.positions), engine.phase.momenta


def _rung(
    pair: TwoPotentials, structure: Structure, momenta: Tensor, n_inner: int, inner_fs: float, ladder_ps: float
) -> Rung:
    outer_fs = n_inner * inner_fs
    engine = NativeEngine(pair, structure, forces="mts", timestep_fs=outer_fs, n_inner=n_inner, momenta=momenta)
    records: list[Record] = []
    try:
        engine.advance(max(8, round(1000 * ladder_ps / outer_fs)), records.append)
    except RunError:
        return Rung(n_inner, outer_fs, float("nan"), float("nan"), False)
    temperature = float(np.mean([engine.temperature(record.kinetic_energy) for record in records]))
    times, energies = ([getattr(record, key) for record in records] for key in ("time_ps", "conserved"))
    try:
        drift = nve_drift.measure(times, energies, structure.n_atoms, temperature)
    except TooShortToTell as short:
        assert isinstance(short.estimate, nve_drift.Drift)
        drift = short.estimate
    value, error = drift.per_atom.value, drift.per_atom.standard_error
    # not surely drifting; and where the run is too short to be sure of anything, not by much
    surely = abs(value) - limit.SIGNIFICANCE.value * error > limit.DRIFT_TOLERANCE.value
    stable = not surely and abs(value) <= limit.DRIFT_LIMIT.value
    return Rung(n_inner, outer_fs, value, error, stable)
