"""Evaluations of constant shape; the reference is the network itself. Capturing is tested where there is a GPU."""

from __future__ import annotations

import ase
import pytest
import torch
from small_waters import few_waters

from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.neighbours import NeighbourCache, neighbour_list
from mlcalc.potentials import load
from mlcalc.potentials.graphed import GraphedPotential
from mlcalc.potentials.network import Network
from mlcalc.potentials.padding import lengths, make_lists, padded, room_for
from mlcalc.potentials.painn import PaiNN
from mlcalc.structure import Structure

WANTED = {
    "direct": Wanted.DIRECT,
    "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL,
    "joint": JOINT | Wanted.VIRIAL,
}


@pytest.fixture(params=["painn", "pet", "density"])
def network(request, make_network) -> Network:
    """All that reads lists: pairs, triples, tokens, and densities of nearest neighbours."""
    if request.param != "density":
        return make_network(request.param)
    torch.manual_seed(0)
    sizes = dict(channels=8, n_layers=2, n_radial=6, hidden=16, pair_channels=8)
    made = PaiNN(["H", "O"], 3.0, three_body_cutoff=2.0, density_cutoff=2.8, **sizes).to(torch.float64)
    made.three_body_baseline.coefficients.normal_(std=0.01)
    for weight in (*made.density_network.last.parameters(), made.direct_head_short.give.weight):
        torch.nn.init.normal_(weight, std=0.3)
    return made.requires_grad_(False)


def assert_same(found: Evaluation, expected: Evaluation) -> None:
    """To round-off, 1e-5 in float32 and 1e-10 in float64 of the largest number in it."""
    for name, value in vars(expected).items():
        if value is None:
            assert getattr(found, name) is None
        else:
            size = float(value.abs().max())
            tolerance = (1e-5 if value.dtype == torch.float32 else 1e-10) * size
            torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=tolerance)


def batch(make_water, device="cpu") -> Structure:
    """Three systems of different size and a molecule alone, whose lists within the shorter cutoffs are empty."""
    alone = ase.Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    return Structure.from_ase([make_water(4), alone, make_water(8, 1), make_water(1, 2)], device=device)


def wandering(structure: Structure, step_A: float) -> list[Structure]:
    """Ten structures on a random walk: lists change their lengths and are made anew."""
    generator = torch.Generator().manual_seed(0)
    positions, walk = structure.positions, []
    for _ in range(10):
        kick = torch.randn(positions.shape, generator=generator, dtype=torch.float64)
        positions = positions + step_A * kick.to(positions)
        walk.append(structure.at(positions))
    return walk


@pytest.mark.parametrize("kind", WANTED)
def test_padding_gives_nothing(network, make_water, kind):
    structure, skin = batch(make_water), 0.4
    graphed, cache = GraphedPotential(network, skin), NeighbourCache(network.cutoff, skin)
    for moved in wandering(structure, 0.03):
        neighbours = cache(moved)
        expected = network.evaluate(moved, neighbours, WANTED[kind])
        assert_same(graphed.evaluate(moved, neighbours, WANTED[kind]), expected)
    assert 1 < cache.n_builds <= graphed.n_lists < 10
    assert graphed.n_shapes <= 2


def test_what_fills_up_has_no_derivative(network, make_water):
    """Not small: zero."""
    structure = batch(make_water)
    lists = make_lists(network, structure, neighbour_list(structure, network.cutoff), 0.0)
    room = {name: room_for(length) for name, length in lengths(lists).items()}
    assert all(room[name] > length for name, length in lengths(lists).items())
    full = padded(lists, room, network.cutoff)
    assert lengths(full) == room
    graphed = GraphedPotential(network)
    vectors = full.vectors(structure.positions)
    from mlcalc.potentials.autodiff import Graph

    graph = Graph(structure.numbers, full.centre, full.neighbour, vectors, full.reverse, structure.n_atoms, False, structure)
    slope = graphed.outputs("joint", graph, full.places).slope
    n_edges = len(lists.centre)
    assert float(slope[:n_edges].abs().max()) > 1e-3
    assert torch.equal(slope[n_edges:], torch.zeros_like(slope[n_edges:]))


def test_lengths_are_few():
    rooms = {room_for(length) for length in range(1000, 2000)}
    assert len(rooms) <= 17
    assert all(1.06 * length < room_for(length) < 1.2 * length for length in range(1000, 2000))
    assert [room_for(0), room_for(1)] == [2, 2]


def test_float32(network, make_water):
    network = network.to(torch.float32)
    graphed, structure = GraphedPotential(network), batch(make_water)
    neighbours = neighbour_list(structure, network.cutoff, skin=0.5)
    assert_same(graphed.evaluate(structure, neighbours, JOINT), network.evaluate(structure, neighbours, JOINT))
