"""What compiling and CUDA graphs gain: the same evaluations side by side, with their agreement.

    mlcalc export water water.pt2                                  # minutes
    python benchmarks/compiled.py water water.pt2
    mlcalc export water gpu.pt2 --device cuda
    python benchmarks/compiled.py water gpu.pt2 --device cuda      # replayed evaluations too
    python benchmarks/compiled.py water water.pt2 --batches 10     # agreement alone, for batches of many sizes

Every round measures all, in processor time of one thread or in time on the GPU; a ratio is the median over rounds of
ratios within a round. It asserts nothing; the aim is 1e-5 in float32 and 1e-10 in float64.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping

import numpy as np
import torch

import mlcalc
from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.memory import keep_freed_memory
from mlcalc.neighbours import Neighbours, neighbour_list
from mlcalc.potentials.compiled import CompiledPotential
from mlcalc.potentials.graphed import GraphedPotential
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

_WANTED = {"direct": Wanted.DIRECT, "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE, "joint": JOINT}
_SKIN = 0.5  # Å, as in the engines


def timed(
    potential: Potential, structure: Structure, neighbours: Neighbours, wanted: Wanted
) -> tuple[float, Evaluation]:
    """Time of one evaluation, ms, and what it gave."""
    on_gpu = structure.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    found = potential.evaluate(structure, neighbours, wanted)
    if on_gpu:
        torch.cuda.synchronize()
    return 1000 * (clock() - start), found


def difference(one: Evaluation, other: Evaluation) -> float:
    """The largest of any quantity, over the largest number in that quantity."""
    pairs = [(vars(one)[name], value) for name, value in vars(other).items() if value is not None]
    return max(float((mine - theirs).abs().max() / theirs.abs().max()) for mine, theirs in pairs)


def variants(eager: Potential, package: CompiledPotential | None) -> dict[str, Potential]:
    """What is measured; on a GPU also replayed."""
    found = {"eager": eager} if package is None else {"eager": eager, "compiled": package}
    if eager.device.type == "cuda":
        found |= {f"{name}, replayed": GraphedPotential(one, _SKIN) for name, one in found.items()}
    return found


def rows(potentials: Mapping[str, Potential], kinds: list[str], n: int, rounds: int) -> Iterator[str]:
    """Lines of the table for the water box repeated n × n × n; the first potential is the reference."""
    eager = next(iter(potentials.values()))
    structure = Structure.from_ase(mlcalc.water_box().repeat(n), device=eager.device)
    neighbours = neighbour_list(structure, eager.cutoff, skin=_SKIN)
    for kind in kinds:
        arguments = structure, neighbours, _WANTED[kind]
        # once without looking at the clock: compiled code is loaded, graphs are captured
        values = {name: timed(one, *arguments)[1] for name, one in potentials.items()}
        times = np.array([[timed(one, *arguments)[0] for one in potentials.values()] for _ in range(rounds)])
        ratios = np.median(times / times[:, :1], axis=0)
        for name, ms, ratio in zip(potentials, np.median(times, axis=0), ratios, strict=True):
            error = difference(values[name], values["eager"])
            yield f"| {structure.n_atoms} | {kind} | {name} | {ms:.2f} | {ratio:.2f} | {error:.0e} |"


def agreement(eager: Potential, package: CompiledPotential, n_batches: int) -> Iterator[str]:
    """The largest difference over batches of one to four boxes, cut and rattled at random, by kind of evaluation."""
    draw = np.random.default_rng(0)
    n_edges: set[int] = set()
    errors = {kind: 0.0 for kind in package.programs}
    for _ in range(n_batches):
        systems = [mlcalc.water_box() for _ in range(draw.integers(1, 5))]
        systems = [atoms[: 3 * draw.integers(8, 65)] for atoms in systems]
        for atoms in systems:
            atoms.rattle(0.05, rng=draw)
        structure = Structure.from_ase(systems, device=eager.device)
        neighbours = neighbour_list(structure, eager.cutoff)
        n_edges.add(neighbours.n_edges)
        for kind in errors:
            pair = [one.evaluate(structure, neighbours, _WANTED[kind]) for one in (package, eager)]
            errors[kind] = max(errors[kind], difference(*pair))
    yield f"{len(n_edges)} numbers of edges, {min(n_edges)} to {max(n_edges)}"
    yield from (f"{kind}: {error:.0e}" for kind, error in errors.items())


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential", help="a checkpoint or the name of a bundled potential")
    parser.add_argument("package", nargs="*", help="what mlcalc export made of it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--repeat", type=int, nargs="*", default=[1, 2], help="box repeated n × n × n: 192 n³ atoms")
    parser.add_argument("--batches", type=int, help="compare this many batches of changing size, and measure nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    packages = [mlcalc.load(path, device=options.device) for path in options.package] or [None]
    if not options.batches:
        print("| atoms | evaluation | | ms | over eager | largest difference |\n|---|---|---|---|---|---|")
    for package in packages:
        dtype = None if package is None else package.dtype
        eager = mlcalc.load(options.potential, device=options.device, dtype=dtype)
        kinds = list(_WANTED if package is None else package.programs)
        if options.batches:
            print("\n".join(agreement(eager, package, options.batches)))
            continue
        for n in options.repeat:
            print("\n".join(rows(variants(eager, package), kinds, n, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
