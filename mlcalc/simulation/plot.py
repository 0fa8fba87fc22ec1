"""A log as a picture: conserved energy and temperature against time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlcalc.errors import UsageError
from mlcalc.simulation.log import Line


def plot_log(lines: Sequence[Line], path: str | Path) -> None:
    """Write a PNG (or what the file's ending says) of a run.

    Raises
    ------
    UsageError
        if there are fewer than two lines, or the ending names no kind of picture.
    """
    if len(lines) < 2:
        raise UsageError(f"log: it has {len(lines)} whole lines; a picture needs two or more")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    time = np.array([line.time_ps for line in lines])
    energy = 1000 * (np.array([line.conserved_eV for line in lines]) - lines[0].conserved_eV)
    figure = Figure(figsize=(7, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(time, energy, color="#1f5aa6", linewidth=1)
    above.set_ylabel("conserved energy − start, meV")
    below.plot(time, [line.temperature_K for line in lines], color="#b5482a", linewidth=1)
    below.set_ylabel("temperature, K")
    below.set_xlabel("time, ps")
    for k in range(1, len(lines)):
        if lines[k].n_inner != lines[k - 1].n_inner:
            above.axvline(time[k - 1], color="#777777", linewidth=0.8)
            above.annotate(
                f"{lines[k].n_inner} inner steps", (time[k - 1], 1), xycoords=("data", "axes fraction"),
                xytext=(3, -10), textcoords="offset points", fontsize=8, color="#555555",
            )  # fmt: skip
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"output: cannot write {path} ({error}); give a writable path that ends in .png") from error
