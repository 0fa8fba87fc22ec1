"""Point Edge Transformer: a transformer over the neighbour edges of each atom, with energy and direct-force heads.

S. N. Pozdnyakov, M. Ceriotti, NeurIPS 2023, arXiv 2305.19302. Every edge i→j carries a token, every atom its own.
In each layer the tokens of one atom attend to one another, then each edge exchanges its token with its reverse j→i. The
network is not constrained to rotate with its input: it is trained with random rotations.

Smoothness (Fu et al., arXiv 2502.12147): attention to an edge is weighed by its envelope u_ij,

    a_ik = u_ik exp(q_i·k_k) / Σ_k u_ik exp(q_i·k_k),       u = 1 for the atom's own token,

so an edge fades out of the softmax at the cutoff, and outputs of an edge carry the factor u_ij.

Direct head: F_i = Σ_j (m_ij − m_ji), m_ij = u_ij (a_ij r̂_ij + b_ij) with a, b from the edge's token: the form of a
gradient, with Newton's third law built in.

| symbol | variable | what |
|---|---|---|
| tokens | tokens | (n_atoms + n_edges, d): atoms first, then edges |
| u | presence | (n_atoms, n_slots): envelope of what sits in each slot, 0 where empty |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlcalc.potentials.autodiff import Graph, sum_over
from mlcalc.potentials.network import Network, Places, perceptron
from mlcalc.potentials.radial import RadialBasis


@dataclass(frozen=True)
class TokenPlaces:
    """Where the tokens of one atom sit side by side, padded to the largest number of neighbours.

    Attributes
    ----------
    place : (n_atoms + n_edges,), int64, the flat slot of every token; slot 0 of an atom is its own token
    slots : (n_slots,), int64, 0, 1, …
    """

    place: Tensor
    slots: Tensor

    @classmethod
    def of(cls, graph: Graph) -> TokenPlaces:
        counts = torch.bincount(graph.centre, minlength=graph.n_atoms)
        width = 1 + (int(counts.max()) if graph.n_atoms else 0)
        first = torch.cumsum(counts, 0) - counts
        rank = torch.arange(len(graph.centre), device=counts.device) - first[graph.centre]
        atoms = torch.arange(graph.n_atoms, device=counts.device)
        place = torch.cat([atoms * width, graph.centre * width + 1 + rank])
        return cls(place, torch.arange(width, device=counts.device))


@dataclass(frozen=True)
class Slots:
    """The places, and how far each slot is taken.

    Attributes
    ----------
    place : see `TokenPlaces`
    presence : (n_atoms, n_slots)
    """

    place: Tensor
    presence: Tensor

    @classmethod
    def of(cls, places: TokenPlaces, cut: Tensor, n_atoms: int) -> Slots:
        width = places.slots.shape[0]
        ones = torch.ones(n_atoms, 1, dtype=cut.dtype, device=cut.device)
        flat = torch.zeros(n_atoms * width, 1, dtype=cut.dtype, device=cut.device)
        present = flat.index_copy(0, places.place, torch.cat([ones, cut])).view(n_atoms, width)
        return cls(places.place, present)

    def spread(self, tokens: Tensor) -> Tensor:
        """(n_tokens, d) → (n_atoms, n_slots, d), zeros in empty slots."""
        n_atoms, width = self.presence.shape
        flat = torch.zeros(n_atoms * width, tokens.shape[1], dtype=tokens.dtype, device=tokens.device)
        return flat.index_copy(0, self.place, tokens).view(n_atoms, width, -1)

    def collect(self, dense: Tensor) -> Tensor:
        """(n_atoms, n_slots, d) → (n_tokens, d)"""
        return dense.flatten(0, 1).index_select(0, self.place)


class Attention(nn.Module):
    """Tokens of one atom attend to one another, each present as far as its envelope says."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, slots: Slots) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for part in slots.spread(self.project(tokens)).chunk(3, dim=2)
        )
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
        # the largest score is subtracted for the exponential's sake; it cancels, so its gradient is not needed
        weights = torch.exp(scores - scores.detach().amax(dim=3, keepdim=True)) * slots.presence[:, None, None, :]
        weights = weights / weights.sum(dim=3, keepdim=True)
        return self.out(slots.collect((weights @ value).transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """Attention, a perceptron, and the exchange between an edge and its reverse; pre-normalised residuals."""

    def __init__(self, width: int, hidden: int, n_heads: int) -> None:
        super().__init__()
        self.before_attention, self.before_mix = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, n_heads)
        self.mix = perceptron(width, hidden, width)
        self.exchange = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, slots: Slots, graph: Graph) -> Tensor:
        tokens = tokens + self.attention(self.before_attention(tokens), slots)
        tokens = tokens + self.mix(self.before_mix(tokens))
        assert graph.reverse is not None
        atoms, edges = tokens[: graph.n_atoms], tokens[graph.n_atoms :]
        return torch.cat([atoms, edges + self.exchange(edges).index_select(0, graph.reverse)])


