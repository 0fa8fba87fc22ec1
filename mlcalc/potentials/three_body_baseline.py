"""A three-body potential under both heads, fitted to the data before the network and fixed from then on.

    E = Σ_i Σ_{j<k} u_ijk,    u_ijk = Σ_abl c_abl(Z_i, Z_j, Z_k) e_a(r_ij) e_b(r_ik) P_l(cos θ_jik)

over pairs j, k of neighbours of i within a short cutoff, P_l the Legendre polynomials. It is linear in its
coefficients, as the two- and three-body potentials of Xie, Rupp, Hennig (npj Comput. Mater. 9, 162, 2023) are, so a
ridge regression fits it in seconds. On top of the pair baseline it takes the force that is left to be learnt in water
from 0.22 to 0.11 eV/Å, and most of what couples stretches and bends of one molecule. Those couplings vary the fastest,
and multiple time stepping would sample them worst in a correction f_conservative − f_direct.

| symbol | variable | what |
|---|---|---|
| c_abl | coefficients | (n_species³, n_angular, n_radial²), eV; read at Z_j ≤ Z_k, where equal symmetric in a and b |
| j, k | first, second | (n_triples,), places in the list of edges |
| e_a, e_b | radial | (n_triples, n_radial) of both edges |
| P_l, P'_l | angular, bends | (n_triples, n_angular) |
| ∂u/∂r⃗ | gradient | (n_edges, 3), eV/Å |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlcalc.potentials.autodiff import sum_over
from mlcalc.potentials.radial import RadialBasis


@dataclass(frozen=True)
class TriplePlaces:
    """All pairs of edges with one centre.

    Attributes
    ----------
    edges : (n_short,), int64, the edges below the cutoff
    first, second : (n_triples,), int64, places among these
    kind : (n_triples,), int64, (Z_i n + Z_j) n + Z_k with Z_j ≤ Z_k, places in the list of species
    """

    edges: Tensor
    first: Tensor
    second: Tensor
    kind: Tensor


@dataclass(frozen=True)
class Triples:
    """The functions that a three-body potential multiplies, for all triples.

    Attributes
    ----------
    first, second : (n_triples,), int64, places in the list of edges
    kind : as in `TriplePlaces`
    radial, radial_slope : (2, n_triples, n_radial), functions of both distances and their derivatives
    angular, angular_slope : (n_triples, n_angular), functions of the cosine and their derivatives
    along : (2, n_triples, 3), unit vectors of both edges
    turn : (2, n_triples, 3), derivative of the cosine by both edge vectors, 1/Å
    """

    first: Tensor
    second: Tensor
    kind: Tensor
    radial: Tensor
    radial_slope: Tensor
    angular: Tensor
    angular_slope: Tensor
    along: Tensor
    turn: Tensor


class ThreeBodyBaseline(nn.Module):
    """Energies and gradients of triples of atoms; zero until it is fitted.

    Parameters
    ----------
    cutoff : Å, of both edges of a triple; 0 for none
    """

    coefficients: Tensor

    def __init__(self, n_species: int, cutoff: float, n_radial: int = 5, n_angular: int = 5) -> None:
        super().__init__()
        self.n_species = n_species
        self.cutoff = cutoff
        self.n_angular = n_angular
        self.radial = RadialBasis(n_radial, cutoff) if cutoff else None
        n_kinds = n_species**3 if cutoff else 0
        self.register_buffer("coefficients", torch.zeros(n_kinds, n_angular, n_radial**2))

    def places(self, distance: Tensor, centre: Tensor, ends: Tensor) -> TriplePlaces:
        """The triples of a list of edges.

        Parameters
        ----------
        distance : (n_edges,), Å
        centre : (n_edges,), int64, ascending
        ends : (2, n_edges), int64, species of centre and neighbour, by their place in the network's list
        """
        edges, first, second = edge_pairs(distance.detach(), centre, self.cutoff)
        species = ends[1].index_select(0, edges)
        swapped = species[first] > species[second]
        first, second = torch.where(swapped, second, first), torch.where(swapped, first, second)
        centre_and_first = ends[0].index_select(0, edges)[first] * self.n_species + species[first]
        return TriplePlaces(edges, first, second, centre_and_first * self.n_species + species[second])

    def forward(self, vectors: Tensor, distance: Tensor, places: TriplePlaces) -> tuple[Tensor, Tensor]:
        """Energy of all triples by edge, and its gradient by the edge vectors: (n_edges,), eV, and (n_edges, 3), eV/Å.

        A triple's energy is counted with its first edge.

        Parameters
        ----------
        vectors, distance : (n_edges, 3) and (n_edges,), Å
        """
        t = self.triples(vectors, distance, places)
        n_kinds, n_angular, n_products = self.coefficients.shape
        n_triples = t.kind.shape[0]
        # one product of matrices for all kinds, with the angular functions in the columns of their kind
        columns = (t.kind * n_angular).unsqueeze(1) + torch.arange(n_angular, device=vectors.device)
        table = torch.zeros(2, n_triples, n_kinds * n_angular, dtype=vectors.dtype, device=vectors.device)
        table = table.scatter(2, columns.expand(2, -1, -1), torch.stack([t.angular, t.angular_slope]))
        mixed, bent = torch.matmul(table, self.coefficients.to(vectors.dtype).reshape(-1, n_products)).unbind(0)
        (e_first, e_second), (slope_first, slope_second) = t.radial, t.radial_slope
        product = outer(e_first, e_second)
        energy = (mixed * product).sum(dim=1)
        bend = (bent * product).sum(dim=1)
        slopes = torch.stack(
            [(mixed * outer(slope_first, e_second)).sum(dim=1), (mixed * outer(e_first, slope_second)).sum(dim=1)]
        )
        pulls = slopes.unsqueeze(2) * t.along + bend.unsqueeze(1) * t.turn
        gradient = sum_over(pulls.flatten(0, 1), torch.cat([t.first, t.second]), distance.shape[0])
        return sum_over(energy, t.first, distance.shape[0]), gradient

    def triples(self, vectors: Tensor, distance: Tensor, places: TriplePlaces) -> Triples:
        """The functions of each triple."""
        assert self.radial is not None
        edges, first, second = places.edges, places.first, places.second
        r = distance.index_select(0, edges)
        radial, slope = self.radial.with_slopes(r)
        r = r.unsqueeze(1)
        unit = vectors.index_select(0, edges) / r
        along = torch.stack([unit.index_select(0, first), unit.index_select(0, second)])
        cosine = (along[0] * along[1]).sum(dim=1, keepdim=True)
        across = along.flip(0) - cosine * along
        both = torch.stack([first, second])
        angular, angular_slope = legendre(cosine.squeeze(1), self.n_angular)
        return Triples(
            first=edges[first],
            second=edges[second],
            kind=places.kind,
            radial=radial[both],
            radial_slope=slope[both],
            angular=angular,
            angular_slope=angular_slope,
            along=along,
            turn=across / r[both],
        )


def edge_pairs(distance: Tensor, centre: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """The edges below the cutoff (n,) and all pairs first < second of them with one centre, as places among these."""
    edges = torch.nonzero(distance < cutoff).squeeze(1)
    _, counts = torch.unique_consecutive(centre.index_select(0, edges), return_counts=True)
    ends = counts.cumsum(0).repeat_interleave(counts)
    place = torch.arange(len(edges), device=edges.device)
    later = ends - place - 1  # how many edges of the same centre follow
    first = place.repeat_interleave(later)
    start = (later.cumsum(0) - later).repeat_interleave(later)
    second = first + 1 + torch.arange(len(first), device=edges.device) - start
    return edges, first, second


def outer(left: Tensor, right: Tensor) -> Tensor:
    """(n, a), (n, b) → (n, a b)."""
    return (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1)


def legendre(x: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """P_0 … P_(n−1) and their derivatives: (m,) → twice (m, n)."""
    values, slopes = [torch.ones_like(x), x], [torch.zeros_like(x), torch.ones_like(x)]
    for k in range(1, n - 1):
        values.append(((2 * k + 1) * x * values[k] - k * values[k - 1]) / (k + 1))
        slopes.append((2 * k + 1) * values[k] + slopes[k - 1])
    return torch.stack(values[:n], dim=1), torch.stack(slopes[:n], dim=1)
