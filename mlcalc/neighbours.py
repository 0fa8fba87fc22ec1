"""Pairs of atoms within a cutoff: vesin behind one function, on CPU and GPU; batches of many systems by cell_list.py.

Every pair appears twice (i→j and j→i), sorted by centre, neighbour and shift: sums over the edges within a cutoff are
the same bits whenever the list was built, so a run that is continued from a frame repeats itself. There is no limit on
the number of neighbours: a limit makes the energy jump when the farthest neighbour changes (Fu et al., arXiv
2502.12147, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
import vesin
from torch import Tensor

from mlcalc.cell_list import half_list
from mlcalc.errors import RunError, UsageError
from mlcalc.structure import Structure

_MANY_SYSTEMS, _FEW_ATOMS = 8, 24  # in a batch, and in each of its systems


@dataclass(frozen=True)
class Neighbours:
    """Edges of a batch of systems.

    Attributes
    ----------
    centre, neighbour : (n_edges,), int64, indices i and j; sorted by centre, neighbour, shift
    shift : (n_edges, 3), int64, S: how many lattice vectors lie between i's cell and the image of j
    cutoff : Å; pairs up to cutoff + skin of the positions that made the list are in it
    """

    centre: Tensor
    neighbour: Tensor
    shift: Tensor
    cutoff: float

    def to(self, device: torch.device | str) -> Neighbours:
        """The same edges on another device."""
        if self.centre.device == torch.device(device):
            return self
        return replace(
            self, centre=self.centre.to(device), neighbour=self.neighbour.to(device), shift=self.shift.to(device)
        )

    @property
    def n_edges(self) -> int:
        return self.centre.shape[0]

    @cached_property
    def reverse(self) -> Tensor:
        """(n_edges,), int64: for each edge i→j the index of j→i."""
        # the edges are in the order of their own keys, so sorting those of the reversed ones tells where each belongs
        order = torch.argsort(_keys(self.neighbour, self.centre, -self.shift))
        reverse = torch.empty_like(order)
        reverse[order] = torch.arange(len(order), device=order.device)
        return reverse

    def vectors(self, structure: Structure) -> Tensor:
        """r_ij = r_j − r_i + S·cell, (n_edges, 3), Å; differentiable in positions and cell."""
        positions, cell = structure.positions, structure.cell
        shift = self.shift.to(positions.dtype)
        if structure.n_systems == 1:
            offset = shift @ cell[0]
        else:
            offset = torch.einsum("es,esx->ex", shift, cell[structure.system[self.centre]])
        # index_select keeps CPU gradients deterministic and is faster than fancy indexing
        return positions.index_select(0, self.neighbour) - positions.index_select(0, self.centre) + offset


def neighbour_list(structure: Structure, cutoff: float, *, skin: float = 0.0) -> Neighbours:
    """All pairs of atoms nearer than `cutoff` + `skin`, in every system of the batch.

    Works for any cell (triclinic, smaller than the cutoff) and any periodicity, on the structure's own device.

    Parameters
    ----------
    cutoff, skin : Å; a cutoff of 0 stands for a potential that finds its own neighbours, and gives no pairs

    Raises
    ------
    UsageError
        if cutoff or skin is negative.
    RunError
        if a position is not finite.
    """
    if not cutoff >= 0:
        raise UsageError(f"cutoff: got {cutoff}; give a distance in Å, 0 or more")
    if not skin >= 0:
        raise UsageError(f"skin: got {skin}; give a distance in Å, 0 or more")
    if not bool(torch.isfinite(structure.positions.detach()).all()):
        raise RunError("positions: not finite; the run has diverged: shorten the timestep or relax the structure first")
    if cutoff == 0:
        none = torch.zeros(0, dtype=torch.int64, device=structure.device)
        return Neighbours(none, none, none.reshape(0, 3), cutoff)
    i, j, shift = (half_list if _at_once(structure) else _by_system)(structure, cutoff + skin)
    # every pair once, then both ways: quicker than letting vesin list both, since the edges are sorted here anyway
    centre, neighbour, shift = torch.cat([i, j]), torch.cat([j, i]), torch.cat([shift, -shift])
    order = torch.argsort(_keys(centre, neighbour, shift))
    centre, neighbour, shift = (column.index_select(0, order) for column in (centre, neighbour, shift))
    return Neighbours(centre, neighbour, shift, cutoff)


def _at_once(structure: Structure) -> bool:
    """Whether to list all systems in one go instead of one by one.

    Where systems have atoms enough vesin is the quicker by far: 64 boxes of 192 atoms take it 155 ms on a CPU, and
    cell_list.py above 1 s; but 1000 molecules of 7 atoms take 231 and 34 ms. On a GPU each call of vesin waits for the
    device.
    """
    small = structure.device.type != "cpu" or structure.n_atoms < _FEW_ATOMS * structure.n_systems
    return small and structure.n_systems >= _MANY_SYSTEMS


def _by_system(structure: Structure, distance: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `half_list`."""
    finder = vesin.NeighborList(cutoff=distance, full_list=False, sorted=False)
    positions, cells = structure.positions.detach().double(), structure.cell.detach().double()
    parts, start = [], 0
    for k, count in enumerate(structure.atoms_per_system.tolist()):
        points = positions[start : start + count]
        i, j, shift = finder.compute(points=points, box=cells[k], periodic=structure.periodic[k], quantities="ijS")
        parts.append((i.long() + start, j.long() + start, shift.long()))
        start += count
    i, j, shift = (torch.cat(column) for column in zip(*parts, strict=True))
    return i, j, shift


