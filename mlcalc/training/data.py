"""Labelled frames from extended-XYZ files, with keys and units stated, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import ase
import ase.io
import numpy as np
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from torch import Tensor

from mlcalc.errors import UsageError
from mlcalc.neighbours import Neighbours, neighbour_list
from mlcalc.structure import Structure

#: (energy in eV, length in Å) of the units that training data may state
UNITS = {
    "eV,Angstrom": (1.0, 1.0),
    "Hartree,Bohr": (27.211386245988, 0.529177210903),
    "kcal/mol,Angstrom": (0.0433641153, 1.0),
}


@dataclass(frozen=True)
class DataKeys:
    """Where the labels of a file stand and in which units.

    Attributes
    ----------
    energy, forces, stress : keys in the file; None where there is none. Positions and cell are always Å.
    units : one of `UNITS`, of energies, forces (energy/length) and stress (energy/length³)
    """

    units: str
    energy: str = "energy"
    forces: str = "forces"
    stress: str | None = None


@dataclass(frozen=True)
class Geometry:
    """One configuration and its neighbours."""

    structure: Structure
    neighbours: Neighbours

    def rotated(self, rotation: Tensor) -> Self:
        """The configuration turned by an orthogonal (3, 3) matrix R: r → r Rᵀ."""
        turned = self.structure.at(self.structure.positions @ rotation.T)
        structure = Structure(
            turned.positions, turned.numbers, turned.cell @ rotation.T, turned.periodic, turned.masses, turned.system
        )
        return replace(self, structure=structure)


@dataclass(frozen=True)
class Frame(Geometry):
    """One labelled configuration.

    Attributes
    ----------
    energy : (), eV; force : (n_atoms, 3), eV/Å; virial : (3, 3), eV, or None
    """

    energy: Tensor
    force: Tensor
    virial: Tensor | None

    def rotated(self, rotation: Tensor) -> Self:
        """The configuration and its labels turned; see `Geometry.rotated`."""
        virial = None if self.virial is None else rotation @ self.virial @ rotation.T
        return replace(super().rotated(rotation), force=self.force @ rotation.T, virial=virial)


def read_frames(path: str | Path, keys: DataKeys, cutoff: float) -> list[Frame]:
    """Read and check every frame of an extended-XYZ file (plain or gzip).

    Raises
    ------
    UsageError
        for a missing file, a missing key (with the keys that are there), unknown units, or labels that are not finite.
    """
    if keys.units not in UNITS:
        raise UsageError(f"units: got {keys.units!r}; state one of {', '.join(UNITS)}")
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"data: no file {path}; give the path of an extended-XYZ file")
    try:
        images = ase.io.read(path, ":", format="extxyz")
    except Exception as error:
        raise UsageError(f"data: {path} is not readable as extended XYZ ({error})") from error
    if not images:
        raise UsageError(f"data: {path} holds no frame")
    return [_frame(atoms, keys, cutoff, f"{path.name}, frame {k}") for k, atoms in enumerate(images)]


def _labels(atoms: ase.Atoms) -> dict[str, np.ndarray]:
    """Everything that could be a label, by its key in the file (ASE moves known ones into a calculator)."""
    found = {**atoms.info, **atoms.arrays}
    if isinstance(atoms.calc, SinglePointCalculator):
        found |= atoms.calc.results
    return found


def _frame(atoms: ase.Atoms, keys: DataKeys, cutoff: float, where: str) -> Frame:
    energy_unit, length_unit = UNITS[keys.units]
    labels = _labels(atoms)

    def label(key: str) -> Tensor:
        if key not in labels:
            raise UsageError(f"{where}: no key {key!r}; it has {', '.join(sorted(labels))}: name the key that you mean")
        value = torch.as_tensor(np.asarray(labels[key], dtype=float))
        if not bool(torch.isfinite(value).all()):
            raise UsageError(f"{where}: {key!r} is not finite; remove or repair this frame")
        return value

    structure = Structure.from_ase(atoms)
    virial = None
    if keys.stress is not None:
        stress = label(keys.stress) * (energy_unit / length_unit**3)
        if stress.shape == (6,):
            xx, yy, zz, yz, xz, xy = stress.tolist()
            stress = torch.tensor([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], dtype=torch.float64)
        virial = -stress.reshape(3, 3) * atoms.get_volume()
    force = label(keys.forces) * (energy_unit / length_unit)
    if force.shape != (len(atoms), 3):
        raise UsageError(f"{where}: {keys.forces!r} has shape {tuple(force.shape)}; it must be ({len(atoms)}, 3)")
    return Frame(structure, neighbour_list(structure, cutoff), label(keys.energy) * energy_unit, force, virial)


def split(frames: Sequence[Frame], n_validation: int, seed: int) -> tuple[list[Frame], list[Frame]]:
    """(training, validation) frames, at random but the same for the same seed."""
    if not 0 < n_validation < len(frames):
        raise UsageError(f"n_validation: got {n_validation} of {len(frames)} frames; leave some for each part")
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed)).tolist()
    return [frames[k] for k in order[n_validation:]], [frames[k] for k in order[:n_validation]]
