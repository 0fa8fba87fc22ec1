"""ANI with random weights on our neighbour list against its own calculator, finite differences, and torch's state."""

from __future__ import annotations

import copy
import importlib.util
import os

import ase
import foreign_potentials as foreign
import numpy as np
import pytest
import torch
from ase.build import molecule

import mlcalc
from mlcalc.errors import CheckpointError, UsageError
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.torchani import NAMES, TorchANI
from mlcalc.structure import Structure

NEEDS = "torchani (pip install 'mlcalc[torchani]') and what it needs is too large for CI"


def acid() -> ase.Atoms:
    """HCl in a rhombohedral, sheared cell, smaller than the cutoff."""
    atoms = foreign.salt()
    atoms.numbers = [1, 17]
    return atoms


FRAMES = {"water": foreign.few_waters, "acid": acid, "ethanol": lambda: molecule("CH3CH2OH")}


@pytest.fixture(scope="module")
def models():
    if importlib.util.find_spec("torchani") is None:
        pytest.skip(NEEDS)
    return foreign_module("torchani.models", "torchani")


@undisturbed()
def small(models):
    """Two members, with repulsion and dispersion."""
    torch.manual_seed(0)
    setup = dict(ensemble_size=2, dispersion=True, repulsion=True, strategy="pyaev", dispersion_cutoff=6.0)
    return models.simple_ani(symbols=("H", "C", "O", "Cl"), lot="wb97x-631gd", **setup)


@pytest.fixture(scope="module")
def model(models):
    return small(models)


@pytest.fixture(scope="module")
def potential(model):
    return TorchANI("small", copy.deepcopy(model))


@pytest.fixture(scope="module")
def double(model):
    return TorchANI("small", copy.deepcopy(model).double())


@pytest.mark.parametrize("name", FRAMES)
def test_it_agrees_with_the_packages_calculator(double, model, name):
    """In float64: nothing but round-off, of energies of isolated atoms that reach 12 thousand eV."""
    atoms, found = FRAMES[name](), foreign.evaluate(double, FRAMES[name]())
    own = copy.deepcopy(model).double().ase()
    if atoms.pbc.all():
        foreign.check_agreement(found, atoms, own, 1e-11, energy_error=1e-10)
    else:
        atoms.calc = own
        assert float(found.energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(found.conservative_force, atoms.get_forces(), atol=1e-11, rtol=0)
    assert float(found.conservative_force.abs().max()) > 0.005


@pytest.mark.parametrize("name", FRAMES)
def test_single_precision(potential, double, name):
    """Within some ten units in the last place of what depends on positions, since isolated atoms are added apart."""
    atoms = FRAMES[name]()
    rough, fine = (
        foreign.evaluate(one, atoms, mlcalc.Wanted.ENERGY | mlcalc.Wanted.CONSERVATIVE) for one in (potential, double)
    )
    constant = float((potential.offsets.double() - double.offsets)[double._place[torch.tensor(atoms.numbers)]].sum())
    assert float(rough.energy - fine.energy) - constant == pytest.approx(0, abs=1e-5 * len(atoms))
    torch.testing.assert_close(rough.conservative_force, fine.conservative_force, rtol=0, atol=5e-5)


def test_force_and_virial_are_derivatives(double):
    foreign.check_derivatives(double, acid())


def test_jacobian_by_both_routes(double):
    foreign.check_jacobian(double, acid() * (2, 1, 1))


def test_neighbours_and_batches(double):
    foreign.check_neighbours_and_batches(double, foreign.few_waters(), molecule("CH3CH2OH"))
    alone = foreign.evaluate(double, ase.Atoms("O"))
    assert bool(torch.isfinite(alone.energy).all()) and not alone.conservative_force.any() and not alone.virial.any()


def test_unknown_elements_are_named(potential):
    with pytest.raises(UsageError, match="it holds Si, but potential 'small' knows only H, C, O, Cl; remove"):
        potential.check_species(Structure.from_ase(foreign.silicon()))
    potential.check_species(Structure.from_ase(foreign.few_waters()))


def test_terms_without_a_cutoff_are_refused(models):
    endless = small(models)
    endless.cutoff = float("inf")
    with pytest.raises(CheckpointError, match="a term without a cutoff"):
        TorchANI("endless", endless)


def test_names(models, potential, monkeypatch):
    """Through a small model in the place of a published one; torch stays as it was."""
    start = foreign.torch_state()

    def builds_and_disturbs(*, strategy, dtype):
        found = small(models).to(dtype)
        foreign.restore(start)
        os.environ[foreign.VARIABLE] = "1"
        return found

    monkeypatch.setattr(models, "ANI2x", builds_and_disturbs)
    with foreign.torch_untouched():
        found = mlcalc.load("torchani:ANI2x")
    assert (found.name, found.dtype, found.fingerprint) == ("ANI2x", torch.float32, potential.fingerprint)
    assert all(hasattr(models, name) for name in NAMES)

    def no_network(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(models, "_fetch_state_dict", no_network)
    with pytest.raises(CheckpointError, match=r"cannot load ANI1x \(no route\).*torchani\.models\.ANI1x\(\)") as caught:
        mlcalc.load("torchani:ANI1x")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="choose one of torchani:ANI1x, .*torchani:ANI2dr"):
        mlcalc.load("torchani:ANImbis")


def test_a_missing_package(monkeypatch):
    foreign.check_missing_package(monkeypatch, "torchani", "torchani", "torchani:ANI2x")


def test_it_can_be_divided_among_processes(potential):
    foreign.check_division(potential)
