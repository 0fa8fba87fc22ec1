"""Learning curves and parity plots."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlcalc.evaluation import JOINT
from mlcalc.potentials.network import Network
from mlcalc.training.data import Frame

_COLOURS = {"direct": "#d1495b", "conservative": "#00798c", "alignment": "#edae49"}
_LABELS = {
    "direct": "direct force, error",
    "conservative": "conservative force, error",
    "alignment": "direct − conservative",
}


def _axes(width: float, height: float):  # type: ignore[no-untyped-def]
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plot_curves(logs: Sequence[Path], path: Path) -> None:
    """Validation errors against training step, from log.csv of one or more runs in sequence."""
    figure, axes = _axes(7.0, 4.0)
    offset = 0
    series: dict[str, list[tuple[int, float]]] = {key: [] for key in _COLOURS}
    for log in logs:
        with log.open(newline="") as file:
            rows = list(csv.DictReader(file))
        base, last_stage, last_step = offset, None, 0
        for row in rows:
            if last_stage is not None and row["stage"] != last_stage:
                base += last_step
                axes.axvline(base, color="0.8", linewidth=1, zorder=0)
            last_stage, last_step = row["stage"], int(row["step"])
            for key in series:
                series[key].append((base + last_step, float(row[key])))
        offset = base + last_step
        axes.axvline(offset, color="0.8", linewidth=1, zorder=0)
    for key, points in series.items():
        axes.plot(*zip(*points, strict=True), color=_COLOURS[key], label=_LABELS[key])
    axes.set(xlabel="optimiser step", ylabel="RMS on frames left out, meV/Å", yscale="log")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def plot_parity(network: Network, frames: Sequence[Frame], path: Path) -> None:
    """Predicted force components against the labels of frames left out of training."""
    figure, axes = _axes(4.6, 4.6)
    reference = np.concatenate([frame.force.numpy().ravel() for frame in frames])
    for name in ("conservative_force", "direct_force"):
        results = [network.evaluate(f.structure, f.neighbours, network.provides & JOINT) for f in frames]
        values = [getattr(result, name) for result in results]
        if any(value is None for value in values):
            continue
        predicted = np.concatenate([value.numpy().ravel() for value in values])
        key = name.removesuffix("_force")
        rms = 1000 * float(np.sqrt(np.mean((predicted - reference) ** 2)))
        axes.plot(
            reference,
            predicted,
            ".",
            markersize=2,
            alpha=0.5,
            color=_COLOURS[key],
            label=f"{key}, RMSE {rms:.1f} meV/Å",
        )
    ends = [reference.min(), reference.max()]
    axes.plot(ends, ends, color="0.3", linewidth=0.8)
    axes.set(xlabel="reference force, eV/Å", ylabel="predicted force, eV/Å", aspect="equal")
    axes.legend(frameon=False, markerscale=5)
    figure.savefig(path, dpi=150)
