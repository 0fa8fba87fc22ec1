"""Batches that fit into memory: what is measured, and how a set is divided."""

from __future__ import annotations

from collections.abc import Callable

import ase.build
import pytest
import torch

from mlcalc.engines.batch_size import fit_batches, peak_bytes
from mlcalc.errors import RunError
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.structure import Structure

CPU = torch.device("cpu")
MIB = 2**20


def test_the_peak_is_that_of_living_tensors() -> None:
    """8, 16, 24, 16, 32 MiB at a time."""

    def work() -> None:
        first = torch.zeros(MIB, dtype=torch.float64)
        second = first + 1
        third = second + 1
        del first, third
        kept = torch.cat([second, second])
        assert float(kept[0]) == 1.0

    assert peak_bytes(work, CPU) == pytest.approx(24 * MIB, rel=0.01)


def test_the_peak_knows_the_tape_of_a_derivative() -> None:
    """A backward pass needs what the forward pass has kept: x, eˣ and e^eˣ, and at least a gradient."""
    x = torch.zeros(MIB, dtype=torch.float64, requires_grad=True)
    peak = peak_bytes(lambda: torch.autograd.grad(x.exp().exp().sum(), x), CPU)
    assert 24 * MIB <= peak <= 40 * MIB


def argon(n: int) -> ase.Atoms:
    return ase.build.bulk("Ar", cubic=True, a=5.3).repeat((n, 1, 1))


def fitted(sizes: list[int], free: float, fixed: float = 0.0) -> list[list[int]]:
    """With a potential that takes a byte for each atom and neighbour, and some in any case."""
    potential = LennardJones(sigma=3.4, cutoff=4.0)  # 12 neighbours each

    def peak(work: Callable[[], object], device: torch.device) -> float:
        work()
        assert device == CPU
        return fixed + 13 * 4 * max(sizes) * next(copies)

    copies = iter((1, 2))
    structure = Structure.from_ase([argon(n) for n in sizes])
    return fit_batches(potential, structure, forces="conservative", free=lambda device: free / 0.7, peak=peak)


def test_a_set_is_divided_in_its_order() -> None:
    """52 bytes a unit: 520 hold ten units, 572 with 52 in any case as well."""
    sizes = [4, 4, 4, 1, 1, 8, 2, 3]
    divided = [[0, 1], [2, 3, 4], [5, 6], [7]]
    assert fitted(sizes, 520.1) == divided
    assert fitted(sizes, 572.1, fixed=52.0) == divided
    assert fitted(sizes, 1e9) == [list(range(8))]
    assert fitted([1] * 5, 104.1) == [[0, 1], [2, 3], [4]]


def test_a_system_that_does_not_fit_is_named() -> None:
    with pytest.raises(RunError, match="structure: system 1 needs .* GiB"):
        fitted([1, 4, 1], 104.1)


def test_a_set_is_divided_where_two_of_the_largest_do_not_fit() -> None:
    """The second measurement fails; two of the others fit."""
    structure = Structure.from_ase([argon(n) for n in (2, 1, 1)])

    def peak(work: Callable[[], object], device: torch.device) -> float:
        if next(copies) == 2:
            raise RunError("out of memory")
        return 100.0

    copies = iter((1, 2))
    potential = LennardJones(sigma=3.4, cutoff=4.0)
    divided = fit_batches(potential, structure, forces="conservative", free=lambda device: 150.0, peak=peak)
    assert divided == [[0], [1, 2]]


def test_the_measurement_is_about_what_an_evaluation_takes() -> None:
    """With the real measurement: half of the memory gives batches of half the size, within the rounding."""
    potential = LennardJones(sigma=3.4, cutoff=8.0)
    structure = Structure.from_ase([argon(2)]).replicated(40)
    found = [
        len(fit_batches(potential, structure, forces="conservative", free=lambda device: mib * MIB)[0])  # noqa: B023
        for mib in (1, 2, 4)
    ]
    assert found[0] >= 2 and found[2] < 40
    assert found[1] / found[0] == pytest.approx(2, rel=0.3) and found[2] / found[1] == pytest.approx(2, rel=0.3)
