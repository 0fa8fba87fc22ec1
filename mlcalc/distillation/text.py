"""What a distillation says when it is done."""

from __future__ import annotations

import textwrap

import numpy as np

from mlcalc.distillation.run import Distilled


def summary(made: Distilled) -> str:
    """What a user wants to know, in a few lines of at most 80 columns."""
    found = made.examination
    costs = f"{found.teacher_ms:.3g} and {found.student_ms:.3g} ms"
    errors = ", ".join(f"{error:.0f}" for error in made.fresh_errors)
    fresh = f"force error on fresh ones         {errors} meV/Å, round by round"
    lines = [
        f"frames labelled                   {made.n_frames}",
        textwrap.fill(fresh, 80, subsequent_indent=34 * " "),
        f"force error on frames left out    {found.force_error:.3g} meV/Å",
        f"Jacobian asymmetry λ              {found.asymmetry:.2g} ± {found.asymmetry_error:.1g}",
        f"teacher over student, cost        {found.cost_ratio:.1f} ({costs})",
        "",
        "inner steps   outer step, fs   drift, meV/atom/ps",
    ]
    for rung in found.rungs:
        drift = f"{rung.drift:8.3f} ± {rung.drift_error:.3f}" if np.isfinite(rung.drift) else "flew apart"
        lines.append(
            f"{rung.n_inner:>11}   {rung.outer_timestep_fs:>14g}   {drift}{'' if rung.stable else '   not stable'}"
        )
    lines.append("")
    use, gain = f"--n-inner {found.n_inner}", found.speed_up
    if found.n_inner and gain < 1:
        lines.append(f"With {use} it takes {1 / gain:.1f} times as long as the teacher alone: of no use.")
    elif found.n_inner:
        lines.append(f"Use it with {use}: {gain:.1f} times as fast as the teacher alone.")
        lines.append(f"mlcalc run --fast {made.path.name} --slow TEACHER {use} …")
    else:
        lines.append("No outer step conserves energy: give it more rounds, frames or steps.")
    return "\n".join(lines)
