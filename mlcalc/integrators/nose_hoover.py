"""Nosé–Hoover chains: deterministic, reversible, canonical where the dynamics is ergodic.

    ṗ = F − v₁ p,    Q₁ v̇₁ = 2K − N_f kT − Q₁ v₁ v₂,    Q_j v̇_j = Q_{j−1} v_{j−1}² − kT − Q_j v_j v_{j+1},    ξ̇_j = v_j
    H' = E + Σ_j Q_j v_j²/2 + N_f kT ξ₁ + kT Σ_{j>1} ξ_j,    Q₁ = N_f kT τ²,    Q_{j>1} = kT τ²

G. J. Martyna, M. L. Klein, M. Tuckerman, J. Chem. Phys. 97, 2635 (1992), doi:10.1063/1.463940; integrated as in
G. J. Martyna, M. E. Tuckerman, D. J. Tobias, M. L. Klein, Mol. Phys. 87, 1117 (1996), doi:10.1080/00268979600100761,
with Suzuki–Yoshida weights of order six (H. Yoshida, Phys. Lett. A 150, 262 (1990), doi:10.1016/0375-9601(90)90092-3).

Half of it acts at either end of an outer step: their XO-RESPA, for baths slower than an outer step. It costs nothing
inside, and keeps the whole step reversible.

| symbol | variable |
|---|---|
| ξ_j, v_j | place, speed |
| Q_j | mass |
| τ | time_ps |
| N_f | freedom |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.integrators.phase import Phase, by_atom, kinetic_energy
from mlcalc.integrators.thermostat import (
    Counted,
    Thermostat,
    check_centre_at_rest,
    check_resolved,
    check_temperature,
    check_time,
)

_YOSHIDA = (0.784513610477560, 0.235573213359357, -1.17767998417887)  # order six, solution A
_WEIGHTS = (*_YOSHIDA, 1 - 2 * sum(_YOSHIDA), *reversed(_YOSHIDA))


@dataclass(frozen=True)
class NoseHoover(Thermostat):
    """A chain of thermostats on the kinetic energy.

    Attributes
    ----------
    temperature_K : K, above 0
    time_ps : τ, ps, of the chain's own oscillation
    length : of the chain, 1 or more
    external_field : whether something outside holds the atoms (wells, walls); else the centre of mass stays at rest

    Raises
    ------
    UsageError
        for numbers outside these ranges.
    """

    temperature_K: float
    time_ps: float = 0.1
    length: int = 3
    external_field: bool = False

    inside = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature_K)
        check_time("time_ps", self.time_ps)
        if isinstance(self.length, bool) or not isinstance(self.length, int) or not 1 <= self.length <= 100:
            raise UsageError(f"length: got {self.length}; give a whole number of thermostats from 1 to 100")

    @property
    def memory_ps(self) -> float:
        return self.time_ps

    def freedom(self, n_atoms: Counted) -> Counted:
        return 3 * n_atoms - (0 if self.external_field else 3)

    def check_timestep(self, timestep_fs: float) -> None:
        check_resolved("NoseHoover", self.time_ps, timestep_fs)

    def start(self, phase: Phase) -> Tensor:
        """ξ, then v; all 0."""
        check_centre_at_rest(self, phase)
        shape = (2 * self.length,) if phase.batch is None else (2 * self.length, phase.batch.n_systems)
        return phase.momenta.new_zeros(shape, dtype=torch.float64)

    def act(self, phase: Phase, time: float, count: int) -> Phase:
        assert phase.own is not None
        chain = _Chain(self, phase)
        before = chain.energy()
        with np.errstate(over="ignore", invalid="ignore"):  # of a system that explodes, which is for others to find
            for weight in _WEIGHTS:
                chain.move(weight * time)
        heat = phase.heat - torch.as_tensor(chain.energy() - before)
        momenta = by_atom(phase, torch.as_tensor(chain.scale)) * phase.momenta
        own = torch.stack([torch.as_tensor(value) for value in chain.place + chain.speed])
        return replace(phase, momenta=momenta, own=own, heat=heat)


class _Chain:
    """The chain's variables while it moves: a number or, in a batch, (n_systems,) each.

    They are numpy's on the CPU, where tensors took seven times as long for so little, and tensors on a GPU, which is
    not waited for.
    """

    def __init__(self, thermostat: NoseHoover, phase: Phase) -> None:
        assert phase.own is not None
        n, self.kT = thermostat.length, thermostat.kT
        kinetic, on_host = kinetic_energy(phase), not phase.momenta.is_cuda
        own: Any = phase.own.numpy() if on_host else phase.own
        self.exp: Callable[[Any], Any] = np.exp if on_host else torch.exp
        self.freedom: Any = thermostat.freedom(len(phase.momenta))
        if phase.batch is not None:
            # integers times a Python number would be of single precision
            sizes = thermostat.freedom(phase.batch.lengths.double())
            self.freedom = sizes.numpy() if on_host else sizes
        self.place, self.speed = list(own[:n]), list(own[n:])
        inertia = self.kT * (thermostat.time_ps * units.PICOSECOND) ** 2
        self.mass = [self.freedom * inertia] + [inertia] * (n - 1)
        self.twice_kinetic: Any = 2 * (kinetic.numpy() if on_host else kinetic)
        self.scale: Any = 1.0

    def energy(self) -> Any:
        moving = sum(mass * speed**2 / 2 for mass, speed in zip(self.mass, self.speed, strict=True))
        return moving + self.kT * (self.freedom * self.place[0] + sum(self.place[1:]))

    def move(self, time: float) -> None:
        """exp(t L) of the chain, symmetric, of second order (section 4 of Martyna et al. 1996)."""
        n = len(self.speed)
        for j in reversed(range(n)):
            self._push(j, time / 2)
        factor = self.exp(-time * self.speed[0])
        self.scale = self.scale * factor
        self.twice_kinetic = self.twice_kinetic * factor * factor
        self.place = [place + time * speed for place, speed in zip(self.place, self.speed, strict=True)]
        for j in range(n):
            self._push(j, time / 2)

    def _push(self, j: int, time: float) -> None:
        """v_j under its own force, between two halves of the drag of v_{j+1}."""
        if j == 0:
            force = self.twice_kinetic - self.freedom * self.kT
        else:
            force = self.mass[j - 1] * self.speed[j - 1] ** 2 - self.kT
        drag = self.exp(-time / 2 * self.speed[j + 1]) if j + 1 < len(self.speed) else 1.0
        self.speed[j] = (self.speed[j] * drag + time * force / self.mass[j]) * drag
