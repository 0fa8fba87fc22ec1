"""ORB with random weights on our neighbour list against its own calculator, finite differences, and torch's state."""

from __future__ import annotations

import copy
import importlib.util
import os

import ase
import foreign_potentials as foreign
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

import mlcalc
from mlcalc.errors import CheckpointError, UsageError
from mlcalc.evaluation import JOINT, Wanted
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.orb import Orb
from mlcalc.structure import Structure

# it wants older versions of what others need, so CI runs this file beside that of MACE: make test-apart
NEEDS = "orb-models (pip install 'mlcalc[orb]') wants an environment of its own"
KINDS = ("both", "conservative", "direct")


@pytest.fixture(scope="module")
def pretrained():
    if importlib.util.find_spec("orb_models") is None:
        pytest.skip(NEEDS)
    return foreign_module("orb_models.forcefield.pretrained", "orb")


@undisturbed()
def regressor(pretrained, kind: str, **options):
    """A checkpoint of the third generation in small: 2 layers, 32 channels, forces of some 0.1 eV/Å."""
    heads, setup = pretrained.ForceHead, pretrained.SystemConfig
    torch.manual_seed(0)
    sizes = dict(latent_dim=32, base_mlp_hidden_dim=32, head_mlp_hidden_dim=32, num_message_passing_steps=2)
    make = pretrained.orb_v3_direct_architecture if kind == "direct" else pretrained.orb_v3_conservative_architecture
    config = setup(radius=6.0, max_num_neighbors=20 if kind == "conservative" else 120)
    network = make(**sizes, device="cpu", system_config=config, **options)
    if kind == "both":
        network.heads["forces"] = heads(latent_dim=32, num_mlp_layers=1, mlp_hidden_dim=32, activation="silu")
        network.extra_properties.append("forces")
    for name in ("energy", "forces"):
        if name in network.heads:
            network.heads[name].normalizer.bn.running_var.fill_(100.0)
    return network.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def regressors(pretrained):
    return {kind: regressor(pretrained, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def potentials(regressors):
    return {kind: Orb(kind, copy.deepcopy(one)) for kind, one in regressors.items()}


@pytest.fixture(scope="module")
def double(potentials):
    return foreign.precise(potentials["both"])


def calculator(regressor):
    from orb_models.forcefield.calculator import ORBCalculator

    return ORBCalculator(copy.deepcopy(regressor), device="cpu")


@pytest.mark.parametrize("frame", ["silicon", "water", "salt", "molecule"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_agrees_with_the_packages_calculator(regressors, potentials, kind, frame):
    """Energies, and both forces from one forward pass, within some ten units in the last place of float32.

    The molecule has no cell: there the package takes the torque off direct forces. With "conservative" only the 20
    nearest neighbours count, of 28 to 123.
    """
    atoms = molecule("CH3CH2OH") if frame == "molecule" else foreign.frames()[frame]
    one, own = potentials[kind], calculator(regressors[kind])
    found = foreign.evaluate(one, atoms, one.provides if frame != "molecule" else one.provides & ~Wanted.VIRIAL)
    if frame == "molecule" or kind == "direct":
        own.calculate(atoms)
        assert abs(float(found.energy) - float(own.results["energy"])) < 1e-5 * len(atoms)
    else:
        foreign.check_agreement(found, atoms, own, 1e-5)
    if found.conservative_force is not None:
        np.testing.assert_allclose(found.conservative_force, own.results["forces"], atol=1e-5, rtol=0)
    if found.direct_force is not None:
        theirs = own.results["forces" if kind == "direct" else "direct_forces"]
        np.testing.assert_allclose(found.direct_force, theirs, atol=2e-5, rtol=0)


def test_what_each_kind_provides(potentials):
    derived = Wanted.CONSERVATIVE | Wanted.VIRIAL
    assert potentials["both"].provides == JOINT | Wanted.VIRIAL
    assert potentials["conservative"].provides == Wanted.ENERGY | derived
    assert potentials["direct"].provides == Wanted.ENERGY | Wanted.DIRECT
    with pytest.raises(UsageError, match=r"potential 'direct' has no conservative forces, virial \(stress\)"):
        foreign.evaluate(potentials["direct"], foreign.salt(), derived)


def test_force_and_virial_are_derivatives(double):
    foreign.check_derivatives(double, foreign.salt())


def test_jacobian_by_both_routes(double):
    foreign.check_jacobian(double, foreign.silicon())


def test_product_with_the_jacobian_of_the_direct_force(double):
    """Of a molecule without cell, where the torque taken off depends on positions."""
    foreign.check_direct_product(double, molecule("CH3CH2OH"))


def test_neighbours_and_batches(double):
    foreign.check_neighbours_and_batches(double, foreign.salt(), molecule("H2O"))
    pair = [foreign.few_waters(), molecule("H2O")]
    both, alone = (foreign.evaluate(double, pair, which).direct_force for which in (JOINT, Wanted.DIRECT))
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(alone[24:], foreign.evaluate(double, pair[1], Wanted.DIRECT).direct_force)
    single = foreign.evaluate(double, ase.Atoms("O"))
    assert bool(torch.isfinite(single.energy).all()) and not single.conservative_force.any() and not single.virial.any()


def test_what_it_does_not_know_is_said(potentials):
    one = potentials["both"]
    with pytest.raises(UsageError, match="it holds Og, but potential 'both' knows only H, He"):
        one.check_species(Structure.from_ase(ase.Atoms("Og")))
    slab = bulk("Cu", cubic=True)
    slab.pbc = [True, True, False]
    with pytest.raises(UsageError, match=r"periodic along some lattice vectors only.*center\(vacuum=6, axis"):
        one.check_species(Structure.from_ase(slab))
    one.check_species(Structure.from_ase([molecule("H2O"), foreign.few_waters()]))


def test_charge_and_spin_are_refused(pretrained):
    asks = regressor(pretrained, "direct", has_charge_spin_cond=True)
    with pytest.raises(CheckpointError, match="orb-v3-direct-omol asks for charge and spin.*choose another"):
        Orb("orb-v3-direct-omol", asks)


def test_names_and_files(pretrained, regressors, potentials, monkeypatch, tmp_path):
    """Through the package's own reading of weights, into its architecture in small; torch stays as it was."""
    name, start = "orb-v3-conservative-inf-omat", foreign.torch_state()

    def small(weights_path="https://somewhere/w.ckpt", *, device, precision, compile):  # as the package's own
        network = regressor(pretrained, "both")
        network = pretrained.load_model(network, weights_path, device, precision=precision, compile=compile)
        foreign.restore(start)
        os.environ[foreign.VARIABLE] = "1"
        return network

    monkeypatch.setitem(pretrained.ORB_PRETRAINED_MODELS, name, small)
    other = copy.deepcopy(regressors["both"])
    other.model.gnn_stacks[0]._receive_attn.bias += 1.0
    torch.save(other.state_dict(), tmp_path / "w.ckpt")
    torch.save(regressors["direct"].model.atom_emb.state_dict(), tmp_path / "part.ckpt")
    with foreign.torch_untouched():
        found = mlcalc.load(f"orb:{name}?weights={tmp_path}/w.ckpt")
    assert (found.name, found.dtype) == (name, torch.float32)
    assert found.fingerprint == Orb("", copy.deepcopy(other)).fingerprint != potentials["both"].fingerprint

    def no_network(path):
        if path.startswith("https:"):
            raise ConnectionError(f"no route to {path}")
        return path

    monkeypatch.setattr(pretrained, "cached_path", no_network)
    for wish, says in (
        (f"{name}?weights={tmp_path}/no.ckpt", "no file"),
        (f"{name}?weights={tmp_path}/part.ckpt", "cannot load .*Missing key"),
        (name, r"cannot load .*no route to .*give them as orb:orb-v3-conservative-inf-omat\?weights=FILE"),
    ):
        with pytest.raises(CheckpointError, match=says) as caught:
            mlcalc.load(f"orb:{wish}")
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="choose one of .*orb:orb-v3-direct-20-omat"):
        mlcalc.load("orb:orb-v9")


def test_a_missing_package(monkeypatch):
    foreign.check_missing_package(monkeypatch, "orb_models", "orb", "orb:orb-v2")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu(double):
    foreign.check_gpu(double, copy.deepcopy(double).to("cuda"), double.provides)
