"""What is fitted by linear least squares before training: pair baseline, energy offsets, force scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from ase.data import atomic_numbers
from torch import Tensor

from mlcalc.potentials.autodiff import sum_over
from mlcalc.potentials.network import Network
from mlcalc.potentials.radial import RadialBasis
from mlcalc.training.data import Frame

_RIDGE = 1e-6  # of the largest eigenvalue: keeps coefficients near 1 eV where no frame has that distance
_WALL = 1.04  # times the shortest distance in the data; a little inside them, so that it is felt before they end
_MOST_FRAMES = 100  # a pair potential has few coefficients


def fit_baseline(network: Network, frames: Sequence[Frame]) -> None:
    """Set walls, fit the pair baseline to forces, then energy offsets and force scale to what it leaves; in place."""
    network.pair_baseline.wall.copy_(_WALL * _shortest_distances(network, frames))
    network.pair_baseline.coefficients.zero_()
    some = [_remainder(network, frame) for frame in frames[:: 1 + len(frames) // _MOST_FRAMES]]
    network.pair_baseline.coefficients.copy_(_pair_coefficients(network, some))
    left = [_remainder(network, frame) for frame in frames]
    network.energy_offsets.copy_(fit_energy_offsets(left, [atomic_numbers[symbol] for symbol in network.species]))
    network.scale.fill_(force_rms(left))


def fit_energy_offsets(frames: Sequence[Frame], species: Sequence[int]) -> Tensor:
    """Least-squares energy of each species, (n_species,), eV; the smallest solution where composition never varies."""
    counts = torch.stack(
        [torch.stack([(frame.structure.numbers == number).sum() for number in species]) for frame in frames]
    ).double()
    energies = torch.stack([frame.energy for frame in frames]).double()
    return torch.linalg.lstsq(counts, energies.unsqueeze(1), driver="gelsd").solution.squeeze(1)


def force_rms(frames: Sequence[Frame]) -> float:
    """Root mean square of all force components, eV/Å."""
    return float(torch.cat([frame.force for frame in frames]).square().mean().sqrt())


@dataclass(frozen=True)
class _Edges:
    """Of one frame: distance (n_edges,), Å; unit vector (n_edges, 3); species at both ends (n_edges,)."""

    distance: Tensor
    unit: Tensor
    centre: Tensor
    neighbour: Tensor

    @classmethod
    def of(cls, network: Network, frame: Frame) -> _Edges:
        vectors = frame.neighbours.vectors(frame.structure)
        distance = torch.linalg.vector_norm(vectors, dim=1)
        species = network.species_index(frame.structure.numbers)
        ends = species[frame.neighbours.centre], species[frame.neighbours.neighbour]
        return cls(distance, vectors / distance.unsqueeze(1), *ends)


def _shortest_distances(network: Network, frames: Sequence[Frame]) -> Tensor:
    """Of every pair of species, (n_species²,), Å; 0 for pairs that never come within the cutoff."""
    n_species = len(network.species)
    shortest = torch.full((n_species**2,), torch.inf, dtype=torch.float64)
    for frame in frames:
        edges = _Edges.of(network, frame)
        shortest.scatter_reduce_(0, edges.centre * n_species + edges.neighbour, edges.distance, "amin")
    return torch.where(shortest < network.cutoff, shortest, 0.0)


def _pair_coefficients(network: Network, frames: Sequence[Frame]) -> Tensor:
    """Ridge regression of all forces on the slopes of the radial functions of every unordered pair of species."""
    n_species, n_radial = len(network.species), network.pair_baseline.radial.n_radial
    size = n_species**2 * n_radial
    normal, right = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for frame in frames:
        rows = _design(RadialBasis(n_radial, network.cutoff).double(), _Edges.of(network, frame), frame, n_species)
        normal += rows.T @ rows
        right += rows.T @ frame.force.reshape(-1)
    ridge = _RIDGE * torch.linalg.eigvalsh(normal)[-1] * torch.eye(size, dtype=torch.float64)
    upper = torch.linalg.solve(normal + ridge, right).view(n_species, n_species, n_radial)
    lower = upper.transpose(0, 1) * (1 - torch.eye(n_species, dtype=torch.float64)).unsqueeze(2)
    return (upper + lower).flatten(0, 1)


def _design(radial: RadialBasis, edges: _Edges, frame: Frame, n_species: int) -> Tensor:
    """What each coefficient adds to each force component: (3 n_atoms, n_species² n_radial)."""
    n_edges, n_radial, n_atoms = len(edges.distance), radial.n_radial, frame.structure.n_atoms
    one_each = torch.eye(n_radial, dtype=torch.float64).repeat(n_edges, 1)
    _, slopes = radial.combine(edges.distance.repeat_interleave(n_radial), one_each)
    pulls = edges.unit.unsqueeze(2) * slopes.view(n_edges, 1, n_radial)
    ends = torch.stack([edges.centre, edges.neighbour]).sort(dim=0).values
    place = frame.neighbours.centre * n_species**2 + ends[0] * n_species + ends[1]
    rows = sum_over(pulls, place, n_atoms * n_species**2).view(n_atoms, n_species**2, 3, n_radial)
    return rows.transpose(1, 2).reshape(3 * n_atoms, -1)


def _remainder(network: Network, frame: Frame) -> Frame:
    """The frame with the pair baseline's energy and force taken off its labels."""
    edges = _Edges.of(network, frame)
    energies, slopes = network.pair_baseline(edges.distance, edges.centre, edges.neighbour)
    pull = sum_over(slopes.unsqueeze(1) * edges.unit, frame.neighbours.centre, frame.structure.n_atoms)
    return replace(frame, energy=frame.energy - 0.5 * energies.sum(), force=frame.force - pull)
