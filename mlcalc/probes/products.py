"""Random products with the Jacobian, for λ of one structure or of many at once.

For v of independent random signs E|Av|² = ‖A‖², whatever the matrix A, and

    Var |Av|² = 2 (‖AᵀA‖² − Σ_k (AᵀA)_kk²)  ≤  2 ‖AᵀA‖²,

(M. F. Hutchinson, doi:10.1080/03610918908812806; of all independent entries signs have the least variance). In a large
system distant atoms hardly know of each other, so that one product averages over the atoms already: the relative
variance falls as 1/n_atoms.

A pair (Jv, Jᵀv) gives (J − Jᵀ)v itself, so small asymmetries are no differences of large numbers. A system of few atoms
gets unit vectors for v instead, one for each coordinate, and λ is exact.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlcalc.diagnostics.jacobian_asymmetry import ratio
from mlcalc.errors import UsageError
from mlcalc.potentials.potential import Potential
from mlcalc.probes.batches import Batch, Job, groups, in_passes
from mlcalc.probes.field import Field, GraphTooLarge, relative_round_off
from mlcalc.structure import Structure

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

#: Pairs after which λ is looked at, and that settle whether it is round-off
ROUND = 8
_ATOMS_AT_ONCE = 256  # in float64, which takes twice the memory
_TINY = 1e-300


@dataclass(frozen=True)
class Sampling:
    """How long to sample one structure.

    Attributes
    ----------
    relative_error : of λ, one standard error, at which to stop
    max_pairs, min_pairs : bounds on the number of pairs of products; a structure with at most `max_pairs`
        coordinates is done exactly
    seed : each structure has random numbers of its own, from this and its index
    """

    relative_error: float = 0.05
    max_pairs: int = 64
    min_pairs: int = ROUND
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_pairs <= self.max_pairs:
            raise UsageError(
                f"min_pairs, max_pairs: got {self.min_pairs}, {self.max_pairs}; give 1 ≤ min_pairs ≤ max_pairs"
            )
        if not self.relative_error > 0:
            raise UsageError(f"relative_error: got {self.relative_error}; give a fraction above 0, such as 0.05")


@dataclass(frozen=True)
class ProductSamples:
    """Squared norms from products, one entry for each probe vector; eV²/Å⁴.

    Attributes
    ----------
    antisymmetric : |Jv − Jᵀv|²/4; its mean estimates ‖(J − Jᵀ)/2‖²
    total : (|Jv|² + |Jᵀv|²)/2; its mean estimates ‖J‖²
    noise_floor : λ that the potential's round-off alone would give
    exact : whether the vectors were all unit vectors; then sums are norms
    """

    antisymmetric: Array
    total: Array
    noise_floor: float
    exact: bool = False


def sample_products(
    potential: Potential,
    structure: Structure,
    forces: str,
    *,
    relative_error: float = 0.05,
    max_pairs: int = 64,
    min_pairs: int = 2 * ROUND,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProductSamples:
    """`sample_many` of one structure; for the arguments see `Sampling`.

    Raises
    ------
    UsageError
        for forces that the potential does not have, bad bounds, or a batch of several systems.
    """
    if structure.n_systems != 1:
        raise UsageError(f"structure: got a batch of {structure.n_systems} systems; sample_many takes batches")
    sampling = Sampling(relative_error, max_pairs, min_pairs, seed)
    return sample_many(Job(potential, structure, forces), sampling, progress=progress)[0]


def sample_many(
    job: Job, sampling: Sampling | None = None, *, progress: Progress | None = None
) -> list[ProductSamples]:
    """Pairs (Jv, Jᵀv) for every system of a batch, until its λ has the wanted error or is seen to be round-off.

    Systems are taken in passes that fit into memory. The numbers do not depend on how (but for the last bits).

    Parameters
    ----------
    progress : called with what is done and what there is to do at most

    Raises
    ------
    UsageError
        for forces that the potential does not have.
    GraphTooLarge
        if the largest system does not fit into memory.
    """
    sampling = sampling or Sampling()
    floors = _Floors(job)
    n_systems, n_finished = job.structure.n_systems, 0

    def work(batch: Batch) -> list[ProductSamples]:
        known = zip(batch.systems, floors.of(batch), strict=True)
        tallies = [_Tally.of(job.structure, system, sampling, floor) for system, floor in known]
        while not all(tally.finished for tally in tallies):
            # as many directions of every system as there are copies of it
            directions = [tally.direction() for _ in range(batch.copies) for tally in tallies]
            odd, whole = batch.along(directions)
            squares = torch.stack([torch.stack([part.sum() for part in parts]) for parts in (odd, whole)]).cpu()
            for k, (one, all_) in enumerate(squares.T.tolist()):
                tallies[k % len(tallies)].add(one, all_)
            if progress is not None:
                done = sum(sampling.max_pairs if tally.finished else tally.n for tally in tallies)
                progress(n_finished * sampling.max_pairs + done, n_systems * sampling.max_pairs)
        return [tally.samples() for tally in tallies]

    samples = []
    for _, found in in_passes(job, sampling.max_pairs, work):
        samples.append(found)
        n_finished = len(samples)
    return samples


@dataclass
class _Tally:
    """What is known of one system."""

    n_atoms: int
    random: np.random.Generator
    sampling: Sampling
    noise_floor: float
    odd: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    drawn: int = 0
    finished: bool = False

    @classmethod
    def of(cls, structure: Structure, system: int, sampling: Sampling, noise_floor: float) -> _Tally:
        n_atoms = int(structure.atoms_per_system[system])
        return cls(n_atoms, np.random.default_rng((sampling.seed, system)), sampling, noise_floor)

    @property
    def n(self) -> int:
        return len(self.whole)

    @property
    def exact(self) -> bool:
        return 3 * self.n_atoms <= self.sampling.max_pairs

    @property
    def most(self) -> int:
        return 3 * self.n_atoms if self.exact else self.sampling.max_pairs

    def direction(self) -> Tensor:
        """The next vector, (n_atoms, 3); zero when there is no more need."""
        vector = np.zeros((self.n_atoms, 3))
        if not self.exact:
            vector = self.random.choice([-1.0, 1.0], size=vector.shape)
        elif self.drawn < self.most:
            vector.flat[self.drawn] = 1.0
        self.drawn += 1
        return torch.from_numpy(vector)

    def add(self, odd: float, whole: float) -> None:
        """One more pair; those that other systems of the pass still need do not count here."""
        if self.finished:
            return
        self.odd.append(odd)
        self.whole.append(whole)
        self.finished = self.n == self.most or (self.n % ROUND == 0 and not self.exact and self._enough())

    def _enough(self) -> bool:
        value, error = ratio(np.array(self.odd), np.array(self.whole))
        if value <= 3 * self.noise_floor:
            return True
        return self.n >= self.sampling.min_pairs and error <= self.sampling.relative_error * value

    def samples(self) -> ProductSamples:
        return ProductSamples(np.array(self.odd), np.array(self.whole), self.noise_floor, self.exact)


class _Floors:
    """λ of round-off, once for each composition: how far products of a float64 copy are from the potential's own.

    A potential in float64, or one that has no such copy (or no memory for it), is taken to be good to its precision
    times the square root of the number of atoms.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.known: dict[tuple[int, ...], float] = {}
        potential = job.potential
        self.precise: Potential | None = None
        if isinstance(potential, nn.Module) and potential.dtype != torch.float64:
            self.precise = copy.deepcopy(potential).double()

    def of(self, batch: Batch) -> list[float]:
        """For each system of a batch."""
        keys = [tuple(self.job.structure.select([system]).numbers.tolist()) for system in batch.systems]
        new = [k for k, key in enumerate(keys) if key not in self.known and keys.index(key) == k]
        if self.precise is None:
            self.known |= {keys[k]: relative_round_off(self.job.potential, len(keys[k])) for k in new}
        elif new:
            self.known |= {keys[k]: floor for k, floor in self._measure(self.precise, batch, new)}
        return [self.known[key] for key in keys]

    def _measure(self, potential: Potential, batch: Batch, new: list[int]) -> Iterator[tuple[int, float]]:
        """(k, floor) for the k-th systems of a batch, by products with random signs."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=tuple(batch.field.positions.shape))
        vector = torch.from_numpy(signs).to(batch.field.positions)
        sizes = batch.structure.atoms_per_system.tolist()
        parts = [whole.split(sizes) for whole in (vector, batch.field.forward(vector), batch.field.transposed(vector))]
        for some in groups([sizes[k] for k in new], _ATOMS_AT_ONCE):
            chosen = [new[m] for m in some]
            along, forward, backward = (torch.cat([column[k] for k in chosen]) for column in parts)
            structure = self.job.structure.select([batch.systems[k] for k in chosen])
            try:
                precise = Field.at(potential, structure, self.job.forces, self._room(batch))
                error = (forward - precise.forward(along)) - (backward - precise.transposed(along))
            except (GraphTooLarge, torch.cuda.OutOfMemoryError):
                yield from ((k, relative_round_off(self.job.potential, sizes[k])) for k in chosen)
                continue
            columns = (whole.split([sizes[k] for k in chosen]) for whole in (error, forward))
            for k, wrong, right in zip(chosen, *columns, strict=True):
                yield k, float(wrong.norm()) / 2 / max(float(right.norm()), _TINY)

    def _room(self, batch: Batch) -> float | None:
        given = self.job.memory_bytes
        return None if given is None else max(0.0, given - batch.field.bytes_per_atom * batch.structure.n_atoms)
