"""Reversible multiple time stepping, r-RESPA.

    exp(Δt/2 L_slow) [ exp(δt/2 L_fast) exp(δt L_q) exp(δt/2 L_fast) ]^n exp(Δt/2 L_slow),    δt = Δt/n

M. Tuckerman, B. J. Berne, G. J. Martyna, J. Chem. Phys. 97, 1990 (1992), doi:10.1063/1.463137. The conserved energy is
that of slow + fast; second order in Δt, time-reversible. With n = 1 it is velocity Verlet with the sum of the forces.

| symbol | variable |
|---|---|
| Δt | timestep, the outer one |
| n | n_inner |
| F_slow, F_fast | slow, fast |
| exp(δt L_q) | move |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mlcalc.integrators.phase import Phase, drift, kick


@dataclass(frozen=True)
class Forces:
    """What acts in one phase.

    Attributes
    ----------
    slow, fast : (n_atoms, 3), eV/Å
    virial : (3, 3), eV, of their sum; where a barostat asks for it
    """

    slow: Tensor
    fast: Tensor
    virial: Tensor | None = None


def _drift(phase: Phase, time: float | Tensor, k: int) -> Phase:
    return drift(phase, time)


def step(
    phase: Phase,
    forces: Forces,
    fast: Callable[[Phase], Tensor],
    both: Callable[[Phase], Forces],
    timestep: float | Tensor,
    n_inner: int,
    move: Callable[[Phase, Any, int], Phase] = _drift,
) -> tuple[Phase, Forces]:
    """One outer step: `fast` is called n_inner − 1 times, `both` once, at the end.

    Parameters
    ----------
    forces : in this phase
    fast, both : phase → force or forces
    timestep : Δt, internal time units
    move : (phase, δt, k) → the phase after what lies between the fast kicks of inner step k

    Returns
    -------
    the phase an outer step later, and the forces there
    """
    inner, force = timestep / n_inner, forces.fast
    phase = kick(phase, forces.slow, timestep / 2)
    for k in range(n_inner - 1):
        phase = move(kick(phase, force, inner / 2), inner, k)
        force = fast(phase)
        phase = kick(phase, force, inner / 2)
    phase = move(kick(phase, force, inner / 2), inner, n_inner - 1)
    forces = both(phase)
    phase = kick(phase, forces.fast, inner / 2)
    return kick(phase, forces.slow, timestep / 2), forces
