"""A diagnosis as one picture: a panel for each kind of curve that there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlcalc.diagnosis.result import Curve, Diagnosis
from mlcalc.errors import UsageError

_COLOURS = ("#1f5aa6", "#b5482a", "#2e8b57", "#8a5aa8", "#c99700", "#3f7f93", "#7a4b2a", "#777777")
_PANELS = (
    ("drift", "conserved energy"),
    ("temperature", "temperature by element"),
    ("volume", "volume"),
    ("radial distribution", "radial distribution"),
    ("velocity spectrum", "vibrational density of states"),
    ("autocorrelation", "velocity autocorrelation"),
    ("diffusion", "mean-square displacement"),
    ("normal modes", "temperature of normal modes"),
)
_POINTS = 200  # of a smoothed series


def plot(diagnosis: Diagnosis, path: str | Path) -> None:
    """Write a PNG (or what the file's ending says).

    Raises
    ------
    UsageError
        if there is no curve to draw, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(name, title) for name, title in _PANELS if diagnosis.curves_of(name)]
    if not panels:
        raise UsageError(f"plot: {diagnosis.files} gave nothing to draw; see what was not done and why")
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(figsize=(4.4 * n_columns, 3.3 * n_rows + 0.3), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{diagnosis.files}   {diagnosis.formula}", fontsize=10)
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, (name, title) in zip(grid, panels, strict=False):
        _panel(axes, diagnosis, name)
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"plot: cannot write {path} ({error}); give a writable path that ends in .png") from error


def _panel(axes: Any, diagnosis: Diagnosis, name: str) -> None:
    curves = diagnosis.curves_of(name)
    draw = {"drift": _drift, "temperature": _temperature, "volume": _temperature, "normal modes": _points}.get(
        name, _band
    )
    for k, curve in enumerate(curves):
        draw(axes, curve, _COLOURS[k % len(_COLOURS)])
    axes.set_xlabel(curves[0].x_name, fontsize=8)
    axes.set_ylabel(curves[0].y_name, fontsize=8)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8)
    if name == "radial distribution":
        axes.axhline(1, color="#999999", linewidth=0.6, zorder=0)
        tops = [float(np.sort(curve.y)[-len(curve.y) // 20 - 1]) for curve in curves]  # bonds would dwarf the rest
        axes.set_ylim(0, max(3.0, 1.3 * max(tops)))
    if name in ("velocity spectrum", "diffusion"):
        axes.set_ylim(bottom=0)
    if name == "velocity spectrum":
        axes.set_xlim(0, _end_of_spectrum(curves))
    elif name != "normal modes":
        axes.margins(x=0)


def _end_of_spectrum(curves: list[Curve]) -> float:
    """Where 99.5 % of every element's spectrum is, and a tenth more."""
    ends = []
    for curve in curves:
        share = np.cumsum(curve.y) / max(float(curve.y.sum()), 1e-300)
        ends.append(float(curve.x[min(int(np.searchsorted(share, 0.995)), len(curve.x) - 1)]))
    return min(1.1 * max(ends), float(curves[0].x[-1]))


def _drift(axes: Any, curve: Curve, colour: str) -> None:
    axes.plot(curve.x, curve.y, color=colour, linewidth=0.8)
    line = np.polyval(np.polyfit(curve.x, curve.y, 1), curve.x)
    axes.plot(curve.x, line, color="#b5482a", linewidth=1, linestyle="--")


def _temperature(axes: Any, curve: Curve, colour: str) -> None:
    """Means of short blocks, and the mean of all as a line."""
    size = max(1, len(curve.y) // _POINTS)
    n = len(curve.y) // size
    x, y = (values[: n * size].reshape(n, size).mean(axis=1) for values in (curve.x, curve.y))
    axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.7, label=curve.label)
    axes.axhline(float(curve.y.mean()), color=colour, linewidth=1.4)


def _band(axes: Any, curve: Curve, colour: str) -> None:
    axes.plot(curve.x, curve.y, color=colour, linewidth=1.1, label=curve.label)
    if len(curve.error) == len(curve.y):
        axes.fill_between(curve.x, curve.y - curve.error, curve.y + curve.error, color=colour, alpha=0.25, linewidth=0)


def _points(axes: Any, curve: Curve, colour: str) -> None:
    axes.errorbar(curve.x, curve.y, curve.error, fmt="o", markersize=2.5, elinewidth=0.6, color=colour)
    axes.axhline(float(curve.y.mean()), color="#999999", linewidth=0.8, zorder=0)
