"""λ: exact where it is known, stochastic within its error, and at the floor for gradients."""

from __future__ import annotations

import ase.build
import numpy as np
import pytest
import torch

from mlcalc.diagnostics import jacobian_asymmetry, pair_asymmetry
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.painn import PaiNN
from mlcalc.probes.jacobian import element_noise, exact_jacobian, jacobian_rows
from mlcalc.probes.products import sample_products
from mlcalc.structure import Structure


@pytest.fixture
def argon() -> Structure:
    atoms = ase.build.bulk("Ar", cubic=True, a=5.3)
    atoms.rattle(0.1, seed=0)
    return Structure.from_ase(atoms)


@pytest.fixture
def water() -> Structure:
    molecule = ase.build.molecule("H2O")
    molecule.set_cell([3.1, 3.1, 3.1])
    molecule.pbc = True
    return Structure.from_ase(molecule.repeat((2, 2, 1)))


def network() -> PaiNN:
    torch.manual_seed(0)
    return PaiNN(["H", "O"], 3.0, channels=8, n_layers=2, n_radial=6, hidden=16, pair_channels=8)


@pytest.mark.parametrize("asymmetry", [0.0, 1e-3, 0.3])
def test_exact_finds_the_curl_of_the_wells(argon: Structure, asymmetry: float) -> None:
    """Reference: the closed form in the potential's docstring."""
    jacobian = exact_jacobian(Harmonic(argon.positions, spring=3.0, asymmetry=asymmetry), argon, "direct")
    assert jacobian_asymmetry.from_jacobian(jacobian).value == pytest.approx(asymmetry, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_products_find_it_within_three_standard_errors(water: Structure, seed: int) -> None:
    """Reference: the exact Jacobian of the same network."""
    net, water = network().double(), Structure.from_ase(water.to_ase()[0].repeat((1, 1, 2)))
    exact = jacobian_asymmetry.from_jacobian(exact_jacobian(net, water, "direct")).value
    found = jacobian_asymmetry.from_products(sample_products(net, water, "direct", seed=seed))
    assert exact > 0.05
    assert 0 < found.standard_error <= 0.06 * found.value
    assert abs(found.value - exact) < 3 * found.standard_error


def test_products_of_the_wells(argon: Structure) -> None:
    """All atoms have the same block, so every probe vector gives the ratio up to the spread of the signs."""
    potential = Harmonic(argon.positions, asymmetry=0.2)
    for seed in range(5):
        samples = sample_products(potential, argon, "direct", min_pairs=8, max_pairs=8, seed=seed)
        found = jacobian_asymmetry.from_products(samples)
        assert found.value == pytest.approx(0.2, abs=max(3 * found.standard_error, 1e-9))


def test_lennard_jones_is_at_the_floor(argon: Structure) -> None:
    argon = Structure.from_ase(argon.to_ase()[0].repeat(2))
    samples = sample_products(LennardJones(), argon, "conservative")
    found = jacobian_asymmetry.from_products(samples)
    assert found.value < 1e-12
    assert found.noise_floor is not None and found.value < 3 * found.noise_floor
    assert len(samples.total) == 8  # seen to be round-off at once, no more products are spent


def test_floor_tells_single_precision_from_asymmetry(water: Structure) -> None:
    """A gradient in float32 shows an asymmetry of its floor's size; a direct head shows one far above."""
    net = network()
    clean = jacobian_asymmetry.from_products(sample_products(net, water, "conservative"))
    curled = jacobian_asymmetry.from_products(sample_products(net, water, "direct"))
    assert clean.noise_floor is not None and curled.noise_floor is not None
    assert 1e-9 < clean.value < 3 * clean.noise_floor < 1e-4
    assert curled.value > 100 * curled.noise_floor


def test_jacobian_equals_finite_differences(water: Structure) -> None:
    """Central differences, step 1e-4 Å."""
    net = network().double()
    for forces, flag in (("direct", Wanted.DIRECT), ("conservative", Wanted.CONSERVATIVE)):
        row = jacobian_rows(net, water, forces, [2])
        columns = []
        for sign in (1, -1):
            positions = water.positions.clone()
            positions[5, 1] += sign * 1e-4
            moved = water.at(positions)
            columns.append(getattr(net.evaluate(moved, neighbour_list(moved, 3.0), flag), f"{forces}_force")[2])
        numeric = (columns[0] - columns[1]) / 2e-4
        np.testing.assert_allclose(row[:, 3 * 5 + 1], numeric.numpy(), atol=1e-6)


def test_pair_asymmetry_of_known_blocks() -> None:
    """Two atoms whose couplings are S + A and (S − A)ᵀ: λ_ij = |A|/sqrt(|S|² + |A|²), by the definition."""
    rng = np.random.default_rng(0)
    n, odd, even = 4, 0.3, 1.0
    blocks = np.zeros((n, 3, n, 3))
    for i in range(n):
        for j in range(i + 1, n):
            s, a = rng.normal(size=(2, 3, 3))
            s, a = even * s / np.linalg.norm(s), odd * a / np.linalg.norm(a)
            a -= (a * s).sum() * s / even**2
            a *= odd / np.linalg.norm(a)
            blocks[i, :, j], blocks[j, :, i] = s + a, (s - a).T
    apart = 2.5 * (1 - np.eye(n))
    found = pair_asymmetry.from_blocks(blocks, apart, [0.0, 2.0, 3.0, 4.0])
    assert found.n_pairs.tolist() == [6]
    assert found.asymmetry[0] == pytest.approx(odd / np.hypot(odd, even), rel=1e-9)
    assert found.standard_error[0] == pytest.approx(0, abs=1e-9)
    assert found.distance[0] == pytest.approx(2.5)


def test_floor_of_pair_asymmetry(water: Structure) -> None:
    """Between pairs too: a float32 gradient shows what the floor says, a direct head far more."""
    net, atoms = network(), list(range(water.n_atoms))
    apart = water.to_ase()[0].get_all_distances(mic=True)
    seen = {}
    for forces in ("conservative", "direct"):
        blocks = jacobian_rows(net, water, forces, atoms).reshape(len(atoms), 3, len(atoms), 3)
        noise = element_noise(net, water, forces, 0)
        seen[forces] = pair_asymmetry.from_blocks(blocks, apart, [0.5, 2.0, 3.0], noise)
    clean, curled = seen["conservative"], seen["direct"]
    assert (clean.noise_floor > 0).all() and (clean.asymmetry < 5 * clean.noise_floor).all()
    # the floor takes the errors of J_ij and J_ji for independent, but they are alike to one part in ten
    assert (clean.asymmetry > 0.02 * clean.noise_floor).all()
    assert (curled.asymmetry > 100 * curled.noise_floor).all()


def test_bad_requests_are_refused(argon: Structure) -> None:
    with pytest.raises(UsageError, match="forces"):
        exact_jacobian(LennardJones(), argon, "fast")
    with pytest.raises(UsageError, match="direct"):
        exact_jacobian(LennardJones(), argon, "direct")
    with pytest.raises(UsageError, match="min_pairs"):
        sample_products(LennardJones(), argon, "conservative", min_pairs=9, max_pairs=8)
    with pytest.raises(TooShortToTell) as caught:
        jacobian_asymmetry.from_products(
            sample_products(Harmonic(argon.positions, asymmetry=0.2), argon, "direct", min_pairs=2, max_pairs=2)
        )
    assert caught.value.estimate is not None
