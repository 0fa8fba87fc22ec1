"""Systems whose statistics are known, for the laws of thermostats and barostats; each call costs microseconds."""

from __future__ import annotations

import torch
from torch import Tensor

from mlcalc import units
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.phase import Phase
from mlcalc.integrators.respa import Forces

TEMPERATURE = 300.0
KT = units.BOLTZMANN * TEMPERATURE
MASS = 20.0  # amu
NOTHING = torch.zeros(3, 3, dtype=torch.float64)


def resting_centre(n_atoms: int, seed: int) -> Phase:
    """Positions around the origin, momenta of the temperature that sum to zero."""
    generator = torch.Generator().manual_seed(seed)
    masses = torch.full((n_atoms, 1), MASS, dtype=torch.float64)
    positions, momenta = torch.randn(2, n_atoms, 3, generator=generator, dtype=torch.float64)
    momenta = momenta * (MASS * KT) ** 0.5
    return Phase(0.1 * positions, momenta - momenta.mean(dim=0), masses)


def tangled(positions: Tensor) -> Tensor:
    """−∂U/∂q of springs with couplings that leave nothing conserved: U = Σ_a k_a q_a²/2 + g (Σ_a q_a q_{a+1})²/2."""
    q = positions.flatten()
    springs = torch.linspace(1.0, 2.5, len(q), dtype=q.dtype)
    coupling = (q * q.roll(1)).sum()
    return (-springs * q - 40.0 * coupling * (q.roll(1) + q.roll(-1))).reshape(positions.shape)


def run(ensemble: Ensemble, phase: Phase, n_steps: int, timestep_fs: float, n_inner: int):  # type: ignore[no-untyped-def]
    """Phases of the tangled springs, the fast force being 0.9 times the whole one and turned a little."""
    twist = torch.tensor([[0.0, 0.05, 0.0], [-0.05, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)

    def fast(phase: Phase) -> Tensor:
        force = tangled(phase.positions)
        return 0.9 * force + force @ twist

    def both(phase: Phase) -> Forces:
        return Forces(tangled(phase.positions) - fast(phase), fast(phase), NOTHING)

    forces, timestep = both(phase), units.from_femtoseconds(timestep_fs)
    for k in range(n_steps):
        phase, forces = ensemble.step(phase, forces, fast, both, timestep, n_inner, k * n_inner)
        yield phase
