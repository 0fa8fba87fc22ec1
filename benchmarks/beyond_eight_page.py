"""The table and the figure of docs/beyond_eight.md from the series that `beyond_eight.py keep` left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from mlcalc.diagnostics.autocorrelation import mean_with_error
from mlcalc.units import BOLTZMANN

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- written by benchmarks/beyond_eight.py page -->\n", "<!-- to here -->\n"
TITLES = {
    "conservative": "conservative forces, Bussi",
    "bussi": "Bussi",
    "langevin": "Langevin, hydrogen 20/ps",
    "hmr": "hydrogen of 3 amu, Bussi",
    "hmr-langevin": "hydrogen of 3 amu, Langevin, hydrogen 20/ps",
    "sin-r": "SIN(R)",
    "sin-r-4": "SIN(R), L = 4",
    "hmr-sin-r": "hydrogen of 3 amu, SIN(R)",
}
N_ATOMS = 192
Value = tuple[float, float]


class Series:
    """What was kept of one run."""

    def __init__(self, kept: Mapping[str, np.ndarray], cell: Any) -> None:
        self.cell = cell
        self.values = {name.split("/")[1]: kept[name] for name in kept if name.startswith(f"{cell.name}/")}

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    @property
    def exploded(self) -> str:
        return str(self.values.get("exploded", ""))

    @property
    def outer_fs(self) -> float:
        return float(self.cell.inner_fs * self.cell.n_inner)

    def mean(self, name: str, scale: float = 1.0) -> Value:
        value, error, _ = mean_with_error(np.asarray(self[name], dtype=float) * scale)
        return value, error

    def against(self, reference: Series, name: str, scale: float) -> Value:
        (one, one_error), (other, other_error) = self.mean(name, scale), reference.mean(name, scale)
        return one - other, float(np.hypot(one_error, other_error))

    def misfit(self, reference: Series, pair: str) -> float:
        """Mean over bins of the squared difference of g(r) in its standard errors; 1 is agreement."""
        squares = self[f"error_{pair}"].astype(float) ** 2 + reference[f"error_{pair}"].astype(float) ** 2
        differences = (self[f"g_{pair}"].astype(float) - reference[f"g_{pair}"]) ** 2
        filled = squares > 0
        return float((differences[filled] / squares[filled]).mean())


def write(results: Path, cells: Sequence[Any], reference_cell: Any) -> None:
    with np.load(results) as file:
        kept = {name: file[name] for name in file}
    reference = Series(kept, reference_cell)
    runs = [series for series in (Series(kept, cell) for cell in sorted(cells, key=_order)) if series.values]
    _figure(reference, runs, DOCS / "beyond_eight.png")
    page = DOCS / "beyond_eight.md"
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    made = _table(reference, runs, kept["costs"]) + "\n" + _costs(kept["costs"])
    page.write_text(f"{before}{BEGIN}\n{made}\n{after}", encoding="utf-8")
    print(made)


def _order(cell: Any) -> tuple[float, int, float]:
    return cell.strength, list(TITLES).index(cell.method), cell.inner_fs * cell.n_inner


def _title(cell: Any) -> str:
    worse = "" if cell.strength == 1 else f", fast force {cell.strength:g} times worse"
    return TITLES[cell.method] + worse


def cost(cell: Any, costs: np.ndarray) -> float:
    """Of a picosecond, in picoseconds of conservative forces with 0.5 fs."""
    direct, conservative, _, bath = costs
    ratio = conservative / direct
    inner = ratio if cell.method == "conservative" else 1 + (ratio - 1) / cell.n_inner
    inner += bath / direct if "sin-r" in cell.method else 0.0
    return float(inner / ratio * 0.5 / cell.inner_fs)


def _table(reference: Series, runs: Sequence[Series], costs: np.ndarray) -> str:
    lines = [
        "| method | inner × M, fs | ps | T of H, K | T of O, K | ΔU, K | spread of O–H, mÅ | g(r) O–H, O–O "
        "| O moves, Å² | balance | pumped in | cost |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for series in (reference, *runs):
        cell = series.cell
        head = f"| {_title(cell)} | {cell.inner_fs:g} × {cell.n_inner} = {series.outer_fs:g} "
        reached, price = float(series["reached_ps"][0]), f"{cost(cell, costs):.2f}"
        if "T_H" not in series:
            told = "exploded" if series.exploded else "too short"
            lines.append(f"{head}| {reached:.2g} | {told} | | | | | | | | {price} |")
            continue
        tail = " (exploded)" if series.exploded else ""
        energy = (
            _told(series.against(reference, "potential", 2 / (3 * N_ATOMS * BOLTZMANN)), 0)
            if series is not reference
            else ""
        )
        misfit = (
            f"{series.misfit(reference, 'H-O'):.1f}, {series.misfit(reference, 'O-O'):.1f}"
            if series is not reference
            else ""
        )
        moved = series["moved"]
        # one by one: molecules hardly know of each other's displacement
        far = _told((moved.mean(), moved.std(ddof=1) / len(moved) ** 0.5), 2) if len(moved) else ""
        outside = cell.ensemble.thermostat is not None and not cell.ensemble.thermostat.inside
        pumped = _told(tuple(series["pumped"]), 2) if outside else ""
        lines.append(
            f"{head}| {reached:.2g}{tail} | {_told(series.mean('T_H'), 0)} | {_told(series.mean('T_O'), 0)} | {energy} "
            f"| {_told(series.mean('spread', 1000), 1)} | {misfit} | {far} | "
            f"{_told(tuple(series['balance']), 2)} | {pumped} | {price} |"
        )
    return "\n".join(lines) + "\n"


def _told(value: Sequence[float], digits: int) -> str:
    return f"{value[0]:.{digits}f} ± {value[1]:.{digits}f}"


def _costs(costs: np.ndarray) -> str:
    direct, conservative, joint, bath = costs
    return (
        f"Evaluations side by side, one thread: conservative {conservative / direct:.2f}, joint {joint / direct:.2f} "
        f"direct ones (of {direct:.0f} ms); SIN(R) adds {bath:.1f} ms to an inner step.\n"
    )


def _figure(reference: Series, runs: Sequence[Series], path: Path) -> None:
    figure, ((hydrogen, oxygen), (bond, shells)) = plt.subplots(2, 2, figsize=(10, 7), constrained_layout=True)
    shown = [series for series in runs if "T_H" in series]
    kinds = list(dict.fromkeys((series.cell.method, series.cell.strength) for series in shown))
    methods = list(dict.fromkeys(method for method, _ in kinds))
    for k, (method, strength) in enumerate(kinds):
        some = [series for series in shown if (series.cell.method, series.cell.strength) == (method, strength)]
        colour, usual = f"C{methods.index(method)}", strength == 1
        for axes, name, scale in ((hydrogen, "T_H", 1.0), (oxygen, "T_O", 1.0), (bond, "spread", 1000.0)):
            values = np.array([series.mean(name, scale) for series in some])
            at = [series.outer_fs + 0.08 * (k - len(kinds) / 2) for series in some]
            style = {
                "fmt": "o-" if usual else "s:",
                "mfc": colour if usual else "white",
                "ms": 4,
                "lw": 1,
                "capsize": 2,
            }
            axes.errorbar(at, values[:, 0], values[:, 1], color=colour, label=_title(some[0].cell), **style)
        if usual and method in ("bussi", "hmr", "sin-r"):
            last = some[-1]
            shells.plot(
                last["r_H-O"], last["g_H-O"], color=colour, lw=1, label=f"{TITLES[method]}, {last.outer_fs:g} fs"
            )
    for axes, name, scale, label in (
        (hydrogen, "T_H", 1.0, "temperature of hydrogen, K"),
        (oxygen, "T_O", 1.0, "temperature of oxygen, K"),
        (bond, "spread", 1000.0, "spread of O–H distances, mÅ"),
    ):
        value, error = reference.mean(name, scale)
        axes.axhspan(value - error, value + error, color="0.85")
        axes.set(xlabel="outer step, fs", ylabel=label)
    for axes in (hydrogen, oxygen):
        axes.axhline(300, color="0.4", lw=0.8)
    r, g, error = (reference[f"{name}_H-O"].astype(float) for name in ("r", "g", "error"))
    shells.fill_between(r, g - error, g + error, color="0.75", label="conservative forces")
    shells.set(xlim=(1.2, 6), ylim=(0, 2.2), xlabel="O–H distance, Å", ylabel="g(r)")
    shells.legend(fontsize=6)
    hydrogen.legend(fontsize=6)
    figure.savefig(path, dpi=110)
    plt.close(figure)
