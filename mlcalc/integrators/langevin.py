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
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.integrators.phase import Phase, drift, kick
from mlcalc.integrators.respa import Forces


@dataclass(frozen=True)
class Langevin:
    """A bath.

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

    def __post_init__(self) -> None:
        if not 0 <= self.temperature_K <= 1e6:
            raise UsageError(f"temperature_K: got {self.temperature_K}; give a temperature from 0 to 1e6 K")
        if not 0 < self.friction_per_ps <= 1e4:
            raise UsageError(f"friction_per_ps: got {self.friction_per_ps}; give a friction above 0 to 1e4 per ps")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed: got {self.seed}; give a whole number from 0 to {2**63 - 1}")

    def noise(self, like: Tensor, step: int) -> Tensor:
        """ξ of inner step number `step` of the run: normal deviates of the shape, dtype and device of `like`."""
        # counted in the second word, so that each step has 2⁶⁴ numbers of its own
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, step, 0, 0]))
        return torch.from_numpy(generator.standard_normal(like.shape)).to(like)


def bathe(phase: Phase, langevin: Langevin, timestep: float, step: int) -> tuple[Phase, float]:
    """O(δt) of inner step number `step` of the run: momenta meet the bath.

    Parameters
    ----------
    timestep : δt, internal time units

    Returns
    -------
    the phase, and the heat that came in, eV
    """
    keep = math.exp(-langevin.friction_per_ps * timestep / units.PICOSECOND)
    spread = ((1 - keep * keep) * units.BOLTZMANN * langevin.temperature_K * phase.masses).sqrt()
    after = replace(phase, momenta=keep * phase.momenta + spread * langevin.noise(phase.momenta, step))
    heat = (after.momenta.square() - phase.momenta.square()) / (2 * phase.masses)
    return after, float(heat.sum())


def step(
    phase: Phase,
    forces: Forces,
    fast: Callable[[Tensor], Tensor],
    both: Callable[[Tensor], Forces],
    timestep: float,
    n_inner: int,
    bath: Callable[[Phase, int], tuple[Phase, float]],
) -> tuple[Phase, Forces, float]:
    """One outer step: `fast` is called n_inner − 1 times, `both` once, at the end.

    Parameters
    ----------
    forces : at phase.positions
    fast, both : positions → force or forces
    timestep : Δt, internal time units
    bath : O of the k-th inner step, (phase, k) → the phase after it and the heat that came in, eV

    Returns
    -------
    the phase an outer step later, the forces there, and the heat that came in, eV
    """
    inner, heat = timestep / n_inner, 0.0
    phase = kick(phase, forces.slow, timestep / 2)
    for k in range(n_inner):
        phase = drift(kick(phase, forces.fast, inner / 2), inner / 2)
        phase, came_in = bath(phase, k)
        phase = drift(phase, inner / 2)
        heat += came_in
        forces = both(phase.positions) if k == n_inner - 1 else Forces(forces.slow, fast(phase.positions))
        phase = kick(phase, forces.fast, inner / 2)
    return kick(phase, forces.slow, timestep / 2), forces, heat
