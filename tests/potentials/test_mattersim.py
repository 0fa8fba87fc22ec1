"""MatterSim with random weights on our neighbour list against its own calculator and finite differences.

Through small networks in the package's own architecture: the published weights are downloaded.
"""

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
from mlcalc.potentials.mattersim import MatterSim
from mlcalc.structure import Structure

NEEDS = "mattersim (pip install 'mlcalc[mattersim]') and what it needs is too large for CI"


@pytest.fixture(scope="module")
def package():
    if importlib.util.find_spec("mattersim") is None:
        pytest.skip(NEEDS)
    return foreign_module("mattersim.forcefield.potential", "mattersim")


@undisturbed()
def small(package):
    """Two blocks of the published shape with 16 channels; forces of some 0.1 eV/Å, elements of some eV."""
    torch.manual_seed(0)
    network = package.M3Gnet(num_blocks=2, units=16, max_l=4, max_n=4, cutoff=5.0, threebody_cutoff=4.0, device="cpu")
    network.normalizer.scale.fill_(100.0)
    network.normalizer.shift.copy_(-torch.linspace(0, 9, network.max_z + 1))
    return network


@pytest.fixture(scope="module")
def network(package):
    return small(package)


@pytest.fixture(scope="module")
def potential(network):
    return MatterSim("small", copy.deepcopy(network))


@pytest.fixture(scope="module")
def double(potential):
    return foreign.precise(potential)


@undisturbed()
def calculator(package, network):
    own = package.Potential(copy.deepcopy(network).eval(), device="cpu")
    return package.MatterSimCalculator(own, device="cpu")


@pytest.mark.parametrize("name", ["silicon", "water", "salt", "copper"])
def test_it_agrees_with_the_packages_calculator(package, network, potential, name):
    """Within some ten units in the last place of float32. Its calculator moves the atoms that it is given."""
    atoms = foreign.frames()[name]
    found = foreign.evaluate(potential, atoms)
    foreign.check_agreement(found, atoms, calculator(package, network), 2e-5)
    if name != "copper":  # where symmetry leaves no force
        assert float(found.conservative_force.abs().max()) > 0.05


def test_a_molecule_agrees_too(package, network, potential):
    """Which its calculator puts into a large cell."""
    atoms = molecule("CH3CH2OH")
    found = foreign.evaluate(potential, atoms, mlcalc.Wanted.ENERGY | mlcalc.Wanted.CONSERVATIVE)
    atoms.calc = calculator(package, network)
    assert float(found.energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-5 * len(atoms))
    np.testing.assert_allclose(found.conservative_force, atoms.get_forces(), atol=2e-5, rtol=0)


def test_force_and_virial_are_derivatives(double):
    foreign.check_derivatives(double, foreign.salt())


def test_jacobian_by_both_routes(double):
    foreign.check_jacobian(double, foreign.silicon())


def test_neighbours_and_batches(double):
    foreign.check_neighbours_and_batches(double, foreign.salt(), molecule("H2O"))
    alone = foreign.evaluate(double, ase.Atoms("O"))
    assert bool(torch.isfinite(alone.energy).all()) and not alone.conservative_force.any() and not alone.virial.any()


def test_it_can_be_divided_among_processes(potential):
    foreign.check_division(potential)


def test_unknown_elements_are_named(potential):
    with pytest.raises(UsageError, match="it holds Og, but potential 'small' knows only H, He"):
        potential.check_species(Structure.from_ase(ase.Atoms("Og")))
    potential.check_species(Structure.from_ase(foreign.few_waters()))


def test_files(package, network, potential, tmp_path):
    """Through a checkpoint that the package wrote; torch stays as it was."""
    path = tmp_path / "small.pth"
    with undisturbed():
        package.Potential(copy.deepcopy(network), device="cpu").save(str(path))
    with foreign.torch_untouched():
        found = mlcalc.load(f"mattersim:{path}")
    assert (found.name, found.dtype, found.fingerprint) == ("small", torch.float32, potential.fingerprint)
    (tmp_path / "other.pth").write_bytes(b"no checkpoint")
    for wish, says in (("other.pth", "no file of MatterSim's weights"), ("none.pth", "no file .*MatterSim-v1.0.0-1M")):
        with pytest.raises(CheckpointError, match=says) as caught:
            mlcalc.load(f"mattersim:{tmp_path / wish}")
        assert "\n" not in str(caught.value)


def test_names(package, network, potential, monkeypatch, tmp_path):
    """Of weights that the package downloads into its folder, once."""
    downloads = importlib.import_module("mattersim.utils.download_utils")
    monkeypatch.setenv("HOME", str(tmp_path))

    def no_network(name, folder):
        raise ConnectionError("no route")

    monkeypatch.setattr(downloads, "download_checkpoint", no_network)
    with pytest.raises(CheckpointError, match=r"cannot download .*-5M \(no route\).*mattersim:FILE") as caught:
        mlcalc.load("mattersim:MatterSim-v1.0.0-5M")
    assert "\n" not in str(caught.value)

    def has_network(name, folder):
        with undisturbed():
            package.Potential(copy.deepcopy(network), device="cpu").save(os.path.join(folder, name))

    monkeypatch.setattr(downloads, "download_checkpoint", has_network)
    assert mlcalc.load("mattersim:MatterSim-v1.0.0-1M").fingerprint == potential.fingerprint
    monkeypatch.setattr(downloads, "download_checkpoint", no_network)
    assert mlcalc.load("mattersim:MatterSim-v1.0.0-1M").name == "mattersim-v1.0.0-1M"


def test_a_missing_package(monkeypatch):
    foreign.check_missing_package(monkeypatch, "mattersim", "mattersim", "mattersim:MatterSim-v1.0.0-1M")
