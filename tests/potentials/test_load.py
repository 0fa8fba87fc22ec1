"""Potentials by name and by file."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest
import torch

import mlcalc
from mlcalc.errors import CheckpointError, UsageError
from mlcalc.potentials import names, pretrained
from mlcalc.potentials.checkpoint import save_checkpoint
from mlcalc.potentials.harmonic import Harmonic


def test_analytic_potentials_by_name_and_parameters():
    assert mlcalc.load("harmonic", asymmetry=0.02).asymmetry == pytest.approx(0.02)
    potential = mlcalc.load("lennard_jones", sigma=2.5, cutoff=7.0)
    assert (potential.sigma, potential.cutoff) == (2.5, 7.0)


@pytest.mark.parametrize("name", ["harmonic", "lennard_jones"])
def test_dtype_is_as_asked(name):
    assert mlcalc.load(name).dtype == torch.float64
    assert mlcalc.load(name, dtype=torch.float32).dtype == torch.float32


def test_checkpoints_by_path(make_network, tmp_path):
    network = make_network("painn", dtype=torch.float32)
    path = tmp_path / "mine.safetensors"
    save_checkpoint(path, network, {"note": "none"})
    for given in (path, str(path)):
        loaded = mlcalc.load(given)
        assert (loaded.name, loaded.dtype) == ("mine", torch.float32)
    assert mlcalc.load(path, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize("name", [name for name in ("water", "water-painn", "water-pet") if name in pretrained.NAMES])
def test_bundled_potentials_know_the_water_box(name):
    potential = mlcalc.load(name)
    box = mlcalc.Structure.from_ase(mlcalc.water_box())
    potential.check_species(box)
    answer = potential.evaluate(box, mlcalc.neighbour_list(box, potential.cutoff), potential.provides)
    assert bool(torch.isfinite(answer.energy).all())
    # an equilibrated box: forces of liquid water at 300 K are about 1 eV/Å, not 10
    for force in (answer.conservative_force, answer.direct_force):
        assert 0.3 < float(force.square().mean().sqrt()) < 2.0


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("waterr", {}, "potential: got 'waterr'; choose one of .*harmonic, lennard_jones"),
        ("", {}, "potential: got ''"),
        ("harmonic", {"colour": 1}, "colour"),
        ("harmonic", {"dtype": torch.float16}, "dtype: got torch.float16"),
        ("harmonic", {"dtype": "float32"}, "dtype: got float32"),
        ("harmonic", {"device": "abacus"}, "device: got 'abacus'"),
        ("some/where.safetensors", {}, "no file some/where.safetensors"),
        ("some/where.safetensors", {"sigma": 1.0}, "takes no parameters"),
    ],
)
def test_bad_requests_are_refused_in_one_line(name, options, says):
    with pytest.raises(UsageError, match=says) as caught:
        mlcalc.load(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(UsageError, match="device: got 'cuda' .*choose cpu"):
        mlcalc.load("harmonic", device="cuda")


def test_a_folder_or_a_text_file_is_no_checkpoint(tmp_path):
    text = tmp_path / "notes.safetensors"
    text.write_text("not tensors")
    for path in (text, tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(CheckpointError):
            mlcalc.load(path)


def _their_potential(*, device, dtype, asymmetry):
    """What another package would offer."""
    return Harmonic(asymmetry=asymmetry).to(device=device, dtype=dtype)


def test_other_packages_offer_potentials(monkeypatch):
    point = importlib.metadata.EntryPoint("theirs", f"{__name__}:_their_potential", "mlcalc.potentials")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    assert "theirs" in names()
    potential = mlcalc.load("theirs", asymmetry=0.3, dtype=torch.float32)
    assert potential.asymmetry == pytest.approx(0.3)
    assert potential.dtype == torch.float32
    with pytest.raises(UsageError, match="asymmetry"):
        mlcalc.load("theirs")


def test_importing_mlcalc_is_quick():
    """Not even torch is imported before it is needed."""
    code = "import sys, mlcalc; print(*[name for name in ('torch', 'ase', 'numpy') if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""


def test_public_names_are_there():
    for name in mlcalc.__all__:
        assert getattr(mlcalc, name) is not None
    assert set(mlcalc.__all__) <= set(dir(mlcalc))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mlcalc.nothing  # noqa: B018 (looking it up is the test)
