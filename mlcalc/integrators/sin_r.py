"""Stochastic isokinetic dynamics, SIN(R): multiple time steps without resonance.

    q̇ = v,    ṗ = F − η m v,    Q η̇ = (L+1)/L m v² − kT − γ Q η + sqrt(2 γ Q kT) Ẇ
    v = c tanh(p/(m c)),    c² = L kT/m,    Q = L kT τ²,    with an η for each degree of freedom

No velocity passes c, however hard a force kicks. So an outer step in resonance with a vibration, which in r-RESPA
drives velocities without bound, does no harm here. What is sampled is

    exp(−U/kT) Π sech^L(p/(m c)) exp(−Q η²/2kT),

canonical in the positions. Velocities are not: ⟨m v²⟩ = L/(L+1) kT, half of it with L = 1, and time is no physical
time: read no temperature, diffusion or spectrum from it as from other dynamics.

B. Leimkuhler, D. T. Margul, M. E. Tuckerman, Mol. Phys. 111, 3579 (2013), doi:10.1080/00268976.2013.844369, in the
form of C. R. A. Abreu, M. E. Tuckerman, Eur. Phys. J. B 94, 231 (2021), doi:10.1140/epjb/s10051-021-00226-4. With L = 1
the two are the same. The first have one more velocity v₁, constrained to m v² + Q₁ v₁²/2 = kT. That constraint is
tanh² + sech² = 1 here, and holds to round-off. Their solution of the force step by cosh and sinh is p ← p + t F here,
a plain kick; so p, conjugate to q, is what r-RESPA kicks, and

    H' = U + L kT Σ ln cosh(p/(m c)) − what the bath has brought in

is conserved as energy is in r-RESPA. With larger L velocities come nearer to Maxwell's, and the bound is farther away.

The bath acts on each inner step, between the half drifts ("middle", XI-RESPA in the paper's words), split as
η(t/2) p(t/2) O(t) p(t/2) η(t/2), each exact; that of p is sinh(p/(m c)) ← sinh(p/(m c)) e^(−t η).

| symbol | variable |
|---|---|
| p, η | own, (2, n_atoms, 3) in Phase.own |
| m v | Phase.momenta between outer steps, and in records |
| L | regulation |
| τ | time_ps |
| γ | friction_per_ps |
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
from mlcalc.integrators.thermostat import Thermostat, check_temperature, check_time

_LARGE = 300.0  # from here on sinh is its exponential to round-off, and soon too large for a number


@dataclass(frozen=True)
class SINR(Thermostat):
    """Positions at a temperature, with outer steps of any length; no dynamics, and velocities of L/(L+1) of it.

    Attributes
    ----------
    temperature_K : K, above 0, of the positions
    time_ps : τ, ps, of the bath; some periods of the fastest vibration
    friction_per_ps : γ, 1/ps, of the bath's own variable
    regulation : L, 1 (as in the paper) or more; velocities are bound by sqrt(L kT/m)
    seed : of the noise, which is a function of the seed and of the number of the inner step alone

    Raises
    ------
    UsageError
        for numbers outside these ranges.
    """

    temperature_K: float
    time_ps: float = 0.01
    friction_per_ps: float = 100.0
    regulation: float = 1.0
    seed: int = 0

    inside = True
    constant_pressure = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature_K)
        check_time("time_ps", self.time_ps)
        if not 0 < self.friction_per_ps <= 1e4:
            raise UsageError(f"friction_per_ps: got {self.friction_per_ps}; give a friction above 0 to 1e4 per ps")
        if not 1 <= self.regulation <= 1e3:
            raise UsageError(f"regulation: got {self.regulation}; give a number from 1 to 1000")
        noise.check_seed(self.seed)

    @property
    def memory_ps(self) -> float:
        return max(self.time_ps, 1 / self.friction_per_ps)

    @property
    def caveat(self) -> str:
        kinetic = self.regulation / (self.regulation + 1) * self.temperature_K
        return (
            f"SIN(R): positions are those of {self.temperature_K:g} K; velocities are bound, their temperature is "
            f"meant to be {kinetic:g} K, and time is no physical time: no diffusion, spectra or rates"
        )

    def start(self, phase: Phase) -> Tensor:
        """p, which the given momenta are, and η, drawn from its distribution."""
        random = noise.normal_of(phase, phase.momenta, self.seed, 0, noise.START)
        return torch.stack([phase.momenta, self._spread * random])

    @property
    def _spread(self) -> float:
        """sqrt(kT/Q), 1/time"""
        return 1 / (math.sqrt(self.regulation) * self.time_ps * units.PICOSECOND)

    def _scale(self, phase: Phase) -> Tensor:
        """m c, (n_atoms, 1)"""
        return (self.regulation * self.kT * phase.masses).sqrt()

    def conjugate(self, phase: Phase) -> Phase:
        assert phase.own is not None
        momenta = phase.own.reshape(2, *phase.momenta.shape)[0]
        return replace(phase, momenta=momenta, heat=phase.heat - self._excess(momenta, phase))

    def physical(self, phase: Phase) -> Phase:
        assert phase.own is not None
        own = torch.stack([phase.momenta, phase.own.reshape(2, *phase.momenta.shape)[1]])
        scale = self._scale(phase)
        heat = phase.heat + self._excess(phase.momenta, phase)
        return replace(phase, momenta=scale * (phase.momenta / scale).tanh(), own=own, heat=heat)

    def _excess(self, momenta: Tensor, phase: Phase) -> Tensor:
        """What records call kinetic energy, m v²/2, less what the dynamics keeps; of each system."""
        rapidity = momenta / self._scale(phase)
        return by_system(phase, self.regulation * self.kT / 2 * rapidity.tanh().square() - self._energy(rapidity))

    def _energy(self, rapidity: Tensor) -> Tensor:
        """L kT ln cosh(p/(m c))"""
        size = rapidity.abs()
        return self.regulation * self.kT * (size + torch.log1p(torch.exp(-2 * size)) - math.log(2))

    def drift(self, phase: Phase, time: float) -> Phase:
        scale = self._scale(phase)
        velocities = scale * (phase.momenta / scale).tanh() / phase.masses
        return replace(phase, positions=phase.positions + time * velocities)

    def act(self, phase: Phase, time: float, count: int) -> Phase:
        assert phase.own is not None
        scale, speed = self._scale(phase), phase.own.reshape(2, *phase.momenta.shape)[1]
        rapidity = before = phase.momenta / scale
        speed = speed + time / 2 * self._pull(rapidity)
        rapidity = _contract(rapidity, time / 2 * speed)
        keep = math.exp(-self.friction_per_ps * time / units.PICOSECOND)
        random = noise.normal_of(phase, speed, self.seed, count)
        speed = keep * speed + math.sqrt(1 - keep * keep) * self._spread * random
        rapidity = _contract(rapidity, time / 2 * speed)
        speed = speed + time / 2 * self._pull(rapidity)
        heat = phase.heat + by_system(phase, self._energy(rapidity) - self._energy(before))
        momenta = scale * rapidity
        return replace(phase, momenta=momenta, own=torch.stack([momenta, speed]), heat=heat)

    def _pull(self, rapidity: Tensor) -> Tensor:
        """η̇ = ((L+1)/L m v² − kT)/Q, 1/time²"""
        return ((self.regulation + 1) * rapidity.tanh().square() - 1) * self._spread**2


def _contract(rapidity: Tensor, exponent: Tensor) -> Tensor:
    """x → arsinh(sinh(x) e^−a)"""
    size = rapidity.abs()
    sinh = torch.sinh(size.clamp(max=_LARGE)) * torch.exp(-exponent)
    small = torch.log1p(sinh + sinh.square() / (1 + (1 + sinh.square()).sqrt()))  # arsinh; torch's own is slow
    return torch.copysign(torch.where(size > _LARGE, size - exponent, small), rapidity)
