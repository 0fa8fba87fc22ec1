"""A small short-range many-body potential under both heads: perceptrons of the density of an atom's nearest neighbours.

    E = Σ_i f_Z(x_i),    x_i = { Σ_|a|=l (l!/a!) B_ca² }_cl ∪ { B_c0 },    B_ca = Σ_sn W_csn Σ_{j of s} e_n(r_ij) r̂_ij^a

over monomials r̂^a = x^a₁ y^a₂ z^a₃ of degree l = |a| ≤ l_max. By the multinomial theorem the first kind of x is
Σ_jk R_c(r_ij) R_c(r_ik) cosˡ θ_jik: the invariants are those of three-body symmetry functions, found without any sum
over triples, and f_Z, a perceptron for each species, makes many-body terms of them (J. Behler, M. Parrinello, Phys.
Rev. Lett. 98, 146401 (2007); M. J. Willatt, F. Musil, M. Ceriotti, J. Chem. Phys. 150, 154110 (2019)).

Both forces carry its exact gradient, which is cheap to find: few edges, one layer. It takes over much of what varies
fastest, so that no direct head has to imitate it.

| symbol | variable | what |
|---|---|---|
| r̂^a | monomials | (n_edges, n_monomials) |
| Σ e_n r̂^a | density | (n_atoms, n_monomials, n_species · n_radial) |
| W | mix | (n_species, n_species · n_radial, channels) |
| x | invariants | (n_atoms of a species, channels (l_max + 2)) |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, silu

from mlcalc.potentials.radial import RadialBasis


@dataclass(frozen=True)
class DensityPlaces:
    """Which edges are within the cutoff, and where they stand when an atom's edges are put side by side.

    Attributes
    ----------
    near : (n_near,), int64, the edges within the cutoff
    neighbour : (n_near,), int64
    place : (n_near,), int64, centre · n_slots + rank among the centre's edges
    slots : (n_slots,), int64, 0, 1, …; as many as the atom with the most edges needs
    atoms : for each species its atoms, int64
    """

    near: Tensor
    neighbour: Tensor
    place: Tensor
    slots: Tensor
    atoms: tuple[Tensor, ...]


class DensityNetwork(nn.Module):
    """Energies of atoms; zero until it is trained.

    Parameters
    ----------
    cutoff : Å
    channels : radial functions of each species of centre, per degree
    hidden : width of the perceptrons
    n_radial : radial basis functions
    l_max : highest degree
    """

    shift: Tensor
    spread: Tensor
    _counts: Tensor
    _degrees: Tensor

    def __init__(
        self, n_species: int, cutoff: float, *, channels: int = 32, hidden: int = 96, n_radial: int = 10, l_max: int = 4
    ) -> None:
        super().__init__()
        self.n_species, self.cutoff = n_species, cutoff
        self.radial = RadialBasis(n_radial, cutoff)
        self.l_max = l_max
        exponents = _exponents(l_max)
        counts = [math.factorial(sum(a)) / math.prod(map(math.factorial, a)) for a in exponents]
        self.register_buffer("_counts", torch.tensor(counts), persistent=False)
        degrees = one_hot(torch.tensor([sum(a) for a in exponents])).to(torch.get_default_dtype())
        self.register_buffer("_degrees", degrees, persistent=False)
        n_in, n_basis = channels * (l_max + 2), n_species * n_radial
        self.mix = nn.Parameter(torch.randn(n_species, n_basis, channels) / n_basis**0.5)
        self.first = nn.ModuleList(nn.Linear(n_in, hidden) for _ in range(n_species))
        self.second = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(n_species))
        self.last = nn.ModuleList(nn.Linear(hidden, 1, bias=False) for _ in range(n_species))
        for weight in self.last.parameters():
            nn.init.zeros_(weight)
        self.register_buffer("shift", torch.zeros(n_species, n_in))
        self.register_buffer("spread", torch.ones(n_species, n_in))

    def places(self, vectors: Tensor, centre: Tensor, neighbour: Tensor, species: Tensor) -> DensityPlaces:
        """The places of a list of edges.

        Parameters
        ----------
        vectors : (n_edges, 3), Å; edges beyond the cutoff give nothing
        centre, neighbour : (n_edges,), int64, ascending by centre
        species : (n_atoms,), int64, by place in the network's list
        """
        near = torch.nonzero(vectors.detach().square().sum(dim=1) < self.cutoff**2).squeeze(1)
        centre = centre.index_select(0, near)
        n_edges = torch.bincount(centre, minlength=len(species))
        most, first = int(n_edges.max()), n_edges.cumsum(0) - n_edges
        return DensityPlaces(
            near=near,
            neighbour=neighbour.index_select(0, near),
            place=torch.arange(len(centre), device=centre.device) - first.index_select(0, centre) + centre * most,
            slots=torch.arange(most, device=centre.device),
            atoms=tuple(torch.nonzero(species == kind).squeeze(1) for kind in range(self.n_species)),
        )

    def energies_and_gradient(
        self, vectors: Tensor, species: Tensor, places: DensityPlaces, *, attached: bool
    ) -> tuple[Tensor, Tensor]:
        """Energies by atom (n_atoms,) and their sum's gradient by the edge vectors (n_edges, 3).

        Parameters
        ----------
        vectors : (n_edges, 3), Å
        species : (n_atoms,), int64, by place in the network's list
        attached : whether energies and gradient can be differentiated
        """
        with torch.enable_grad():
            inside = vectors.index_select(0, places.near)
            if not inside.requires_grad:
                inside.requires_grad_()
            energies = self(inside, species, places)
            (slope,) = torch.autograd.grad(energies.sum(), inside, create_graph=attached)
            gradient = torch.zeros_like(vectors).index_add(0, places.near, slope)
        return (energies, gradient) if attached else (energies.detach(), gradient.detach())

    def forward(self, vectors: Tensor, species: Tensor, places: DensityPlaces) -> Tensor:
        """Edges within the cutoff (n_near, 3), Å, and species of the atoms, by place → energies (n_atoms,)."""
        energies = torch.zeros(species.shape[0], dtype=vectors.dtype, device=vectors.device)
        for kind, (atoms, x) in enumerate(self.invariants(vectors, species, places)):
            x = (x - self.shift[kind]) / self.spread[kind]
            x = self.last[kind](silu(self.second[kind](silu(self.first[kind](x)))))
            energies = energies.index_add(0, atoms, x.squeeze(1))
        return energies

    def invariants(self, vectors: Tensor, species: Tensor, places: DensityPlaces) -> Iterator[tuple[Tensor, Tensor]]:
        """For each species, its atoms (n,) and their invariants (n, channels (l_max + 2))."""
        distance = torch.linalg.vector_norm(vectors, dim=1)
        basis, _ = self.radial(distance)
        kinds = one_hot(species.index_select(0, places.neighbour), self.n_species).to(basis.dtype)
        basis = (kinds.unsqueeze(2) * basis.unsqueeze(1)).flatten(1)
        # An atom's edges side by side, so that sums over them are products of small matrices: cheaper than adding
        # up the outer products of the edges.
        n_atoms, n_slots = species.shape[0], places.slots.shape[0]

        def by_atom(values: Tensor) -> Tensor:
            padded = torch.zeros(n_atoms * n_slots, values.shape[1], dtype=values.dtype, device=values.device)
            return padded.index_copy(0, places.place, values).view(n_atoms, n_slots, values.shape[1])

        density = by_atom(self._monomials(vectors / distance.unsqueeze(1))).transpose(1, 2) @ by_atom(basis)
        for kind, atoms in enumerate(places.atoms):
            mixed = density.index_select(0, atoms) @ self.mix[kind]
            power = torch.matmul((mixed.square() * self._counts[:, None]).transpose(1, 2), self._degrees)
            yield atoms, torch.cat([power.flatten(1), mixed[:, 0]], dim=1)

    def _monomials(self, unit: Tensor) -> Tensor:
        """All monomials of the components (n_edges, 3), in the order of `_exponents`."""
        x, y, z = unit.split(1, dim=1)
        degrees = [torch.ones_like(x)]
        for degree in range(1, self.l_max + 1):
            less = degrees[-1]
            degrees.append(torch.cat([x * less, y * less[:, -degree:], z * less[:, -1:]], dim=1))
        return torch.cat(degrees, dim=1)


def _exponents(l_max: int) -> list[tuple[int, int, int]]:
    """Of x, y, z in all monomials: of a degree, x times all of one less, y times those without x, and zˡ."""
    degrees = [[(0, 0, 0)]]
    for degree in range(1, l_max + 1):
        less = degrees[-1]
        from_x = [(a + 1, b, c) for a, b, c in less]
        degrees.append([*from_x, *((a, b + 1, c) for a, b, c in less[-degree:]), (0, 0, degree)])
    return [exponents for one in degrees for exponents in one]
