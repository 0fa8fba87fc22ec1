"""Checkpoints: data only, and refused in one line when they are not what they say."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mlcalc.errors import CheckpointError
from mlcalc.evaluation import JOINT
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials import checkpoint
from mlcalc.potentials.checkpoint import load_checkpoint, read_card, save_checkpoint
from mlcalc.structure import Structure


@pytest.fixture(params=["painn", "pet"])
def network(request, make_network):
    network = make_network(request.param, dtype=torch.float32)
    network.energy_offsets.copy_(torch.tensor([-13.6, -2042.123456789], dtype=torch.float64))
    return network


@pytest.fixture
def path(network, tmp_path) -> Path:
    path = tmp_path / "water.safetensors"
    save_checkpoint(path, network, {"data": "made up", "errors": {"force": 0.03}})
    return path


def refuse(path: Path, says: str | None = None) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_round_trip_is_exact(network, path, make_water):
    loaded = load_checkpoint(path)
    structure = Structure.from_ase(make_water())
    neighbours = neighbour_list(structure, network.cutoff)
    here, there = (one.evaluate(structure, neighbours, JOINT) for one in (network, loaded))
    for name in ("energy", "energies", "conservative_force", "direct_force"):
        assert torch.equal(getattr(here, name), getattr(there, name))
    assert loaded.hyperparameters == network.hyperparameters
    assert loaded.fingerprint == network.fingerprint
    assert read_card(path) == {"data": "made up", "errors": {"force": 0.03}}
    assert loaded.energy_offsets.dtype == torch.float64
    assert loaded.name == "water"


def test_truncated_anywhere(path):
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    inside = [0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, (header + len(whole)) // 2, len(whole) - 1]
    for length in inside:
        path.write_bytes(whole[:length])
        refuse(path)


def test_any_changed_byte_is_noticed(path):
    """Of tensors or of metadata: an error, whichever check finds it, and never a wrong potential."""
    whole = path.read_bytes()
    for offset in range(0, len(whole), max(1, len(whole) // 150)):
        changed = bytearray(whole)
        changed[offset] ^= 0x01
        path.write_bytes(bytes(changed))
        refuse(path)


def test_bytes_added_at_the_end(path):
    path.write_bytes(path.read_bytes() + b"more")
    refuse(path)


def test_a_header_that_claims_to_be_huge(path):
    path.write_bytes(struct.pack("<Q", 2**60) + path.read_bytes()[8:])
    refuse(path)


def test_foreign_safetensors_file(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, str(path), {"format": "pt"})
    refuse(path, "not an mlcalc checkpoint")
    save_file({"weight": torch.zeros(3)}, str(path))
    refuse(path, "not an mlcalc checkpoint")


class _Mine:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_pickles_are_not_even_opened(tmp_path, how):
    trace, path = tmp_path / "trace", tmp_path / "model.safetensors"
    with path.open("wb") as file:
        (pickle.dump if how == "pickle" else torch.save)({"state": _Mine(trace)}, file)
    refuse(path, "can run code")
    assert not trace.exists()


def forge(path: Path, **changes: str) -> None:
    """Rewrite the metadata with a checksum that fits."""
    with safe_open(str(path), framework="pt") as file:
        metadata = {**file.metadata(), **changes}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    metadata["sha256"] = checkpoint._digest(metadata, tensors)
    save_file(tensors, str(path), metadata)


def test_architectures_come_from_a_list(path):
    """The name in the file never becomes an import by itself."""
    for name in ("checkpoint", "os", "..errors", ""):
        forge(path, architecture=name)
        refuse(path, "this version knows painn, pet")


def test_hyperparameters_that_do_not_fit(path):
    with safe_open(str(path), framework="pt") as file:
        right = json.loads(file.metadata()["hyperparameters"])
    for wrong in (
        {**right, "n_radial": right["n_radial"] + 1},
        {**right, "colour": "blue"},
        {**right, "species": ["H"]},
        {**right, "species": ["Xx", "O"]},
        {**right, "cutoff": -1.0},
        {**right, "cutoff": "far"},
        {**right, "form": "Q"},
        {**right, "n_layers": "two"},
        {key: value for key, value in right.items() if key != "species"},
        [1, 2],
    ):
        forge(path, hyperparameters=json.dumps(wrong))
        refuse(path, "does not fit its own description")
    forge(path, hyperparameters="not json")
    refuse(path, "does not fit its own description")


def test_units_other_than_ours(path):
    forge(path, units="kcal/mol, Bohr")
    refuse(path, "units")


def test_not_a_number_among_the_weights(network, tmp_path):
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = float("nan")
    path = tmp_path / "broken.safetensors"
    save_checkpoint(path, network, {})
    refuse(path, "not finite")
