"""The Jacobian of forces that nothing can differentiate: central differences of force evaluations.

    J v = (F(x + h v) − F(x − h v)) / 2h + O(h²)

Round-off of the force enters as 1/h, the next derivative as h². A single step cannot tell either from an asymmetry, so
some directions are measured at three steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted, required
from mlcalc.neighbours import NeighbourCache
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

#: Å; at it a float32 model of water has as much round-off as curvature
STEP = 0.004


@dataclass(frozen=True)
class SubspaceSamples:
    """J between random directions v_k of independent signs.

    Attributes
    ----------
    products : (n, n), v_jᵀ J v_k, eV/Å²
    total : (n,), |J v_k|², eV²/Å⁴
    step : h, Å
    finer, coarser : (m, m), the products of the first m directions at h/4 and 2h
    """

    products: Array
    total: Array
    step: float
    finer: Array
    coarser: Array


class _Force:
    """The force as a function of displacement, on the CPU in float64."""

    def __init__(self, potential: Potential, structure: Structure, forces: str) -> None:
        flags = {"direct": Wanted.DIRECT, "conservative": Wanted.CONSERVATIVE}
        if forces not in flags:
            raise UsageError(f"forces: got {forces!r}; choose one of {', '.join(flags)}")
        potential.check_wanted(flags[forces])
        self.potential, self.wanted, self.key = potential, flags[forces], f"{forces}_force"
        self.structure = structure.to(device=potential.device, dtype=torch.float64)
        self.neighbours = NeighbourCache(potential.cutoff, 0.2)

    def along(self, direction: Tensor, step: float) -> Tensor:
        """Jv for a direction (n_atoms, 3), by two evaluations."""
        ends = []
        for sign in (1, -1):
            structure = self.structure.at(self.structure.positions + sign * step * direction)
            found = self.potential.evaluate(structure, self.neighbours(structure), self.wanted)
            ends.append(required(found, self.key).double())
        return (ends[0] - ends[1]) / (2 * step)


def sample_subspace(
    potential: Potential,
    structure: Structure,
    forces: str,
    *,
    n_directions: int = 48,
    n_scanned: int = 8,
    step: float = STEP,
    seed: int = 0,
    progress: Progress | None = None,
) -> SubspaceSamples:
    """Products of J with random directions, by 2 n_directions + 4 n_scanned force evaluations.

    Parameters
    ----------
    forces : "direct" or "conservative"
    n_directions : each pair of them is one sample of the asymmetry
    n_scanned : how many of them are measured at two further steps
    step : h, Å

    Raises
    ------
    UsageError
        for forces that the potential does not have, a step that is not above 0, or too few directions.
    """
    if not 2 <= n_scanned <= n_directions:
        raise UsageError(f"n_scanned, n_directions: got {n_scanned}, {n_directions}; give 2 ≤ n_scanned ≤ n_directions")
    if not step > 0:
        raise UsageError(f"step: got {step}; give a length in Å above 0")
    force = _Force(potential, structure, forces)
    generator = torch.Generator().manual_seed(seed)
    shape = (n_directions, *force.structure.positions.shape)
    signs = (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(force.structure.positions)
    total, done = n_directions + 2 * n_scanned, 0

    def products(directions: Tensor, h: float) -> tuple[Array, Array]:
        nonlocal done
        columns = []
        for direction in directions:
            columns.append(force.along(direction, h))
            done += 1
            if progress is not None:
                progress(done, total)
        pushed = torch.stack(columns).flatten(1)
        between = directions.flatten(1) @ pushed.T
        return between.cpu().numpy(), pushed.square().sum(dim=1).cpu().numpy()

    middle, norms = products(signs, step)
    finer, _ = products(signs[:n_scanned], step / 4)
    coarser, _ = products(signs[:n_scanned], 2 * step)
    return SubspaceSamples(middle, norms, step, finer, coarser)


def jacobian_columns(
    potential: Potential,
    structure: Structure,
    forces: str,
    atoms: Sequence[int],
    *,
    step: float = STEP,
    progress: Progress | None = None,
) -> Array:
    """J[a, b] = ∂F_a/∂x_b for the three components b of each given atom, (3 n_atoms, 3 len(atoms)), eV/Å².

    Six force evaluations an atom.
    """
    force = _Force(potential, structure, forces)
    columns = []
    for k, atom in enumerate(atoms):
        for axis in range(3):
            direction = torch.zeros_like(force.structure.positions)
            direction[atom, axis] = 1.0
            columns.append(force.along(direction, step).flatten().cpu().numpy())
        if progress is not None:
            progress(k + 1, len(atoms))
    return np.stack(columns, axis=1)


def element_noise(potential: Potential, structure: Structure, forces: str, atom: int, *, step: float = STEP) -> float:
    """Root-mean-square error of the coupling of one atom to the others, by element of J, eV/Å².

    From columns at half the step: round-off there is twice, curvature a quarter of what it is at the step itself.
    """
    whole, half = (jacobian_columns(potential, structure, forces, [atom], step=h) for h in (step, step / 2))
    others = np.delete(whole - half, [3 * atom, 3 * atom + 1, 3 * atom + 2], axis=0)
    return float(np.sqrt(np.mean(others**2)))
