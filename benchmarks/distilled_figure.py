"""Draw the radial distributions of results/distilled.json into docs/distilled.png."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
_BLUE, _RED = "#1f5aa6", "#b5482a"
_WORDS = {"alone": "teacher alone", "exactly": "teacher, exactly"}


def main() -> None:
    found = json.loads((ROOT / "benchmarks/results/distilled.json").read_text())
    inside = {name.partition(":")[0]: name for name in found if " inside " in name}
    panels = [(name, pair) for name in inside.values() for pair in found[name]["pairs"]]
    figure = Figure(figsize=(3.0 * len(panels), 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2, len(panels), squeeze=False, sharex="col", height_ratios=(3, 1))
    for k, (name, pair) in enumerate(panels):
        system = name.partition(":")[0]
        (other,) = (one for one in found if one.startswith(f"{system}:") and one != name)
        above, below = rows[:, k]
        student, teacher = found[name]["pairs"][pair], found[other]["pairs"][pair]
        r = np.array(student["r"])
        above.plot(r, teacher["g"], color=_BLUE, linewidth=2.4, alpha=0.5, label=_WORDS[other.split()[-1]])
        above.plot(r, student["g"], color=_RED, linewidth=1.0, label=f"student inside, {name.rpartition(', ')[2]}")
        above.set_title(f"{system}, {pair}", fontsize=10, loc="left")
        difference = np.array(student["g"]) - np.array(teacher["g"])
        error = np.hypot(student["standard_error"], teacher["standard_error"])
        below.fill_between(r, -2 * error, 2 * error, color=_BLUE, alpha=0.2, linewidth=0)
        below.plot(r, difference, color=_RED, linewidth=0.9)
        below.set_xlabel("r, Å", fontsize=9)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
    rows[0, 0].set_ylabel("g(r)", fontsize=9)
    rows[1, 0].set_ylabel("difference,\n± 2 errors", fontsize=9)
    for axes in rows[0]:
        axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    figure.savefig(ROOT / "docs/distilled.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
