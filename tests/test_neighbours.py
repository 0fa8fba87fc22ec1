"""The neighbour list against every image of every pair, one by one."""

from __future__ import annotations

import itertools

import ase
import numpy as np
import pytest
import torch

from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.neighbours import NeighbourCache, Neighbours, neighbour_list
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.structure import Structure

CELLS = {
    "cube": np.diag([7.0, 7.0, 7.0]),
    "triclinic": np.array([[6.0, 0.0, 0.0], [2.5, 5.5, 0.0], [-1.5, 2.0, 5.0]]),
    "smaller than the cutoff": np.array([[2.1, 0.0, 0.0], [0.6, 2.3, 0.0], [0.2, -0.5, 1.9]]),
    "left-handed": np.array([[0.0, 6.0, 0.0], [6.5, 0.0, 0.5], [0.0, 0.3, 5.0]]),
}
PERIODICITIES = [(False, False, False), (True, True, True), (True, False, False), (False, True, True)]
CUTOFF = 3.5


def edges_of(neighbours: Neighbours) -> list[tuple[int, ...]]:
    columns = torch.cat([neighbours.centre[:, None], neighbours.neighbour[:, None], neighbours.shift], dim=1)
    return sorted(map(tuple, columns.tolist()))


def brute_force(atoms: ase.Atoms, cutoff: float) -> list[tuple[int, ...]]:
    """Every pair (i, j, S) with |r_j − r_i + S·cell| < cutoff, found by looking at all images that could be so near.

    |f_j − f_i + S| ≤ cutoff/height along each lattice vector, so |S| ≤ cutoff/height + max |f_j − f_i|.
    """
    fractional = atoms.positions @ np.linalg.inv(atoms.cell.array)
    spread = np.ptp(fractional, axis=0)
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    reach = [int(np.ceil(cutoff / h + s)) if p else 0 for h, s, p in zip(heights, spread, atoms.pbc, strict=True)]
    found = []
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        vectors = atoms.positions[None] - atoms.positions[:, None] + np.array(shift) @ atoms.cell.array
        near = np.linalg.norm(vectors, axis=2) < cutoff
        if shift == (0, 0, 0):
            np.fill_diagonal(near, False)
        found += [(int(i), int(j), *shift) for i, j in zip(*np.nonzero(near), strict=True)]
    return sorted(found)


def scattered(cell: np.ndarray, periodic: tuple[bool, ...], n_atoms: int, seed: int) -> ase.Atoms:
    """Atoms at random, some of them outside the cell."""
    fractional = np.random.default_rng(seed).uniform(-0.6, 1.7, size=(n_atoms, 3))
    return ase.Atoms(numbers=[8] * n_atoms, positions=fractional @ cell, cell=cell, pbc=periodic)


@pytest.mark.parametrize("periodic", PERIODICITIES)
@pytest.mark.parametrize("cell", CELLS)
def test_against_brute_force(cell, periodic):
    for n_atoms, seed in ((1, 0), (2, 1), (20, 2)):
        atoms = scattered(CELLS[cell], periodic, n_atoms, seed)
        edges = neighbour_list(Structure.from_ase(atoms), CUTOFF)
        assert edges_of(edges) == brute_force(atoms, CUTOFF)


def test_every_edge_has_its_image_and_its_reverse():
    structure = Structure.from_ase(scattered(CELLS["smaller than the cutoff"], (True, True, False), 7, 0))
    edges = neighbour_list(structure, CUTOFF)
    vectors = edges.vectors(structure)
    assert float(vectors.norm(dim=1).max()) < CUTOFF
    torch.testing.assert_close(vectors[edges.reverse], -vectors)
    assert torch.equal(edges.centre[edges.reverse], edges.neighbour)
    assert torch.equal(edges.shift[edges.reverse], -edges.shift)
    assert torch.equal(edges.reverse[edges.reverse], torch.arange(edges.n_edges))


def test_edges_are_sorted_by_centre():
    edges = neighbour_list(Structure.from_ase(scattered(CELLS["cube"], (True,) * 3, 30, 0)), CUTOFF)
    assert bool((edges.centre.diff() >= 0).all())


def test_float32_finds_the_pairs_of_float64():
    atoms = scattered(CELLS["triclinic"], (True,) * 3, 20, 5)
    single, double = (Structure.from_ase(atoms, dtype=kind) for kind in (torch.float32, torch.float64))
    # true of these positions because no pair lies within 1e-5 Å of the cutoff
    assert edges_of(neighbour_list(single, CUTOFF)) == edges_of(neighbour_list(double, CUTOFF))
    vectors = neighbour_list(single, CUTOFF).vectors(single)
    assert vectors.dtype == torch.float32


