"""The published failures of direct forces, and the cure, with the bundled water: what docs/conservation.md is made of.

    mlcalc export water water.pt2                 # the same network, compiled: half the time; "water" works as well
    python benchmarks/dark_side.py run --potential water.pt2 --scratch RUNS       # hours; goes on where it was
    python benchmarks/dark_side.py learn --data water-pbe0ts-64.xyz.gz --scratch RUNS
    python benchmarks/dark_side.py models --data water-pbe0ts-64.xyz.gz --potential water.pt2 --scratch RUNS
    python benchmarks/dark_side.py series --scratch RUNS                          # trajectories → benchmarks/results
    python benchmarks/dark_side.py page                                           # benchmarks/results → docs

After F. Bigi, M. F. Langer, M. Ceriotti, "The dark side of the forces", arXiv 2412.11569.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from dark_side import learning, models, page, runs, series

import mlcalc
from mlcalc.memory import keep_freed_memory

_ROOT = Path(__file__).parent.parent
_RESULTS = _ROOT / "benchmarks" / "results" / "dark_side"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    explained = {
        "run": "the simulations",
        "learn": "train a direct head on forces alone",
        "models": "asymmetries, and errors by frequency",
        "series": "from trajectories to what is kept",
        "page": "from what is kept to the page",
    }
    parsers = {name: steps.add_parser(name, help=text) for name, text in explained.items()}
    for name in ("run", "learn", "models", "series"):
        parsers[name].add_argument("--scratch", type=Path, required=True, help="folder of trajectories and checkpoints")
    for name in ("learn", "models"):
        parsers[name].add_argument("--data", type=Path, required=True, help="the frames that the bundled water learnt")
    for name in ("run", "models"):
        parsers[name].add_argument("--potential", default="water")
    for name in ("models", "series", "page"):
        parsers[name].add_argument("--results", type=Path, default=_RESULTS)
    parsers["run"].add_argument("--runs", nargs="*", default=(), help=", ".join(each.name for each in runs.RUNS))
    parsers["run"].add_argument("--most-ps", type=float, default=100.0, help="where every run ends at the latest")
    parsers["page"].add_argument("--docs", type=Path, default=_ROOT / "docs")
    return parser


def main() -> None:
    given = _parser().parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if given.step == "run":
        given.scratch.mkdir(parents=True, exist_ok=True)
        runs.run_all(mlcalc.load(given.potential), given.scratch, tuple(given.runs), given.most_ps)
    elif given.step == "learn":
        learning.learn(given.data, given.scratch / "learning")
    elif given.step == "models":
        given.results.mkdir(parents=True, exist_ok=True)
        models.measure(given.data, given.scratch / "learning", mlcalc.load(given.potential), given.results)
    elif given.step == "series":
        _keep(given.scratch, given.results)
    else:
        page.make(given.results, given.docs)


def _keep(scratch: Path, results: Path) -> None:
    paths = {run: scratch / f"{run.name}.traj" for run in runs.RUNS}
    there = {run: path for run, path in paths.items() if path.exists()}
    compared_ps = min((runs.reached(path) for run, path in there.items() if run.compared), default=math.inf)
    for run, path in there.items():
        kept = series.summarise(path, run.settled_ps, compared_ps if run.compared else math.inf)
        series.write(kept, results)


if __name__ == "__main__":
    main()
