"""A log as a picture: conserved energy, temperature and, where it changes, volume against time."""

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
    volume = np.array([line.volume_A3 or np.nan for line in lines])
    n_panels = 3 if np.ptp(volume) > 0 else 2
    figure = Figure(figsize=(7, 2.5 * n_panels), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(n_panels, 1, sharex=True)
    above, below = panels[:2]
    above.plot(time, energy, color="#1f5aa6", linewidth=1)
    above.set_ylabel("conserved energy − start, meV")
    below.plot(time, [line.temperature_K for line in lines], color="#b5482a", linewidth=1)
    below.set_ylabel("temperature, K")
    if n_panels > 2:
        panels[2].plot(time, volume, color="#2e8b57", linewidth=1)
        panels[2].set_ylabel("volume, Å³")
    panels[-1].set_xlabel("time, ps")
    for k in range(1, len(lines)):
        if lines[k].n_inner != lines[k - 1].n_inner:
            above.axvline(time[k - 1], color="#777777", linewidth=0.8)
            above.annotate(
                f"{lines[k].n_inner} inner steps", (time[k - 1], 1), xycoords=("data", "axes fraction"),
                xytext=(3, -10), textcoords="offset points", fontsize=8, color="#555555",
            )  # fmt: skip
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"output: cannot write {path} ({error}); give a writable path that ends in .png") from error
