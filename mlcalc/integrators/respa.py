"""Reversible multiple time stepping, r-RESPA.

    exp(Δt/2 L_slow) [ exp(δt/2 L_fast) exp(δt L_q) exp(δt/2 L_fast) ]^n exp(Δt/2 L_slow),    δt = Δt/n

M. Tuckerman, B. J. Berne, G. J. Martyna, J. Chem. Phys. 97, 1990 (1992), doi:10.1063/1.463137. The conserved energy is
that of slow + fast; second order in Δt, time-reversible. With n = 1 it is velocity Verlet with the sum of the forces.

| symbol | variable |
|---|---|
| Δt | timestep, the outer one |
| n | n_inner |
| F_slow, F_fast | slow, fast |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mlcalc.integrators import velocity_verlet
from mlcalc.integrators.phase import Phase, kick


@dataclass(frozen=True)
class Forces:
    """Slow and fast force at one set of positions, each (n_atoms, 3), eV/Å."""

    slow: Tensor
    fast: Tensor


def step(
    phase: Phase,
    forces: Forces,
    fast: Callable[[Tensor], Tensor],
    both: Callable[[Tensor], Forces],
    timestep: float | Tensor,
    n_inner: int,
) -> tuple[Phase, Forces]:
    """One outer step: `fast` is called n_inner − 1 times, `both` once, at the end.

    Parameters
    ----------
    forces : at phase.positions
    fast, both : positions → force or forces
    timestep : Δt, internal time units

    Returns
    -------
    the phase an outer step later, and the forces there
    """
    inner = timestep / n_inner
    phase = kick(phase, forces.slow, timestep / 2)
    force = forces.fast
    for _ in range(n_inner - 1):
        phase, force = velocity_verlet.step(phase, force, fast, inner)
    end: list[Forces] = []

    def last(positions: Tensor) -> Tensor:
        end.append(both(positions))
        return end[0].fast

    phase, _ = velocity_verlet.step(phase, force, last, inner)
    return kick(phase, end[0].slow, timestep / 2), end[0]
