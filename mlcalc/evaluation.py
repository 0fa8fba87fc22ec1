"""What is asked of a potential, what it answers, and the one place where the slow force is made."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mlcalc.errors import UsageError


class Wanted(enum.Flag):
    """What an evaluation shall fill. ENERGY and VIRIAL include energies and virials by atom, where they are known."""

    ENERGY = enum.auto()
    CONSERVATIVE = enum.auto()
    DIRECT = enum.auto()
    VIRIAL = enum.auto()


#: Energy and both forces: what a joint step of multiple time stepping wants
JOINT = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.DIRECT


@dataclass(frozen=True)
class Evaluation:
    """The answer of a potential; what was not wanted is None.

    Attributes
    ----------
    energy : (n_systems,), eV
    energies : (n_atoms,), eV
    conservative_force : (n_atoms, 3), eV/Å, minus the gradient of the energy
    direct_force : (n_atoms, 3), eV/Å, from a head of its own
    virial : (n_systems, 3, 3), eV, −dE/dstrain
    virials : (n_atoms, 3, 3), eV, by atom: half of an edge's part to either end; their sum is `virial`
    """

    energy: Tensor | None = None
    energies: Tensor | None = None
    conservative_force: Tensor | None = None
    direct_force: Tensor | None = None
    virial: Tensor | None = None
    virials: Tensor | None = None

    def to(self, device: torch.device | str) -> Evaluation:
        """The same answer on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Evaluation(**{name: None if value is None else value.to(device) for name, value in values.items()})


def required(evaluation: Evaluation, name: str) -> Tensor:
    """The named quantity of an evaluation.

    Raises
    ------
    UsageError
        if the evaluation was made without it.
    """
    value = getattr(evaluation, name)
    if value is None:
        raise UsageError(f"evaluation: {name} was not computed; ask for it in `wanted`")
    return value


def split_forces(evaluation: Evaluation) -> tuple[Tensor, Tensor]:
    """(slow, fast) forces of multiple time stepping, each (n_atoms, 3), eV/Å.

    fast = direct, slow = conservative − direct, so that their sum is the conservative force
    (Bigi, Langer, Ceriotti, arXiv 2412.11569, section 4).
    """
    conservative = required(evaluation, "conservative_force")
    fast = required(evaluation, "direct_force")
    return conservative - fast, fast


def remove_net_force(force: Tensor, system: Tensor, n_systems: int) -> Tensor:
    """The force less its mean over each system's atoms; (n_atoms, 3), eV/Å.

    The policy for direct forces that do not sum to zero: without it the centre of mass accelerates. It couples all
    atoms (it adds −1/n_atoms to every block of the Jacobian), so potentials whose heads obey Newton's third law by
    construction should not use it.
    """
    totals = torch.zeros(n_systems, 3, dtype=force.dtype, device=force.device).index_add(0, system, force)
    counts = torch.bincount(system, minlength=n_systems).to(force.dtype)
    return force - (totals / counts[:, None])[system]
