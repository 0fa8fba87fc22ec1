"""Langevin dynamics, BAOAB and its r-RESPA form.

    exp(Δt/2 L_slow) [ B_fast(δt/2) A(δt/2) O(δt) A(δt/2) B_fast(δt/2) ]^n exp(Δt/2 L_slow),    δt = Δt/n

with A: q ← q + t p/m,  B_fast: p ← p + t F_fast,  O: p ← c p + sqrt((1 − c²) m kT) ξ,  c = exp(−γ δt), ξ normal.
With n = 1 it is BAOAB with the sum of the forces: B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34,
doi:10.1093/amrx/abs010. Multiple time steps: L. Lagardère, F. Aviat, J.-P. Piquemal, J. Phys. Chem. Lett. 10, 2593
(2019), doi:10.1021/acs.jpclett.9b00901.

Energy less heat is conserved to order Δt² in BAOAB. In its r-RESPA form noise falls between the two halves of a slow
kick, which see other velocities than those that moved the atoms: the balance then walks at random by order Δt, with no
bias.

| symbol | variable |
|---|---|
| Δt | timestep, the outer one |
| n | n_inner |
| γ | friction |
| kT | kT, eV |
| ξ | noise |
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.integrators import noise
from mlcalc.integrators.phase import Phase, by_system
from mlcalc.integrators.thermostat import Thermostat, check_temperature


@dataclass(frozen=True)
class Langevin(Thermostat):
    """A bath of white noise.

    Attributes
    ----------
    temperature_K : K, 0 or more
    friction_per_ps : γ, 1/ps; 1 is weak, 10 strong enough to slow diffusion in a liquid
    seed : of the noise, which is a function of the seed and of the number of the inner step alone: a run that is
        continued needs no state of a random generator

    Raises
    ------
    UsageError
        for numbers outside these ranges.
    """

    temperature_K: float
    friction_per_ps: float = 1.0
    seed: int = 0

    inside = True

    def __post_init__(self) -> None:
        check_temperature(self.temperature_K, zero=True)
        if not 0 < self.friction_per_ps <= 1e4:
            raise UsageError(f"friction_per_ps: got {self.friction_per_ps}; give a friction above 0 to 1e4 per ps")
        noise.check_seed(self.seed)

    @property
    def memory_ps(self) -> float:
        return 1 / self.friction_per_ps

    def noise(self, like: Tensor, step: int) -> Tensor:
        """ξ of inner step number `step` of the run: normal deviates of the shape, dtype and device of `like`."""
        return noise.normal(like, self.seed, step)

    def act(self, phase: Phase, time: float, count: int) -> Phase:
        """O."""
        keep = math.exp(-self.friction_per_ps * time / units.PICOSECOND)
        spread = ((1 - keep * keep) * self.kT * phase.masses).sqrt()
        random = noise.normal_of(phase, phase.momenta, self.seed, count)
        momenta = keep * phase.momenta + spread * random
        heat = (momenta.square() - phase.momenta.square()) / (2 * phase.masses)
        return replace(phase, momenta=momenta, heat=phase.heat + by_system(phase, heat))
