"""A diagnosis as a plain-text table, at most 80 columns wide."""

from __future__ import annotations

import textwrap

from mlcalc.audit.verdict import plus_minus
from mlcalc.diagnosis.result import ATTENTION, GOOD, TOO_SHORT, Diagnosis, Row

WIDTH = 80
_COLOURS = {GOOD: "32", TOO_SHORT: "33", ATTENTION: "31"}
_LABEL, _VALUE = 34, 26


def render_text(diagnosis: Diagnosis, *, colour: bool = False) -> str:
    """Findings, what was not done and why, remarks; `colour` adds ANSI codes for a terminal."""
    lines = ["", *textwrap.wrap(_title(diagnosis), WIDTH), "", f"{'what':<{_LABEL}}{'value':<{_VALUE}}", "-" * WIDTH]
    for row in diagnosis.rows:
        lines += _row(row, colour)
    if diagnosis.not_done:
        lines += ["", "not done"]
        for name, reason in diagnosis.not_done.items():
            lines += textwrap.wrap(f"{name}: {reason}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    if diagnosis.remarks:
        lines += ["", "to know"]
        for remark in diagnosis.remarks:
            lines += textwrap.wrap(remark, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(line.rstrip() for line in lines)


def _title(diagnosis: Diagnosis) -> str:
    parts = [part for part in (diagnosis.formula,) if part]
    if diagnosis.n_atoms is not None:
        parts.append(f"{diagnosis.n_atoms} atoms")
    if diagnosis.n_frames:
        parts.append(f"{diagnosis.n_frames} frames")
    if diagnosis.span_ps is not None:
        parts.append(f"{diagnosis.span_ps:.4g} ps")
    return f"{diagnosis.files}: {', '.join(parts)}"


def _row(row: Row, colour: bool) -> list[str]:
    label = textwrap.shorten(row.label, _LABEL - 2) if not row.label.startswith(" ") else row.label[: _LABEL - 1]
    value = plus_minus(row.finding)
    start = f"{label:<{_LABEL}}{value:<{_VALUE}}"
    if len(start) > _LABEL + _VALUE:
        start += " "
    code = _COLOURS.get(row.judgement)
    rest = textwrap.wrap(row.reason, WIDTH - max(len(start), _LABEL + _VALUE)) or [""]
    painted = [f"\033[{code}m{part}\033[0m" if code and colour else part for part in rest]
    return [start + painted[0], *(" " * (_LABEL + _VALUE) + part for part in painted[1:])]
