"""What an evaluation must cost at least: its arithmetic and its traffic against what the device can do.

    python benchmarks/roofline.py
    python benchmarks/roofline.py --device cuda --atoms 192 1536 12288

Floating-point operations are those of matrix products, counted by torch's own formulas, and beside them one for each
entry that any other operation writes. Traffic is the sizes of all tensors that each operation reads and writes, views
aside: what eager code moves if nothing stays in a cache, and fused code less. The least time is the larger of
arithmetic at the measured speed of matrix products and traffic at the measured speed of copies (S. Williams,
A. Waterman and D. Patterson, doi:10.1145/1498765.1498785). It asserts nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from run import milliseconds
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

import mlcalc
from mlcalc.evaluation import Wanted
from mlcalc.memory import keep_freed_memory
from mlcalc.neighbours import Neighbours, neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

WANTED = {"direct": Wanted.DIRECT, "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE}
_BOX = 192  # atoms


@dataclass(frozen=True)
class Work:
    """Of one evaluation: operations of matrix products and of all else, bytes moved, operations on tensors."""

    products: int
    others: int
    bytes: int
    calls: int

    @property
    def flop(self) -> int:
        return self.products + self.others


@dataclass(frozen=True)
class Ceilings:
    """Of a device: TFLOP/s of matrix products in float32 and in TF32 (0 on a CPU, which has none), TB/s of a copy."""

    float32: float
    tf32: float
    copy: float

    def least_ms(self, work: Work) -> tuple[float, float]:
        """By arithmetic in float32, by traffic."""
        return work.flop / self.float32 / 1e9, work.bytes / self.copy / 1e9


class Counter(TorchDispatchMode):
    """Sees every operation, those of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.others = self.bytes = self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        read, written = _tensors((args, kwargs)), _tensors(result)
        memory = {one.untyped_storage()._cdata for one in read}
        if not func._schema.is_mutable and all(one.untyped_storage()._cdata in memory for one in written):
            return result  # a view moves nothing
        self.calls += 1
        self.bytes += sum(one.numel() * one.element_size() for one in read + written)
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            self.others += sum(one.numel() for one in written if one.is_floating_point())
        else:
            self.products += formula(*args, **kwargs, out_val=result)
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, Tensor)]


def work_of(potential: Potential, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Work:
    """Counted while it runs once."""
    potential.evaluate(structure, neighbours, wanted)  # what is made at the first call is no part of it
    with Counter() as counter:
        potential.evaluate(structure, neighbours, wanted)
    return Work(counter.products, counter.others, counter.bytes, counter.calls)


def ceilings(device: torch.device, repeats: int = 5) -> Ceilings:
    """Measured: the quickest of some products of square matrices and of some copies too large for a cache."""
    on_gpu = device.type == "cuda"
    n, length = (8192, 2**28) if on_gpu else (1024, 2**25)
    one, other = (torch.randn(n, n, device=device) for _ in range(2))
    source = torch.zeros(length, device=device)
    target = torch.empty_like(source)

    def quickest(work: Callable[[], object]) -> float:
        work()
        return min(milliseconds(work) for _ in range(repeats))

    def product(tf32: bool) -> float:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            return 2 * n**3 / quickest(lambda: one @ other) / 1e9
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    copied = 2 * source.numel() * source.element_size()
    return Ceilings(
        product(False), product(True) if on_gpu else 0.0, copied / quickest(lambda: target.copy_(source)) / 1e9
    )


def water(n_atoms: int) -> Any:
    """The water box, repeated to so many atoms.

    Raises
    ------
    ValueError
        for a number that is not 192 times a power of two.
    """
    k = (n_atoms // _BOX).bit_length() - 1
    if n_atoms != _BOX << max(k, 0):
        raise ValueError(f"atoms: got {n_atoms}; give 192 times a power of two")
    return mlcalc.water_box().repeat([2 ** ((k + 2 - axis) // 3) for axis in range(3)])


def heading() -> list[str]:
    return [
        "| atoms | evaluation | GFLOP | of it products | GB | operations | FLOP/byte | least ms, arithmetic "
        "| traffic | measured ms | least over measured |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]


def line(n_atoms: int, name: str, work: Work, limit: Ceilings, measured_ms: float) -> str:
    arithmetic, traffic = limit.least_ms(work)
    return (
        f"| {n_atoms} | {name} | {work.flop / 1e9:.3g} | {work.products / 1e9:.3g} | {work.bytes / 1e9:.3g} "
        f"| {work.calls} | {work.flop / work.bytes:.2f} | {arithmetic:.3g} | {traffic:.3g} | {measured_ms:.3g} "
        f"| {max(arithmetic, traffic) / measured_ms:.2f} |"
    )


def in_words(limit: Ceilings) -> str:
    tf32 = "" if not limit.tf32 else f", {limit.tf32:.3g} in TF32"
    return f"measured ceilings: products {limit.float32:.3g} TFLOP/s in float32{tf32}; copies {limit.copy:.3g} TB/s"


def rows(potential: Potential, n_atoms: int, limit: Ceilings, rounds: int) -> Iterator[str]:
    """Lines of the table for one size."""
    structure = Structure.from_ase(water(n_atoms), device=potential.device)
    neighbours = neighbour_list(structure, potential.cutoff)
    for name, wanted in WANTED.items():
        work = work_of(potential, structure, neighbours, wanted)
        took = [milliseconds(lambda: potential.evaluate(structure, neighbours, wanted)) for _ in range(rounds)]  # noqa: B023
        yield line(n_atoms, name, work, limit, float(np.median(took)))


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", default="water")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--atoms", type=int, nargs="+", default=[192, 1536])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    potential = mlcalc.load(options.potential, device=options.device)
    limit = ceilings(potential.device)
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads; {in_words(limit)}\n")
    print("\n".join(heading()))
    for n_atoms in options.atoms:
        print("\n".join(rows(potential, n_atoms, limit, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
