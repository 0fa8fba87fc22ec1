"""Draw the radial distributions of results/distilled.json into docs/distilled.png."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
_BLUE, _RED = "#1f5aa6", "#b5482a"
_WORDS = {"alone": "teacher alone", "exactly": "teacher, exactly", "si": "silicon", "water-64": "water"}
_BOND = 1.3  # Å; what is nearer is a bond of hydrogen, whose peak is cut off so that the others are seen


def main() -> None:
    found = json.loads((ROOT / "benchmarks/results/distilled.json").read_text())
    inside = {name.partition(":")[0]: name for name in found if " inside " in name}
    panels = [(name, pair) for name in inside.values() for pair in found[name]["pairs"]]
    figure = Figure(figsize=(9.0, 4.0 * math.ceil(len(panels) / 2)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(math.ceil(len(panels) / 2), 2, squeeze=False).ravel()
    for part, (name, pair) in zip(parts, panels, strict=False):
        system = name.partition(":")[0]
        (other,) = (one for one in found if one.startswith(f"{system}:") and one != name)
        above, below = part.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        student, teacher = found[name]["pairs"][pair], found[other]["pairs"][pair]
        r = np.array(student["r"])
        above.plot(r, teacher["g"], color=_BLUE, linewidth=2.4, alpha=0.5, label=_WORDS[other.split()[-1]])
        above.plot(r, student["g"], color=_RED, linewidth=1.0, label=f"student inside, {name.rpartition(', ')[2]}")
        above.set_ylim(0, 1.3 * max(g for g, place in zip(teacher["g"], r, strict=True) if place > _BOND))
        above.legend(frameon=False, fontsize=8, loc="upper right")
        above.set_title(f"{_WORDS.get(system, system)}, {pair}", fontsize=10, loc="left")
        difference = np.array(student["g"]) - np.array(teacher["g"])
        error = np.hypot(*(np.array(run.get("by_atoms", run["standard_error"])) for run in (student, teacher)))
        below.fill_between(r, -2 * error, 2 * error, color=_BLUE, alpha=0.2, linewidth=0)
        below.plot(r, difference, color=_RED, linewidth=0.9)
        below.set_xlabel("r, Å", fontsize=9)
        above.set_ylabel("g(r)", fontsize=9)
        below.set_ylabel("difference,\n± 2 errors", fontsize=9)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
        part.align_ylabels()
    figure.savefig(ROOT / "docs/distilled.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
