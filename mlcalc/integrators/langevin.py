"""Langevin dynamics, BAOAB and its r-RESPA form.

    exp(Δt/2 L_slow) [ B_fast(δt/2) A(δt/2) O(δt) A(δt/2) B_fast(δt/2) ]^n exp(Δt/2 L_slow),    δt = Δt/n

with A: q ← q + t p/m,  B_fast: p ← p + t F_fast,  O: p ← c p + sqrt((1 − c²) m kT) ξ,  c = exp(−γ δt), ξ normal.
With n = 1 it is BAOAB with the sum of the forces: B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34,
doi:10.1093/amrx/abs010. Multiple time steps: L. Lagardère, F. Aviat, J.-P. Piquemal, J. Phys. Chem. Lett. 10, 2593
(2019), doi:10.1021/acs.jpclett.9b00901.

Energy less heat is conserved to order Δt² in BAOAB. In its r-RESPA form noise falls between the two halves of a slow
kick, which see other velocities than those that moved the atoms: the balance then walks at random by order Δt, with no
bias.

The friction may be another one for hydrogen, whose vibrations are what an outer step drives by resonance. Each
atom's O is exact with a c of its own.

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

import torch
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
    hydrogen_friction_per_ps : γ of hydrogen, 1/ps; as of the others if not given

    Raises
    ------
    UsageError
        for numbers outside these ranges.
    """

    temperature_K: float
    friction_per_ps: float = 1.0
    seed: int = 0
    hydrogen_friction_per_ps: float | None = None

    inside = True

    def __post_init__(self) -> None:
        check_temperature(self.temperature_K, zero=True)
        for name in ("friction_per_ps", "hydrogen_friction_per_ps"):
            friction = getattr(self, name)
            if friction is not None and not 0 < friction <= 1e4:
                raise UsageError(f"{name}: got {friction}; give a friction above 0 to 1e4 per ps")
        noise.check_seed(self.seed)

    @property
    def memory_ps(self) -> float:
        return 1 / min(self.friction_per_ps, self.hydrogen_friction_per_ps or math.inf)

    def start(self, phase: Phase) -> None:
        if self.hydrogen_friction_per_ps is not None and phase.numbers is None:
            raise UsageError("hydrogen_friction_per_ps: the phase has no atomic numbers; give it some, or one friction")

    def noise(self, like: Tensor, step: int) -> Tensor:
        """ξ of inner step number `step` of the run: normal deviates of the shape, dtype and device of `like`."""
        return noise.normal(like, self.seed, step)

    def act(self, phase: Phase, time: float, count: int) -> Phase:
        """O."""
        keep = self._keep(phase, time)
        spread = ((1 - keep * keep) * self.kT * phase.masses).sqrt()
        random = noise.normal_of(phase, phase.momenta, self.seed, count)
        momenta = keep * phase.momenta + spread * random
        heat = (momenta.square() - phase.momenta.square()) / (2 * phase.masses)
        return replace(phase, momenta=momenta, heat=phase.heat + by_system(phase, heat))

    def _keep(self, phase: Phase, time: float) -> float | Tensor:
        """c, of all atoms or (n_atoms, 1)"""
        keep = math.exp(-self.friction_per_ps * time / units.PICOSECOND)
        if self.hydrogen_friction_per_ps is None:
            return keep
        assert phase.numbers is not None
        of_hydrogen = math.exp(-self.hydrogen_friction_per_ps * time / units.PICOSECOND)
        return torch.full_like(phase.masses, keep).masked_fill((phase.numbers == 1)[:, None], of_hydrogen)
