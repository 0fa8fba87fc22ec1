"""Lennard-Jones against its formula, ASE's implementation, and the energy of the face-centred cubic crystal."""

from __future__ import annotations

import ase
import ase.build
import numpy as np
import pytest
import torch
from ase.calculators.lj import LennardJones as AseLennardJones

from mlcalc.errors import UsageError
from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.structure import Structure

EVERYTHING = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL


def evaluate(potential: LennardJones, atoms: ase.Atoms) -> Evaluation:
    structure = Structure.from_ase(atoms)
    return potential.evaluate(structure, neighbour_list(structure, potential.cutoff), EVERYTHING)


@pytest.mark.parametrize("distance", [0.9, 1.0, 2 ** (1 / 6), 1.5, 2.3])
def test_pair_by_the_formula(distance):
    epsilon, sigma = 0.3, 1.7
    r = distance * sigma
    potential = LennardJones(epsilon=epsilon, sigma=sigma, cutoff=10.0, onset=8.0)
    answer = evaluate(potential, ase.Atoms("Ar2", [[0, 0, 0], [0, 0, r]]))
    s6 = (sigma / r) ** 6
    assert float(answer.energy) == pytest.approx(4 * epsilon * (s6**2 - s6), rel=1e-13)
    pull = 24 * epsilon * (2 * s6**2 - s6) / r  # on the far atom, along +z
    assert float(answer.conservative_force[1, 2]) == pytest.approx(pull, rel=1e-12, abs=1e-14)
    assert float(answer.virial[0, 2, 2]) == pytest.approx(pull * r, rel=1e-12, abs=1e-14)  # −dE/dstrain = F·r


def test_agrees_with_ase_where_neither_cuts_anything():
    cluster = ase.Atoms("Ar13", np.random.default_rng(0).normal(size=(13, 3)) * 4)
    cluster.positions += 0.5 * np.arange(13)[:, None]
    ours = evaluate(LennardJones(epsilon=0.01, sigma=3.0, cutoff=60.0, onset=50.0), cluster)
    cluster.calc = AseLennardJones(epsilon=0.01, sigma=3.0, rc=1e4)  # ASE shifts by the energy at rc: 1e-20 here
    assert float(ours.energy) == pytest.approx(cluster.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(ours.conservative_force, cluster.get_forces(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.energies, cluster.calc.results["energies"], rtol=1e-9, atol=1e-12)


def test_face_centred_cubic_lattice_sums():
    """E/N = 2ε [A₁₂ (σ/d)¹² − A₆ (σ/d)⁶], A₆ = 14.45392, A₁₂ = 12.13188, d the nearest-neighbour distance.

    Lattice sums: J. E. Jones, A. E. Ingham, doi:10.1098/rspa.1925.0047; also C. Kittel, Introduction to Solid State
    Physics, chapter 3. What lies beyond r in the lattice holds −2ε·(4π n σ⁶)/(3 r³) of E/N, with n the density.
    """
    epsilon, sigma, nearest, cutoff, onset = 1.0, 1.0, 1.09, 16.0, 15.0
    crystal = ase.build.bulk("Ar", "fcc", nearest * np.sqrt(2))
    energy = float(evaluate(LennardJones(epsilon=epsilon, sigma=sigma, cutoff=cutoff, onset=onset), crystal).energy)
    density = np.sqrt(2) / nearest**3
    tail = -2 * epsilon * 4 * np.pi * density * sigma**6 / (3 * ((cutoff + onset) / 2) ** 3)
    exact = 2 * epsilon * (12.13188 * nearest**-12 - 14.45392 * nearest**-6)
    assert energy + tail == pytest.approx(exact, abs=1e-4)
    assert abs(tail) > 1e-3  # the correction is needed


def test_elements_do_not_matter():
    positions = [[0, 0, 0], [0, 0, 3.5]]
    potential = LennardJones()
    assert torch.equal(
        evaluate(potential, ase.Atoms("Ar2", positions)).energy, evaluate(potential, ase.Atoms("HU", positions)).energy
    )


def test_fingerprint_follows_the_parameters():
    assert LennardJones().fingerprint == LennardJones().fingerprint
    for change in ({"epsilon": 0.02}, {"sigma": 3.0}, {"cutoff": 9.0}, {"onset": 2.0}):
        assert LennardJones(**change).fingerprint != LennardJones().fingerprint


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"epsilon": 0}, "epsilon"),
        ({"sigma": -1}, "sigma"),
        ({"cutoff": float("nan")}, "cutoff"),
        ({"onset": 9}, "onset"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(UsageError, match=f"^{says}: got"):
        LennardJones(**arguments)
