"""Random products of one and of many structures: exact, unbiased, and the same however they are put together."""

from __future__ import annotations

import math
import os
import sys

import ase
import numpy as np
import pytest
import torch

from mlcalc.diagnostics import jacobian_asymmetry, pair_asymmetry
from mlcalc.errors import RunError, UsageError
from mlcalc.memory import free_bytes
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.probes import batches
from mlcalc.probes.batches import Job, groups
from mlcalc.probes.field import Field, GraphTooLarge
from mlcalc.probes.jacobian import exact_jacobian
from mlcalc.probes.pair_profile import block_atoms, pair_profile, spread
from mlcalc.probes.pairs import sample_pairs
from mlcalc.probes.products import Sampling, sample_many, sample_products
from mlcalc.structure import Structure

ALL = Sampling(relative_error=1e-9, max_pairs=16)  # never content before


def waters(make_water, *n_molecules: int) -> Structure:
    return Structure.from_ase([make_water(n, seed=k) for k, n in enumerate(n_molecules)])


def lambdas(samples) -> list[float]:
    return [jacobian_asymmetry.from_products(one).value for one in samples]


@pytest.fixture
def network(make_network):
    return make_network("painn")


@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_small_systems_of_a_batch_are_exact(network, make_water, forces) -> None:
    """Reference: the dense Jacobian of each system alone, by rows. 9, 36 and 18 coordinates, at most 64."""
    batch = waters(make_water, 1, 4, 2)
    samples = sample_many(Job(network, batch, forces))
    for k, one in enumerate(samples):
        dense = jacobian_asymmetry.from_jacobian(exact_jacobian(network, batch.select([k]), forces))
        found = jacobian_asymmetry.from_products(one)
        assert found.value == pytest.approx(dense.value, rel=1e-9, abs=1e-13)
        assert found.standard_error == 0 and "exact" in found.note
    assert [len(one.total) for one in samples] == [9, 36, 18]


def test_products_are_unbiased_with_the_variance_of_theory(network, make_water) -> None:
    """Reference: ‖A‖², ‖J‖² and Hutchinson's variance 2 (‖M‖² − Σ M_kk²), M = AᵀA, of the dense Jacobian; 256 pairs."""
    structure = waters(make_water, 8)
    jacobian = exact_jacobian(network, structure, "direct")
    samples = [sample_many(Job(network, structure, "direct"), Sampling(1e-9, seed=seed))[0] for seed in range(4)]
    odd, whole = (np.concatenate([getattr(one, name) for one in samples]) for name in ("antisymmetric", "total"))
    assert len(odd) == 256
    for found, matrix in ((odd, (jacobian - jacobian.T) / 2), (whole, jacobian)):
        square = matrix.T @ matrix
        if matrix is jacobian:
            square = (square + matrix @ matrix.T) / 2  # (|Jv|² + |Jᵀv|²)/2
        deviation = np.sqrt(2 * ((square**2).sum() - (np.diag(square) ** 2).sum()))
        assert abs(found.mean() - np.trace(square)) < 3 * deviation / 256**0.5
        # the spread of a spread: 1/sqrt(2·256) for normal numbers, somewhat more for these; five times that
        assert found.std() == pytest.approx(deviation, rel=0.25)


def test_numbers_do_not_depend_on_the_passes(network, make_water, monkeypatch) -> None:
    """One pass for all, one for each structure, several copies of one: equal but for the last bits."""
    batch = waters(make_water, 8, 4, 8, 8)
    reference = sample_many(Job(network, batch, "direct"), ALL)
    calls = []
    monkeypatch.setattr(
        batches.Job, "batch", lambda self, *what, kept=Job.batch: calls.append(what) or kept(self, *what)
    )
    monkeypatch.setattr(batches, "_CPU_ATOMS", 36)
    apart = sample_many(Job(network, batch, "direct"), ALL)
    assert [list(systems) for systems, _ in calls] == [[0, 1], [2], [3]]
    calls.clear()
    monkeypatch.setattr(batches, "_CPU_ATOMS", 100)
    (copied,) = sample_many(Job(network, batch.select([0]), "direct"), ALL)
    assert [copies for _, copies in calls] == [4]
    for one, other in ((reference, apart), (reference[:1], [copied])):
        for here, there in zip(one, other, strict=True):
            np.testing.assert_allclose(here.antisymmetric, there.antisymmetric, rtol=1e-9)
            np.testing.assert_allclose(here.total, there.total, rtol=1e-9)


