"""Whole Jacobians of small systems, rows of some atoms of any; for random products see `products.py`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mlcalc.potentials.potential import Potential
from mlcalc.probes.field import Field, relative_round_off
from mlcalc.structure import Structure

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]


def jacobian_rows(
    potential: Potential, structure: Structure, forces: str, atoms: Sequence[int], *, progress: Progress | None = None
) -> Array:
    """J[a, b] = ∂F_a/∂x_b for the three components a of each given atom, (3 len(atoms), 3 n_atoms), eV/Å².

    Parameters
    ----------
    forces : "direct" or "conservative"
    """
    field = Field.at(potential, structure, forces)
    rows = []
    for k, atom in enumerate(atoms):
        for axis in range(3):
            pick = torch.zeros_like(field.force)
            pick[atom, axis] = 1.0
            rows.append(field.transposed(pick).reshape(-1).cpu().numpy())
        if progress is not None:
            progress(k + 1, len(atoms))
    return np.array(rows)


def element_noise(potential: Potential, structure: Structure, forces: str, atom: int) -> float:
    """Root-mean-square round-off of the coupling of one atom to the others, by element of J, eV/Å².

    Its rows are compared with those of a float64 copy; a potential that is float64 already is taken to be good to its
    precision times the square root of the number of atoms.
    """
    rows = jacobian_rows(potential, structure, forces, [atom])
    if potential.dtype == torch.float64 or not isinstance(potential, nn.Module):
        error = rows * relative_round_off(potential, structure.n_atoms)
    else:
        error = rows - jacobian_rows(copy.deepcopy(potential).double(), structure, forces, [atom])
    others = np.delete(error, [3 * atom, 3 * atom + 1, 3 * atom + 2], axis=1)
    return float(np.sqrt(np.mean(others**2)))


def exact_jacobian(
    potential: Potential, structure: Structure, forces: str, *, progress: Progress | None = None
) -> Array:
    """The whole Jacobian by rows, (3 n_atoms, 3 n_atoms), eV/Å²; 3 n_atoms reverse passes."""
    return jacobian_rows(potential, structure, forces, range(structure.n_atoms), progress=progress)
