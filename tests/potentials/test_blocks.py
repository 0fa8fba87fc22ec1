"""Evaluations block by block against all at once: the same to round-off."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from conftest import small_network, water_like

from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials import load
from mlcalc.potentials.blocks import blocks_of
from mlcalc.potentials.network import Network
from mlcalc.structure import Structure

WANTED = {
    "direct": Wanted.DIRECT,
    "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL,
    "joint": JOINT,
    "energy": Wanted.ENERGY,
}


def screening_set(dtype: torch.dtype = torch.float64) -> Structure:
    """Water of two sizes in a batch, and a molecule far from all, which has atoms without edges beyond its own."""
    lonely = water_like(1)
    lonely.pbc = False
    lonely.positions[2] += 50
    return Structure.from_ase([water_like(8), lonely, water_like(4, seed=1)], dtype=dtype)


def in_both_ways(network: Network, structure: Structure, wanted: Wanted, most: int) -> tuple[Evaluation, Evaluation]:
    neighbours = neighbour_list(structure, network.cutoff, skin=0.3)
    found = []
    for edges in (0, most):
        network.edges_per_block = edges
        found.append(network.evaluate(structure, neighbours, wanted))
    return found[0], found[1]


def difference(found: Evaluation, true: Evaluation) -> float:
    """The largest of any quantity over the largest number in it."""
    pairs = [(getattr(found, field.name), getattr(true, field.name)) for field in fields(true)]
    assert all((mine is None) == (theirs is None) for mine, theirs in pairs)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs if b is not None)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("most", [1, 60, 200])
def test_blocks_change_nothing(wanted, most):
    network, structure = small_network("painn"), screening_set()
    whole, in_blocks = in_both_ways(network, structure, WANTED[wanted], most)
    assert difference(in_blocks, whole) < 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_the_bundled_potential_in_blocks(dtype, tolerance):
    """With all that it stands on: three-body baseline and density network."""
    structure = Structure.from_ase(water_like(8), dtype=dtype)
    whole, in_blocks = in_both_ways(load("water", dtype=dtype), structure, WANTED["joint"] | Wanted.VIRIAL, 300)
    assert difference(in_blocks, whole) < tolerance


def test_a_part_of_a_system_in_blocks():
    network, structure = small_network("painn"), screening_set()
    neighbours, counted = neighbour_list(structure, network.cutoff), structure.numbers == 8
    found = []
    for edges in (0, 100):
        network.edges_per_block = edges
        found.append(network.evaluate_part(structure, neighbours, JOINT, counted))
    assert difference(found[1], found[0]) < 1e-12


def test_second_derivatives_know_no_blocks():
    """Jacobians and training differentiate once more, which blocks do not allow."""
    network, structure = small_network("painn"), screening_set()
    neighbours = neighbour_list(structure, network.cutoff)
    network.edges_per_block = 60
    positions = structure.positions.clone().requires_grad_()
    force = network.differentiable(structure.at(positions), neighbours, WANTED["conservative"]).conservative_force
    (row,) = torch.autograd.grad(force[0, 0], positions)
    assert float(row.abs().max()) > 0


def test_blocks_hold_every_atom_and_edge_once():
    structure = screening_set()
    centre = neighbour_list(structure, 4.0).centre
    for most in (1, 50, 300, 10**6):
        blocks = blocks_of(centre, structure.n_atoms, most)
        atoms = torch.cat([block.atoms(torch.arange(structure.n_atoms)) for block in blocks])
        edges = torch.cat([block.edges(torch.arange(len(centre))) for block in blocks])
        assert torch.equal(atoms, torch.arange(structure.n_atoms)) and torch.equal(edges, torch.arange(len(centre)))
        for block in blocks:
            inside = block.edges(centre) - block.first_atom
            assert bool(((inside >= 0) & (inside < block.n_atoms)).all())
            assert block.n_edges <= most or block.n_atoms == 1


def test_small_systems_are_not_divided_and_large_ones_are():
    network, structure = small_network("painn"), screening_set()
    graph = network.graph(structure, neighbour_list(structure, network.cutoff), attached=False)
    assert network._blocks(graph) is None
    network.edges_per_block = 50
    assert len(network._blocks(graph)) > 2
    assert small_network("pet")._blocks(replace(graph, blocks=None)) is None
