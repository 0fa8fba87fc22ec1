"""ASE calculators as potentials: their own numbers, and clear words for what they cannot do."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

import mlcalc
from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.ase_calculator import DIRECT_NAMES, AseCalculator
from mlcalc.structure import Structure

EVERYTHING = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL


def copper(seed: int = 0) -> ase.Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(0.1, seed=seed)
    return atoms


def evaluate(potential: AseCalculator, atoms: ase.Atoms | list[ase.Atoms], wanted: Wanted):
    structure = Structure.from_ase(atoms)
    return potential.evaluate(structure, neighbour_list(structure, potential.cutoff), wanted)


class Hybrid(Calculator):
    """A calculator whose extra forces have one of the ecosystem's names."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, name: str) -> None:
        super().__init__()
        self.implemented_properties = [*Hybrid.implemented_properties, name]

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 1.0, "forces": atoms.positions, self.implemented_properties[-1]: 2 * atoms.positions}


def test_answers_are_the_calculators_own() -> None:
    """Energy, forces and stress of two systems at once against ASE's EMT asked by itself."""
    frames = [copper(0), copper(1)[:20]]
    found = evaluate(AseCalculator(EMT()), frames, EVERYTHING)
    for k, (atoms, force) in enumerate(zip(frames, found.conservative_force.split([32, 20]), strict=True)):
        atoms.calc = EMT()
        assert float(found.energy[k]) == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-12)
        np.testing.assert_allclose(force.numpy(), atoms.get_forces(), atol=1e-12)
        stress = -found.virial[k].numpy() / atoms.get_volume()
        np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), atol=1e-12)


@pytest.mark.parametrize("name", DIRECT_NAMES)
def test_direct_forces_are_found_under_every_name(name: str) -> None:
    found = evaluate(AseCalculator(Hybrid(name)), copper(), Wanted.CONSERVATIVE | Wanted.DIRECT)
    torch.testing.assert_close(found.direct_force, 2 * found.conservative_force)


def test_forces_may_be_stated_to_be_direct() -> None:
    potential = AseCalculator(LennardJones(), forces="direct")
    assert potential.provides == Wanted.ENERGY | Wanted.DIRECT
    with pytest.raises(UsageError, match="no conservative forces"):
        evaluate(potential, copper(), Wanted.CONSERVATIVE)


def test_load_by_specification() -> None:
    potential = mlcalc.load("ase:ase.calculators.lj:LennardJones?epsilon=0.4&sigma=2.3&smooth=True")
    atoms = copper()
    atoms.calc = LennardJones(epsilon=0.4, sigma=2.3, smooth=True)
    force = evaluate(potential, atoms, Wanted.CONSERVATIVE).conservative_force
    np.testing.assert_allclose(force.numpy(), atoms.get_forces(), atol=1e-12)
    other = mlcalc.load("ase:ase.calculators.lj:LennardJones?epsilon=0.5&sigma=2.3&smooth=True")
    assert potential.fingerprint != other.fingerprint


def test_a_factory_may_belong_to_a_class(monkeypatch, tmp_path) -> None:
    """As with FAIRChemCalculator.from_model_checkpoint."""
    lines = "from ase.calculators.lj import LennardJones\nclass Maker:\n  make = staticmethod(LennardJones)\n"
    (tmp_path / "package_with_a_class.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    assert mlcalc.load("ase:package_with_a_class:Maker.make?epsilon=0.4").calculator.parameters["epsilon"] == 0.4
    with pytest.raises(UsageError, match=r"package_with_a_class has no Maker\.bake; check the name"):
        mlcalc.load("ase:package_with_a_class:Maker.bake")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ase:ase.calculators.lj", "write ase:package.module:factory"),
        ("ase:ase.calculators.lj:LennardJones?epsilon", "write ase:package.module:factory"),
        ("ase:no_such_package:Thing", "install"),
        ("ase::Thing", "Empty module name"),
        ("ase:ase.calculators.lj:Thing", "no Thing"),
        ("ase:ase.calculators.lj:LennardJones?forces=sideways", "sideways"),
        ("ase:ase.calculators.vasp:Vasp?xc=nonsense", "refused"),
        ("ase:collections:Counter?x=4", "give an instance"),
    ],
)
def test_bad_specifications(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        mlcalc.load(text)


def test_a_failing_calculator_is_named() -> None:
    with pytest.raises(RunError, match="EMT"):
        evaluate(AseCalculator(EMT()), bulk("Fe"), Wanted.CONSERVATIVE)  # EMT has no iron


def test_nothing_is_differentiated_through_it() -> None:
    structure = Structure.from_ase(copper())
    with pytest.raises(UsageError, match="differences"):
        AseCalculator(EMT()).differentiable(structure, neighbour_list(structure, 0.0), Wanted.CONSERVATIVE)


def test_audit_of_a_calculator() -> None:
    """EMT is a gradient: by differences alone its asymmetry is at the floor, and its run conserves."""
    result = mlcalc.audit(AseCalculator(EMT()), copper(), mlcalc.AuditSettings.quick())
    found = result.asymmetry.conservative
    assert found is not None and found.noise_floor is not None
    assert found.value < 10 * found.noise_floor
    assert [run.forces for run in result.runs] == ["conservative"] and not result.runs[0].exploded
