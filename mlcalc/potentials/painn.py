"""Equivariant vector message passing in the manner of PaiNN, with an energy head and a direct-force head.

Trunk: K. T. Schütt, O. T. Unke, M. Gastegger, ICML 2021, arXiv 2102.03150 (eqs 7-10), with a smooth vector norm and an
envelope with three vanishing derivatives.

Direct head: the gradient of a sum of atomic energies has the form F_i = Σ_j f_ij with f_ji = −f_ij, where f_ij is a
product of features of the two atoms and functions of r_ij (what is left when one message is differentiated). The head
has that form, with features of all layers, so Newton's third law holds exactly and no net force has to be removed:

    f_ij = r̂_ij Σ_c [ W¹ p_i p_j + W² d_ij·r̂_ij + W³ u_i·u_j ]_c + Σ_c [ W⁴ d_ij ]_c,     d_ij = p_j u_i − p_i u_j

It is evaluated once for each pair i < j; an atom's pairs with its own images cancel.

The few nearest pairs carry the stiffest forces, and products of features do not suffice for them. Below `short_cutoff`
a perceptron of both atoms' features, with an envelope, adds

    f_ij = g_ij − g_ji,    g_ij = b_ij r̂_ij + Σ_c a_ij,c u_j,c,    (a, b)_ij = MLP(s_i, s_j, e(r_ij), u_i·r̂, u_j·r̂)

| symbol | variable | what |
|---|---|---|
| s, v | scalars, vectors | features (n_atoms, C), (3, n_atoms, C) |
| φ∘W | gates | neighbour's features times learned radial functions (3, n_edges, C) |
| r̂ | unit | directions (3, n_edges, 1) |
| p, u | charges, arrows | scalars and vectors of an atom in the direct head |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from mlcalc.potentials.autodiff import Graph, sum_over
from mlcalc.potentials.blocks import by_blocks, in_pieces
from mlcalc.potentials.network import Network, Places, perceptron
from mlcalc.potentials.radial import RadialBasis


@dataclass(frozen=True)
class Pairs:
    """The edges that the direct heads read.

    Attributes
    ----------
    once : (n_pairs,), int64, those with centre < neighbour
    short : (n_short,), int64, those below `short_cutoff`; None without that head
    """

    once: Tensor
    short: Tensor | None


class Filter(nn.Module):
    """`n_filters` learned radial functions a channel: basis (n_edges, n_radial) → (n_filters, n_edges, C).

    The filters stand first so that each is contiguous: strided halves of one wide tensor made the products of the
    message twice as slow on a CPU.
    """

    def __init__(self, n_filters: int, n_radial: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_filters, n_radial, channels) / n_radial**0.5)

    def forward(self, basis: Tensor) -> Tensor:
        # matmul would fold the filters into one product when gradients are asked for, and hand on its transpose
        return torch.bmm(basis.expand(len(self.weight), -1, -1), self.weight)


class Message(nn.Module):
    """Features of neighbours, filtered by distance, summed into the centre (PaiNN eqs 7 and 8)."""

    def __init__(self, channels: int, n_radial: int) -> None:
        super().__init__()
        self.mix = perceptron(channels, channels, 3 * channels)
        self.filter = Filter(3, n_radial, channels)

    def forward(
        self, scalars: Tensor, vectors: Tensor | None, basis: Tensor, unit: Tensor, graph: Graph
    ) -> tuple[Tensor, ...]:
        mixed = self.mix(scalars).unflatten(1, (3, -1)).transpose(0, 1)
        neighbours = [mixed] if vectors is None else [mixed, vectors]
        return by_blocks(self.sums, graph, [basis, unit], neighbours, derivative=self.derivative)

    def sums(
        self, centre: Tensor, n_atoms: int, basis: Tensor, unit: Tensor, mixed: Tensor, vectors: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """By centre, of edges with features of their neighbours."""
        gates = mixed * self.filter(basis)
        to_scalars, to_point, to_carry = gates.unbind(0)
        carried = to_point * unit
        if vectors is not None:
            carried = torch.addcmul(carried, to_carry, vectors)
        return (
            sum_over(to_scalars, centre, n_atoms),
            torch.stack([sum_over(component, centre, n_atoms) for component in carried]),
        )

    def derivative(
        self,
        centre: Tensor,
        slopes: Sequence[Tensor],
        basis: Tensor,
        unit: Tensor,
        mixed: Tensor,
        vectors: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Of a scalar by the arguments of `sums`, given those by the sums; without making these once more."""
        by_scalars, by_carried = slopes[0].index_select(0, centre), slopes[1].index_select(1, centre)
        filters = self.filter(basis)
        by_unit = (by_carried * (mixed[1] * filters[1])).sum(dim=2, keepdim=True)
        by_point = (by_carried * unit).sum(dim=0)
        if vectors is None:
            by_gates = torch.stack([by_scalars, by_point, torch.zeros_like(by_point)])
            by_vectors: tuple[Tensor, ...] = ()
        else:
            by_gates = torch.stack([by_scalars, by_point, (by_carried * vectors).sum(dim=0)])
            by_vectors = (by_carried * (mixed[2] * filters[2]),)
        by_basis = torch.bmm(by_gates * mixed, self.filter.weight.transpose(1, 2)).sum(dim=0)
        return by_basis, by_unit, by_gates * filters, *by_vectors