def test_a_batch_is_its_systems_one_by_one():
    systems = [
        scattered(CELLS["triclinic"], (True, False, True), 9, 0),
        scattered(CELLS["cube"], (False,) * 3, 1, 1),
        scattered(CELLS["smaller than the cutoff"], (True,) * 3, 3, 2),
    ]
    batch = Structure.from_ase(systems)
    found, first = [], 0
    for atoms in systems:
        one = edges_of(neighbour_list(Structure.from_ase(atoms), CUTOFF))
        found += [(i + first, j + first, *shift) for i, j, *shift in one]
        first += len(atoms)
    edges = neighbour_list(batch, CUTOFF)
    assert edges_of(edges) == sorted(found)
    assert float(edges.vectors(batch).norm(dim=1).max()) < CUTOFF


def test_skin_reaches_further_and_keeps_the_cutoff():
    atoms = scattered(CELLS["cube"], (True,) * 3, 20, 0)
    edges = neighbour_list(Structure.from_ase(atoms), 3.0, skin=0.5)
    assert edges.cutoff == 3.0
    assert edges_of(edges) == brute_force(atoms, 3.5)


def test_a_lonely_atom_has_no_edges():
    edges = neighbour_list(Structure.from_ase(ase.Atoms("O", cell=[20, 20, 20], pbc=True)), CUTOFF)
    assert edges.n_edges == 0
    assert edges.reverse.shape == (0,)


def test_a_cutoff_of_zero_finds_nothing():
    """For potentials that find their own neighbours; a skin makes no pairs of it either."""
    structure = Structure.from_ase(scattered(CELLS["cube"], (True,) * 3, 30, 0))
    edges = neighbour_list(structure, 0.0, skin=2.0)
    assert edges.n_edges == 0 and edges.vectors(structure).shape == (0, 3)


@pytest.mark.parametrize(("cutoff", "skin"), [(-1.0, 0.0), (float("nan"), 0.0), (3.0, -0.1)])
def test_bad_distances_are_refused(cutoff, skin):
    structure = Structure.from_ase(ase.Atoms("O"))
    with pytest.raises(UsageError, match="Å"):
        neighbour_list(structure, cutoff, skin=skin)


def test_positions_that_are_not_finite_stop_the_run():
    structure = Structure.from_ase(ase.Atoms("OO", [[0, 0, 0], [0, 0, 2]]))
    broken = structure.at(structure.positions * torch.nan)
    with pytest.raises(RunError, match="not finite"):
        neighbour_list(broken, CUTOFF)
    cache = NeighbourCache(CUTOFF)
    cache(structure)
    with pytest.raises(RunError, match="not finite"):
        cache(broken)


def _within(neighbours: Neighbours, structure: Structure, cutoff: float) -> list[tuple[int, ...]]:
    near = neighbours.vectors(structure).norm(dim=1) < cutoff
    return [edge for edge in edges_of(Neighbours(*(
        column[near] for column in (neighbours.centre, neighbours.neighbour, neighbours.shift)
    ), cutoff))]  # fmt: skip


def test_cache_is_never_stale_on_a_random_walk_that_wraps():
    """Atoms wander, and one is put back into the cell now and then, as many engines do."""
    atoms = scattered(CELLS["triclinic"], (True,) * 3, 15, 0)
    rng = np.random.default_rng(0)
    cache = NeighbourCache(CUTOFF, skin=0.4)
    for step in range(60):
        atoms.positions += rng.normal(scale=0.02, size=(15, 3))
        if step % 10 == 9:
            atoms.positions[step % 15] += atoms.cell[step % 3]
        structure = Structure.from_ase(atoms)
        assert _within(cache(structure), structure, CUTOFF) == brute_force(atoms, CUTOFF)
    assert 7 <= cache.n_builds < 30  # once, at each of six wraps, and when the walk has gone far; not every step


def test_cache_rebuilds_when_the_frame_changes():
    atoms = scattered(CELLS["triclinic"], (True,) * 3, 15, 0)
    cache = NeighbourCache(CUTOFF, skin=0.4)
    cache(Structure.from_ase(atoms))
    cache(Structure.from_ase(atoms))
    assert cache.n_builds == 1
    atoms.set_cell(atoms.cell.array * 0.8, scale_atoms=True)  # shortens distances by more than the skin
    cache(Structure.from_ase(atoms))
    assert cache.n_builds == 2
    atoms.pbc = (True, True, False)
    cache(Structure.from_ase(atoms))
    assert cache.n_builds == 3
    cache(Structure.from_ase([atoms, atoms]))
    assert cache.n_builds == 4


def test_cache_follows_a_cell_that_moves_with_its_atoms():
    """As a barostat moves it: strain and steps at random, any shape; lists are reused and no pair is missing."""
    atoms = scattered(CELLS["triclinic"], (True,) * 3, 15, 0)
    rng = np.random.default_rng(0)
    cache = NeighbourCache(CUTOFF, skin=0.4)
    for _ in range(60):
        strain = np.eye(3) + rng.normal(scale=0.003, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain)
        atoms.positions = atoms.positions @ strain + rng.normal(scale=0.01, size=(15, 3))
        structure = Structure.from_ase(atoms)
        assert _within(cache(structure), structure, CUTOFF) == brute_force(atoms, CUTOFF)
    assert 3 <= cache.n_builds < 30


