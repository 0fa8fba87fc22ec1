"""Parts of a system add up to the whole if each sees as far as the potential says, and do not if it sees less."""

from __future__ import annotations

from dataclasses import fields

import ase
import numpy as np
import pytest
import torch
from conftest import small_network
from divided_systems import sum_of_parts
from small_waters import gentle_network

from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials import load
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure


def row_of_waters() -> Structure:
    """Ten molecules in a row of 31 Å, periodic across it in a sheared cell smaller than the cutoff."""
    draw = np.random.default_rng(3)
    row = ase.Atoms(cell=[[31, 0, 0], [0, 2.9, 0], [0, 0.4, 3.0]], pbc=[False, True, True])
    for k in range(10):
        molecule = ase.Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        molecule.rotate(draw.uniform(0, 360), draw.normal(size=3))
        molecule.translate([3.1 * k + 1, 1, 1])
        row += molecule
    return Structure.from_ase(row)


SUBJECTS = {
    "lennard_jones": lambda: load("lennard_jones", sigma=1.2, cutoff=3.0),
    "painn": lambda: small_network("painn"),
    "pet": lambda: small_network("pet"),
    "density": lambda: load("water", dtype=torch.float64),
    "two networks": lambda: TwoPotentials(gentle_network().double(), small_network("pet")),
    "two energies": lambda: TwoPotentials(gentle_network("C").double(), small_network("pet", "C")),
}


def difference(found, whole) -> float:
    names = [field.name for field in fields(whole) if getattr(whole, field.name) is not None]
    return max(float((getattr(found, name) - getattr(whole, name)).abs().max()) for name in names)


@pytest.mark.parametrize("name", SUBJECTS)
def test_parts_add_up(name):
    potential, structure = SUBJECTS[name](), row_of_waters()
    whole_list = neighbour_list(structure, potential.cutoff)
    parts = torch.div(structure.positions[:, 0].clamp(0, 30), 11, rounding_mode="floor").long()
    energy = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL
    cases = [(energy & potential.provides, potential.interaction_depth)]
    if potential.provides & Wanted.DIRECT:
        cases.append((Wanted.DIRECT, potential.direct_depth))
    for wanted, depth in cases:
        whole = potential.evaluate(structure, whole_list, wanted)
        found, largest = sum_of_parts(potential, structure, wanted, parts, depth)
        assert difference(found, whole) < 1e-10  # round-off: energies and forces here are of some 10 eV and eV/Å
        assert largest < structure.n_atoms or potential.interaction_depth * potential.cutoff > 12
        less, smaller = sum_of_parts(potential, structure, wanted, parts, depth - 1)
        if smaller < structure.n_atoms:
            assert difference(less, whole) > 1e-6, f"{name} does not see as far as it says ({wanted})"


def test_virials_by_atom_add_up_to_the_virial(make_network, make_water):
    structure = Structure.from_ase(make_water())
    network = make_network("painn")
    found = network.evaluate(structure, neighbour_list(structure, network.cutoff), Wanted.VIRIAL)
    torch.testing.assert_close(found.virials.sum(dim=0), found.virial[0], rtol=0, atol=1e-12)


def test_a_potential_that_does_not_say_how_far_it_sees_is_not_divided():
    structure = row_of_waters()
    harmonic = load("harmonic")
    with pytest.raises(UsageError, match="use one process"):
        harmonic.evaluate_part(structure, neighbour_list(structure, 1.0), Wanted.ENERGY, structure.numbers == 1)
