"""Hydrogen mass repartitioning: what is kept, what slows down by how much, and what is refused."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import molecule

import mlcalc
from mlcalc.errors import UsageError
from mlcalc.masses import repartition_hydrogen_mass
from mlcalc.structure import Structure


def test_each_molecule_keeps_its_mass() -> None:
    """The bundled box, some of whose bonds cross its faces: 3 amu for hydrogen leave oxygen 15.999 − 2 (3 − 1.008)."""
    box = mlcalc.water_box()
    box.wrap()
    heavier = repartition_hydrogen_mass(box)
    hydrogen = box.numbers == 1
    np.testing.assert_array_equal(heavier.get_masses()[hydrogen], 3.0)
    np.testing.assert_allclose(heavier.get_masses()[~hydrogen], 12.015, atol=1e-12)
    assert heavier.get_masses().sum() == pytest.approx(box.get_masses().sum(), rel=1e-14)
    np.testing.assert_array_equal(heavier.positions, box.positions)
    np.testing.assert_allclose(box.get_masses()[hydrogen], 1.008)  # what was given is as it was


def test_a_stretch_slows_down_by_the_root_of_its_reduced_mass() -> None:
    """√(μ/μ') = 0.63 for O–H with 3 amu."""
    water = molecule("H2O")

    def reduced(atoms: ase.Atoms) -> float:
        oxygen, hydrogen = atoms.get_masses()[:2]
        return float(oxygen * hydrogen / (oxygen + hydrogen))

    assert np.sqrt(reduced(water) / reduced(repartition_hydrogen_mass(water, 3.0))) == pytest.approx(0.628, abs=1e-3)


def test_a_batch_of_structures_and_what_has_no_hydrogen() -> None:
    batch = Structure.from_ase([molecule("CH3OH"), ase.Atoms("Ar"), molecule("H2O")])
    made = repartition_hydrogen_mass(batch, 2.0)
    for k in range(3):
        of_one = batch.system == k
        assert float(made.masses[of_one].sum()) == pytest.approx(float(batch.masses[of_one].sum()), rel=1e-14)
    assert torch.equal(made.masses[batch.numbers == 1], torch.full((6,), 2.0, dtype=torch.float64))
    methanol = dict(zip(molecule("CH3OH").symbols, made.masses[:6].tolist(), strict=True))
    assert methanol["C"] == pytest.approx(12.011 - 3 * 0.992)
    assert methanol["O"] == pytest.approx(15.999 - 0.992)
    argon = Structure.from_ase(ase.Atoms("Ar"))
    assert torch.equal(repartition_hydrogen_mass(argon).masses, argon.masses)


def test_isotopes_and_a_second_time() -> None:
    heavy_water = molecule("H2O")
    heavy_water.set_masses([15.999, 2.014, 1.008])
    made = repartition_hydrogen_mass(heavy_water, 3.0)
    np.testing.assert_allclose(made.get_masses(), [15.999 - 0.986 - 1.992, 3.0, 3.0])
    np.testing.assert_array_equal(repartition_hydrogen_mass(made, 3.0).get_masses(), made.get_masses())


def test_the_calculator_stays() -> None:
    box = mlcalc.water_box()
    box.calc = mlcalc.MLCalculator(mlcalc.load("water"))
    assert repartition_hydrogen_mass(box).calc is box.calc


@pytest.mark.parametrize(
    ("atoms", "mass", "word"),
    [
        (molecule("H2"), 3.0, "hydrogen 0 has no heavy atom"),
        (ase.Atoms("OH", [[0, 0, 0], [0, 0, 1.5]]), 3.0, "hydrogen 1 has no heavy atom"),
        (molecule("H2O"), 1.0, "got 1.0, but atom 1 has 1.008 amu already"),
        (molecule("CH4"), 4.0, r"leaves atom 0 \(C\) 0.043 amu"),
        (molecule("H2O"), float("nan"), "hydrogen_mass: got nan"),
        (molecule("H2O"), -3.0, "hydrogen_mass: got -3"),
    ],
)
def test_masses_that_cannot_be_had_are_refused(atoms: ase.Atoms, mass: float, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        repartition_hydrogen_mass(atoms, mass)
