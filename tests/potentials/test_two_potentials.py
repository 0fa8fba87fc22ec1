"""Two potentials as one: whose force is whose, and the limits of multiple time stepping with them."""

from __future__ import annotations

import ase
import pytest
import torch
from ase.build import bulk

import mlcalc
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import UsageError
from mlcalc.evaluation import JOINT, Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure


def argon() -> Structure:
    atoms = bulk("Ar", cubic=True, a=5.4) * (2, 2, 2)
    atoms.rattle(0.1, seed=0)
    return Structure.from_ase(atoms)


def evaluate(potential, structure, wanted):
    return potential.evaluate(structure, neighbour_list(structure, potential.cutoff), wanted)


def test_each_force_is_its_potentials_own() -> None:
    """With different cutoffs, both see the longer neighbour list and must leave out what is beyond their own."""
    fast, slow, structure = LennardJones(epsilon=0.02, cutoff=5.0), LennardJones(cutoff=8.0), argon()
    both = evaluate(TwoPotentials(fast, slow), structure, JOINT)
    torch.testing.assert_close(both.direct_force, evaluate(fast, structure, Wanted.CONSERVATIVE).conservative_force)
    for name in ("energy", "conservative_force"):
        alone = evaluate(slow, structure, Wanted.ENERGY | Wanted.CONSERVATIVE)
        torch.testing.assert_close(getattr(both, name), getattr(alone, name))


def test_a_fast_potential_with_both_forces_gives_its_direct_one(make_network, make_water) -> None:
    network, structure = make_network("painn"), Structure.from_ase(make_water())
    both = evaluate(TwoPotentials(network, network), structure, JOINT)
    alone = evaluate(network, structure, JOINT)
    torch.testing.assert_close(both.direct_force, alone.direct_force)
    torch.testing.assert_close(both.conservative_force, alone.conservative_force)


def test_precisions_may_differ(make_network, make_water) -> None:
    structure = Structure.from_ase(make_water())
    fast, slow = make_network("painn", dtype=torch.float32), make_network("painn")
    both = evaluate(TwoPotentials(fast, slow), structure, JOINT)
    torch.testing.assert_close(both.direct_force, evaluate(slow, structure, JOINT).direct_force, atol=1e-4, rtol=1e-4)
    assert not torch.equal(both.direct_force, evaluate(slow, structure, JOINT).direct_force)


def end_of_run(potential, n_steps: int, **settings) -> tuple[torch.Tensor, NativeEngine]:
    structure = argon()
    engine = NativeEngine(potential, structure, momenta=maxwell_boltzmann(structure, 60.0, seed=0), **settings)
    engine.run(n_steps)
    return engine.phase.positions, engine


def test_one_inner_step_is_the_slow_potentials_dynamics() -> None:
    fast, slow = LennardJones(epsilon=0.02, cutoff=5.0), LennardJones()
    mts, _ = end_of_run(TwoPotentials(fast, slow), 20, forces="mts", timestep_fs=4.0, n_inner=1)
    plain, _ = end_of_run(slow, 20, forces="conservative", timestep_fs=4.0)
    torch.testing.assert_close(mts, plain, rtol=0, atol=1e-10)


def test_energy_error_falls_with_the_square_of_the_step() -> None:
    """The slow potential's energy is what is conserved: its error over a fixed time goes as dt² (second order)."""
    potential = TwoPotentials(LennardJones(epsilon=0.011, cutoff=6.0), LennardJones())
    errors = []
    for halvings in (0, 1):
        structure = argon()
        engine = NativeEngine(
            potential,
            structure,
            forces="mts",
            timestep_fs=16.0 / 2**halvings,
            n_inner=4,
            momenta=maxwell_boltzmann(structure, 60.0, seed=0),
        )
        record = engine.run(40 * 2**halvings)
        assert engine.counts["direct"] == 3 * 40 * 2**halvings
        errors.append(float((record.conserved - record.conserved[0]).std()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)


def test_a_slow_potential_needs_an_energy(make_network) -> None:
    with pytest.raises(UsageError, match="conservative forces"):
        TwoPotentials(LennardJones(), make_network("painn", "NC"))


def test_species_of_both_are_checked(make_network) -> None:
    water = TwoPotentials(make_network("painn"), mlcalc.load("lennard_jones"))
    with pytest.raises(UsageError, match="Ar"):
        water.check_species(Structure.from_ase(ase.Atoms("Ar2", [[0, 0, 0], [0, 0, 4]])))
