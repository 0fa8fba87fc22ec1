"""One safetensors file: tensors, and metadata that say what they are. Data only; nothing in it is ever executed.

Layout of the metadata (all strings):

| key | what |
|---|---|
| format | "mlcalc-checkpoint-1" |
| architecture | the file in mlcalc/potentials/ that builds the network |
| hyperparameters | JSON, the constructor's arguments |
| units | "eV, Angstrom, amu" |
| card | JSON: data, errors, how it was made |
| sha256 | digest over all other metadata and all tensors |
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mlcalc.errors import CheckpointError
from mlcalc.potentials.network import Network

FORMAT = "mlcalc-checkpoint-1"
UNITS = "eV, Angstrom, amu"
ARCHITECTURES = ("painn", "pet")


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps({k: v for k, v in metadata.items() if k != "sha256"}, sort_keys=True).encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(path: str | Path, network: Network, card: Mapping[str, Any]) -> None:
    """Write a network with its model card."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "architecture": network.architecture,
        "hyperparameters": json.dumps(network.hyperparameters, sort_keys=True),
        "units": UNITS,
        "card": json.dumps(card, sort_keys=True),
    }
    metadata["sha256"] = _digest(metadata, tensors)
    save_file(tensors, str(path), metadata)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"potential: no file {path}; give a checkpoint's path or the name of a bundled potential")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"potential: {path} is not a whole safetensors file ({_one_line(error)}); copy or download it again. "
            "Pickled checkpoints (.pt, .pth, .model) are not read: they can run code"
        ) from error


def read_card(path: str | Path) -> dict[str, Any]:
    """The model card of a checkpoint."""
    metadata, _ = _read(Path(path))
    return json.loads(metadata.get("card", "{}"))


def load_checkpoint(path: str | Path) -> Network:
    """Build the network that a checkpoint describes; float32 on the CPU.

    Raises
    ------
    CheckpointError
        if the file is missing, truncated, not ours, or changed since it was written.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"potential: {path} is a safetensors file but not an mlcalc checkpoint "
            f"(format {metadata.get('format')!r}, expected {FORMAT!r}); use the package that wrote it"
        )
    if metadata.get("sha256") != _digest(metadata, tensors):
        raise CheckpointError(f"potential: {path} has changed since it was written (checksum differs); copy it again")
    architecture = metadata.get("architecture")
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"potential: {path} has architecture {architecture!r}; "
            f"this version knows {', '.join(ARCHITECTURES)}: upgrade mlcalc"
        )
    if metadata.get("units") != UNITS:
        raise CheckpointError(f"potential: {path} is in units {metadata.get('units')!r}; mlcalc reads {UNITS!r}")
    broken = [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(f"potential: {path} has weights that are not finite ({broken[0]}); train it again")
    module = importlib.import_module(f"mlcalc.potentials.{architecture}")
    try:
        network: Network = module.POTENTIAL(**json.loads(metadata["hyperparameters"]))
        network.load_state_dict(tensors)
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"potential: {path} does not fit its own description ({_one_line(error)})") from error
    network.requires_grad_(False)
    network.name = path.stem
    return network
