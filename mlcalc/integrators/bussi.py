"""Stochastic velocity rescaling: all momenta times α, so that the kinetic energy follows its own Langevin equation.

    dK = (K̄ − K) dt/τ + 2 sqrt(K K̄ / (N_f τ)) dW,    K̄ = N_f kT/2

G. Bussi, D. Donadio, M. Parrinello, J. Chem. Phys. 126, 014101 (2007), doi:10.1063/1.2408420; its exact solution over a
finite time is their equation A7 (appendix), with c = exp(−t/τ) and s = (1 − c) K̄/(N_f K):

    α² = [sqrt(c) + sqrt(s) R₁]² + s Σ_{i=2}^{N_f} R_i²,    R_i normal,    α has the sign of sqrt(c) + sqrt(s) R₁

Half of it acts at either end of an outer step. There momenta belong to the full conservative force and energy less
heat is conserved as well as r-RESPA alone conserves energy. Since τ is far longer than an outer step nothing is lost
by not acting inside.

| symbol | variable |
|---|---|
| τ | time_ps |
| N_f | freedom |
| c, s | keep, share |
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.integrators import noise
from mlcalc.integrators.phase import Phase, by_atom, kinetic_energy
from mlcalc.integrators.thermostat import Counted, Thermostat, check_centre_at_rest, check_temperature, check_time


@dataclass(frozen=True)
class Bussi(Thermostat):
    """Stochastic velocity rescaling: the canonical ensemble, with dynamics hardly disturbed.

    Attributes
    ----------
    temperature_K : K, above 0
    time_ps : τ, ps
    seed : of the noise, a function of the seed and of the number of the step
    external_field : whether something outside holds the atoms (wells, walls); else the centre of mass stays at rest

    Raises
    ------
    UsageError
        for numbers outside these ranges.
    """

    temperature_K: float
    time_ps: float = 0.1
    seed: int = 0
    external_field: bool = False

    inside = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature_K)
        check_time("time_ps", self.time_ps)
        noise.check_seed(self.seed)

    @property
    def memory_ps(self) -> float:
        return self.time_ps

    def freedom(self, n_atoms: Counted) -> Counted:
        return 3 * n_atoms - (0 if self.external_field else 3)

    def start(self, phase: Phase) -> Tensor | None:
        if kinetic_energy(phase) == 0:
            raise UsageError(
                "momenta: all are 0, and rescaling leaves them so; give momenta of maxwell_boltzmann, or use Langevin"
            )
        check_centre_at_rest(self, phase)
        return None

    def act(self, phase: Phase, time: float, count: int) -> Phase:
        kinetic = kinetic_energy(phase)
        keep = math.exp(-time / (self.time_ps * units.PICOSECOND))
        share = (1 - keep) * self.kT / (2 * kinetic)
        random = noise.to_device(self._random(phase, count), phase.momenta)
        first = math.sqrt(keep) + share.sqrt() * random[0].reshape(kinetic.shape)
        squared = first * first + share * random[1].reshape(kinetic.shape)
        scale = by_atom(phase, squared.sqrt().copysign(first))
        return replace(phase, momenta=scale * phase.momenta, heat=phase.heat + (squared - 1) * kinetic)

    def _random(self, phase: Phase, count: int) -> np.ndarray:
        """R₁ and Σ_{i≥2} R_i² of each system, (2, n_systems)."""
        sizes = (len(phase.momenta),) if phase.batch is None else phase.batch.sizes
        pairs = []
        for n_atoms, random in zip(sizes, noise.generators(phase, self.seed, count), strict=True):
            first = random.standard_normal()
            # a sum of n squares of normal deviates is twice a gamma deviate of shape n/2
            pairs.append((first, 2 * random.standard_gamma((self.freedom(n_atoms) - 1) / 2)))
        return np.array(pairs).T.copy()
