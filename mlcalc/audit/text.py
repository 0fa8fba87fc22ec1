"""The audit as a plain-text table, at most 80 columns wide."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from mlcalc.audit.result import CARE, SAFE, TOO_SHORT, UNSAFE, AuditResult
from mlcalc.audit.verdict import bare, plus_minus

WIDTH = 80
_COLOURS = {SAFE: "32", CARE: "33", TOO_SHORT: "33", UNSAFE: "31"}
_NAMES = {"conservative": "conservative", "direct": "direct", "mts": "MTS"}


def render_text(result: AuditResult, *, colour: bool = False) -> str:
    """Verdict, verdicts by use, drifts, λ and costs; `colour` adds ANSI codes for a terminal."""
    subject = result.subject
    title = f"{subject.potential} on {subject.structure}: {subject.formula}, {subject.n_atoms} atoms"
    lines = ["", *_wrap(title), *_wrap(result.overall.headline, result.overall.status, colour)]
    lines += _wrap(result.overall.advice)
    lines += ["", *_uses(result, colour), "", *_numbers(result)]
    return "\n".join(line.rstrip() for line in lines)


def _paint(text: str, status: str, colour: bool) -> str:
    code = _COLOURS.get(status)
    return f"\033[{code}m{text}\033[0m" if colour and code else text


def _wrap(text: str, status: str = "", colour: bool = False) -> list[str]:
    return [_paint(line, status, colour) for line in textwrap.wrap(text, WIDTH)]


def _uses(result: AuditResult, colour: bool) -> list[str]:
    """One line for each verdict; the evidence stands in the report and in the numbers below."""
    lines = [f"{'forces':<15}{'use':<47}{'verdict':<18}", "-" * WIDTH]
    for verdict in result.verdicts:
        status = _paint(verdict.status, verdict.status, colour)
        lines.append(f"{_NAMES[verdict.forces]:<15}{textwrap.shorten(verdict.use, 46):<47}{status}")
    return lines


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(
        f"{cell:<{width}}" if k == 0 else f"{cell:>{width}}"
        for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def _milliseconds(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.1f}"


def _numbers(result: AuditResult) -> list[str]:
    costs = result.costs
    step = {"conservative": costs.step_conservative, "direct": costs.step_direct, "mts": costs.step_mts}
    widths = (15, 25, 25, 15)
    lines = [_row(("run", "meV/atom/ps", "K/ps", "ms a step"), widths), "-" * WIDTH]
    for run in result.runs:
        name = f"MTS, M = {run.n_inner}" if run.forces == "mts" else run.forces
        end = f" exploded at {run.reached_ps:.2f} ps" if run.exploded else ""
        lines.append(_row((name, bare(run.drift), bare(run.heating), _milliseconds(step[run.forces])), widths))
        lines += [f"{'':<15}{end.strip():>50}"] if end else []
    lines += ["", *_facts(result)]
    return lines


def _facts(result: AuditResult) -> list[str]:
    costs, facts = result.costs, []
    for name, finding in (("direct", result.asymmetry.direct), ("conservative", result.asymmetry.conservative)):
        if finding is not None:
            facts.append(f"λ of the {name} forces: {plus_minus(finding)}{finding.floor_in_words}")
    if result.difference is not None:
        facts.append(
            f"f_conservative - f_direct: {result.difference.rms:.3g} meV/Å root mean square, of forces of "
            f"{result.difference.force_rms:.3g}"
        )
    if costs.overhead is not None and costs.bound is not None:
        facts.append(
            f"an inner step with M = {costs.n_inner} costs {costs.overhead:.2f} direct steps; 1 + (c-1)/M = "
            f"{costs.bound:.2f}"
        )
    if result.ladder:
        rungs = ", ".join(f"{rung.n_inner}{'' if rung.stable else ' (unstable)'}" for rung in result.ladder)
        facts.append(f"step ladder, M = {rungs}")
    return [line for fact in facts for line in textwrap.wrap(fact, WIDTH, subsequent_indent="  ")]
