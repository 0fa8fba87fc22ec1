"""A point in phase space and the two exact flows that integrators are made of.

A time is a number or, where systems of a batch have their own, a tensor (n_atoms, 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Phase:
    """Positions and momenta.

    Attributes
    ----------
    positions : q, (n_atoms, 3), Å
    momenta : p, (n_atoms, 3), amu·Å/time
    masses : m, (n_atoms, 1), amu
    """

    positions: Tensor
    momenta: Tensor
    masses: Tensor


def kick(phase: Phase, force: Tensor, time: float | Tensor) -> Phase:
    """p ← p + t F; force (n_atoms, 3), eV/Å."""
    return replace(phase, momenta=phase.momenta + time * force)


def drift(phase: Phase, time: float | Tensor) -> Phase:
    """q ← q + t p/m."""
    return replace(phase, positions=phase.positions + time * phase.momenta / phase.masses)