def _keys(i: Tensor, j: Tensor, shift: Tensor) -> Tensor:
    """(n_edges,), int64, in the order of (i, j, S); shifts must come in opposite pairs."""
    if not len(i):
        return i
    n, most = int(i.max()) + 1, int(shift.max())
    s = shift + most
    span = 2 * most + 1
    return (((i * n + j) * span + s[:, 0]) * span + s[:, 1]) * span + s[:, 2]


class NeighbourCache:
    """Neighbour lists with a skin: rebuilt when an atom has moved more than skin/2 since the last build.

    A cell that moves takes its atoms along, r → r F, and shortens no distance to less than σ times itself, σ the least
    singular value of F and not below 1 − |F − 1|: what an atom moves beyond that may be up to
    (σ (cutoff + skin) − cutoff)/2.

    Moves are measured on the positions as they are, never wrapped: an engine that wraps atoms into the cell between
    calls moves them by a lattice vector, and that too triggers a rebuild (as it must, the shifts are stale).

    Every call tests every atom, so no list is used too long, whatever moves the atoms. The test is made on the device,
    in each system of a batch with its own cell, and its answer is the one thing that is waited for. A batch is rebuilt
    as a whole: its systems come to their limits at different steps, and to put in the new edges of a few would copy all
    others' at almost every step.

    Parameters
    ----------
    cutoff, skin : Å
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self.n_builds = 0
        self._made_for: Structure | None = None
        self._cell: tuple[Tensor, int] | None = None
        self._neighbours: Neighbours | None = None

    def __call__(self, structure: Structure) -> Neighbours:
        """Neighbours that hold at least all pairs within the cutoff of these positions."""
        if self._neighbours is None or self._stale(structure):
            self._neighbours = neighbour_list(structure, self.cutoff, skin=self.skin)
            self._made_for = structure.at(structure.positions.detach().clone(), structure.cell.detach().clone())
            self._cell = structure.cell, structure.cell._version
            self.n_builds += 1
        return self._neighbours

    def _stale(self, structure: Structure) -> bool:
        old = self._made_for
        assert old is not None
        was, now = ((one.positions.shape, one.cell.shape, one.device) for one in (old, structure))
        if was != now:
            return True
        if _known_equal(self._cell, old.cell, structure.cell):
            moves, limit = structure.positions.detach() - old.positions, 0.5 * self.skin
            fresh = moves.square().sum(dim=1).max() <= limit**2
        else:
            moves, limits = self._beside_the_cells(old, structure)
            fresh = (moves.square().sum(dim=1) <= (limits * limits.abs()).index_select(0, old.system)).all()
        # both written so that not-a-number counts as too far, and the rebuild refuses it
        for before, here in ((old.periodic, structure.periodic), (old.system, structure.system)):
            if before is not here:
                fresh = fresh & (before == here).all()
        return not bool(fresh)

    def _beside_the_cells(self, old: Structure, structure: Structure) -> tuple[Tensor, Tensor]:
        """Moves beyond those of the cells, (n_atoms, 3), Å, and how far each system's may go, (n_systems,), Å."""
        before, now = old.cell.double(), structure.cell.detach().double()
        same = (before == now).flatten(1).all(dim=1)
        one = torch.eye(3, dtype=before.dtype, device=before.device)
        # a system without a cell has no inverse: should it get a cell, the limit is not a number
        strain = torch.where(same.view(-1, 1, 1), one, torch.linalg.solve_ex(before, now).result)
        shortest = 1 - torch.linalg.matrix_norm(strain - one)
        limits = 0.5 * torch.where(same, self.skin, shortest * (self.cutoff + self.skin) - self.cutoff)
        carried = torch.einsum("ax,axy->ay", old.positions.double(), strain.index_select(0, old.system))
        return structure.positions.detach() - carried, limits


def _known_equal(seen: tuple[Tensor, int] | None, before: Tensor, now: Tensor) -> bool:
    """Whether cells are as before, as far as that can be told without waiting for a device.

    Parameters
    ----------
    seen : the tensor that `before` was copied from, and its version then
    """
    if now.device.type == "cpu":
        return torch.equal(before, now)
    return seen is not None and seen[0] is now and seen[1] == now._version