class Update(nn.Module):
    """Scalars and vectors of one atom mix (PaiNN eqs 9 and 10)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.turn = nn.Linear(channels, 2 * channels, bias=False)
        self.mix = perceptron(2 * channels, hidden, 3 * channels)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.turn(vectors).chunk(2, dim=2)
        # |v| has a kink at v = 0; sqrt(1 + |v|²) − 1 does not, and a kink would show in the energy drift
        length = torch.sqrt(1 + right.square().sum(dim=0)) - 1
        keep, inner, gate = self.mix(torch.cat([scalars, length], dim=1)).chunk(3, dim=1)
        return scalars + keep + inner * (left * right).sum(dim=0), vectors + gate * left


class DirectHead(nn.Module):
    """Forces as antisymmetric pair terms of per-atom features; see the module's equation."""

    def __init__(self, channels: int, n_layers: int, pair_channels: int, n_radial: int, hidden: int) -> None:
        super().__init__()
        self.read = perceptron(n_layers * channels, hidden, 2 * pair_channels)
        self.point = nn.Linear(n_layers * channels, pair_channels, bias=False)
        self.filter = Filter(4, n_radial, pair_channels)

    def forward(
        self, scalars: Tensor, vectors: Tensor, basis: Tensor, unit: Tensor, graph: Graph, once: Tensor
    ) -> Tensor:
        charges, gate = self.read(scalars).chunk(2, dim=1)
        arrows = gate * self.point(vectors)
        # a row of (charge, arrow) in one piece: one gather instead of four
        rows = torch.cat([charges.unsqueeze(0), arrows])
        pair = in_pieces(lambda piece: self.pairs(rows, basis, unit, graph, piece), graph, once)
        i, j = graph.centre.index_select(0, once), graph.neighbour.index_select(0, once)
        return sum_over(pair, i, graph.n_atoms) - sum_over(pair, j, graph.n_atoms)

    def pairs(self, rows: Tensor, basis: Tensor, unit: Tensor, graph: Graph, once: Tensor) -> Tensor:
        """f_ij of the edges `once`, (n_once, 3)."""
        i, j = graph.centre.index_select(0, once), graph.neighbour.index_select(0, once)
        rows_i, rows_j = rows.index_select(1, i), rows.index_select(1, j)
        unit, filters = unit.index_select(1, once), self.filter(basis.index_select(0, once))
        difference = torch.addcmul(rows_j[0] * rows_i[1:], rows_i[0], rows_j[1:], value=-1)
        along = torch.addcmul(filters[0] * rows_i[0] * rows_j[0], filters[1], (difference * unit).sum(dim=0))
        along = torch.addcmul(along, filters[2], (rows_i[1:] * rows_j[1:]).sum(dim=0)).sum(dim=1)
        across = (filters[3] * difference).sum(dim=2)
        return (along * unit.squeeze(2) + across).t()


class ShortDirectHead(nn.Module):
    """What a perceptron of both atoms' features adds for the few nearest pairs; see the module's equation."""

    def __init__(self, channels: int, n_layers: int, cutoff: float, n_radial: int, hidden: int, arrows: int) -> None:
        super().__init__()
        self.radial = RadialBasis(n_radial, cutoff)
        self.read = nn.Linear(n_layers * channels, 2 * hidden)
        self.point = nn.Linear(n_layers * channels, arrows, bias=False)
        self.mix = nn.Linear(n_radial + 2 * arrows, hidden, bias=False)
        self.give = nn.Linear(hidden, 1 + arrows)
        nn.init.zeros_(self.give.weight)
        nn.init.zeros_(self.give.bias)

    def forward(
        self, scalars: Tensor, vectors: Tensor, distance: Tensor, unit: Tensor, graph: Graph, short: Tensor
    ) -> Tensor:
        read, arrows = self.read(scalars), self.point(vectors)
        pull = in_pieces(lambda piece: self.pulls(read, arrows, distance, unit, graph, piece), graph, short)
        i, j = graph.centre.index_select(0, short), graph.neighbour.index_select(0, short)
        return sum_over(pull, i, graph.n_atoms) - sum_over(pull, j, graph.n_atoms)

    def pulls(
        self, read: Tensor, arrows: Tensor, distance: Tensor, unit: Tensor, graph: Graph, short: Tensor
    ) -> Tensor:
        """g_ij of the edges `short`, (n_short, 3)."""
        i, j = graph.centre.index_select(0, short), graph.neighbour.index_select(0, short)
        basis, cut = self.radial(distance.index_select(0, short))
        unit = unit.index_select(1, short)
        of_centre, of_neighbour = read.chunk(2, dim=1)
        arrows_j = arrows.index_select(1, j)
        turned = torch.cat([(arrows.index_select(1, i) * unit).sum(dim=0), (arrows_j * unit).sum(dim=0)], dim=1)
        mixed = self.mix(torch.cat([basis, turned], dim=1))
        mixed = silu(mixed + of_centre.index_select(0, i) + of_neighbour.index_select(0, j))
        gates = self.give(mixed) * cut
        return (gates[:, :1] * unit.squeeze(2).t()) + (gates[:, 1:] * arrows_j).sum(dim=2).t()


