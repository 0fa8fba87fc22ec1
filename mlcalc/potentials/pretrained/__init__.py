"""The weights that come with mlcalc, and a box of water."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io

from mlcalc.errors import UsageError

_FOLDER = Path(__file__).parent

#: name → file; "water" is the one that audits better
_FILES = {
    "water": "water-painn.safetensors",
    "water-painn": "water-painn.safetensors",
    "water-pet": "water-pet.safetensors",
    "silicon-7net-0": "silicon-7net-0.safetensors",
    "water-7net-0": "water-7net-0.safetensors",
}
#: the names for which weights are there
NAMES = tuple(name for name, file in _FILES.items() if (_FOLDER / file).is_file())


def path_of(name: str) -> Path:
    """The checkpoint of a bundled potential."""
    return _FOLDER / _FILES[name]


def water_box() -> ase.Atoms:
    """64 water molecules in a periodic cube of liquid density, equilibrated at 300 K with the bundled potential.

    Raises
    ------
    UsageError
        if the installation lacks the file.
    """
    path = _FOLDER / "water-64.xyz"
    if not path.is_file():
        raise UsageError(f"structure: the installation lacks {path.name}; install mlcalc again")
    atoms = ase.io.read(path, format="extxyz")
    assert isinstance(atoms, ase.Atoms)
    return atoms