class DirectHead(nn.Module):
    """Antisymmetric pair forces from the edges' tokens."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.read = perceptron(width, hidden, 4)

    def forward(self, edges: Tensor, unit: Tensor, cut: Tensor, graph: Graph) -> Tensor:
        assert graph.reverse is not None
        along, across = self.read(edges).split([1, 3], dim=1)
        pair = cut * (along * unit + across)
        return sum_over(pair - pair.index_select(0, graph.reverse), graph.centre, graph.n_atoms)


class PET(Network):
    """Point Edge Transformer.

    Parameters
    ----------
    species, cutoff, form, three_body_cutoff, density_cutoff : see `Network`
    width : d, features per token
    n_layers : attention layers, each followed by one exchange
    n_heads : attention heads
    n_radial : radial basis functions
    hidden : width of the perceptrons
    """

    architecture = "pet"
    needs_reverse = True

    def __init__(
        self,
        species: Sequence[str],
        cutoff: float = 4.5,
        form: str = "M",
        *,
        three_body_cutoff: float = 2.6,
        density_cutoff: float = 0.0,
        width: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        n_radial: int = 16,
        hidden: int = 128,
    ) -> None:
        sizes = dict(width=width, n_layers=n_layers, n_heads=n_heads, n_radial=n_radial, hidden=hidden)
        super().__init__(species, cutoff, form, three_body_cutoff, density_cutoff, sizes)
        self.interaction_depth = n_layers + 1  # an exchange brings in what the other atom's edges have been told
        self.radial = RadialBasis(n_radial, cutoff)
        self.atom_embedding = nn.Embedding(len(species), width)
        self.pair_embedding = nn.Embedding(len(species) ** 2, width)
        # distance and direction, each direction component seen through every radial function: a plain linear map of the
        # vector makes the network wait long before it resolves a bond length
        self.geometry = nn.Linear(4 * n_radial, width)
        self.layers = nn.ModuleList(Layer(width, hidden, n_heads) for _ in range(n_layers))
        self.atom_norm, self.edge_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.atom_energy, self.edge_energy = perceptron(width, hidden, 1), perceptron(width, hidden, 1)
        if form != "C":
            self.direct_head = DirectHead(width, hidden)

    def own_places(self, graph: Graph, distance: Tensor) -> TokenPlaces:
        return TokenPlaces.of(graph)

    @property
    def direct_depth(self) -> int:
        """No more than the energy's: the last exchange tells either end of an edge what the other knows."""
        return self.interaction_depth

    def raw_outputs(
        self, graph: Graph, places: Places, *, energy: bool, direct: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        species = places.species
        distance = torch.linalg.vector_norm(graph.vectors, dim=1)
        unit = graph.vectors / distance.unsqueeze(1)
        basis, cut = self.radial(distance)
        directed = (unit.unsqueeze(2) * basis.unsqueeze(1)).flatten(1)
        pairs = self.pair_embedding(species[graph.centre] * len(self.species) + species[graph.neighbour])
        edges = self.geometry(torch.cat([basis, directed], dim=1)) + pairs
        slots = Slots.of(places.own, cut, graph.n_atoms)
        tokens = torch.cat([self.atom_embedding(species), edges])
        for layer in self.layers:
            tokens = layer(tokens, slots, graph)
        atoms, edges = self.atom_norm(tokens[: graph.n_atoms]), self.edge_norm(tokens[graph.n_atoms :])
        energies = force = None
        if energy:
            shares = sum_over(cut * self.edge_energy(edges), graph.centre, graph.n_atoms)
            energies = (self.atom_energy(atoms) + shares).squeeze(1)
        if direct:
            with torch.set_grad_enabled(graph.attached):
                force = self.direct_head(edges, unit, cut, graph)
        return energies, force


POTENTIAL = PET