class PaiNN(Network):
    """PaiNN-like network.

    Parameters
    ----------
    species, cutoff, form, three_body_cutoff, density_cutoff : see `Network`
    channels : C, features per atom
    n_layers : message-passing layers
    n_radial : radial basis functions
    hidden : width of the per-atom perceptrons; the direct head's has twice as many
    pair_channels : channels of the direct head
    short_cutoff : Å, of the direct head's perceptron for the nearest pairs; 0 for none
    """

    architecture = "painn"
    divides = True

    def __init__(
        self,
        species: Sequence[str],
        cutoff: float = 4.5,
        form: str = "M",
        *,
        three_body_cutoff: float = 2.6,
        density_cutoff: float = 0.0,
        channels: int = 64,
        n_layers: int = 3,
        n_radial: int = 16,
        hidden: int = 128,
        pair_channels: int = 64,
        short_cutoff: float = 2.6,
    ) -> None:
        sizes: dict[str, float] = dict(channels=channels, n_layers=n_layers, n_radial=n_radial, hidden=hidden)
        sizes |= dict(pair_channels=pair_channels, short_cutoff=short_cutoff)
        super().__init__(species, cutoff, form, three_body_cutoff, density_cutoff, sizes)
        self.interaction_depth = n_layers
        self.short_cutoff = short_cutoff
        self.embedding = nn.Embedding(len(species), channels)
        self.radial = RadialBasis(n_radial, cutoff)
        self.messages = nn.ModuleList(Message(channels, n_radial) for _ in range(n_layers))
        self.updates = nn.ModuleList(Update(channels, hidden) for _ in range(n_layers))
        self.energy_head = perceptron(channels, hidden, 1)
        if form != "C":
            self.direct_head = DirectHead(channels, n_layers, pair_channels, n_radial, 2 * hidden)
            if short_cutoff:
                self.direct_head_short = ShortDirectHead(
                    channels, n_layers, short_cutoff, n_radial, 2 * pair_channels, pair_channels
                )

    def own_places(self, graph: Graph, distance: Tensor) -> Pairs | None:
        if self.form == "C":
            return None
        short = torch.nonzero(distance < self.short_cutoff).squeeze(1) if self.short_cutoff else None
        return Pairs(torch.nonzero(graph.centre < graph.neighbour).squeeze(1), short)

    def raw_outputs(
        self, graph: Graph, places: Places, *, energy: bool, direct: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        unit, basis, distance = by_blocks(self._geometry, graph, [graph.vectors], to_edges=True)
        scalars, vectors = self.embedding(places.species), None
        every_scalars, every_vectors = [], []
        for message, update in zip(self.messages, self.updates, strict=True):
            more_scalars, more_vectors = message(scalars, vectors, basis, unit, graph)
            vectors = more_vectors if vectors is None else vectors + more_vectors
            scalars, vectors = update(scalars + more_scalars, vectors)
            every_scalars.append(scalars)
            every_vectors.append(vectors)
        energies = self.energy_head(scalars).squeeze(1) if energy else None
        force = None
        if direct:
            with torch.set_grad_enabled(graph.attached):
                features = torch.cat(every_scalars, dim=1), torch.cat(every_vectors, dim=2)
                force = self.direct_head(*features, basis, unit, graph, places.own.once)
                if self.short_cutoff:
                    force = force + self.direct_head_short(*features, distance[:, 0], unit, graph, places.own.short)
        return energies, force

    def _geometry(self, centre: Tensor, n_atoms: int, vectors: Tensor) -> tuple[Tensor, ...]:
        """Directions (3, n_edges, 1), radial functions (n_edges, n_radial) and distances (n_edges, 1)."""
        distance = torch.linalg.vector_norm(vectors, dim=1)
        return (
            (vectors / distance.unsqueeze(1)).t().unsqueeze(2).contiguous(),
            self.radial(distance)[0],
            distance[:, None],
        )


POTENTIAL = PaiNN
