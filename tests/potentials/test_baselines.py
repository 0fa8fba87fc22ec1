"""The three-body baseline against its formula, written out atom by atom, and against automatic differentiation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre as numpy_legendre

from mlcalc.evaluation import JOINT, required
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.painn import PaiNN
from mlcalc.potentials.radial import RadialBasis
from mlcalc.potentials.three_body_baseline import ThreeBodyBaseline, edge_pairs, legendre
from mlcalc.structure import Structure


@pytest.fixture
def water(make_water) -> Structure:
    return Structure.from_ase(make_water(4, seed=2))


def random_baseline(cutoff: float = 2.6) -> ThreeBodyBaseline:
    torch.manual_seed(0)
    baseline = ThreeBodyBaseline(2, cutoff).double()
    random = torch.randn(8, 5, 5, 5, dtype=torch.float64)
    baseline.coefficients.copy_((random + random.transpose(2, 3)).flatten(2))
    return baseline


def evaluated(
    baseline: ThreeBodyBaseline, vectors: torch.Tensor, centre: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    distance = vectors.norm(dim=1)
    return baseline(vectors, distance, baseline.places(distance, centre, ends))


def edges_of(structure: Structure, cutoff: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    neighbours = neighbour_list(structure, cutoff)
    species = (structure.numbers == 8).long()
    ends = torch.stack([species[neighbours.centre], species[neighbours.neighbour]])
    return neighbours.vectors(structure), neighbours.centre, neighbours.neighbour, ends


def test_energy_is_the_sum_over_triples(water: Structure) -> None:
    """Reference: three loops over atoms, neighbours and coefficients, Legendre polynomials from numpy."""
    baseline = random_baseline()
    vectors, centre, _, ends = edges_of(water, 3.0)
    energies, _ = evaluated(baseline, vectors, centre, ends)
    radial = RadialBasis(5, 2.6).double()
    expected = 0.0
    for atom in range(water.n_atoms):
        mine = [k for k in range(len(centre)) if centre[k] == atom and vectors[k].norm() < 2.6]
        for j, k in itertools.combinations(mine, 2):
            if ends[1, j] > ends[1, k]:
                j, k = k, j
            c = baseline.coefficients[4 * ends[0, j] + 2 * ends[1, j] + ends[1, k]].view(5, 5, 5).numpy()
            e = radial(torch.stack([vectors[j].norm(), vectors[k].norm()]))[0].numpy()
            cosine = float(vectors[j] @ vectors[k] / vectors[j].norm() / vectors[k].norm())
            p = [numpy_legendre.legval(cosine, np.eye(5)[degree]) for degree in range(5)]
            expected += np.einsum("lab,l,a,b->", c, p, e[0], e[1])
    assert float(energies.sum()) == pytest.approx(expected, rel=1e-6)  # frequencies are kept in float32


def test_gradient_is_the_derivative_of_the_energy(water: Structure) -> None:
    """Reference: automatic differentiation."""
    vectors, centre, _, ends = edges_of(water, 3.0)
    vectors.requires_grad_()
    energies, gradient = evaluated(random_baseline(), vectors, centre, ends)
    (expected,) = torch.autograd.grad(energies.sum(), vectors)
    assert float(expected.abs().max()) > 0.1
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)


def test_order_of_edges_does_not_matter(water: Structure) -> None:
    vectors, centre, _, ends = edges_of(water, 3.0)
    shuffled = torch.argsort(centre + 0.9 * torch.rand(len(centre), generator=torch.Generator().manual_seed(0)))
    baseline = random_baseline()
    energies, gradient = evaluated(baseline, vectors, centre, ends)
    v = vectors[shuffled]
    other_energies, other_gradient = evaluated(baseline, v, centre[shuffled], ends[:, shuffled])
    torch.testing.assert_close(other_gradient, gradient[shuffled], rtol=1e-10, atol=1e-12)
    assert float(other_energies.sum()) == pytest.approx(float(energies.sum()), rel=1e-12)


def test_third_atom_leaves_smoothly() -> None:
    """Energy and gradient of a triple fade to zero at the cutoff; a pair alone has none."""
    centre, ends = torch.tensor([0, 0]), torch.tensor([[1, 1], [0, 0]])
    baseline, sizes = random_baseline(), []
    for r in (2.0, 2.6 - 1e-2, 2.6 - 1e-3, 2.6, 3.0):
        vectors = torch.tensor([[0.96, 0.0, 0.0], [0.0, r, 0.0]], dtype=torch.float64)
        energies, gradient = evaluated(baseline, vectors, centre, ends)
        sizes.append(float(energies.abs().sum() + gradient.abs().sum()))
    assert sizes[0] > 0.1 and sizes[1] < 1e-3 * sizes[0] and sizes[2] < 1e-2 * sizes[1]
    assert sizes[3] == sizes[4] == 0


def test_both_forces_hold_the_same_baseline(water: Structure) -> None:
    """With the network's own part switched off nothing is left of their difference."""
    network = PaiNN(["H", "O"], 3.0, channels=8, n_layers=1, n_radial=6, hidden=16, pair_channels=8).double()
    network.three_body_baseline.load_state_dict(random_baseline().state_dict())
    network.scale.zero_()
    result = network.evaluate(water, neighbour_list(water, 3.0), JOINT)
    conservative = required(result, "conservative_force")
    assert float(conservative.abs().max()) > 0.1
    torch.testing.assert_close(required(result, "direct_force"), conservative, rtol=1e-10, atol=1e-10)


def test_edge_pairs_by_hand() -> None:
    centre = torch.tensor([0, 0, 0, 1, 2, 2, 3])
    distance = torch.tensor([1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 9.0])
    edges, first, second = edge_pairs(distance, centre, 2.0)
    assert [(int(edges[a]), int(edges[b])) for a, b in zip(first, second, strict=True)] == [(0, 2), (4, 5)]


def test_no_edges_no_energy() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    vectors, ends = torch.zeros(0, 3, dtype=torch.float64), torch.zeros(2, 0).long()
    energies, gradient = evaluated(random_baseline(), vectors, nothing, ends)
    assert energies.shape == (0,) and gradient.shape == (0, 3)


def test_legendre_slopes() -> None:
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    values, slopes = legendre(x, 6)
    for degree in range(6):
        series = np.eye(6)[degree]
        np.testing.assert_allclose(values[:, degree], numpy_legendre.legval(x.numpy(), series), atol=1e-12)
        derivative = numpy_legendre.legval(x.numpy(), numpy_legendre.legder(series))
        np.testing.assert_allclose(slopes[:, degree], derivative, atol=1e-12)
