"""Atoms in cells: one system, or many in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import ase
import numpy as np
import torch
from torch import Tensor

from mlcalc.errors import UsageError

SHORTEST_DISTANCE = 0.2  # Å; closer pairs are a broken file, not chemistry (H2 at 0.74 Å is the shortest bond)


@dataclass(frozen=True)
class Structure:
    """One or many systems of atoms, on one device.

    Attributes
    ----------
    positions : (n_atoms, 3), Å, any floating dtype
    numbers : (n_atoms,), int64, atomic numbers
    cell : (n_systems, 3, 3), Å, rows are lattice vectors; zeros where a system has none
    periodic : (n_systems, 3), bool
    masses : (n_atoms,), amu
    system : (n_atoms,), int64, which system an atom belongs to; sorted, from 0
    """

    positions: Tensor
    numbers: Tensor
    cell: Tensor
    periodic: Tensor
    masses: Tensor
    system: Tensor

    @property
    def n_atoms(self) -> int:
        return self.positions.shape[0]

    @property
    def n_systems(self) -> int:
        return self.cell.shape[0]

    @property
    def device(self) -> torch.device:
        return self.positions.device

    @property
    def dtype(self) -> torch.dtype:
        return self.positions.dtype

    @property
    def atoms_per_system(self) -> Tensor:
        """(n_systems,), int64"""
        return torch.bincount(self.system, minlength=self.n_systems)

    @classmethod
    def from_ase(
        cls,
        atoms: ase.Atoms | Sequence[ase.Atoms],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> Structure:
        """A Structure from one `ase.Atoms` or a sequence of them (which becomes one batch).

        Raises
        ------
        UsageError
            if there is no atom, or a position, cell or mass is not a finite number.
        """
        systems = [atoms] if isinstance(atoms, ase.Atoms) else list(atoms)
        if not systems or any(len(system) == 0 for system in systems):
            raise UsageError("structure: it has no atoms; give at least one atom in each system")
        for system in systems:
            check_atoms(system)

        def tensor(parts: list[np.ndarray], kind: torch.dtype) -> Tensor:
            return torch.as_tensor(np.concatenate(parts), dtype=kind, device=device)

        return cls(
            positions=tensor([system.positions for system in systems], dtype),
            numbers=tensor([system.numbers for system in systems], torch.int64),
            cell=tensor([system.cell.array[None] for system in systems], dtype),
            periodic=tensor([np.asarray(system.pbc)[None] for system in systems], torch.bool),
            masses=tensor([system.get_masses() for system in systems], dtype),
            system=tensor([np.full(len(system), k) for k, system in enumerate(systems)], torch.int64),
        )

    def to_ase(self) -> list[ase.Atoms]:
        """One `ase.Atoms` for each system."""
        bounds = np.concatenate([[0], np.cumsum(self.atoms_per_system.cpu().numpy())])
        frames = []
        for k, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            frames.append(
                ase.Atoms(
                    numbers=self.numbers[start:stop].cpu().numpy(),
                    positions=self.positions[start:stop].detach().cpu().double().numpy(),
                    cell=self.cell[k].detach().cpu().double().numpy(),
                    pbc=self.periodic[k].cpu().numpy(),
                    masses=self.masses[start:stop].cpu().double().numpy(),
                )
            )
        return frames

    def at(self, positions: Tensor, cell: Tensor | None = None) -> Structure:
        """The same atoms elsewhere; positions (n_atoms, 3), Å; cell (n_systems, 3, 3), Å, if it is another."""
        return replace(self, positions=positions, cell=self.cell if cell is None else cell.to(self.cell))

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Structure:
        """The same structure on another device or in another floating dtype."""
        return Structure(
            positions=self.positions.to(device=device, dtype=dtype),
            numbers=self.numbers.to(device=device),
            cell=self.cell.to(device=device, dtype=dtype),
            periodic=self.periodic.to(device=device),
            masses=self.masses.to(device=device, dtype=dtype),
            system=self.system.to(device=device),
        )

    def replicated(self, copies: int) -> Structure:
        """`copies` independent replicas of every system, as one batch."""
        if copies < 1:
            raise UsageError(f"copies: got {copies}; give 1 or more")
        shift = self.n_systems * torch.arange(copies, device=self.device).repeat_interleave(self.n_atoms)
        return Structure(
            positions=self.positions.repeat(copies, 1),
            numbers=self.numbers.repeat(copies),
            cell=self.cell.repeat(copies, 1, 1),
            periodic=self.periodic.repeat(copies, 1),
            masses=self.masses.repeat(copies),
            system=self.system.repeat(copies) + shift,
        )

    def select(self, systems: Sequence[int]) -> Structure:
        """Some systems of the batch, in this order.

        Raises
        ------
        UsageError
            for a number that no system has, or for none.
        """
        if not systems or not all(0 <= k < self.n_systems for k in systems):
            raise UsageError(f"systems: got {list(systems)}; give numbers from 0 to {self.n_systems - 1}, one or more")
        bounds = [0, *self.atoms_per_system.cumsum(0).tolist()]
        atoms = torch.cat([torch.arange(bounds[k], bounds[k + 1]) for k in systems]).to(self.device)
        chosen = torch.tensor(systems, device=self.device)
        sizes = torch.tensor([bounds[k + 1] - bounds[k] for k in systems])
        return Structure(
            positions=self.positions[atoms],
            numbers=self.numbers[atoms],
            cell=self.cell[chosen],
            periodic=self.periodic[chosen],
            masses=self.masses[atoms],
            system=torch.arange(len(systems)).repeat_interleave(sizes).to(self.device),
        )


def check_atoms(atoms: ase.Atoms) -> None:
    """Refuse what no potential can evaluate: non-finite positions or cell, flat periodic cells, coinciding atoms.

    Raises
    ------
    UsageError
        naming the first atom (or the pair of atoms) at fault.
    """
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if bad.size:
        raise UsageError(f"structure: atom {bad[0]} has position {atoms.positions[bad[0]]}; positions must be finite")
    if not np.isfinite(atoms.cell.array).all():
        raise UsageError("structure: the cell is not finite; give three finite lattice vectors in Å")
    if (atoms.get_masses() <= 0).any() or not np.isfinite(atoms.get_masses()).all():
        raise UsageError("structure: a mass is zero, negative or not finite; give masses in amu above 0")
    completed = atoms.cell.complete().array
    if atoms.pbc.any() and abs(np.linalg.det(completed)) < 1e-6:
        raise UsageError("structure: the periodic cell has no volume; give lattice vectors that span space, in Å")
    if any(np.linalg.norm(vector) < 1e-6 for vector in atoms.cell.array[np.asarray(atoms.pbc)]):
        raise UsageError(
            "structure: periodic along a lattice vector of length 0; set pbc=False there or give the vector"
        )


def check_overlap(structure: Structure, vectors: Tensor, centre: Tensor, neighbour: Tensor) -> None:
    """Refuse atoms on top of each other; vectors (n_edges, 3), Å, of the edges centre → neighbour.

    Raises
    ------
    UsageError
        naming the closest pair, if it is nearer than 0.2 Å.
    """
    if vectors.numel() == 0:
        return
    squared, edge = vectors.square().sum(dim=1).min(dim=0)
    shortest = float(squared) ** 0.5
    if shortest < SHORTEST_DISTANCE:
        i, j = int(centre[edge]), int(neighbour[edge])
        raise UsageError(
            f"structure: atoms {i} and {j} are {shortest:.3f} Å apart; "
            f"atoms nearer than {SHORTEST_DISTANCE} Å are taken for an error: remove one of them or check the cell"
        )
