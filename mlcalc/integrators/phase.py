"""A point in phase space and the two exact flows that integrators are made of.

A time is a number or, where systems of a batch have their own, a tensor (n_atoms, 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Phase:
    """Positions and momenta, and what an ensemble adds to them.

    Attributes
    ----------
    positions : q, (n_atoms, 3), Å
    momenta : p, (n_atoms, 3), amu·Å/time
    masses : m, (n_atoms, 1), amu
    heat : eV, the ledger: what thermostats and a barostat have brought in so far
    own : (n, …), float64, variables of a thermostat's own (chains, auxiliary momenta); None where it has none
    cell : h, (3, 3), Å, rows are lattice vectors, on the CPU; None where no barostat moves it
    strain_rate : v, (3, 3), 1/time, symmetric, on the CPU; None as well
    numbers : (n_atoms,), int64, atomic numbers, for baths that tell elements apart; None where nobody gave them
    """

    positions: Tensor
    momenta: Tensor
    masses: Tensor
    heat: float = 0.0
    own: Tensor | None = None
    cell: Tensor | None = None
    strain_rate: Tensor | None = None
    numbers: Tensor | None = None


def kick(phase: Phase, force: Tensor, time: float | Tensor) -> Phase:
    """p ← p + t F; force (n_atoms, 3), eV/Å."""
    return replace(phase, momenta=phase.momenta + time * force)


def drift(phase: Phase, time: float | Tensor) -> Phase:
    """q ← q + t p/m."""
    return replace(phase, positions=phase.positions + time * phase.momenta / phase.masses)


def kinetic_energy(phase: Phase) -> float:
    """Σ p²/2m, eV."""
    return float((phase.momenta.square() / (2 * phase.masses)).sum())
