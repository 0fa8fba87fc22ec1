"""The harmonic wells: their forces, and a curl of the size that was asked for."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch

from mlcalc.errors import UsageError
from mlcalc.evaluation import JOINT, Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.structure import Structure


def jacobian(potential: Harmonic, structure: Structure, name: str, wanted: Wanted) -> np.ndarray:
    neighbours = neighbour_list(structure, potential.cutoff)

    def force(positions):
        return getattr(potential.differentiable(structure.at(positions), neighbours, wanted), name)

    size = 3 * structure.n_atoms
    return torch.autograd.functional.jacobian(force, structure.positions).reshape(size, size).numpy()


@pytest.fixture
def structure():
    rng = np.random.default_rng(0)
    return Structure.from_ase(ase.Atoms("HON", rng.normal(size=(3, 3))))


@pytest.mark.parametrize("asymmetry", [0.0, 1e-6, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("spring", [0.3, 7.0])
def test_asymmetry_of_the_jacobian_is_what_was_asked_for(structure, asymmetry, spring):
    potential = Harmonic(asymmetry=asymmetry, spring=spring, axis=(1.0, -2.0, 0.5))
    direct = jacobian(potential, structure, "direct_force", Wanted.DIRECT)
    antisymmetric = (direct - direct.T) / 2
    measured = np.linalg.norm(antisymmetric) / np.linalg.norm(direct)
    assert potential.asymmetry == pytest.approx(asymmetry, rel=1e-12, abs=1e-15)
    assert measured == pytest.approx(asymmetry, rel=1e-9, abs=1e-15)
    conservative = jacobian(potential, structure, "conservative_force", Wanted.CONSERVATIVE)
    np.testing.assert_array_equal(conservative, -spring * np.eye(9))


def test_forces_by_hand():
    atoms = ase.Atoms("H2", [[1.0, 0, 0], [0, 0, 5.0]])
    potential = Harmonic([[0, 0, 0], [0, 2.0, 5.0]], spring=2.0, curl=0.5)
    structure = Structure.from_ase(atoms)
    answer = potential.evaluate(structure, neighbour_list(structure, 1.0), JOINT)
    # ẑ × x̂ = ŷ; the second atom is at −2 ŷ from its anchor, and ẑ × (−2 ŷ) = 2 x̂
    assert answer.energies.tolist() == [1.0, 4.0]
    assert answer.energy.tolist() == [5.0]
    assert answer.conservative_force.tolist() == [[-2.0, 0, 0], [0, 4.0, 0]]
    assert answer.direct_force.tolist() == [[-2.0, 0.5, 0], [1.0, 4.0, 0]]


def test_curl_and_asymmetry_are_two_words_for_one_thing():
    by_asymmetry = Harmonic(asymmetry=0.05, spring=3.0)
    by_curl = Harmonic(curl=by_asymmetry.curl, spring=3.0)
    assert by_curl.asymmetry == pytest.approx(0.05, rel=1e-12)
    assert by_curl.fingerprint == by_asymmetry.fingerprint
    assert by_curl.fingerprint != Harmonic(asymmetry=0.06, spring=3.0).fingerprint


def test_copies_share_anchors(structure):
    anchors = structure.positions + 0.1
    potential = Harmonic(anchors)
    batch = structure.replicated(2)
    answer = potential.evaluate(batch, neighbour_list(batch, 1.0), Wanted.ENERGY)
    assert answer.energy.tolist() == pytest.approx([0.5 * 9 * 0.01] * 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"anchors": [[1.0, 2.0]]}, "anchors"),
        ({"anchors": np.full((2, 3), np.nan)}, "anchors"),
        ({"spring": 0.0}, "spring"),
        ({"spring": float("inf")}, "spring"),
        ({"asymmetry": 1.0}, "asymmetry"),
        ({"asymmetry": -0.1}, "asymmetry"),
        ({"asymmetry": 0.1, "curl": 0.1}, "curl"),
        ({"curl": float("nan")}, "curl"),
        ({"axis": (0.0, 0.0, 0.0)}, "axis"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(UsageError, match=f"^{says}: got"):
        Harmonic(**arguments)


def test_wrong_number_of_anchors_is_refused(structure):
    with pytest.raises(UsageError, match="3 atoms, but potential 'harmonic' has 2 anchors"):
        Harmonic(np.zeros((2, 3))).evaluate(structure, neighbour_list(structure, 1.0), Wanted.ENERGY)


def test_there_is_no_virial(structure):
    with pytest.raises(UsageError, match="no virial"):
        Harmonic().evaluate(structure, neighbour_list(structure, 1.0), Wanted.VIRIAL)
