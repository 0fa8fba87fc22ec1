"""Evaluations of constant shape; the reference is the network itself. Capturing is tested where there is a GPU."""

from __future__ import annotations

import ase
import pytest
import torch
from small_waters import few_waters

import mlcalc
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.neighbours import NeighbourCache, neighbour_list
from mlcalc.potentials.autodiff import Graph
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
#: of the largest number of a quantity: round-off, since sums are taken in another order
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def dense_painn() -> Network:
    """Untrained, with pairs, triples, densities of nearest neighbours and a direct head for the nearest."""
    torch.manual_seed(0)
    sizes = dict(channels=8, n_layers=2, n_radial=6, hidden=16, pair_channels=8)
    network = PaiNN(["H", "O"], 3.0, three_body_cutoff=2.0, density_cutoff=2.8, **sizes).to(torch.float64)
    network.three_body_baseline.coefficients.normal_(std=0.01)
    assert network.density_network is not None
    for weight in (*network.density_network.last.parameters(), network.direct_head_short.give.weight):
        torch.nn.init.normal_(weight, std=0.3)
    return network.requires_grad_(False)


@pytest.fixture(params=["painn", "pet"])
def network(request, make_network) -> Network:
    return dense_painn() if request.param == "painn" else make_network("pet")


def assert_same(found: Evaluation, expected: Evaluation, dtype: torch.dtype) -> None:
    for name, value in vars(expected).items():
        if value is None:
            assert getattr(found, name) is None
        else:
            size = float(value.abs().max())
            torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=TOLERANCES[dtype] * size)


@pytest.fixture
def batch(make_water) -> Structure:
    """Systems of different size, one of them a molecule by itself."""
    alone = ase.Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    return Structure.from_ase([make_water(4), alone, make_water(8, 1), make_water(1, 2)])


def walk(structure: Structure, n: int = 8) -> list[Structure]:
    """A random walk by some 0.03 Å a step, in which lists are made anew and change their lengths."""
    generator = torch.Generator().manual_seed(0)
    kicks = 0.03 * torch.randn(n, structure.n_atoms, 3, generator=generator, dtype=torch.float64)
    return [structure.at(structure.positions + move) for move in kicks.to(structure.positions).cumsum(0)]


def compare_on_a_walk(network: Network, structure: Structure, wanted: Wanted) -> GraphedPotential:
    graphed, cache = GraphedPotential(network, 0.4), NeighbourCache(network.cutoff, 0.4)
    n_edges = set()
    for moved in walk(structure):
        neighbours = cache(moved)
        n_edges.add(network.graph(moved, neighbours, attached=False).centre.shape[0])
        expected = network.evaluate(moved, neighbours, wanted)
        assert_same(graphed.evaluate(moved, neighbours, wanted), expected, network.dtype)
    assert len(n_edges) > 4
    assert 1 < cache.n_builds <= graphed.n_lists < 8
    return graphed


@pytest.mark.parametrize("kind", WANTED)
def test_all_kinds_agree_with_the_network_in_few_shapes(network, batch, kind):
    assert compare_on_a_walk(network, batch, WANTED[kind]).n_shapes <= 2


def test_float32(network, batch):
    compare_on_a_walk(network.to(torch.float32), batch, JOINT)


def test_what_fills_up_gives_nothing(network, batch):
    """Not little: nothing, to the bits; nor do edges between the cutoff and the skin."""
    lists = make_lists(network, batch, neighbour_list(batch, network.cutoff, skin=0.4), 0.4)
    needed = lengths(lists)
    room = {name: room_for(length) for name, length in needed.items()}
    full = padded(lists, room, network.cutoff)
    assert lengths(full) == room
    vectors = full.vectors(batch.positions)
    graph = Graph(batch.numbers, full.centre, full.neighbour, vectors, full.reverse, batch.n_atoms, False, batch)
    slope = GraphedPotential(network).outputs("joint", graph, full.places).slope
    assert slope is not None
    inside = torch.linalg.vector_norm(vectors, dim=1) < network.cutoff
    assert needed["centre"] > int(inside.sum()) > 100
    assert float(slope[inside].abs().min(dim=0).values.max()) > 0
    assert float(slope[~inside].abs().max()) == 0


