"""Pairs of atoms within a cutoff: vesin behind one function, on CPU and GPU.

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

from mlcalc.errors import RunError, UsageError
from mlcalc.structure import Structure


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
    positions = structure.positions.detach().double()
    if not bool(torch.isfinite(positions).all()):
        raise RunError("positions: not finite; the run has diverged: shorten the timestep or relax the structure first")
    if cutoff == 0:
        none = torch.zeros(0, dtype=torch.int64, device=structure.device)
        return Neighbours(none, none, none.reshape(0, 3), cutoff)
    # every pair once, then both ways: quicker than letting vesin list both, since the edges are sorted here anyway
    finder = vesin.NeighborList(cutoff=cutoff + skin, full_list=False, sorted=False)
    counts = structure.atoms_per_system.tolist()
    parts, start = [], 0
    for k, count in enumerate(counts):
        i, j, shift = finder.compute(
            points=positions[start : start + count],
            box=structure.cell[k].detach().double(),
            periodic=structure.periodic[k],
            quantities="ijS",
        )
        i, j, shift = i.long() + start, j.long() + start, shift.long()
        parts += [(i, j, shift), (j, i, -shift)]
        start += count
    centre, neighbour, shift = (torch.cat(column) for column in zip(*parts, strict=True))
    order = torch.argsort(_keys(centre, neighbour, shift))
    centre, neighbour, shift = (column.index_select(0, order) for column in (centre, neighbour, shift))
    return Neighbours(centre, neighbour, shift, cutoff)


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
    singular value of F: what an atom moves beyond that may be up to (σ (cutoff + skin) − cutoff)/2.

    Moves are measured on the positions as they are, never wrapped: an engine that wraps atoms into the cell between
    calls moves them by a lattice vector, and that too triggers a rebuild (as it must, the shifts are stale).

    Parameters
    ----------
    cutoff, skin : Å
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self.n_builds = 0
        self._made_for: Structure | None = None
        self._neighbours: Neighbours | None = None

    def __call__(self, structure: Structure) -> Neighbours:
        """Neighbours that hold at least all pairs within the cutoff of these positions."""
        if self._neighbours is None or self._stale(structure):
            self._neighbours = neighbour_list(structure, self.cutoff, skin=self.skin)
            self._made_for = structure.at(structure.positions.detach().clone(), structure.cell.detach().clone())
            self.n_builds += 1
        return self._neighbours

    def _stale(self, structure: Structure) -> bool:
        old = self._made_for
        assert old is not None
        if old.positions.shape != structure.positions.shape or old.device != structure.device:
            return True
        same_frame = torch.equal(old.periodic, structure.periodic) and torch.equal(old.system, structure.system)
        return not (same_frame and self._within(old, structure))

    def _within(self, old: Structure, structure: Structure) -> bool:
        positions, carried, slack = structure.positions.detach(), old.positions, self.skin
        if not torch.equal(old.cell, structure.cell):
            before, now = (cell[0].detach().cpu().double() for cell in (old.cell, structure.cell))
            if structure.n_systems > 1 or not bool(torch.linalg.det(before) != 0):
                return False
            strain = torch.linalg.solve(before, now)
            carried = carried @ strain.to(carried)
            shortest = float(torch.linalg.svdvals(strain)[-1])
            slack = shortest * (self.cutoff + self.skin) - self.cutoff
        if not slack >= 0:
            return False
        # written so that not-a-number counts as too far, and the rebuild refuses it
        return bool((positions - carried).square().sum(dim=1).max() <= (slack / 2) ** 2)