def test_cache_of_a_batch_follows_the_cell_of_each_system():
    """One cell moves, one stays, one system has none; atoms take steps at random, and one is wrapped now and then."""
    rng = np.random.default_rng(1)
    systems = [
        scattered(CELLS["triclinic"], (True,) * 3, 12, 0),
        scattered(CELLS["cube"], (True, True, False), 9, 1),
        ase.Atoms("O6", rng.uniform(0, 5, size=(6, 3))),
    ]
    cache = NeighbourCache(CUTOFF, skin=0.4)
    for step in range(40):
        strain = np.eye(3) + rng.normal(scale=0.003, size=(3, 3))
        systems[0].set_cell(systems[0].cell.array @ strain)
        systems[0].positions = systems[0].positions @ strain
        for atoms in systems:
            atoms.positions += rng.normal(scale=0.01, size=(len(atoms), 3))
        if step % 15 == 14:
            systems[1].positions[step % 9] += systems[1].cell[0]
        structure, first, expected = Structure.from_ase(systems), 0, []
        for atoms in systems:
            cell = np.eye(3) if atoms.cell.rank < 3 else atoms.cell.array  # the brute-force search inverts it
            framed = ase.Atoms(atoms.numbers, atoms.positions, cell=cell, pbc=atoms.pbc)
            expected += [(i + first, j + first, *shift) for i, j, *shift in brute_force(framed, CUTOFF)]
            first += len(atoms)
        assert _within(cache(structure), structure, CUTOFF) == expected
    assert 3 <= cache.n_builds < 20


def test_energy_is_conserved_by_an_engine_that_wraps():
    """Atoms wrapped after every step, as some engines do: positions but for the wrapping, energies and drift the same.

    The drift's reference is the run that never wraps: a list used on after a wrap gives no force across the border.
    """
    potential = LennardJones(sigma=2.9, epsilon=0.02, cutoff=4.5)
    start = ase.Atoms("Ar8", [[3.3 * x, 3.2 * y, 3.4 * z] for x, y, z in itertools.product((0, 1), repeat=3)])
    start.set_cell([6.6, 6.4, 6.8])
    start.pbc = True
    momenta = np.random.default_rng(0).normal(loc=0.05, scale=0.1, size=(8, 3))
    kept, *_ = _verlet(start, momenta, potential, wraps=False)
    wrapped, n_wraps, n_builds = _verlet(start, momenta, potential, wraps=True)
    assert n_wraps > 20
    assert n_builds < 200
    # a chaotic run grows its round-off of 1e-15, in 200 steps to no more than this
    np.testing.assert_allclose(wrapped, kept, rtol=0, atol=1e-9)
    kinetic = 0.5 * (momenta**2).sum()
    assert np.ptp(wrapped) < 0.01 * kinetic


def _verlet(start: ase.Atoms, momenta: np.ndarray, potential: LennardJones, wraps: bool) -> tuple[np.ndarray, int, int]:
    """200 steps of velocity Verlet, masses of 1: total energies, how many atoms were wrapped, and lists built."""
    atoms, cache, n_wraps, energies, step = start.copy(), NeighbourCache(potential.cutoff, 0.6), 0, [], 0.2

    def evaluate():
        structure = Structure.from_ase(atoms)
        found = potential.evaluate(structure, cache(structure), Wanted.ENERGY | Wanted.CONSERVATIVE)
        return float(found.energy), found.conservative_force.numpy()

    _, force = evaluate()
    for _ in range(200):
        momenta = momenta + 0.5 * step * force
        atoms.positions += step * momenta
        if wraps:
            before = atoms.get_positions()
            atoms.wrap()
            n_wraps += int((abs(atoms.positions - before) > 1).any(axis=1).sum())
        energy, force = evaluate()
        momenta = momenta + 0.5 * step * force
        energies.append(energy + 0.5 * (momenta**2).sum())
    return np.array(energies), n_wraps, cache.n_builds


def test_cache_holds_its_own_copy_of_the_positions():
    """An engine may move its positions in place; the cache must still see that they moved."""
    structure = Structure.from_ase(scattered(CELLS["cube"], (True,) * 3, 5, 0))
    cache = NeighbourCache(CUTOFF, skin=0.4)
    cache(structure)
    structure.positions.add_(0.3)
    cache(structure)
    assert cache.n_builds == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_finds_the_same_edges():
    atoms = scattered(CELLS["triclinic"], (True, True, False), 40, 3)
    on_gpu = neighbour_list(Structure.from_ase(atoms, device="cuda"), CUTOFF)
    assert on_gpu.centre.device.type == "cuda"
    assert edges_of(on_gpu) == brute_force(atoms, CUTOFF)