def test_lengths_are_few():
    rooms = {room_for(length) for length in range(1000, 2000)}
    assert len(rooms) <= 17
    assert all(1.06 * length < room_for(length) < 1.2 * length for length in range(1000, 2000))
    assert [room_for(0), room_for(1)] == [2, 2]


def test_lists_are_made_anew_when_they_must(network, make_water):
    """For a longer move within one neighbour list, another cell, other atoms."""
    graphed = GraphedPotential(network, 0.4)
    start = Structure.from_ase(make_water(8))
    neighbours = neighbour_list(start, network.cutoff, skin=2.0)

    def check(structure: Structure, n_lists: int) -> None:
        found = graphed.evaluate(structure, neighbours, Wanted.DIRECT)
        assert_same(found, network.evaluate(structure, neighbours, Wanted.DIRECT), network.dtype)
        assert graphed.n_lists == n_lists

    far = start.positions.clone()
    far[:3] += 0.5  # Å, one molecule
    check(start, 1)
    check(start.at(start.positions + 0.1), 1)
    check(start.at(far), 2)
    check(start.at(far, 1.01 * start.cell), 3)
    swapped = make_water(8)
    swapped.numbers[[0, 1]] = swapped.numbers[[1, 0]]
    check(Structure.from_ase(swapped), 4)


def test_dynamics_end_where_those_of_the_network_do(network):
    structure = Structure.from_ase(few_waters())
    momenta = maxwell_boltzmann(structure, 300.0, seed=1)
    ends = []
    for potential in (network, GraphedPotential(network)):
        engine = NativeEngine(potential, structure, timestep_fs=1.0, n_inner=2, momenta=momenta)
        engine.run(5)
        ends.append(engine.phase.positions)
    assert float((ends[0] - structure.positions).abs().max()) > 0.01
    torch.testing.assert_close(*ends, rtol=0, atol=1e-10)


def test_what_it_leaves_to_others(make_network, make_water):
    """Derivatives, parts and energies alone are the network's; overlaps are refused as ever, and other potentials."""
    network = make_network("painn", "C")
    graphed, structure = GraphedPotential(network), Structure.from_ase(make_water(4))
    neighbours = neighbour_list(structure, network.cutoff)
    expected = network.evaluate(structure, neighbours, Wanted.ENERGY)
    assert_same(graphed.evaluate(structure, neighbours, Wanted.ENERGY), expected, network.dtype)
    assert graphed.fingerprint == network.fingerprint
    with pytest.raises(UsageError, match="no direct forces"):
        graphed.evaluate(structure, neighbours, JOINT)
    close = structure.positions.clone()
    close[1] = close[0] + 0.05
    with pytest.raises(UsageError, match="atoms 0 and 1 are 0.087 Å apart"):
        graphed.evaluate(structure.at(close), neighbours, Wanted.ENERGY | Wanted.CONSERVATIVE)
    with pytest.raises(UsageError, match="networks of ours, not for 'harmonic'"):
        GraphedPotential(mlcalc.load("harmonic"))


@needs_gpu
@pytest.mark.parametrize("kind", WANTED)
def test_captured_and_replayed(network, batch, kind):
    """As on the CPU, by replay: the network's own arithmetic runs when a shape is captured, and not again."""
    graphed = compare_on_a_walk(network.to("cuda"), batch.to(device="cuda"), WANTED[kind])
    assert graphed.n_shapes <= 2


@needs_gpu
def test_replays_do_not_call_the_network(network, batch, monkeypatch):
    network, batch = network.to("cuda"), batch.to(device="cuda")
    graphed, neighbours = GraphedPotential(network), neighbour_list(batch, network.cutoff, skin=0.5)
    first = graphed.evaluate(batch, neighbours, JOINT)

    def refuse(*_: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(network, "arithmetic", refuse)
    again = graphed.evaluate(batch, neighbours, JOINT)
    assert again.direct_force is not first.direct_force
    torch.testing.assert_close(again.direct_force, first.direct_force, rtol=0, atol=1e-10)
