"""What is fitted before training: baselines, energy offsets, force scale, the density network's units."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from ase.data import atomic_numbers
from torch import Tensor

from mlcalc.potentials.autodiff import sum_over
from mlcalc.potentials.density_network import DensityNetwork
from mlcalc.potentials.network import Network
from mlcalc.potentials.radial import RadialBasis
from mlcalc.potentials.three_body_baseline import ThreeBodyBaseline, outer
from mlcalc.training.data import Frame

_RIDGE = 1e-6  # of the largest eigenvalue: keeps coefficients near 1 eV where no frame has that distance
_WALL = 1.04  # times the shortest distance in the data; a little inside them, so that it is felt before they end
_MOST_FRAMES = 100  # few coefficients
_LEAST_SPREAD, _NO_SPREAD = 1e-3, 1e-6  # of the greatest; where nothing varies


def fit_baseline(network: Network, frames: Sequence[Frame]) -> None:
    """Set walls; fit first the pair, then the three-body baseline to forces; offsets and force scale to what is left.

    The network is changed in place.
    """
    network.pair_baseline.wall.copy_(_WALL * _shortest_distances(network, frames))
    some = frames[:: 1 + len(frames) // _MOST_FRAMES]
    network.pair_baseline.coefficients.zero_()
    network.three_body_baseline.coefficients.zero_()
    left = [_remainder(network, frame) for frame in some]
    network.pair_baseline.coefficients.copy_(_pair_coefficients(network, left))
    if network.three_body_baseline.cutoff:
        left = [_remainder(network, frame) for frame in some]
        network.three_body_baseline.coefficients.copy_(_three_body_coefficients(network, left))
    left = [_remainder(network, frame) for frame in frames]
    network.energy_offsets.copy_(fit_energy_offsets(left, [atomic_numbers[symbol] for symbol in network.species]))
    network.scale.fill_(force_rms(left))
    if network.density_network is not None:
        _set_units(network.density_network, network, some)


@torch.no_grad()
def _set_units(density_network: DensityNetwork, network: Network, frames: Sequence[Frame]) -> None:
    """Shift and spread of each species' invariants: their mean and standard deviation over frames."""
    found: list[list[Tensor]] = [[] for _ in network.species]
    for frame in frames:
        vectors = frame.neighbours.vectors(frame.structure)
        species = network.species_index(frame.structure.numbers)
        places = density_network.places(vectors, frame.neighbours.centre, frame.neighbours.neighbour, species)
        invariants = density_network.invariants(vectors[places.near].to(network.dtype), species, places)
        for mine, (_, values) in zip(found, invariants, strict=True):
            mine.append(values)
    for kind, values in enumerate(map(torch.cat, found)):
        if not len(values):
            continue
        density_network.shift[kind] = values.mean(dim=0)
        spread = values.std(dim=0, correction=0)
        density_network.spread[kind] = spread.clamp(min=max(_LEAST_SPREAD * float(spread.max()), _NO_SPREAD))


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
    """Of one frame.

    Attributes
    ----------
    distance : (n_edges,), Å; unit : (n_edges, 3)
    centre, neighbour : (n_edges,), int64
    ends : (2, n_edges), int64, species of both by their place in the network's list
    """

    distance: Tensor
    unit: Tensor
    centre: Tensor
    neighbour: Tensor
    ends: Tensor
    n_atoms: int

    @classmethod
    def of(cls, network: Network, frame: Frame) -> _Edges:
        vectors = frame.neighbours.vectors(frame.structure)
        distance = torch.linalg.vector_norm(vectors, dim=1)
        species = network.species_index(frame.structure.numbers)
        centre, neighbour = frame.neighbours.centre, frame.neighbours.neighbour
        ends = torch.stack([species[centre], species[neighbour]])
        return cls(distance, vectors / distance.unsqueeze(1), centre, neighbour, ends, frame.structure.n_atoms)


def _shortest_distances(network: Network, frames: Sequence[Frame]) -> Tensor:
    """Of every pair of species, (n_species²,), Å; 0 for pairs that never come within the cutoff."""
    n_species = len(network.species)
    shortest = torch.full((n_species**2,), torch.inf, dtype=torch.float64)
    for frame in frames:
        edges = _Edges.of(network, frame)
        shortest.scatter_reduce_(0, edges.ends[0] * n_species + edges.ends[1], edges.distance, "amin")
    return torch.where(shortest < network.cutoff, shortest, 0.0)


def _pair_coefficients(network: Network, frames: Sequence[Frame]) -> Tensor:
    """Ridge regression of all forces on the slopes of the radial functions of every unordered pair of species."""
    n_species, radial = len(network.species), RadialBasis(network.pair_baseline.radial.n_radial, network.cutoff)
    designs = (_pair_design(radial.double(), _Edges.of(network, frame), n_species) for frame in frames)
    upper = _ridge(designs, [frame.force for frame in frames]).view(n_species, n_species, -1)
    lower = upper.transpose(0, 1) * (1 - torch.eye(n_species, dtype=torch.float64)).unsqueeze(2)
    return (upper + lower).flatten(0, 1)


