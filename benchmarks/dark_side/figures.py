"""The page's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from dark_side import analysis, frequencies, published
from dark_side.series import Kept
from mlcalc.units import temperature_from_kinetic

BLUE, RED, GREEN, VIOLET, GOLD, GREY = "#1f5aa6", "#b5482a", "#2e8b57", "#8a5aa8", "#c99700", "#777777"
STYLES = {
    "conservative": (BLUE, "conservative"),
    "mts8": (GREEN, "MTS, M = 8"),
    "mts16": (VIOLET, "MTS, M = 16"),
    "direct": (RED, "direct"),
}


def _figure(n_rows: int, n_columns: int, height: float, dpi: int = 100, **options: Any) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(4.4 * n_columns, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, **options)
    for axes in grid.ravel():
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, grid


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, pil_kwargs={"optimize": True}, metadata={"Software": None})


def _named(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)


def asymmetry(found: Mapping[str, Any], path: Path) -> None:
    """λ against the error of the force, and λ_ij against distance."""
    figure, ((left, right),) = _figure(1, 2, 3.7)
    learnt = [name for name in found if name.startswith("forces-")]
    x, y = ([_value(found[name], key) for name in learnt] for key in ("force_error", "asymmetry"))
    left.loglog(x, y, "o-", color=GOLD, markersize=5, label="trained on forces alone")
    for name, a, b in zip(learnt, x, y, strict=True):
        steps = f"{int(name.split('-')[1])} steps"
        left.annotate(steps, (a, b), xytext=(5, -9), textcoords="offset points", fontsize=7)
    for name, colour, label in (("water", RED, "bundled, water"), ("water-pet", VIOLET, "bundled, water-pet")):
        left.plot(*(_value(found[name], key) for key in ("force_error", "asymmetry")), "D", color=colour, label=label)
    for name, value in published.ASYMMETRY.items():
        left.axhline(value, color=GREY, linewidth=0.7, linestyle=":", zorder=0)
        above = "top" if name == "ORB" else "bottom"
        left.annotate(name, (0.02, value), xycoords=("axes fraction", "data"), fontsize=7, color=GREY, va=above)
    left.set_xlim(30, 520)
    left.set_ylim(1e-3, 6e-2)
    left.set_xticks([40, 60, 100, 200, 400], ["40", "60", "100", "200", "400"])
    left.xaxis.set_minor_formatter(NullFormatter())
    left.yaxis.set_minor_formatter(NullFormatter())
    left.legend(frameon=False, fontsize=8, loc="lower right")
    _named(left, "asymmetry of the Jacobian", "error of the force, meV/Å", "λ")

    shown = ((learnt[0], GOLD, "forces alone, early", "--"), (learnt[-1], GOLD, "forces alone, late", "-"))
    shown += (("water-pet", VIOLET, "water-pet", "-"), ("water", RED, "water", "-"))
    for name, colour, label, line in shown:
        profile = found[name]["profile"]
        columns = ("distance", "asymmetry", "standard_error", "noise_floor")
        r, value, error, floor = (np.array(profile[key]) for key in columns)
        sure = (value > 3 * floor) & (error < value)
        right.errorbar(r[sure], value[sure], error[sure], fmt="o", linestyle=line, color=colour, markersize=3.5, linewidth=1.2, elinewidth=0.8, label=label)  # fmt: skip # noqa: E501
    right.axhline(1, color=GREY, linewidth=0.7, linestyle=":")
    right.set_yscale("log")
    right.set_ylim(7e-4, 2)
    right.legend(frameon=False, fontsize=8, loc="lower right")
    _named(right, "asymmetry of the coupling of two atoms", "distance, Å", "λ$_{ij}$")
    _save(figure, path)


def _value(one: Mapping[str, Any], key: str) -> float:
    value = one[key]
    return float(value["value"] if isinstance(value, dict) else value)


def heating(runs: Mapping[str, Kept], rates: Sequence[tuple[str, float, analysis.Number]], path: Path) -> None:
    """Energy and temperature at constant energy, and heating against λ.

    Parameters
    ----------
    rates : (name, λ, K/ps) of direct runs
    """
    figure, ((left, middle, right),) = _figure(1, 3, 3.7)
    for kind, (colour, label) in STYLES.items():
        run = runs[f"nve-{kind}"]
        left.plot(run.time_ps, 1000 * run.conserved_eV / run.n_atoms, color=colour, linewidth=1, label=label)
    left.legend(frameon=False, fontsize=8)
    _named(left, "conserved energy of water", "time, ps", "meV/atom")

    hot = (("nve-strength3", "#e0a58f", "difference × 3"), ("nve-strength10", "#7c2a12", "difference × 10"))
    for name, colour, label in (*hot, ("nve-forces", GOLD, "trained on forces alone"), ("nve-direct", RED, "direct")):
        run = runs[name]
        early = run.time_ps <= 1.0
        kelvin = [temperature_from_kinetic(k, 3 * run.n_atoms - 3) for k in run.kinetic_eV[early]]
        middle.plot(run.time_ps[early], _smooth(np.array(kelvin)), color=colour, linewidth=1.1, label=label)
    middle.axhline(300, color=GREY, linewidth=0.6, linestyle=":")
    middle.legend(frameon=False, fontsize=8)
    _named(middle, "temperature at constant energy, direct forces", "time, ps", "K (means of 40 fs)")

    for name, value, rate in rates:
        colour = GOLD if "alone" in name else RED
        right.errorbar(value, rate.value, min(rate.error, 0.9 * rate.value), fmt="o", color=colour, markersize=5)
        right.annotate(name, (value, rate.value), xytext=(6, -8), textcoords="offset points", fontsize=7)
    for name, value in published.HEATING.items():
        right.plot(published.ASYMMETRY[name], value, "s", color=GREY, markersize=5)
        right.annotate(f"{name} (published)", (published.ASYMMETRY[name], value), xytext=(6, -8), textcoords="offset points", fontsize=7, color=GREY)  # fmt: skip # noqa: E501
    first = rates[0]
    x = np.array([0.8, 20]) * first[1]
    right.plot(x, first[2].value * (x / first[1]) ** 2, color=RED, linewidth=0.7, linestyle=":", zorder=0)
    right.annotate("λ²", (x[1], first[2].value * 400), fontsize=8, color=RED, ha="right", va="bottom")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlim(1e-3, 6e-2)
    right.set_xticks([1e-3, 3e-3, 1e-2, 3e-2], ["0.001", "0.003", "0.01", "0.03"])
    right.xaxis.set_minor_formatter(NullFormatter())
    _named(right, "heating against asymmetry", "λ", "K/ps")
    _save(figure, path)


def _smooth(values: np.ndarray, width: int = 10) -> np.ndarray:
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="same")[width // 2 : width // 2 + len(values)]


def thermostats(rows: Sequence[tuple[str, analysis.Number, analysis.Number]], path: Path) -> None:
    """Temperature of hydrogen and oxygen, row by row; published ones have no error here.

    Parameters
    ----------
    rows : (name, K of hydrogen, K of oxygen), from top to bottom
    """
    figure, ((axes,),) = _figure(1, 1, 0.34 * len(rows) + 1.0)
    figure.set_figwidth(6.6)
    for k, (name, hydrogen, oxygen) in enumerate(rows):
        old = "published" in name
        axes.plot([hydrogen.value, oxygen.value], [k, k], color="#cccccc", linewidth=1, zorder=0)
        for one, colour, label in ((hydrogen, BLUE, "H"), (oxygen, RED, "O")):
            axes.errorbar(one.value, k, xerr=one.error or None, fmt="s" if old else "o", color=colour, markersize=5, mfc="white" if old else colour, label=label if not k else None)  # fmt: skip # noqa: E501
    axes.axvline(300, color=GREY, linewidth=0.7, linestyle=":")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    _named(axes, "temperature of each element", "K", "")
    _save(figure, path)


def diffusion(runs: Mapping[str, Kept], path: Path) -> None:
    """Mean-square displacement of oxygen."""
    figure, ((axes,),) = _figure(1, 1, 3.6)
    figure.set_figwidth(5.2)
    shown = (
        ("bussi-conservative", BLUE, "conservative, velocity rescaling"),
        ("bussi-mts8", GREEN, "MTS, M = 8, velocity rescaling"),
        ("bussi-direct", RED, "direct, velocity rescaling"),
        ("langevin100-direct", VIOLET, "direct, Langevin τ = 100 fs"),
        ("langevin10-direct", GOLD, "direct, Langevin τ = 10 fs"),
    )
    for name, colour, label in shown:
        curve = runs[name].curves["diffusion", "O"]
        axes.plot(curve.x, curve.y, color=colour, linewidth=1.3, label=label)
        axes.fill_between(curve.x, curve.y - curve.error, curve.y + curve.error, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    _named(axes, "displacement of oxygen", "time, ps", "mean square, Å²")
    _save(figure, path)


def distributions(runs: Mapping[str, Kept], path: Path) -> None:
    """Structure and vibrations with the three kinds of force, and how far two of them are from the conservative."""
    panels = (
        ("radial distribution", "O-O", "g$_{OO}$(r)", "r, Å", (2, 6.2)),
        ("radial distribution", "O-H", "g$_{OH}$(r), between molecules", "r, Å", (1.3, 6.2)),
        ("velocity spectrum", "H", "density of states of hydrogen", "wavenumber, cm⁻¹", (0, 4100)),
        ("velocity spectrum", "O", "density of states of oxygen", "wavenumber, cm⁻¹", (0, 1200)),
    )
    figure, grid = _figure(2, 4, 5.0, dpi=88, height_ratios=(3, 1.6))
    figure.set_figwidth(14)
    for k, (diagnostic, label, title, x_name, limits) in enumerate(panels):
        top, bottom = grid[:, k]
        reference = runs["bussi-conservative"].curves[diagnostic, label]
        for kind in ("conservative", "direct", "mts8"):
            colour, name = STYLES[kind]
            curve = runs[f"bussi-{kind}"].curves[diagnostic, label]
            top.plot(curve.x, curve.y, color=colour, linewidth=1.1, label=name)
            top.fill_between(curve.x, curve.y - curve.error, curve.y + curve.error, color=colour, alpha=0.2, linewidth=0)  # fmt: skip # noqa: E501
            if kind != "conservative":
                n = min(len(curve.y), len(reference.y))
                sigma = np.hypot(curve.error[:n], reference.error[:n])
                known = sigma > 0.02 * sigma.max()
                bottom.plot(curve.x[:n][known], ((curve.y[:n] - reference.y[:n]) / np.where(known, sigma, 1))[known], color=colour, linewidth=0.8)  # fmt: skip # noqa: E501
        inside = (reference.x >= limits[0]) & (reference.x <= limits[1])
        top.set_ylim(0, 1.18 * reference.y[inside].max())
        bottom.set_ylim(-6, 6)
        bottom.axhspan(-2, 2, color="#eeeeee", zorder=0)
        for axes in (top, bottom):
            axes.set_xlim(limits)
        _named(top, title, "", "")
        _named(bottom, "", x_name, "difference from\nconservative, σ" if not k else "")
    grid[0, 0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def errors_by_frequency(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Relative error of the force by band of modes, and what share of the loss a band has."""
    figure, ((left, right),) = _figure(1, 2, 3.7)
    names = band_names()
    place = np.arange(len(rows))
    shown = (("forces", GOLD, "direct, trained on forces alone"), ("direct", RED, "direct, water"))
    for model, colour, label in (*shown, ("conservative", BLUE, "conservative, water")):
        values, errors = (np.array([100 * row[model][k] for row in rows]) for k in (0, 1))
        left.errorbar(place, values, errors, fmt="o-", color=colour, markersize=4, linewidth=1.1, label=label)
    left.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=8)
    _named(left, "error of the force over the force", "", "%")
    right.bar(place - 0.2, [100 * row["modes"] for row in rows], 0.38, color="#b8b8b8", label="of the modes")
    right.bar(place + 0.2, [100 * row["force"] for row in rows], 0.38, color=VIOLET, label="of the squared force")
    right.legend(frameon=False, fontsize=8)
    _named(right, "share of the band", "", "%")
    for axes in (left, right):
        axes.set_xticks(place, names, rotation=35, ha="right", fontsize=7.5)
        axes.set_xlabel("wavenumber, cm⁻¹", fontsize=9)
    _save(figure, path)


def band_names() -> list[str]:
    """Of the bands of `frequencies.EDGES`."""
    inner = [
        f"{low:.0f}–{high:.0f}" for low, high in zip(frequencies.EDGES[1:-2], frequencies.EDGES[2:-1], strict=True)
    ]
    return ["unstable", *inner, f"above {frequencies.EDGES[-2]:.0f}"]
