"""The Hessian of a potential about which a run vibrates."""

from __future__ import annotations

from collections.abc import Callable

import ase
import numpy as np
from numpy.typing import NDArray

from mlcalc.diagnostics import unwrapping
from mlcalc.errors import UsageError
from mlcalc.potentials.potential import Potential
from mlcalc.probes import differences, jacobian
from mlcalc.record import Frames
from mlcalc.structure import Structure

Array = NDArray[np.float64]
_FARTHEST = 0.6  # Å, root mean square from the mean place; water's hydrogens at 300 K are there after some 0.1 ps


def hessian_of(potential: Potential) -> Callable[[Frames], Array]:
    """A function: frames of a crystal → second derivatives of the potential's energy at their mean positions, eV/Å².

    3 n_atoms derivatives of the conservative force; with a potential that cannot be differentiated, differences of it.

    Raises (the function)
    ---------------------
    UsageError
        if some kind of atom strays by more than 0.6 Å: there is no one place about which it vibrates.
    """

    def hessian(frames: Frames) -> Array:
        structure = Structure.from_ase(_mean(frames))
        if potential.differentiates:
            return -jacobian.exact_jacobian(potential, structure, "conservative")
        return -differences.jacobian_columns(potential, structure, "conservative", range(structure.n_atoms))

    return hessian


def _mean(frames: Frames) -> ase.Atoms:
    positions = np.asarray(frames.positions)
    if unwrapping.is_wrapped(positions, frames.cell, frames.periodic):
        positions = unwrapping.unwrap(positions, frames.cell, frames.periodic)
    weights = frames.masses / frames.masses.sum()
    drift = np.einsum("i,fix->fx", weights, positions - positions[0])
    positions = positions - drift[:, None]
    mean = positions.mean(axis=0)
    strayed = np.sqrt(((positions - mean) ** 2).sum(axis=2).mean(axis=0)).max()
    if strayed > _FARTHEST:
        raise UsageError(
            f"normal modes: an atom strays by {strayed:.2g} Å from its mean place; they are for what vibrates "
            "about one place, a crystal, not for what flows or turns"
        )
    return ase.Atoms(frames.numbers, mean, cell=frames.cell.mean(axis=0), pbc=frames.periodic, masses=frames.masses)
