"""Velocity Verlet: exp(Δt/2 L_p) exp(Δt L_q) exp(Δt/2 L_p).

W. C. Swope, H. C. Andersen, P. H. Berens, K. R. Wilson, J. Chem. Phys. 76, 637 (1982), doi:10.1063/1.442716. Second
order in Δt, time-reversible, symplectic where the force is a gradient.

| symbol | variable |
|---|---|
| Δt | timestep |
| F | force, at the phase's positions |
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mlcalc.integrators.phase import Phase, drift, kick


def step(
    phase: Phase, force: Tensor, evaluate: Callable[[Tensor], Tensor], timestep: float | Tensor
) -> tuple[Phase, Tensor]:
    """One step.

    Parameters
    ----------
    force : F at phase.positions, (n_atoms, 3), eV/Å
    evaluate : positions → force
    timestep : Δt, internal time units

    Returns
    -------
    the phase a step later, and the force there
    """
    phase = drift(kick(phase, force, timestep / 2), timestep)
    force = evaluate(phase.positions)
    return kick(phase, force, timestep / 2), force