def test_memory_bounds_the_passes(network, make_water, monkeypatch) -> None:
    """Passes are halved until they fit, with the same result; one structure that does not fit is refused."""
    batch = waters(make_water, 8, 8, 8, 8)
    field = Field.at(network, batch.select([0]), "direct")
    field.forward(field.force.detach())
    alone = field.bytes_per_atom * 24
    reference = sample_many(Job(network, batch, "direct"), Sampling(max_pairs=8))
    held = []
    monkeypatch.setattr(batches, "_GUESS", 1)  # as if nothing were known: the first pass takes all
    monkeypatch.setattr(
        batches, "_one_pass", lambda *given, kept=batches._one_pass: held.append(list(given[1])) or kept(*given)
    )
    found = sample_many(Job(network, batch, "direct", 2.5 * alone), Sampling(max_pairs=8))
    assert held[0] == [0, 1, 2, 3] and held[-2:] == [[0, 1], [2, 3]]
    np.testing.assert_allclose(lambdas(found), lambdas(reference), rtol=1e-9)
    with pytest.raises(GraphTooLarge, match="24 atoms need more than .* GiB.*differences") as caught:
        sample_many(Job(network, batch, "direct", 0.5 * alone))
    assert isinstance(caught.value, RunError)


def test_graphs_are_weighed(network, make_water) -> None:
    """What is counted grows with the second graph and in proportion to copies."""
    structure = waters(make_water, 8)
    sizes = []
    for copies in (1, 4):
        field = Field.at(network, structure.replicated(copies), "direct")
        first = field.bytes_per_atom
        field.forward(field.force.detach())
        sizes.append((first, field.bytes_per_atom))
    assert 1.2 * sizes[0][0] < sizes[0][1]
    np.testing.assert_allclose(sizes[1], sizes[0], rtol=0.1)  # weights are counted once


def test_kept_graphs_give_the_products(network, make_water) -> None:
    """Reference: the dense Jacobian; again and again from the same graphs, forces of both kinds."""
    structure = waters(make_water, 4)
    torch.manual_seed(0)
    for forces in ("direct", "conservative"):
        jacobian = exact_jacobian(network, structure, forces)
        field = Field.at(network, structure, forces)
        for _ in range(2):
            vector = torch.randn(structure.n_atoms, 3, dtype=torch.float64)
            flat = vector.flatten().numpy()
            tolerance = {"rtol": 1e-9, "atol": 1e-10 * np.abs(jacobian).max()}
            np.testing.assert_allclose(field.forward(vector).flatten(), jacobian @ flat, **tolerance)
            np.testing.assert_allclose(field.transposed(vector).flatten(), jacobian.T @ flat, **tolerance)


def test_seeds(network, make_water) -> None:
    """The same seed repeats itself to the bit; another does not; equal structures of a batch get unequal vectors."""
    batch = Structure.from_ase([make_water(8), make_water(8)])
    first, again, other = (
        sample_many(Job(network, batch, "direct"), Sampling(max_pairs=8, seed=seed)) for seed in (3, 3, 4)
    )
    for k in (0, 1):
        np.testing.assert_array_equal(first[k].antisymmetric, again[k].antisymmetric)
        assert not np.allclose(first[k].antisymmetric, other[k].antisymmetric, rtol=1e-3)
    assert not np.allclose(first[0].antisymmetric, first[1].antisymmetric, rtol=1e-3)


def test_floors_of_a_float32_batch(make_network, make_water) -> None:
    """A gradient in float32 is within its floor, which is round-off's size; compositions have floors of their own."""
    batch = waters(make_water, 8, 4, 8)
    samples = sample_many(Job(make_network("painn", "M", torch.float32), batch, "conservative"))
    assert all(1e-9 < value < 3 * one.noise_floor < 1e-4 for value, one in zip(lambdas(samples), samples, strict=True))
    assert samples[0].noise_floor == samples[2].noise_floor != samples[1].noise_floor
    assert len(samples[0].total) == 8  # seen to be round-off at once


def test_couplings_of_all_atoms_are_those_of_the_dense_jacobian(network, make_water, monkeypatch) -> None:
    """Reference: the blocks of the dense Jacobian, in the same bins; with one and with several atoms in a pass."""
    structure = waters(make_water, 4)
    n = structure.n_atoms
    edges = [0.5, 1.2, 2.0, 3.0, 5.0]
    blocks = exact_jacobian(network, structure, "direct").reshape(n, 3, n, 3)
    dense = pair_asymmetry.from_blocks(blocks, structure.to_ase()[0].get_all_distances(mic=True), edges)
    for most in (12, 96):
        monkeypatch.setattr(batches, "_CPU_ATOMS", most)
        pairs = sample_pairs(Job(network, structure, "direct"), {0: range(n)})
        found = pair_asymmetry.from_pairs(pairs, edges)
        np.testing.assert_array_equal(found.n_pairs, dense.n_pairs)
        np.testing.assert_allclose(found.distance, dense.distance, rtol=1e-9)
        np.testing.assert_allclose(found.asymmetry, dense.asymmetry, rtol=1e-7)


