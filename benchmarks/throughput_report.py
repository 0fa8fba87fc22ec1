"""What throughput.py found, as a table in Markdown, a figure and JSON."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from roofline import Ceilings, Work, heading, in_words, line
from run import median_and_error

import mlcalc

REFERENCE = "native | eager | conservative"
_COLOURS = {"direct": "tab:orange", "conservative": "tab:blue", "MTS 4": "tab:green", "MTS 8": "tab:red"}
_LINES = {"eager": "-", "compiled": "--", "eager, replayed": ":", "compiled, replayed": "-."}
_MARKERS = {"native": "o", "ASE": "s", "torch-sim": "^"}
_Size = dict[str, Any]


def device_name(device: str) -> str:
    """Of this machine, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [row.partition(":")[2].strip() for row in lines if row.startswith("model name")]
    return models[0] if models else platform.machine()


def stem(what: str, device: str) -> str:
    """Of the files' names: what, date, device."""
    words = device_name(device).lower() if device == "cuda" else "cpu"
    return f"{what}-{datetime.date.today():%Y-%m-%d}-{'-'.join(words.split())}"


def origin(options: argparse.Namespace) -> dict[str, Any]:
    """Date, device and versions, of a record."""
    return {
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "device": device_name(options.device),
        "threads": options.threads,
        "mlcalc": mlcalc.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "potential": options.potential,
    }


def milliseconds_of(size: _Size, name: str) -> float:
    """Of an inner step; not a number if it was not measured."""
    return float(np.median(size["times"].get(name, [np.nan])))


def quicker(size: _Size, name: str, than: str) -> np.ndarray | None:
    """Ratios within rounds of the time of `than` to that of `name`; None if one was not measured."""
    mine, theirs = size["times"].get(name), size["times"].get(than)
    if not mine or not theirs:
        return None
    n = min(len(mine), len(theirs))
    return np.array(theirs[:n]) / np.array(mine[:n])


def outside(size: _Size, name: str, over: str | None = None) -> np.ndarray:
    """Time outside the potential within rounds, over the step's or over an evaluation's."""
    taken = np.array(size["outside"][name])
    return taken / np.array(size["times"][over or name])[: len(taken)]


def _rates(sizes: Sequence[_Size]) -> list[str]:
    made = [
        "| atoms | replicas | engine | code | forces | ms a step | steps/s | atoms·steps/s "
        "| over native eager conservative | outside the potential, of a step |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for size in sizes:
        for name in size["outside"]:
            ms, ratio = milliseconds_of(size, name), quicker(size, name, REFERENCE)
            rate = 1000 / ms
            made.append(
                f"| {size['atoms']} | {size['replicas']} | {name} | {ms:.3g} | {rate:.3g} "
                f"| {rate * size['atoms'] * size['replicas']:.3g} | {'' if ratio is None else median_and_error(ratio)} "
                f"| {median_and_error(outside(size, name))} |"
            )
    return made


def _memory(sizes: Sequence[_Size]) -> list[str]:
    made = ["| atoms | replicas | direct, MiB | KiB/atom | conservative, MiB | KiB/atom |", "|---|---|---|---|---|---|"]
    for size in sizes:
        total, peaks = size["atoms"] * size["replicas"], size["memory_mib"]
        cells = [f"{peaks[kind]:.0f} | {1024 * peaks[kind] / total:.1f}" for kind in peaks]
        made.append(f"| {size['atoms']} | {size['replicas']} | {' | '.join(cells)} |")
    return made


def _roofline(sizes: Sequence[_Size]) -> list[str]:
    made = heading()
    for size in sizes:
        for kind, work in size["work"].items():
            ms = milliseconds_of(size, f"evaluation | eager | {kind}")
            made.append(line(size["atoms"], kind, Work(**work), Ceilings(**size["ceilings"]), ms))
    return made


def table(options: argparse.Namespace, sizes: Sequence[_Size], left_out: Sequence[str]) -> str:
    """In Markdown."""
    made = [f"# Throughput\n\n{', '.join(f'{name} {value}' for name, value in origin(options).items())}"]
    made += [
        "",
        *_rates(sizes),
        "",
        "Peak memory of an evaluation, beyond what was in use before:",
        "",
        *_memory(sizes),
    ]
    failed = [
        f"- {one['atoms']} atoms × {one['replicas']}, {name}: {why}"
        for one in sizes
        for name, why in one["failed"].items()
    ]
    if failed or left_out:
        made += ["", "Not measured, or not to the end:", "", *failed, *(f"- {one}" for one in left_out)]
    if sizes:
        made += [
            "",
            f"Least time of an evaluation; {in_words(Ceilings(**sizes[0]['ceilings']))}:",
            "",
            *_roofline(sizes),
        ]
    return "\n".join(made) + "\n"


def _curves(axes: Any, sizes: Sequence[_Size], over: str) -> None:
    """Atoms·steps/s of every row against atoms or replicas."""
    names = list(dict.fromkeys(name for size in sizes for name in size["outside"]))
    for name in names:
        engine, code, forces = name.split(" | ")
        measured = [size for size in sizes if name in size["outside"]]
        places = [size[over] for size in measured]
        rates = [1000 * one["atoms"] * one["replicas"] / milliseconds_of(one, name) for one in measured]
        axes.loglog(
            places, rates, _LINES[code], color=_COLOURS[forces], marker=_MARKERS[engine], markersize=5, linewidth=1.2,
            markerfacecolor=_COLOURS[forces] if engine == "native" else "white",
        )  # fmt: skip
    axes.set_ylabel("atoms · steps / s")
    axes.set_xlabel("atoms" if over == "atoms" else "replicas of 192 atoms")
    _plain_ticks(axes, [size[over] for size in sizes])


def _plain_ticks(axes: Any, places: Sequence[int]) -> None:
    axes.set_xticks(sorted(set(places)), [f"{place:,}" for place in sorted(set(places))])
    axes.minorticks_off()
    _plain_values(axes)
    axes.grid(alpha=0.25)


def _plain_values(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1e3 else (1,), numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))


