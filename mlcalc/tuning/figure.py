"""The map of a search as a picture: inner steps by numbers of them, coloured by what they are."""

from __future__ import annotations

from pathlib import Path

from mlcalc.errors import UsageError
from mlcalc.tuning.result import SAFE, UNDECIDED, UNSTABLE, Tuning
from mlcalc.tuning.text import cell_text

_COLOURS = {SAFE: "#cfe8d5", UNDECIDED: "#f6e9c4", UNSTABLE: "#f1cfc6"}
_NOT_RUN = "#f2f2f2"


def plot(tuning: Tuning, path: str | Path) -> None:
    """Write a PNG (or what the file's ending says).

    Raises
    ------
    UsageError
        if the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    steps = sorted({one.timestep_fs for one in tuning.trials})
    numbers = sorted({one.n_inner for one in tuning.trials})
    figure = Figure(figsize=(1.5 + 1.25 * len(numbers), 1.9 + 0.62 * len(steps)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    best = tuning.best
    for row, step in enumerate(steps):
        for column, n_inner in enumerate(numbers):
            trial = tuning.trial(step, n_inner)
            colour = _NOT_RUN if trial is None else _COLOURS[trial.status]
            chosen = trial is not None and trial is best
            edge, width = ("#1f5aa6", 2.5) if chosen else ("white", 2.0)
            axes.add_patch(
                Rectangle(
                    (column + 0.02, row + 0.03), 0.96, 0.94, facecolor=colour, edgecolor=edge, linewidth=width,
                    zorder=2 if chosen else 1,
                )
            )  # fmt: skip
            axes.text(column + 0.5, row + 0.5, cell_text(trial), ha="center", va="center", fontsize=9, zorder=3)
    axes.set_xlim(0, len(numbers))
    axes.set_ylim(0, len(steps))
    axes.set_xticks([k + 0.5 for k in range(len(numbers))], [str(n_inner) for n_inner in numbers])
    axes.set_yticks([k + 0.5 for k in range(len(steps))], [f"{step:g}" for step in steps])
    axes.set_xlabel("inner steps in an outer step, M")
    axes.set_ylabel("inner step, fs")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("drift, meV/atom/ps", fontsize=10, loc="left")
    patches = [Patch(facecolor=colour, label=status) for status, colour in _COLOURS.items()]
    patches.append(Patch(facecolor=_NOT_RUN, label="not run"))
    if best is not None:
        patches.append(Patch(facecolor="white", edgecolor="#1f5aa6", linewidth=2, label="fastest safe"))
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=8)
    figure.suptitle(f"{tuning.potential} on {tuning.structure}, {tuning.temperature_K:g} K", fontsize=10)
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"plot: cannot write {path} ({error}); give a writable path that ends in .png") from error
