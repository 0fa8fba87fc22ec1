"""What compiling gains: evaluations of a checkpoint and of its package, side by side, with their agreement.

    mlcalc export water water.pt2            # minutes
    python benchmarks/compiled.py water water.pt2

Every round measures both, in processor time of one thread; the ratio is the median over rounds of ratios within a
round. It asserts nothing; the aim is 1e-5 in float32 and 1e-10 in float64.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import mlcalc
from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.memory import keep_freed_memory
from mlcalc.neighbours import Neighbours, neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

_WANTED = {"direct": Wanted.DIRECT, "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE, "joint": JOINT}


def timed(
    potential: Potential, structure: Structure, neighbours: Neighbours, wanted: Wanted
) -> tuple[float, Evaluation]:
    """Processor time of one evaluation, ms, and what it gave."""
    start = time.process_time()
    found = potential.evaluate(structure, neighbours, wanted)
    return 1000 * (time.process_time() - start), found


def difference(one: Evaluation, other: Evaluation) -> float:
    """The largest of any quantity, over the largest number in that quantity."""
    pairs = [(vars(one)[name], value) for name, value in vars(other).items() if value is not None]
    return max(float((mine - theirs).abs().max() / theirs.abs().max()) for mine, theirs in pairs)


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential", help="a checkpoint or the name of a bundled potential")
    parser.add_argument("package", nargs="+", help="what mlcalc export made of it")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--repeat", type=int, nargs="*", default=[1, 2], help="box repeated n × n × n: 192 n³ atoms")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print("| atoms | evaluation | eager, ms | compiled, ms | ratio | largest difference |")
    print("|---|---|---|---|---|---|")
    for path in options.package:
        compiled = mlcalc.load(path)
        eager = mlcalc.load(options.potential, dtype=compiled.dtype)
        for n in options.repeat:
            structure = Structure.from_ase(mlcalc.water_box().repeat(n))
            neighbours = neighbour_list(structure, eager.cutoff, skin=0.5)
            for kind in compiled.programs:
                arguments = structure, neighbours, _WANTED[kind]
                error = difference(timed(compiled, *arguments)[1], timed(eager, *arguments)[1])
                times = np.array(
                    [[timed(one, *arguments)[0] for one in (eager, compiled)] for _ in range(options.rounds)]
                )
                ratio, (slow, fast) = np.median(times[:, 1] / times[:, 0]), np.median(times, axis=0)
                print(f"| {structure.n_atoms} | {kind} | {slow:.1f} | {fast:.1f} | {ratio:.2f} | {error:.0e} |")


if __name__ == "__main__":
    main()
