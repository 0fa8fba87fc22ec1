"""The lists that a network reads, made once for a neighbour list and padded to lengths that stay the same.

Lists hold all that may come within their cutoffs while no atom moves farther than skin/2, and are filled up with edges
of an atom to itself that are twice as long as the cutoff. Beyond its cutoff a radial function is zero to the bits, and
so is its derivative (radial.py): what is too long, and what fills up, gives exactly nothing.

What is left of an evaluation is arithmetic on tensors of constant shape, without a question to the processor in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from mlcalc.neighbours import Neighbours
from mlcalc.potentials.autodiff import Graph
from mlcalc.potentials.compiled import tensor_names, tensors_in
from mlcalc.potentials.density_network import DensityPlaces
from mlcalc.potentials.network import Network, Places
from mlcalc.potentials.painn import Pairs
from mlcalc.potentials.pet import TokenPlaces
from mlcalc.potentials.three_body_baseline import TriplePlaces
from mlcalc.structure import Structure

#: Lists whose lengths change as atoms move; all others follow from these
CHANGING = (
    "centre",
    "places.triples.edges",
    "places.triples.first",
    "places.density.near",
    "places.density.slots",
    "places.own.once",
    "places.own.short",
    "places.own.slots",
)


@dataclass(frozen=True)
class Lists:
    """What of an evaluation depends on the neighbour list alone.

    Attributes
    ----------
    centre, neighbour, reverse : see `Graph`
    offset : (n_edges, 3), Å: an edge is r_neighbour − r_centre + offset
    places : of all that may come within the cutoffs
    """

    centre: Tensor
    neighbour: Tensor
    reverse: Tensor | None
    offset: Tensor
    places: Places

    def vectors(self, positions: Tensor) -> Tensor:
        """(n_edges, 3), Å"""
        return positions.index_select(0, self.neighbour) - positions.index_select(0, self.centre) + self.offset


def make_lists(network: Network, structure: Structure, neighbours: Neighbours, skin: float) -> Lists:
    """Not padded yet; valid until an atom has moved by more than skin/2, Å, or the cell has."""
    vectors = neighbours.vectors(structure)
    keep = torch.nonzero(torch.linalg.vector_norm(vectors, dim=1) < network.cutoff + skin).squeeze(1)
    centre, neighbour = neighbours.centre[keep], neighbours.neighbour[keep]
    reverse = None
    if network.needs_reverse:
        renumbered = torch.empty_like(neighbours.centre)
        renumbered[keep] = torch.arange(len(keep), device=keep.device)
        reverse = renumbered[neighbours.reverse[keep]]
    # shorter by the skin, so that what the network takes for its cutoffs are cutoffs and skin
    vectors = vectors[keep].to(network.dtype)
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    shorter = vectors * ((length - skin).clamp(min=1e-3) / length)
    graph = Graph(structure.numbers, centre, neighbour, shorter, reverse, structure.n_atoms, False, structure)
    offset = neighbours.vectors(structure.at(torch.zeros_like(structure.positions)))[keep]
    return Lists(centre, neighbour, reverse, offset, network.places(graph))


def lengths(lists: Lists) -> dict[str, int]:
    """Of those in CHANGING that there are."""
    return {
        name: len(tensor)
        for name, tensor in zip(tensor_names(lists), tensors_in(lists), strict=True)
        if name in CHANGING
    }


def room_for(length: int) -> int:
    """A length above this one by a sixteenth to a fifth; there are sixteen from one power of two to the next."""
    wanted = max(2, length + length // 16 + 1)
    step = 2 ** max(0, wanted.bit_length() - 5)
    return -(-wanted // step) * step


def padded(lists: Lists, room: Mapping[str, int], cutoff: float) -> Lists:
    """Lists of the lengths in `room`, each longer than now."""
    n_atoms, n_edges = len(lists.places.species), len(lists.centre)
    more = torch.arange(n_edges, room["centre"], device=lists.centre.device)
    # spread over the atoms: a GPU adds to one atom after the other, but to many at once
    filler = more % n_atoms
    offset = torch.zeros(len(more), 3, dtype=lists.offset.dtype, device=more.device)
    offset[:, 0] = 2 * cutoff
    places, never = lists.places, n_edges
    return Lists(
        centre=torch.cat([lists.centre, filler]),
        neighbour=torch.cat([lists.neighbour, filler]),
        reverse=None if lists.reverse is None else torch.cat([lists.reverse, more]),
        offset=torch.cat([lists.offset, offset]),
        places=replace(
            places,
            triples=None if places.triples is None else _triples(places.triples, room, never),
            density=None if places.density is None else _density(places.density, room, never),
            own=_own(places.own, room, never, filler),
        ),
    )


def _filled(values: Tensor, length: int, value: int) -> Tensor:
    return torch.cat([values, values.new_full((length - len(values),), value)])


def _triples(places: TriplePlaces, room: Mapping[str, int], never: int) -> TriplePlaces:
    n_triples, last = room["places.triples.first"], len(places.edges)
    return TriplePlaces(
        edges=_filled(places.edges, room["places.triples.edges"], never),
        first=_filled(places.first, n_triples, last),
        second=_filled(places.second, n_triples, last),
        kind=_filled(places.kind, n_triples, 0),
    )


def _density(places: DensityPlaces, room: Mapping[str, int], never: int) -> DensityPlaces:
    n_near, width = room["places.density.near"], room["places.density.slots"]
    return replace(
        places,
        near=_filled(places.near, n_near, never),
        neighbour=_filled(places.neighbour, n_near, 0),
        # all that fills up writes the same to the last slot of the first atom, which no edge takes
        place=_filled(_wider(places.place, len(places.slots), width), n_near, width - 1),
        slots=torch.arange(width, device=places.slots.device),
    )


def _wider(place: Tensor, now: int, width: int) -> Tensor:
    """Flat places in rows of another width."""
    return place // max(1, now) * width + place % max(1, now)


@singledispatch
def _own(places: Any, room: Mapping[str, int], never: int, filler: Tensor) -> Any:
    """What an architecture reads of its own."""
    raise TypeError(f"{type(places).__name__} cannot be padded")


@_own.register
def _(places: None, room: Mapping[str, int], never: int, filler: Tensor) -> None:
    return None


@_own.register
def _(places: Pairs, room: Mapping[str, int], never: int, filler: Tensor) -> Pairs:
    short = None if places.short is None else _filled(places.short, room["places.own.short"], never)
    return Pairs(_filled(places.once, room["places.own.once"], never), short)


@_own.register
def _(places: TokenPlaces, room: Mapping[str, int], never: int, filler: Tensor) -> TokenPlaces:
    # an atom's last slot is taken by no edge; what fills it up is the same however often it is written
    width = room["places.own.slots"]
    place = torch.cat([_wider(places.place, len(places.slots), width), filler * width + width - 1])
    return TokenPlaces(place, torch.arange(width, device=place.device))
