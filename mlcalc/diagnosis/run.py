"""Runs every diagnostic that a record allows, and says why the others were not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase.formula import Formula
from numpy.typing import NDArray

from mlcalc.diagnosis import energies, positions, velocities
from mlcalc.diagnosis.bench import Bench, DiagnosisSettings
from mlcalc.diagnosis.result import Diagnosis
from mlcalc.errors import UsageError
from mlcalc.record import Frames, Record

Array = NDArray[np.float64]


def diagnose(
    record: Record,
    settings: DiagnosisSettings | None = None,
    *,
    hessian: Callable[[Frames], Array] | None = None,
) -> Diagnosis:
    """Everything that a record tells.

    Parameters
    ----------
    hessian : frames → (3 n_atoms, 3 n_atoms), eV/Å², where one is at hand, for the temperature of normal modes

    Raises
    ------
    UsageError
        for a record with nothing in it.
    """
    bench = Bench(record, settings or DiagnosisSettings())
    not_done = {}
    for name, measure in (
        ("drift", energies.drift),
        ("non-conservative power", energies.power),
        ("temperature", velocities.temperature),
        ("volume", positions.volume),
        ("diffusion", positions.diffusion),
        ("radial distribution", positions.distances),
        ("velocity spectrum", velocities.spectrum),
        ("normal modes", lambda bench: velocities.modes(bench, hessian)),
    ):
        try:
            measure(bench)
        except UsageError as error:
            not_done[name] = " ".join(str(error).split())
    clocks = [part.time_ps for part in (bench.frames, bench.series) if part is not None and part.time_ps is not None]
    return Diagnosis(
        files=bench.name,
        formula=Formula.from_list(bench.labels).format("hill") if bench.labels else "",
        n_atoms=bench.n_atoms,
        n_frames=0 if bench.frames is None else bench.frames.n_frames,
        span_ps=float(clocks[0][-1] - clocks[0][0]) if clocks else None,
        rows=tuple(bench.rows),
        curves=tuple(bench.curves),
        not_done=not_done,
        remarks=tuple(bench.remarks),
    )