def test_couplings_in_a_batch(network, make_water) -> None:
    """Different numbers of atoms in structures of different size: as each structure alone."""
    batch = waters(make_water, 8, 4, 8)
    together = sample_pairs(Job(network, batch, "direct"), {0: [3, 10], 1: [0], 2: [5, 6, 7]})
    apart = [sample_pairs(Job(network, batch.select([k]), "direct"), {0: atoms})
             for k, atoms in ((0, [3, 10]), (1, [0]), (2, [5, 6, 7]))]  # fmt: skip
    assert np.unique(together.centre).tolist() == list(range(6))
    for name in ("distance", "antisymmetric", "total"):
        alone = np.concatenate([getattr(one, name) for one in apart])
        np.testing.assert_allclose(getattr(together, name), alone, rtol=1e-8, atol=1e-14)


def test_atoms_are_spread_over_the_structures(make_water) -> None:
    random = np.random.default_rng(0)
    found = spread([10] * 100, 4, random)
    assert list(found) == [0, 33, 66, 99] and all(len(atoms) == 1 for atoms in found.values())
    assert {k: len(set(atoms)) for k, atoms in spread([10, 3], 16, random).items()} == {0: 8, 1: 3}
    chosen = block_atoms(waters(make_water, 8), 8, seed=0)
    assert len(chosen) == len(set(chosen)) == 8
    assert block_atoms(waters(make_water, 8), 100, seed=0) == list(range(24))


def test_profiles_by_derivatives_and_by_differences(network, make_water) -> None:
    """Two ways to the same couplings, of all atoms of one structure; steps of 0.004 Å leave some 1e-3 of curvature."""
    job = Job(network, waters(make_water, 4), "direct")
    found, other = (pair_profile(job, 12, by_differences=how) for how in (False, True))
    assert found.n_pairs.tolist() == other.n_pairs.tolist()
    assert (found.asymmetry > 100 * found.noise_floor).all()
    np.testing.assert_allclose(found.asymmetry, other.asymmetry, rtol=1e-2)


def test_a_known_curl_in_systems_of_any_size() -> None:
    """Reference: the closed form in the potential's docstring; within 3 errors where it is sampled."""
    random = np.random.default_rng(0)
    frames = [ase.Atoms(f"Ar{n}", random.uniform(0, 60, (n, 3))) for n in (1, 20, 100)]
    samples = sample_many(Job(Harmonic(asymmetry=0.1), Structure.from_ase(frames), "direct"))
    for one in samples:
        found = jacobian_asymmetry.from_products(one)
        assert found.value == pytest.approx(0.1, abs=max(1e-9, 3 * found.standard_error))


def test_atoms_without_forces_are_no_curl(network) -> None:
    """A hydrogen alone feels nothing anywhere: J = 0."""
    (samples,) = sample_many(Job(network, Structure.from_ase(ase.Atoms("H")), "direct"))
    assert jacobian_asymmetry.from_products(samples).value == 0


def test_free_memory() -> None:
    """Some, and not more than the machine has."""
    free = free_bytes(torch.device("cpu"))
    if sys.platform.startswith("linux"):
        assert 2**20 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        assert free == math.inf


def test_groups() -> None:
    assert [list(one) for one in groups([3, 3, 9, 2, 2, 2], 6)] == [[0, 1], [2], [3, 4, 5]]


def test_bad_requests(network, make_water) -> None:
    with pytest.raises(UsageError, match="sample_many"):
        sample_products(network, waters(make_water, 1, 1), "direct")
    with pytest.raises(UsageError, match="relative_error"):
        Sampling(relative_error=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_gives_the_same(network, make_water) -> None:
    """The same vectors on another device; sums differ in their order."""
    batch = waters(make_water, 8, 4, 8)
    here = sample_many(Job(network, batch, "direct"), ALL)
    there = sample_many(Job(network.to("cuda"), batch.to(device="cuda"), "direct"), ALL)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one.antisymmetric, other.antisymmetric, rtol=1e-8)
        np.testing.assert_allclose(one.total, other.total, rtol=1e-8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_ten_thousand_atoms_on_a_gpu(make_network, make_water) -> None:
    """4 pairs and 4 centres at 12,288 atoms; λ within three errors of the 96 atoms that they repeat."""
    network = make_network("painn", "M", torch.float32).to("cuda")
    few = make_water(32)
    many = few.repeat((8, 8, 2))
    found = []
    for atoms, most in ((few, 64), (many, 4)):
        job = Job(network, Structure.from_ase(atoms, device="cuda"), "direct")
        (samples,) = sample_many(job, Sampling(max_pairs=most, min_pairs=4))
        found.append(jacobian_asymmetry.from_products(samples))
    assert abs(found[0].value - found[1].value) < 3 * np.hypot(*(one.standard_error for one in found))
    pairs = sample_pairs(Job(network, Structure.from_ase(many, device="cuda"), "direct"), {0: [0, 5000, 9000, 12000]})
    assert len(np.unique(pairs.centre)) == 4 and len(pairs.total) > 100
