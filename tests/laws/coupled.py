"""Systems whose statistics are known, for the laws of thermostats and barostats; each call costs microseconds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mlcalc import units
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.phase import Phase
from mlcalc.integrators.respa import Forces
from mlcalc.integrators.thermostat import Thermostat

TEMPERATURE = 300.0
KT = units.BOLTZMANN * TEMPERATURE
MASS = 20.0  # amu
NOTHING = torch.zeros(3, 3, dtype=torch.float64)
CELL = torch.eye(3, dtype=torch.float64)
N = 8
VOLUME = 240.0  # Å³
PRESSURE = (N + 1) * KT / VOLUME  # eV/Å³: the mean volume of an ideal gas is then VOLUME


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


def volumes(
    thermostat: Thermostat, shape: str, stiffness: float, n_replicas: int, pressure: float = PRESSURE
) -> np.ndarray:
    """Of a gas with U = stiffness (V/V₀ − 1)²/2, 80 fs apart, from short runs: nothing holds the shape of an ideal
    gas's cell, which diffuses without end."""
    nothing = torch.zeros(N, 3, dtype=torch.float64)

    def forces(phase: Phase) -> Forces:
        assert phase.cell is not None
        ratio = float(torch.linalg.det(phase.cell)) / VOLUME
        # virial = −dU/dstrain = −V U'(V) 1
        virial = -stiffness * (ratio - 1) * ratio * torch.eye(3, dtype=torch.float64)
        return Forces(nothing, nothing, virial)

    found = []
    for replica in range(n_replicas):
        ensemble = Ensemble(thermostat, Barostat(pressure / units.GIGAPASCAL, 0.05, shape, seed=replica))
        cell = VOLUME ** (1 / 3) * torch.eye(3, dtype=torch.float64)
        phase = ensemble.start(resting_centre(N, replica), cell)
        for k in range(120):
            phase, _ = ensemble.step(
                phase, forces(phase), lambda _: nothing, forces, units.from_femtoseconds(10.0), 1, k
            )
            if k > 24 and k % 8 == 7:
                assert phase.cell is not None
                found.append(float(torch.linalg.det(phase.cell)))
    return np.array(found)
