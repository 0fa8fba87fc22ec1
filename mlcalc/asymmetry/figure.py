"""The asymmetry as a picture: λ against time or index, its histogram, λ_ij against distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlcalc.asymmetry.result import AsymmetryResult
from mlcalc.diagnostics.pair_asymmetry import PairAsymmetry
from mlcalc.errors import UsageError

_BLUE, _RED, _GREY = "#1f5aa6", "#b5482a", "#777777"


def plot(result: AsymmetryResult, path: str | Path) -> None:
    """Write a PNG (or what the file's ending says).

    Raises
    ------
    UsageError
        if there is nothing to draw (one structure, no distances), or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: list[Any] = []
    if len(result.frames) > 1:
        panels += [lambda axes: _course(axes, result), lambda axes: _histogram(axes, result)]
    if result.profile is not None and len(result.profile.distance):
        profile = result.profile
        panels.append(lambda axes: _distances(axes, profile))
    if not panels:
        raise UsageError("plot: one structure without distances gives nothing to draw; give more or ask for centres")
    figure = Figure(figsize=(4.2 * len(panels), 3.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{result.potential}, {result.forces} forces", fontsize=10)
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"plot: cannot write {path} ({error}); give a writable path that ends in .png") from error


def _course(axes: Any, result: AsymmetryResult) -> None:
    timed = all(frame.time_ps is not None for frame in result.frames)
    x = [frame.time_ps if timed else frame.index for frame in result.frames]
    errors = np.where(np.isfinite(result.standard_errors), result.standard_errors, 0)
    axes.errorbar(x, result.values, errors, fmt="o", markersize=3, elinewidth=0.7, color=_BLUE)
    axes.axhline(result.mean.value, color=_RED, linewidth=1)
    axes.set_xlabel("time, ps" if timed else "structure", fontsize=8)
    axes.set_ylabel("λ", fontsize=8)


def _histogram(axes: Any, result: AsymmetryResult) -> None:
    axes.hist(result.values, bins="auto", color=_BLUE, alpha=0.7)
    axes.axvline(result.mean.value, color=_RED, linewidth=1)
    axes.set_xlabel("λ", fontsize=8)
    axes.set_ylabel("structures", fontsize=8)
    axes.yaxis.get_major_locator().set_params(integer=True)


def _distances(axes: Any, profile: PairAsymmetry) -> None:
    axes.errorbar(
        profile.distance, profile.asymmetry, profile.standard_error, fmt="o-", markersize=3, linewidth=1, color=_BLUE
    )
    axes.plot(profile.distance, profile.noise_floor, color=_GREY, linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    axes.set_xlabel("distance, Å", fontsize=8)
    axes.set_ylabel("λ_ij (dashed: noise floor)", fontsize=8)
