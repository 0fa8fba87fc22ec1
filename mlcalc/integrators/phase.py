"""A point in phase space and the two exact flows that integrators are made of.

A time is a number or, where systems of a batch have their own, a tensor (n_atoms, 1). What belongs to a system (its
kinetic energy, its heat) is a tensor without axes or, in a batch, (n_systems,); nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Which atoms of a phase belong to which system.

    Attributes
    ----------
    sizes : atoms of each system, in the order of the phase
    seeds : of the noise of each system
    device : of the phase
    """

    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    device: torch.device

    @property
    def n_systems(self) -> int:
        return len(self.sizes)

    @cached_property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """First atom of each system, and the one after its last."""
        ends = np.cumsum(self.sizes).tolist()
        return tuple(zip([0, *ends[:-1]], ends, strict=True))

    @cached_property
    def lengths(self) -> Tensor:
        """(n_systems,), int64: `sizes` on the device."""
        return torch.tensor(self.sizes, device=self.device)

    @cached_property
    def system(self) -> Tensor:
        """(n_atoms,), int64: the system of an atom."""
        numbers = torch.arange(self.n_systems).repeat_interleave(torch.tensor(self.sizes))
        return numbers.to(self.device)

    def atoms(self, systems: Sequence[int]) -> Tensor:
        """(n,), int64: the atoms of some systems, one system after the other."""
        return torch.cat([torch.arange(*self.bounds[k]) for k in systems]).to(self.device)

    def select(self, systems: Sequence[int]) -> Batch:
        """The batch of some of the systems."""
        return replace(self, sizes=tuple(self.sizes[k] for k in systems), seeds=tuple(self.seeds[k] for k in systems))


@dataclass(frozen=True)
class Phase:
    """Positions and momenta, and what an ensemble adds to them.

    Attributes
    ----------
    positions : q, (n_atoms, 3), Å
    momenta : p, (n_atoms, 3), amu·Å/time
    masses : m, (n_atoms, 1), amu
    heat : eV, the ledger: what thermostats and a barostat have brought in so far, by system
    own : float64, variables of a thermostat's own; None where it has none. By atom (auxiliary momenta) they are
        (n, n_atoms, 3), by system (chains) (n,) or, in a batch, (n, n_systems)
    cell : h, (3, 3), Å, rows are lattice vectors, on the CPU; None where no barostat moves it
    strain_rate : v, (3, 3), 1/time, symmetric, on the CPU; None as well
    batch : which atom belongs to which system; None where there is one system
    numbers : (n_atoms,), int64, atomic numbers, for baths that tell elements apart; None where nobody gave them
    """

    positions: Tensor
    momenta: Tensor
    masses: Tensor
    heat: float | Tensor = 0.0
    own: Tensor | None = None
    cell: Tensor | None = None
    strain_rate: Tensor | None = None
    batch: Batch | None = None
    numbers: Tensor | None = None

    def select(self, systems: Sequence[int]) -> Phase:
        """The phase of some systems of a batch."""
        assert self.batch is not None
        atoms = self.batch.atoms(systems)
        numbers = torch.tensor(systems, device=atoms.device)
        own, heat = self.own, self.heat
        if own is not None:
            own = own.index_select(1, atoms if own.dim() == 3 else numbers)
        return replace(
            self,
            positions=self.positions[atoms],
            momenta=self.momenta[atoms],
            masses=self.masses[atoms],
            heat=heat[numbers] if isinstance(heat, Tensor) else heat,
            own=own,
            batch=self.batch.select(systems),
            numbers=None if self.numbers is None else self.numbers[atoms],
        )


def kick(phase: Phase, force: Tensor, time: float | Tensor) -> Phase:
    """p ← p + t F; force (n_atoms, 3), eV/Å."""
    return replace(phase, momenta=_after(phase.momenta, force, time))


def drift(phase: Phase, time: float | Tensor) -> Phase:
    """q ← q + t p/m."""
    return replace(phase, positions=_after(phase.positions, phase.momenta / phase.masses, time))


def _after(values: Tensor, rate: Tensor, time: float | Tensor) -> Tensor:
    """values + time · rate, in one operation of the device."""
    if isinstance(time, Tensor):
        return torch.addcmul(values, rate, time)
    return torch.add(values, rate, alpha=time)


def by_system(phase: Phase, values: Tensor) -> Tensor:
    """Sums over the atoms of each system: (n_atoms, 3) → () or, in a batch, (n_systems,).

    The sum of a system is the same bits whatever else is in the batch.
    """
    if phase.batch is None:
        return values.sum()
    # unlike index_add it has one order of summation on every device; unchecked, or it would wait for the device
    return torch.segment_reduce(values.sum(dim=1), "sum", lengths=phase.batch.lengths, unsafe=True)


def by_atom(phase: Phase, values: Tensor) -> Tensor:
    """What each system has, for each of its atoms: () or (n_systems,) → () or (n_atoms, 1)."""
    if phase.batch is None:
        return values
    return values.index_select(0, phase.batch.system)[:, None]


def kinetic_energy(phase: Phase) -> Tensor:
    """Σ p²/2m of each system, eV: () or, in a batch, (n_systems,)."""
    return by_system(phase, phase.momenta.square() / (2 * phase.masses))