def _pair_design(radial: RadialBasis, edges: _Edges, n_species: int) -> Tensor:
    """What each coefficient adds to each force component: (3 n_atoms, n_species² n_radial)."""
    _, slopes = radial.with_slopes(edges.distance)
    kind = edges.ends.amin(dim=0) * n_species + edges.ends.amax(dim=0)
    return _force_columns(
        slopes.unsqueeze(1) * edges.unit.unsqueeze(2), edges.centre, kind, edges.n_atoms, n_species**2
    )


def _three_body_coefficients(network: Network, frames: Sequence[Frame]) -> Tensor:
    """Ridge regression of all forces on the gradients of the products of every kind of triple."""
    baseline = copy.deepcopy(network.three_body_baseline).double()
    designs = (_three_body_design(baseline, _Edges.of(network, frame)) for frame in frames)
    return _ridge(designs, [frame.force for frame in frames]).view(baseline.coefficients.shape)


def _three_body_design(baseline: ThreeBodyBaseline, edges: _Edges) -> Tensor:
    """What each coefficient adds to each force component: (3 n_atoms, number of coefficients)."""
    places = baseline.places(edges.distance, edges.centre, edges.ends)
    t = baseline.triples(edges.unit * edges.distance.unsqueeze(1), edges.distance, places)
    (e_first, e_second), (slope_first, slope_second) = t.radial, t.radial_slope

    def products(first: Tensor, second: Tensor, angular: Tensor) -> Tensor:
        square = first.unsqueeze(2) * second.unsqueeze(1)
        symmetric = 0.5 * (square + square.transpose(1, 2))
        alike = edges.ends[1, t.first] == edges.ends[1, t.second]
        return outer(angular, torch.where(alike[:, None, None], symmetric, square).flatten(1)).unsqueeze(1)

    bend = products(e_first, e_second, t.angular_slope)
    by_first = products(slope_first, e_second, t.angular) * t.along[0].unsqueeze(2) + bend * t.turn[0].unsqueeze(2)
    by_second = products(e_first, slope_second, t.angular) * t.along[1].unsqueeze(2) + bend * t.turn[1].unsqueeze(2)
    # on an end acts minus the gradient, on the centre its opposite
    atoms = torch.cat([edges.neighbour[t.first], edges.neighbour[t.second], edges.centre[t.first]])
    pulls = torch.cat([-by_first, -by_second, by_first + by_second])
    return _force_columns(pulls, atoms, t.kind.repeat(3), edges.n_atoms, len(baseline.coefficients))


def _force_columns(pulls: Tensor, atom: Tensor, kind: Tensor, n_atoms: int, n_kinds: int) -> Tensor:
    """Pulls (n, 3, size) on atoms (n,) by terms of kinds (n,) → (3 n_atoms, n_kinds · size)."""
    rows = sum_over(pulls, atom * n_kinds + kind, n_atoms * n_kinds).unflatten(0, (n_atoms, n_kinds))
    return rows.transpose(1, 2).reshape(3 * n_atoms, -1)


def _ridge(designs: Iterable[Tensor], forces: Sequence[Tensor]) -> Tensor:
    """The coefficients (n,) whose designs (3 n_atoms, n) give the forces (n_atoms, 3); 0 where no design has any."""
    normal = right = torch.zeros((), dtype=torch.float64)
    for rows, force in zip(designs, forces, strict=True):
        normal, right = normal + rows.T @ rows, right + rows.T @ force.reshape(-1)
    used = torch.nonzero(normal.diagonal() > 0).squeeze(1)
    solution = torch.zeros_like(right)
    if len(used):
        normal = normal[used][:, used]
        ridge = _RIDGE * torch.linalg.eigvalsh(normal)[-1] * torch.eye(len(used), dtype=torch.float64)
        solution[used] = torch.linalg.solve(normal + ridge, right[used])
    return solution


def _remainder(network: Network, frame: Frame) -> Frame:
    """The frame with the baseline's energy and force taken off its labels."""
    edges = _Edges.of(network, frame)
    vectors = edges.unit * edges.distance.unsqueeze(1)
    three_body = network.three_body_baseline
    triples = three_body.places(edges.distance, edges.centre, edges.ends) if three_body.cutoff else None
    energies, gradient = network.baseline(vectors, edges.ends, triples)
    pull = sum_over(gradient, edges.centre, edges.n_atoms) - sum_over(gradient, edges.neighbour, edges.n_atoms)
    return replace(frame, energy=frame.energy - energies.sum(), force=frame.force - pull)
