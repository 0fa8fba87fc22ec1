"""The asymmetry as a plain-text table, at most 80 columns wide."""

from __future__ import annotations

import textwrap

import numpy as np

from mlcalc.asymmetry.result import QUANTILES, AsymmetryResult, FrameAsymmetry
from mlcalc.audit.thresholds import ASYMMETRY_OVER_FLOOR
from mlcalc.audit.verdict import plus_minus
from mlcalc.diagnostics.finding import Finding
from mlcalc.diagnostics.pair_asymmetry import PairAsymmetry

WIDTH = 80
_LABEL = 34


def render_text(result: AsymmetryResult, *, name: str = "") -> str:
    """The distribution of λ, what it means, and λ_ij by distance where it is known; `name` of the structures."""
    n = len(result.frames)
    lines = ["", *textwrap.wrap(_title(result, name), WIDTH), "", f"{'λ, asymmetry of the Jacobian':<{_LABEL}}value"]
    lines.append("-" * WIDTH)
    if n == 1:
        lines.append(_line("λ", plus_minus(result.mean)))
        lines.append(_line("measured by", result.mean.note))
    else:
        low, middle, high = (f"{value:.3g}" for value in np.quantile(result.values, QUANTILES))
        lines += [
            _line("mean", plus_minus(result.mean)),
            _line("spread, without sampling error", f"{result.spread:.2g}"),
            _line("5 %, median, 95 %", f"{low}   {middle}   {high}"),
            _line("largest", f"{plus_minus(result.largest.finding)}   {_place(result.largest)}"),
        ]
    lines.append(_line("noise floor", f"{result.noise_floor:.1g}"))
    lines += ["", *textwrap.wrap(_meaning(result), WIDTH)]
    if result.profile is not None:
        lines += ["", *_by_distance(result.profile)]
    return "\n".join(line.rstrip() for line in lines)


def _title(result: AsymmetryResult, name: str) -> str:
    sizes = sorted({frame.n_atoms for frame in result.frames})
    atoms = f"{sizes[0]} atoms" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} atoms"
    many = f", {len(result.frames)} structures" if len(result.frames) > 1 else ""
    formula = result.formulas[0] if len(result.formulas) == 1 else f"{len(result.formulas)} compositions"
    return f"{result.potential}, {result.forces} forces: {name + ', ' if name else ''}{formula}, {atoms}{many}"


def _line(label: str, value: str) -> str:
    return f"{label:<{_LABEL}}{value}"


def _place(frame: FrameAsymmetry) -> str:
    time = "" if frame.time_ps is None else f" at {frame.time_ps:.4g} ps"
    return f"no. {frame.index}{time}"


def _meaning(result: AsymmetryResult) -> str:
    n, above = len(result.frames), sum(frame.above_floor for frame in result.frames)
    factor = f"{ASYMMETRY_OVER_FLOOR.value:g} times the noise floor"
    if above == 0:
        return f"Nowhere above {factor}: these forces are a gradient as far as round-off lets one see."
    where = "in all structures" if above == n else f"in {above} of {n} structures"
    if n == 1:
        where = "here"
    return f"Above {factor} {where}: these forces are not the gradient of any energy."


def _by_distance(profile: PairAsymmetry) -> list[str]:
    lines = [f"{'distance, Å':>11}{'λ_ij':>22}{'floor':>10}{'pairs':>10}", "-" * WIDTH]
    for distance, value, error, floor, n in zip(
        profile.distance, profile.asymmetry, profile.standard_error, profile.noise_floor, profile.n_pairs, strict=True
    ):
        found = plus_minus(Finding("", float(value), float(error), "1"))
        lines.append(f"{distance:>11.2f}{found:>22}{floor:>10.1g}{int(n):>10}")
    return lines if len(lines) > 2 else ["λ_ij: no two of the sampled atoms are coupled"]
