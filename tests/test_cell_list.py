"""Pairs of whole batches against every image of every pair, and against the list made system by system."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from test_neighbours import CELLS, CUTOFF, PERIODICITIES, brute_force, edges_of, scattered

from mlcalc import cell_list, neighbours
from mlcalc.neighbours import Neighbours, neighbour_list
from mlcalc.structure import Structure


def both_ways(structure: Structure, distance: float) -> list[tuple[int, ...]]:
    i, j, shift = cell_list.half_list(structure, distance)
    return edges_of(Neighbours(torch.cat([i, j]), torch.cat([j, i]), torch.cat([shift, -shift]), distance))


@pytest.mark.parametrize("periodic", [*PERIODICITIES, (True, False, True), (False, False, True)])
@pytest.mark.parametrize("cell", CELLS)
def test_against_brute_force(cell, periodic):
    for n_atoms, seed in ((1, 0), (2, 1), (20, 2)):
        atoms = scattered(CELLS[cell], periodic, n_atoms, seed)
        assert both_ways(Structure.from_ase(atoms), CUTOFF) == brute_force(atoms, CUTOFF)


def test_a_box_of_many_bins():
    """Larger than the cutoff in every direction, so that bins are told apart; in a batch with a small one."""
    atoms = scattered(3.1 * CELLS["triclinic"], (True,) * 3, 120, 4)
    other = scattered(CELLS["smaller than the cutoff"], (True, False, True), 5, 0)
    expected = brute_force(other, CUTOFF) + [(i + 5, j + 5, *shift) for i, j, *shift in brute_force(atoms, CUTOFF)]
    assert both_ways(Structure.from_ase([other, atoms]), CUTOFF) == sorted(expected)


def test_pairs_taken_a_few_at_a_time_are_the_same(monkeypatch):
    structure = Structure.from_ase(scattered(3.1 * CELLS["cube"], (True, True, False), 100, 1))
    whole = both_ways(structure, CUTOFF)
    monkeypatch.setitem(cell_list._PAIRS_AT_ONCE, "cpu", 37)
    assert both_ways(structure, CUTOFF) == whole


def test_atoms_far_apart_cost_nothing():
    """A cluster that flew apart: 10¹⁸ bins of the cutoff's width, of which three hold atoms."""
    atoms = ase.Atoms("O3", [[0, 0, 0], [1e6, 2e6, -1e6], [1e6, 2e6, 3 - 1e6]])
    assert both_ways(Structure.from_ase(atoms), CUTOFF) == [(1, 2, 0, 0, 0), (2, 1, 0, 0, 0)]


def test_a_screening_set_is_listed_as_system_by_system(monkeypatch):
    """The order of the edges too: a restart with another batch must give the same bits."""
    draw = np.random.default_rng(0)
    systems = [
        scattered(CELLS[cell], tuple(draw.integers(2, size=3) > 0), int(draw.integers(1, 12)), seed)
        for seed, cell in enumerate(list(CELLS) * 3)
    ]
    batch = Structure.from_ase(systems)
    assert neighbours._at_once(batch)
    at_once = neighbour_list(batch, CUTOFF)
    monkeypatch.setattr(neighbours, "_MANY_SYSTEMS", 10**9)
    one_by_one = neighbour_list(batch, CUTOFF)
    for name in ("centre", "neighbour", "shift"):
        assert torch.equal(getattr(at_once, name), getattr(one_by_one, name))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_finds_the_same_edges():
    systems = [scattered(CELLS[cell], (True, False, True), 10, 0) for cell in list(CELLS) * 3]
    on_gpu = neighbour_list(Structure.from_ase(systems, device="cuda"), CUTOFF)
    assert on_gpu.centre.device.type == "cuda"
    assert edges_of(on_gpu) == edges_of(neighbour_list(Structure.from_ase(systems), CUTOFF))
