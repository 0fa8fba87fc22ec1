"""A search as plain text, at most 80 columns wide."""

from __future__ import annotations

import math
import textwrap

from mlcalc.audit import thresholds as limit
from mlcalc.tuning.result import SAFE, UNDECIDED, UNSTABLE, Trial, Tuning

WIDTH = 80
_CELL, _LABEL = 14, 8
_MARKS = {SAFE: "*", UNDECIDED: "?", UNSTABLE: "!"}
_COLOURS = {SAFE: "32", UNDECIDED: "33", UNSTABLE: "31"}


def render_text(tuning: Tuning, *, colour: bool = False) -> str:
    """The map, and what to take from it; `colour` adds ANSI codes for a terminal."""
    steps = sorted({one.timestep_fs for one in tuning.trials})
    numbers = sorted({one.n_inner for one in tuning.trials})
    title = f"{tuning.potential} on {tuning.structure} ({tuning.n_atoms} atoms), {tuning.temperature_K:g} K"
    lines = ["", *textwrap.wrap(title, WIDTH), "", "drift of the conserved energy, meV/atom/ps"]
    columns = (WIDTH - _LABEL) // _CELL
    for first in range(0, len(numbers), columns):
        part = numbers[first : first + columns]
        lines.append(("inner".ljust(_LABEL) + "".join(f"M = {m}".ljust(_CELL) for m in part)).rstrip())
        for step in steps:
            cells = [_cell(tuning.trial(step, m), colour) for m in part]
            lines.append(f"{step:g} fs".ljust(_LABEL) + "".join(cells).rstrip())
        lines.append("")
    tolerance, most, span = limit.DRIFT_TOLERANCE, limit.DRIFT_LIMIT, limit.SHORTEST_RUN
    lines += textwrap.wrap(
        f"M inner steps make an outer one; M = 1: conservative forces alone. * safe: run for {span.value:g} ps or "
        f"longer, and within {tolerance.value:g} {tolerance.unit}, two standard errors included; ! unstable: surely "
        f"beyond that, or in a shorter run surely beyond {most.value:g}; ? undecided; - not run, since a shorter step "
        "is unstable",
        WIDTH,
    )
    return "\n".join([*lines, "", *_advice(tuning)])


def cell_text(trial: Trial | None) -> str:
    """A drift in few characters."""
    if trial is None:
        return "-"
    if not math.isfinite(trial.drift):
        return "exploded"
    if not math.isfinite(trial.drift_error):
        return f"{trial.drift:.2g}"
    digits = 0 if trial.drift_error >= 1 else min(3, -math.floor(math.log10(max(trial.drift_error, 1e-3))))
    return f"{trial.drift:.{digits}f}±{trial.drift_error:.{digits}f}"


def _cell(trial: Trial | None, colour: bool) -> str:
    text = cell_text(trial)
    if trial is None:
        return text.ljust(_CELL)
    padded = f"{text}{_MARKS[trial.status]}".ljust(_CELL)
    return f"\033[{_COLOURS[trial.status]}m{padded}\033[0m" if colour else padded


def _advice(tuning: Tuning) -> list[str]:
    best, alone = tuning.best, tuning.conservative
    if best is None:
        return textwrap.wrap(
            "No setting was found safe. Where one is undecided, more replicas or longer runs (--confirm-ps) may tell; "
            "where all are unstable, try shorter inner steps or relax the structure.",
            WIDTH,
        )
    forces = f"--n-inner {best.n_inner}" if best.n_inner > 1 else "--forces conservative"
    lines = [f"fastest safe: mlcalc run {forces} --timestep-fs {best.outer_fs:g}"]
    if alone is not None and alone is not best:
        lines += textwrap.wrap(
            f"{tuning.speed_up:.2g} times as fast as conservative forces alone with their own longest step, "
            f"{alone.timestep_fs:g} fs",
            WIDTH, initial_indent="              ", subsequent_indent="              ",
        )  # fmt: skip
    return lines
