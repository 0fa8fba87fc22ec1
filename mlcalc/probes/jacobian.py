"""Derivatives of the forces: whole Jacobians of small systems, rows of some atoms, random products of any system.

All by automatic differentiation. Jᵀu is one reverse pass. Jv is the derivative, by u, of Jᵀu·v, which is linear in u:
two reverse passes. A conservative force is itself a derivative, so everything there is one order higher. torch.func is
not used: nested transforms are silently wrong through scripted models.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlcalc.diagnostics.jacobian_asymmetry import ratio
from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted, required
from mlcalc.neighbours import Neighbours, neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

_FEWEST = 8  # pairs that settle whether an asymmetry is round-off


@dataclass(frozen=True)
class ProductSamples:
    """Squared norms from random products, one entry for each probe vector; eV²/Å⁴.

    Attributes
    ----------
    antisymmetric : |Jv − Jᵀv|²/4; its mean estimates ‖(J − Jᵀ)/2‖²
    total : (|Jv|² + |Jᵀv|²)/2; its mean estimates ‖J‖²
    noise_floor : λ that the potential's round-off alone would give
    """

    antisymmetric: Array
    total: Array
    noise_floor: float


@dataclass(frozen=True)
class _Field:
    """A force as a function of position with its graph kept, at one structure."""

    positions: Tensor
    force: Tensor

    @classmethod
    def at(cls, potential: Potential, structure: Structure, neighbours: Neighbours, forces: str) -> _Field:
        flags = {"direct": Wanted.DIRECT, "conservative": Wanted.CONSERVATIVE}
        if forces not in flags:
            raise UsageError(f"forces: got {forces!r}; choose one of {', '.join(flags)}")
        positions = structure.positions.detach().double().requires_grad_()
        result = potential.differentiable(structure.to(dtype=torch.float64).at(positions), neighbours, flags[forces])
        return cls(positions, required(result, f"{forces}_force"))

    def transposed(self, vector: Tensor) -> Tensor:
        """Jᵀu"""
        (product,) = torch.autograd.grad(self.force, self.positions, vector, retain_graph=True)
        return product

    def forward(self, vector: Tensor) -> Tensor:
        """Jv"""
        dummy = torch.zeros_like(self.force, requires_grad=True)
        (linear,) = torch.autograd.grad(self.force, self.positions, dummy, create_graph=True)
        (product,) = torch.autograd.grad(linear, dummy, vector)
        return product


def _field(potential: Potential, structure: Structure, forces: str) -> _Field:
    structure = structure.to(device=potential.device)
    return _Field.at(potential, structure, neighbour_list(structure, potential.cutoff), forces)


def jacobian_rows(
    potential: Potential, structure: Structure, forces: str, atoms: Sequence[int], *, progress: Progress | None = None
) -> Array:
    """J[a, b] = ∂F_a/∂x_b for the three components a of each given atom, (3 len(atoms), 3 n_atoms), eV/Å².

    Parameters
    ----------
    forces : "direct" or "conservative"
    """
    field = _field(potential, structure, forces)
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
        error = rows * _relative_round_off(potential, structure)
    else:
        error = rows - jacobian_rows(copy.deepcopy(potential).double(), structure, forces, [atom])
    others = np.delete(error, [3 * atom, 3 * atom + 1, 3 * atom + 2], axis=1)
    return float(np.sqrt(np.mean(others**2)))


def exact_jacobian(
    potential: Potential, structure: Structure, forces: str, *, progress: Progress | None = None
) -> Array:
    """The whole Jacobian by rows, (3 n_atoms, 3 n_atoms), eV/Å²; 3 n_atoms reverse passes."""
    return jacobian_rows(potential, structure, forces, range(structure.n_atoms), progress=progress)


def sample_products(
    potential: Potential,
    structure: Structure,
    forces: str,
    *,
    relative_error: float = 0.05,
    max_pairs: int = 64,
    min_pairs: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProductSamples:
    """Pairs (Jv, Jᵀv) with random signs v until λ has the wanted relative error or is seen to be round-off.

    Parameters
    ----------
    relative_error : of λ, one standard error
    max_pairs, min_pairs : bounds on the number of pairs

    Raises
    ------
    UsageError
        for forces that the potential does not have, or bounds that are not 1 ≤ min_pairs ≤ max_pairs.
    """
    if not 1 <= min_pairs <= max_pairs:
        raise UsageError(f"min_pairs, max_pairs: got {min_pairs}, {max_pairs}; give 1 ≤ min_pairs ≤ max_pairs")
    field = _field(potential, structure, forces)
    generator = torch.Generator().manual_seed(seed)
    odd, whole = np.empty(max_pairs), np.empty(max_pairs)
    floor = 0.0
    for n in range(max_pairs):
        signs = torch.randint(0, 2, field.force.shape, generator=generator).to(field.positions) * 2 - 1
        forward, backward = field.forward(signs), field.transposed(signs)
        if n == 0:
            floor = _floor(potential, structure, forces, signs, forward, backward)
        odd[n] = float((forward - backward).square().sum()) / 4
        whole[n] = float(forward.square().sum() + backward.square().sum()) / 2
        if progress is not None:
            progress(n + 1, max_pairs)
        value, error = ratio(odd[: n + 1], whole[: n + 1])
        if n + 1 >= min(min_pairs, _FEWEST) and value <= 3 * floor:
            break
        if n + 1 >= min_pairs and error <= relative_error * value:
            break
    return ProductSamples(odd[: n + 1], whole[: n + 1], floor)


def _floor(
    potential: Potential, structure: Structure, forces: str, signs: Tensor, forward: Tensor, backward: Tensor
) -> float:
    """λ of round-off: how far the products of a float64 copy are from these, half their difference over their norm."""
    if potential.dtype == torch.float64 or not isinstance(potential, nn.Module):
        return _relative_round_off(potential, structure)
    precise = _field(copy.deepcopy(potential).double(), structure, forces)
    error = (forward - precise.forward(signs)) - (backward - precise.transposed(signs))
    return float(error.norm() / 2 / forward.norm())


def _relative_round_off(potential: Potential, structure: Structure) -> float:
    return float(torch.finfo(potential.dtype).eps) * structure.n_atoms**0.5
