"""How time and memory grow with the number of atoms: neighbour lists and evaluations of boxes of water.

    python benchmarks/scaling.py                       # 3072 to 98304 atoms
    python benchmarks/scaling.py --atoms 3072 12288 --rounds 1
    python benchmarks/scaling.py --device cuda

Every round measures every row once, each in a process of its own, since the peak of a process's memory never sinks. An
entry is the median over rounds; "over linear" is time or memory by atom over that of the smallest box, the median of
the ratios within a round. Time is that of the processor on one thread, on a GPU it is the clock's. It asserts nothing;
the aim is 1.1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import mlcalc
from mlcalc.evaluation import JOINT, Wanted
from mlcalc.memory import keep_freed_memory
from mlcalc.neighbours import neighbour_list
from mlcalc.structure import Structure

_BOXES = {192 * a * b * c: (a, b, c) for a in (1, 2, 4, 8) for b in (1, 2, 4, 8) for c in (1, 2, 4, 8) if a >= b >= c}
_EVALUATIONS = {"direct": Wanted.DIRECT, "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE, "joint": JOINT}
_SIZES = [192 * 2**k for k in range(4, 10)]
_SKIN = 0.5  # Å


@dataclass(frozen=True)
class Cost:
    """Seconds, and bytes at the peak beyond what was in use before."""

    seconds: float
    bytes: float


def cost(action: Callable[[], object], device: torch.device, repeats: int) -> Cost:
    """Of the quickest of some calls; the peak is that of all of them."""
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    before = torch.cuda.memory_allocated(device) if on_gpu else _resident()
    quickest = np.inf
    for _ in range(repeats):
        start = clock()
        action()
        if on_gpu:
            torch.cuda.synchronize(device)
        quickest = min(quickest, clock() - start)
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else _peak()
    return Cost(quickest, peak - before)


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(options: argparse.Namespace) -> Cost:
    """One row, in this process."""
    torch.set_num_threads(1)
    keep_freed_memory()
    potential = mlcalc.load(options.potential, device=options.device)
    small = Structure.from_ase(mlcalc.water_box(), device=potential.device)
    box = Structure.from_ase(mlcalc.water_box().repeat(_BOXES[options.atoms[0]]), device=potential.device)

    def run(structure: Structure) -> Callable[[], object]:
        def lists() -> object:
            return neighbour_list(structure, potential.cutoff, skin=_SKIN)

        if options.what == "list":
            return lists
        neighbours = lists()
        return lambda: potential.evaluate(structure, neighbours, _EVALUATIONS[options.what])

    run(small)()  # what is loaded at the first call is no part of the cost
    return cost(run(box), potential.device, options.repeats)


def measured_apart(options: argparse.Namespace, what: str, atoms: int) -> Cost | None:
    """One row, in a process of its own; None if that had too little memory."""
    chosen = {"--potential": options.potential, "--device": options.device, "--repeats": options.repeats}
    arguments = [str(part) for pair in chosen.items() for part in pair] + ["--what", what, "--atoms", str(atoms)]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        print(f"\n{atoms} atoms, {what}: failed: {(done.stderr.splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return None
    return Cost(**json.loads(done.stdout))


def table(options: argparse.Namespace) -> None:
    """Measure all rows and print them."""
    rows = [(what, atoms) for what in ("list", *options.evaluations) for atoms in sorted(options.atoms)]
    costs: dict[tuple[str, int], list[tuple[float, float]]] = {row: [] for row in rows}
    for _ in range(options.rounds):
        for row in rows:
            found = measured_apart(options, *row)
            costs[row].append((np.nan, np.nan) if found is None else (found.seconds / row[1], found.bytes / row[1]))
    print(f"\n### {options.potential}, {options.device}, torch {torch.__version__}, {options.rounds} rounds\n")
    print("| what | atoms | ms | µs/atom | over linear | peak, MiB | KiB/atom | over linear |")
    print("|---|---|---|---|---|---|---|---|")
    for what, atoms in rows:
        mine, least = np.array(costs[what, atoms]), np.array(costs[what, min(options.atoms)])
        (seconds, memory), ratio = np.median(mine, axis=0), np.median(mine / least, axis=0)
        print(
            f"| {what} | {atoms} | {1e3 * seconds * atoms:.0f} | {1e6 * seconds:.1f} | {ratio[0]:.2f} "
            f"| {memory * atoms / 2**20:.0f} | {memory / 2**10:.1f} | {ratio[1]:.2f} |"
        )


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", default="water")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--atoms", type=int, nargs="+", choices=sorted(_BOXES), default=_SIZES)
    parser.add_argument("--evaluations", nargs="*", choices=tuple(_EVALUATIONS), default=["direct", "conservative"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="calls in a process, of which the quickest counts")
    parser.add_argument("--what", choices=("list", *_EVALUATIONS), help="measure one row in this process, print JSON")
    options = parser.parse_args()
    if options.what:
        print(json.dumps(asdict(measure(options))))
    else:
        table(options)


if __name__ == "__main__":
    main()