def _memory_curves(axes: Any, sizes: Sequence[_Size]) -> None:
    for kind in ("direct", "conservative"):
        measured = [size for size in sizes if kind in size["memory_mib"]]
        places = [size["atoms"] for size in measured]
        axes.loglog(places, [size["memory_mib"][kind] for size in measured], "-o", color=_COLOURS[kind], markersize=5)
    axes.set_xlabel("atoms")
    axes.set_ylabel("peak memory of an evaluation, MiB")
    _plain_ticks(axes, [size["atoms"] for size in sizes])


def _roof(axes: Any, sizes: Sequence[_Size]) -> None:
    limits = Ceilings(*(np.median([size["ceilings"][name] for size in sizes]) for name in ("float32", "tf32", "copy")))
    intensity = np.geomspace(0.1, 200, 200)
    for peak, name, style in ((limits.float32, "products, float32", "-"), (limits.tf32, "products, TF32", "--")):
        if peak:
            axes.loglog(intensity, np.minimum(1000 * peak, 1000 * limits.copy * intensity), style, color="grey", lw=1)
            axes.annotate(name, (200, 1000 * peak), ha="right", va="bottom", fontsize=8, color="grey")
    for size in sizes:
        for kind, work in size["work"].items():
            one, ms = Work(**work), milliseconds_of(size, f"evaluation | eager | {kind}")
            place = one.flop / one.bytes, one.flop / ms / 1e6
            axes.loglog(*place, "o", color=_COLOURS[kind], markersize=5)
            offset = (-6, -3) if kind == "conservative" else (6, -3)
            axes.annotate(
                f"{size['atoms']:,}", place, xytext=offset, textcoords="offset points", fontsize=7,
                ha="right" if kind == "conservative" else "left",
            )  # fmt: skip
    axes.set_xlabel("FLOP per byte moved by eager code")
    axes.set_ylabel("GFLOP/s of an evaluation")
    axes.grid(alpha=0.25)


def _legend(figure: Any, sizes: Sequence[_Size]) -> None:
    from matplotlib.lines import Line2D

    names = [name.split(" | ") for size in sizes for name in size["outside"]]
    engines, codes, forces = (list(dict.fromkeys(column)) for column in zip(*names, strict=True))
    handles = [Line2D([], [], color=_COLOURS[one], lw=3, label=one) for one in forces]
    handles += [Line2D([], [], color="black", lw=1.2, ls=_LINES[one], label=one) for one in codes]
    handles += [
        Line2D(
            [], [], color="black", ls="", marker=_MARKERS[one], label=one, mfc="black" if one == "native" else "white"
        )
        for one in engines
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False, fontsize=9)


def figure(options: argparse.Namespace, sizes: Sequence[_Size], path: Path) -> None:
    """Rates against atoms and replicas, memory, and the roofline."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    single = [size for size in sizes if size["replicas"] == 1]
    replicas = [size for size in sizes if size["atoms"] == 192]
    drawing, axes = plt.subplots(2, 2, figsize=(10.5, 8), layout="constrained")
    for place, title, draw in (
        (axes[0, 0], "one system", lambda one: _curves(one, single, "atoms")),
        (axes[0, 1], "replicas in one batch", lambda one: _curves(one, replicas, "replicas")),
        (axes[1, 0], "memory", lambda one: _memory_curves(one, single)),
        (axes[1, 1], "roofline, numbers of atoms at the points", lambda one: _roof(one, single)),
    ):
        draw(place)
        place.set_title(title, fontsize=10, loc="left")
    made = origin(options)
    drawing.suptitle(f"{made['potential']}, {made['device']}, torch {made['torch']}, {made['date']}", fontsize=11)
    _legend(drawing, sizes)
    drawing.savefig(path, dpi=150)
    plt.close(drawing)


def write(options: argparse.Namespace, sizes: Sequence[_Size], left_out: Sequence[str]) -> None:
    """All three files, and the table to look at."""
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / stem("throughput", options.device)
    record = {**origin(options), "left_out": list(left_out), "sizes": list(sizes)}
    path.with_name(f"{path.name}.json").write_text(json.dumps(record) + "\n")
    path.with_name(f"{path.name}.md").write_text(table(options, sizes, left_out))
    if any(size["replicas"] == 1 for size in sizes):
        figure(options, sizes, path.with_name(f"{path.name}.png"))
