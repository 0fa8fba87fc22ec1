"""Pairs of atoms within a distance, in all systems of a batch at once: linked cells in torch, on any device.

Each system is divided into bins no narrower than the distance r (R. W. Hockney, J. W. Eastwood, Computer Simulation
Using Particles, 1981, chapter 8; a system narrower than r is one bin, seen with as many of its images as r reaches).
Atoms are sorted by bin, and only atoms of bins next to each other are compared. Empty bins take neither time nor
memory, and the pairs compared are taken some at a time: both grow with the number of atoms alone.

Along directions that are not periodic lattice vectors stand for nothing: unit vectors orthogonal to the others replace
them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from mlcalc.structure import Structure

_PAIRS_AT_ONCE = {"cpu": 2**18, "cuda": 2**24}  # to be compared
_MOST_BINS = 2**15  # along a direction, so that the number of a bin fits into 64 bits


@dataclass(frozen=True)
class _Grid:
    """Bins of all systems.

    Attributes
    ----------
    cell : (n_systems, 3, 3), Å, with no direction missing
    turns : (n_atoms, 3), int64, lattice vectors between an atom and its image in the cell
    positions : (n_atoms, 3), Å, of these images
    place : (n_atoms, 3), int64, the bin of each atom along the three directions
    n_bins, reach : (n_systems, 3), int64, how many bins, and how many of them r reaches over
    periodic : (n_systems, 3), bool
    """

    cell: Tensor
    turns: Tensor
    positions: Tensor
    place: Tensor
    n_bins: Tensor
    reach: Tensor
    periodic: Tensor


def half_list(structure: Structure, distance: float) -> tuple[Tensor, Tensor, Tensor]:
    """i, j, shift of all pairs nearer than `distance`, each once, in no order.

    Parameters
    ----------
    structure : all positions finite
    distance : Å, above 0
    """
    grid = _grid(structure, distance)
    number = _number(structure.system, grid.place, grid.n_bins)
    order = torch.argsort(number)
    bins, counts = torch.unique_consecutive(number[order], return_counts=True)
    start = counts.cumsum(0) - counts
    first, second, image = _adjacent(structure.system, grid, order[start], bins)
    n_pairs = counts[first] * counts[second]
    before = n_pairs.cumsum(0) - n_pairs
    found = []
    for piece in _pieces(n_pairs, structure.device):
        pair = piece.repeat_interleave(n_pairs[piece])
        rank = torch.arange(len(pair), device=pair.device) + before[piece[:1]] - before[pair]
        width = counts[second[pair]]
        i, j = order[start[first[pair]] + rank // width], order[start[second[pair]] + rank % width]
        shift = image[pair]
        vectors = grid.positions[j] - grid.positions[i]
        vectors = vectors + torch.einsum("pk,pkx->px", shift.double(), grid.cell[structure.system[i]])
        # a bin with itself has each pair twice
        once = (i < j) | (first[pair] != second[pair]) | (shift != 0).any(dim=1)
        near = torch.nonzero(once & (vectors.square().sum(dim=1) < distance**2)).squeeze(1)
        i, j = i[near], j[near]
        found.append((i, j, shift[near] + grid.turns[i] - grid.turns[j]))
    i, j, shift = (torch.cat(column) for column in zip(*found, strict=True))
    return i, j, shift


def _grid(structure: Structure, distance: float) -> _Grid:
    positions, system, periodic = structure.positions.detach().double(), structure.system, structure.periodic
    # a few numbers a system, quicker without a GPU
    whole = _completed(structure.cell.detach().cpu().double(), periodic.cpu())
    cell, inverse = whole.to(positions.device), torch.linalg.inv(whole).to(positions.device)
    fractional = torch.einsum("ax,axk->ak", positions, inverse[system])
    turns = torch.where(periodic[system], fractional.floor(), 0.0)
    fractional = fractional - turns
    height = 1 / torch.linalg.vector_norm(inverse, dim=1)
    infinite = torch.full_like(height, torch.inf)
    index = system[:, None].expand(-1, 3)
    lowest = infinite.scatter_reduce(0, index, fractional, "amin")
    highest = (-infinite).scatter_reduce(0, index, fractional, "amax")
    # a direction without period has a lattice vector of 1 Å: along it fractions are lengths
    lowest = torch.where(periodic, 0.0, lowest)
    extent = torch.where(periodic, 1.0, (highest - lowest).clamp(min=1e-6) * 1.000001)
    n_bins = (extent * height / distance).floor().clamp(1, _MOST_BINS)
    place = ((fractional - lowest[system]) * (n_bins / extent)[system]).long()
    place = torch.minimum(place.clamp(min=0), n_bins.long()[system] - 1)
    reach = torch.where(periodic, (distance * n_bins / height).ceil(), 1.0).long()
    turns = turns.long()
    images = positions - torch.einsum("ak,akx->ax", turns.double(), cell[system])
    return _Grid(cell, turns, images, place, n_bins.long(), reach, periodic)


def _completed(cell: Tensor, periodic: Tensor) -> Tensor:
    """Lattice vectors where a system is periodic, elsewhere unit vectors orthogonal to all others."""
    cell = torch.where(periodic[:, :, None], cell, 0.0)
    axes = torch.eye(3, dtype=cell.dtype, device=cell.device).expand_as(cell)
    for k in range(3):
        # what the rows so far span; pinv takes a missing row for none
        outside = axes - torch.linalg.pinv(cell) @ cell
        longest = torch.linalg.vector_norm(outside, dim=2).argmax(dim=1)
        unit = torch.nn.functional.normalize(outside[torch.arange(len(cell), device=cell.device), longest], dim=1)
        row = torch.where(periodic[:, k, None], cell[:, k], unit)
        cell = torch.cat([cell[:, :k], row[:, None], cell[:, k + 1 :]], dim=1)
    return cell


def _number(system: Tensor, place: Tensor, n_bins: Tensor) -> Tensor:
    """Of the bin at a place of a system, ascending by system: one number for all bins of the batch."""
    most = n_bins.amax(dim=0)
    return ((system * most[0] + place[:, 0]) * most[1] + place[:, 1]) * most[2] + place[:, 2]


def _adjacent(system: Tensor, grid: _Grid, members: Tensor, bins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of bins that hold atoms, each once, as places in `bins`, and the lattice vectors between them.

    Parameters
    ----------
    members : (n_bins,), int64, an atom of each bin
    bins : (n_bins,), int64, ascending, their numbers
    """
    system, place = system[members], grid.place[members]
    n_bins, reach = grid.n_bins[system], grid.reach[system]
    farthest = grid.reach.amax(dim=0).tolist()
    found = []
    for step in itertools.product(*(range(-most, most + 1) for most in farthest)):
        if step < (0, 0, 0):
            continue  # it is the reverse of another
        offset = torch.tensor(step, device=bins.device)
        there = place + offset
        image = torch.div(there, n_bins, rounding_mode="floor")
        there = there - image * n_bins
        number = _number(system, there, grid.n_bins)
        second = torch.searchsorted(bins, number).clamp(max=len(bins) - 1)
        allowed = (offset.abs() <= reach).all(dim=1) & ((image == 0) | grid.periodic[system]).all(dim=1)
        first = torch.nonzero(allowed & (bins[second] == number)).squeeze(1)
        found.append((first, second[first], image[first]))
    first, second, image = (torch.cat(column) for column in zip(*found, strict=True))
    return first, second, image


def _pieces(work: Tensor, device: torch.device) -> list[Tensor]:
    """Runs of places, each with about as much work as is taken at once."""
    at_once = _PAIRS_AT_ONCE.get(device.type, _PAIRS_AT_ONCE["cuda"])
    ends = work.cumsum(0)
    marks = torch.arange(1, 1 + int(ends[-1]) // at_once, device=device) * at_once
    cuts = [0, *torch.searchsorted(ends, marks).tolist(), len(ends)]
    places = torch.arange(len(ends), device=device)
    return [places[low:high] for low, high in zip(cuts[:-1], cuts[1:], strict=True) if high > low]
