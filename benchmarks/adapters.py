"""Foreign families through their adapters and through their own ASE calculators: time and memory of an evaluation.

    python benchmarks/adapters.py --output benchmarks/results/adapters.json

Both sides are timed in turn, each in a process of its own, after it has evaluated once; peak memory is what that
process holds beyond what it held before its first evaluation. One thread. It asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import ase
import numpy as np
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator

import mlcalc
from mlcalc.memory import keep_freed_memory

NAMES = ("7net-0", "7net-l3i5", "chgnet")
STRUCTURES: dict[str, Callable[[], ase.Atoms]] = {
    "silicon, 64 atoms": lambda: bulk("Si", cubic=True, a=5.43) * (2, 2, 2),
    "silicon, 512 atoms": lambda: bulk("Si", cubic=True, a=5.43) * (4, 4, 4),
    "water, 192 atoms": mlcalc.water_box,
}
SIDES = ("adapter", "its own")


def calculator(name: str, side: str) -> Calculator:
    if side == "adapter":
        return mlcalc.MLCalculator(mlcalc.load(name), forces="conservative")
    if name == "chgnet":
        from chgnet.model.dynamics import CHGNetCalculator

        return CHGNetCalculator(use_device="cpu")
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator(name, device="cpu")


def serve(name: str, side: str, structure: str, pipe: Connection) -> None:
    """Evaluate whenever asked to: (seconds, peak memory in MiB beyond the start)."""
    torch.set_num_threads(1)
    keep_freed_memory()
    atoms, draw = STRUCTURES[structure](), np.random.default_rng(0)
    atoms.calc = calculator(name, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while pipe.recv():
        atoms.positions += draw.normal(scale=0.01, size=atoms.positions.shape)
        began = time.perf_counter()
        atoms.get_forces()
        took = time.perf_counter() - began
        pipe.send((took, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def compare(name: str, structure: str, rounds: int) -> dict[str, float]:
    """Medians over rounds: ms of either side, and of their ratio; MiB."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for side in SIDES:
        pipes[side], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, side, structure, theirs)))
        processes[-1].start()
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    memory = dict.fromkeys(SIDES, 0.0)
    for _ in range(rounds + 1):  # the first one warms up
        for side, pipe in pipes.items():
            pipe.send(True)
            took, memory[side] = pipe.recv()
            seconds[side].append(took)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    ours, own = (np.array(seconds[side][1:]) for side in SIDES)
    ratios = ours / own
    return {
        "ms": 1000 * float(np.median(ours)),
        "ms_own": 1000 * float(np.median(own)),
        "ratio": float(np.median(ratios)),
        "ratio_error": float(np.std(ratios, ddof=1) / len(ratios) ** 0.5),
        "MiB": memory["adapter"],
        "MiB_own": memory["its own"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found = {}
    print("| | | adapter, ms | its own, ms | ratio | adapter, MiB | its own, MiB |\n|---|---|---|---|---|---|---|")
    for name in NAMES:
        for structure in STRUCTURES:
            one = found[f"{name}: {structure}"] = compare(name, structure, options.rounds)
            ratio = f"{one['ratio']:.2f} ± {one['ratio_error']:.2f}"
            entries = (one["ms"], one["ms_own"], ratio, one["MiB"], one["MiB_own"])
            shown = (value if isinstance(value, str) else f"{value:.0f}" for value in entries)
            print(f"| `{name}` | {structure} | {' | '.join(shown)} |", flush=True)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
