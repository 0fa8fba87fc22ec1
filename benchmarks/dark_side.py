"""The published failures of direct forces, and the cure, with the bundled water: what docs/conservation.md is made of.

    mlcalc export water water.pt2                                   # the same network, faster; not needed
    python benchmarks/dark_side.py run --potential water.pt2 --scratch RUNS     # hours; goes on where it was cut off
    python benchmarks/dark_side.py page

After F. Bigi, M. F. Langer, M. Ceriotti, "The dark side of the forces", arXiv 2412.11569.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from dark_side import learning, runs

import mlcalc
from mlcalc.memory import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    run = steps.add_parser("run", help="the simulations, from where they are")
    run.add_argument("--potential", default="water")
    run.add_argument("--scratch", type=Path, required=True, help="folder of the trajectories")
    run.add_argument("--runs", nargs="*", default=(), help=f"which: {', '.join(each.name for each in runs.RUNS)}")
    run.add_argument("--most-ps", type=float, default=100.0, help="end every run there")
    learn = steps.add_parser("learn", help="train a direct head on forces alone")
    learn.add_argument("--data", type=Path, required=True, help="water-pbe0ts-64.xyz.gz")
    learn.add_argument("--scratch", type=Path, required=True)
    given = parser.parse_args()

    torch.set_num_threads(1)
    keep_freed_memory()
    given.scratch.mkdir(parents=True, exist_ok=True)
    if given.step == "learn":
        learning.learn(given.data, given.scratch)
        return
    runs.run_all(mlcalc.load(given.potential), given.scratch, tuple(given.runs), given.most_ps)


if __name__ == "__main__":
    main()
