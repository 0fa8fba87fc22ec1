"""The density network against its formula, written out over triples, and against automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import silu

from mlcalc.evaluation import JOINT, Wanted, required
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.density_network import DensityNetwork
from mlcalc.potentials.painn import PaiNN
from mlcalc.potentials.radial import RadialBasis
from mlcalc.structure import Structure

SIZES = dict(channels=8, n_layers=1, n_radial=6, hidden=16, pair_channels=8)


@pytest.fixture
def water(make_water) -> Structure:
    return Structure.from_ase(make_water(4, seed=2))


def random_density_network() -> DensityNetwork:
    torch.manual_seed(0)
    network = DensityNetwork(2, 3.2, channels=3, hidden=5, n_radial=4, l_max=3).double()
    for weight in network.last.parameters():
        torch.nn.init.normal_(weight)
    return network.requires_grad_(False)


def edges_of(structure: Structure, cutoff: float = 3.2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    neighbours = neighbour_list(structure, cutoff)
    return neighbours.vectors(structure), neighbours.centre, neighbours.neighbour


def test_energy_is_that_of_sums_over_triples(water: Structure) -> None:
    """Reference: x_cl = Σ_jk R_c(r_ij) R_c(r_ik) cosˡ θ_jik, atom by atom, by the cosines themselves."""
    network = random_density_network()
    vectors, centre, neighbour = edges_of(water)
    species = (water.numbers == 8).long()
    energies = network(vectors, species, network.places(vectors, centre, neighbour, species))
    radial = RadialBasis(4, 3.2).double()
    for atom in range(water.n_atoms):
        mine = torch.nonzero(centre == atom).squeeze(1)
        r = vectors[mine].norm(dim=1)
        kind = int(species[atom])
        weights = network.mix[kind].unflatten(0, (2, 4))[species[neighbour[mine]]]
        value = torch.einsum("jn,jnc->jc", radial(r)[0], weights)
        cosine = (vectors[mine] @ vectors[mine].T) / (r[:, None] * r)
        x = torch.stack([torch.einsum("jc,kc,jk->c", value, value, cosine**degree) for degree in range(4)], dim=1)
        x = torch.cat([x.flatten(), value.sum(dim=0)])
        expected = network.last[kind](silu(network.second[kind](silu(network.first[kind](x)))))
        assert float(energies[atom]) == pytest.approx(float(expected), rel=1e-5, abs=1e-7)  # frequencies in float32


def test_gradient_is_the_derivative_of_the_energy_and_has_one_itself(water: Structure) -> None:
    """Reference: finite differences, of the energy and of the gradient."""
    network = random_density_network()
    vectors, centre, neighbour = edges_of(water, 4.0)
    species = (water.numbers == 8).long()

    def both(v: torch.Tensor, *, attached: bool) -> tuple[torch.Tensor, torch.Tensor]:
        places = network.places(v, centre, neighbour, species)
        energies, gradient = network.energies_and_gradient(v, species, places, attached=attached)
        return energies.sum(), gradient

    torch.manual_seed(3)
    way, h = torch.randn_like(vectors), 1e-5
    (e_more, g_more), (e_less, g_less) = (both(vectors + sign * h * way, attached=False) for sign in (1, -1))
    _, gradient = both(vectors, attached=False)
    assert float(gradient.abs().max()) > 0.01 and not gradient.requires_grad
    assert float((gradient * way).sum()) == pytest.approx(float(e_more - e_less) / (2 * h), rel=1e-6)
    leaf = vectors.clone().requires_grad_()
    (curvature,) = torch.autograd.grad((both(leaf, attached=True)[1] * way).sum(), leaf)
    torch.testing.assert_close(curvature, (g_more - g_less) / (2 * h), rtol=1e-5, atol=1e-6)  # symmetric: Hv = vᵀH


def test_both_forces_hold_it(water: Structure) -> None:
    """With the rest of the network silent the two forces are one, minus the gradient; so are they in training."""
    torch.manual_seed(0)
    network = PaiNN(["H", "O"], 4.0, three_body_cutoff=0.0, density_cutoff=3.2, **SIZES).double()
    for module in (network.energy_head, network.direct_head, network.direct_head_short):
        for weight in module.parameters():
            torch.nn.init.zeros_(weight)
    assert network.density_network is not None
    for weight in network.density_network.last.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    network.scale.fill_(1.7)
    neighbours = neighbour_list(water, 4.0)
    result = network.evaluate(water, neighbours, JOINT)
    force = required(result, "conservative_force")
    assert float(force.abs().max()) > 0.01
    torch.testing.assert_close(required(result, "direct_force"), force, rtol=1e-10, atol=1e-10)
    moved = water.at(water.positions.clone().requires_grad_())
    energy = required(network.differentiable(moved, neighbours, Wanted.ENERGY), "energy")
    (slope,) = torch.autograd.grad(energy.sum(), moved.positions)
    torch.testing.assert_close(force, -slope, rtol=1e-9, atol=1e-9)

    losses = []
    for wanted, name in ((Wanted.DIRECT, "direct_force"), (JOINT, "conservative_force")):
        trained = required(network.differentiable(water, neighbours, wanted), name)
        losses.append(torch.autograd.grad(trained.square().sum(), network.density_network.mix)[0])
    assert float(losses[0].abs().max()) > 1e-3
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-8, atol=1e-9)


def test_atoms_leave_smoothly_and_alone_they_have_no_gradient() -> None:
    """The neighbour's part fades to zero at the cutoff; an atom without neighbours has a constant."""
    network = random_density_network()
    centre, neighbour, species = torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([1, 0, 0])
    sizes = []
    for r in (2.0, 3.2 - 1e-2, 3.2 - 1e-3, 3.2, 3.5):
        vectors = torch.tensor([[0.96, 0.0, 0.0], [0.0, r, 0.0]], dtype=torch.float64)
        places = network.places(vectors, centre, neighbour, species)
        _, gradient = network.energies_and_gradient(vectors, species, places, attached=False)
        sizes.append(float(gradient[1].abs().sum()))
    assert sizes[0] > 1e-3 and sizes[1] < 1e-3 * sizes[0] and sizes[2] < 1e-2 * sizes[1]
    assert sizes[3] == sizes[4] == 0
    nothing = torch.zeros(0, dtype=torch.int64)
    places = network.places(vectors[:0], nothing, nothing, species)
    energies, gradient = network.energies_and_gradient(vectors[:0], species, places, attached=False)
    assert float(energies[1]) == float(energies[2]) and gradient.shape == (0, 3)
