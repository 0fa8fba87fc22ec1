"""NequIP and Allegro with random weights against their own calculator, finite differences, and torch's state."""

from __future__ import annotations

import copy
import importlib.util
import os

import ase
import foreign_potentials as foreign
import pytest
import torch
from ase.build import molecule

import mlcalc
from mlcalc.errors import CheckpointError, UsageError
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.nequip import NequIP
from mlcalc.structure import Structure

NEEDS = "nequip and nequip-allegro (pip install 'mlcalc[nequip]') are not in CI"
SHIFTS = {"H": -13.0, "O": -2000.0, "Na": -1.0, "Cl": -2.0, "Si": -3.0}
KINDS = {"nequip": "float64", "nequip32": "float32", "allegro": "float64"}


@pytest.fixture(scope="module")
def package():
    if importlib.util.find_spec("nequip") is None or importlib.util.find_spec("allegro") is None:
        pytest.skip(NEEDS)
    foreign_module("nequip.utils.global_state", "nequip").set_global_state()


@undisturbed()
def build(kind: str, **options):
    """Small, with forces of some eV/Å."""
    from allegro.model import AllegroModel
    from nequip.model import NequIPGNNModel

    torch.set_default_dtype(torch.float64)  # as the package demands of the whole process
    common = dict(
        seed=0, model_dtype=KINDS[kind], r_max=4.0, type_names=list(SHIFTS), avg_num_neighbors=20.0, l_max=1,
        per_type_energy_scales=30.0, per_type_energy_shifts=SHIFTS,
    )  # fmt: skip
    if kind != "allegro":
        return NequIPGNNModel(num_layers=2, num_features=8, radial_mlp_width=16, **{**common, **options}).eval()
    radial = {"num_bessels": 8, "bessel_trainable": False, "polynomial_cutoff_p": 6}
    radial["_target_"] = "allegro.nn.TwoBodyBesselScalarEmbed"
    sizes = dict(num_layers=1, num_scalar_features=8, num_tensor_features=4)
    return AllegroModel(radial_chemical_embed=radial, **sizes, **common).eval()


@pytest.fixture(scope="module")
def models(package):
    return {kind: build(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def potentials(models):
    return {kind: NequIP(kind, copy.deepcopy(one)) for kind, one in models.items()}


def calculator(model):
    from nequip.integrations.ase import NequIPCalculator
    from nequip.integrations.utils import basic_transforms, handle_chemical_species_map

    names = list(SHIFTS)
    transforms = basic_transforms(model.metadata, 4.0, names, handle_chemical_species_map(True, names))
    return NequIPCalculator(copy.deepcopy(model), "cpu", transforms=transforms)


@pytest.mark.parametrize("frame", ["silicon", "water", "salt"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_agrees_with_the_packages_calculator(models, potentials, kind, frame):
    """In float64 nothing but round-off, of energies up to 2000 eV an atom; in float32 some ten units in the last place.

    The package reads positions in torch's default dtype, for which it demands float64.
    """
    atoms, rough = foreign.frames()[frame], KINDS[kind] == "float32"
    found = foreign.evaluate(potentials[kind], atoms)
    errors = dict(force_error=3e-5, energy_error=1e-5) if rough else dict(force_error=1e-11, energy_error=1e-10)
    torch.set_default_dtype(torch.float64)
    try:
        foreign.check_agreement(found, atoms, calculator(models[kind]), **errors)
    finally:
        torch.set_default_dtype(torch.float32)
    assert float(found.conservative_force.abs().max()) > 0.05


def test_another_dtype_reaches_all_layers(potentials):
    """A float64 copy of a float32 model has the same weights: it differs by round-off, and is itself exact."""
    rough = potentials["nequip32"]
    fine, back = foreign.precise(rough), foreign.precise(rough).to(dtype=torch.float32)
    water = foreign.few_waters()
    forces = [foreign.evaluate(one, water).conservative_force for one in (rough, fine, back)]
    assert 1e-9 < float((forces[0] - forces[1]).abs().max()) < 3e-5
    assert float((forces[0] - forces[2]).abs().max()) < 3e-5
    foreign.check_derivatives(fine, foreign.salt())


@pytest.mark.parametrize("kind", ["nequip", "allegro"])
def test_force_and_virial_are_derivatives(potentials, kind):
    foreign.check_derivatives(potentials[kind], foreign.salt())


@pytest.mark.parametrize("kind", ["nequip", "allegro"])
def test_jacobian_by_both_routes(potentials, kind):
    foreign.check_jacobian(potentials[kind], foreign.salt() * (2, 1, 1))


@pytest.mark.parametrize("kind", ["nequip", "allegro"])
def test_neighbours_and_batches(potentials, kind):
    foreign.check_neighbours_and_batches(potentials[kind], foreign.salt(), molecule("H2O"))
    alone = foreign.evaluate(potentials[kind], ase.Atoms("O"))
    assert bool(torch.isfinite(alone.energy).all()) and not alone.conservative_force.any() and not alone.virial.any()


def test_unknown_elements_are_named(potentials):
    with pytest.raises(UsageError, match="it holds Cu, but potential 'nequip' knows only H, O, Na, Si, Cl; remove"):
        potentials["nequip"].check_species(Structure.from_ase(ase.Atoms("CuO", [[0, 0, 0], [0, 0, 2]])))


def test_types_that_are_no_elements_are_refused(package):
    other = build("nequip", type_names=["oxygen", "H"], per_type_energy_shifts=None)
    with pytest.raises(CheckpointError, match="knows the types oxygen, H, which are not all elements"):
        NequIP("other", other)


def test_files(models, potentials, monkeypatch, tmp_path):
    """Through a reader that gives a model of ours and disturbs; torch, the environment and e3nn stay as they were."""
    import e3nn
    from nequip.model.saved_models import load_utils

    start, settings = foreign.torch_state(), e3nn.get_optimization_defaults()
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    (tmp_path / "compiled.nequip.pt2").write_text("")
    refused = {"text.ckpt": "no file that nequip can read", "no.ckpt": "no file", "compiled.nequip.pt2": "neither a"}
    for file, says in refused.items():
        with pytest.raises(CheckpointError, match=says) as caught:
            mlcalc.load(f"nequip:{tmp_path / file}")
        assert "\n" not in str(caught.value)

    def reads_and_disturbs(path):
        assert path == str(tmp_path / "text.ckpt") and torch.get_default_dtype() == torch.float64
        foreign.restore(start)
        os.environ[foreign.VARIABLE] = "1"
        e3nn.set_optimization_defaults(**{**settings, "specialized_code": not settings["specialized_code"]})
        return copy.deepcopy(models["nequip32"])

    monkeypatch.setattr(load_utils, "load_saved_model", reads_and_disturbs)
    with foreign.torch_untouched():
        found = mlcalc.load(f"nequip:{tmp_path}/text.ckpt")
    assert e3nn.get_optimization_defaults() == settings
    assert (found.name, found.dtype, found.fingerprint) == ("text", torch.float32, potentials["nequip32"].fingerprint)


def test_a_missing_package(monkeypatch):
    foreign.check_missing_package(monkeypatch, "nequip", "nequip", "nequip:some/file.ckpt")
