"""What a distillation says when it is done."""

from __future__ import annotations

import numpy as np

from mlcalc.distillation.run import Distilled


def summary(made: Distilled) -> str:
    """What a user wants to know, in a few lines of at most 80 columns."""
    found = made.examination
    costs = f"{found.teacher_ms:.3g} and {found.student_ms:.3g} ms"
    fresh = ", ".join(f"{error:.0f}" for error in made.fresh_errors)
    lines = [
        f"{made.n_frames} frames labelled; force error on fresh ones, round by round: {fresh} meV/Å",
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
    if found.n_inner:
        lines.append(f"Use it with --n-inner {found.n_inner}: {found.speed_up:.1f} times as fast as the teacher alone.")
        lines.append(f"mlcalc run --fast {made.path.name} --slow TEACHER --n-inner {found.n_inner} …")
    else:
        lines.append("No outer step conserves energy: give it more rounds, frames or steps.")
    return "\n".join(lines)
