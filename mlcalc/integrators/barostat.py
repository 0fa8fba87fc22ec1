"""A barostat that moves the cell, all of it or its size alone: Martyna–Tobias–Klein dynamics with a Langevin piston.

    q̇ = p/m + v q,    ṗ = F − v p,    ḣ = h v,    W v̇ = G = Σ p pᵀ/m + virial + (x kT − P V) 1,    v = vᵀ
    H' = E + W Tr v²/2 + P V − x kT ln V,    W = (N_f + 3) kT τ²/3

Isotropic: v = v̄ 1, and G is a third of its trace times 1. These are the equations of G. J. Martyna, D. J. Tobias,
M. L. Klein, J. Chem. Phys. 101, 4177 (1994), doi:10.1063/1.467468, with kT instead of the instantaneous kinetic energy
in the term that makes the measure right, as G. Bussi, T. Zykova-Timan, M. Parrinello, J. Chem. Phys. 130, 074101
(2009), doi:10.1063/1.3073889, have it. The flow leaves dq dp dh V⁻³ alone (isotropic: dq dp dV/V), and the ensemble
wants dq dp dh V⁻² (dV): hence x = 1. Where the centre of mass is held at rest, the integral over its place lacks a
factor V, and x = 2. An ideal gas then has V^N exp(−PV/kT) in every case. Noise acts on v by its own friction 1/τ:
D. Quigley, M. I. J. Probert, J. Chem. Phys. 120, 11432 (2004), doi:10.1063/1.1755657.

Under multiple time stepping G acts at outer steps only, on half of Δt at either end. Direct forces are no gradient and
have no virial; but the sum of all forces is the conservative one, whose virial is −dE/dstrain. Kicking v by it every Δt
and p by the direct force every δt splits one and the same Liouvillian, so the step stays reversible, measure-preserving
and of second order; what is slow about v (τ against Δt) is what allows it. Kinetic and virial pressure cancel in a
stiff bond, so both are taken at the same instants. The cell moves with the atoms in every inner step.

| symbol | variable |
|---|---|
| h, v | cell, strain_rate |
| G, W | force, mass |
| P, τ | pressure, time_ps |
| x | extra |
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcalc import units
from mlcalc.errors import RunError, UsageError
from mlcalc.integrators import noise
from mlcalc.integrators.phase import Phase
from mlcalc.integrators.thermostat import check_time

SHAPES = ("isotropic", "full")
_MOST = 0.5  # of a side of the cell in one step: more is no dynamics
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Barostat:
    """Constant pressure.

    Attributes
    ----------
    pressure_GPa : P; 1 bar is 1e-4
    time_ps : τ, ps; well above the outer step, for G acts once in it
    shape : "isotropic", the cell keeps its form (liquids), or "full", all of it moves (solids)
    seed : of the noise

    Raises
    ------
    UsageError
        for values that cannot be used.
    """

    pressure_GPa: float = 1e-4
    time_ps: float = 1.0
    shape: str = "isotropic"
    seed: int = 0

    def __post_init__(self) -> None:
        if not -1e4 <= self.pressure_GPa <= 1e4:
            raise UsageError(f"pressure_GPa: got {self.pressure_GPa}; give a pressure from -1e4 to 1e4 GPa")
        check_time("time_ps", self.time_ps)
        if self.shape not in SHAPES:
            raise UsageError(f"shape: got {self.shape!r}; choose one of {', '.join(SHAPES)}")
        noise.check_seed(self.seed)


@dataclass(frozen=True)
class Piston:
    """A barostat on a system.

    Attributes
    ----------
    kT : eV; freedom : N_f; n_atoms : int
    """

    barostat: Barostat
    kT: float
    freedom: int
    n_atoms: int

    @property
    def pressure(self) -> float:
        """eV/Å³"""
        return self.barostat.pressure_GPa * units.GIGAPASCAL

    @property
    def extra(self) -> int:
        return 1 if self.freedom == 3 * self.n_atoms else 2

    @property
    def mass(self) -> float:
        """eV·time²"""
        return (self.freedom + 3) * self.kT * (self.barostat.time_ps * units.PICOSECOND) ** 2 / 3

    def kick(self, phase: Phase, virial: Tensor, time: float) -> Phase:
        """W v ← W v + t G; virial (3, 3), eV."""
        cell, rate = _moving(phase)
        stress = (phase.momenta.T @ (phase.momenta / phase.masses) + virial).cpu().numpy()
        constant = self.extra * self.kT - self.pressure * _volume(cell)
        after = rate + time / self.mass * self._allowed(stress + constant * np.eye(3))
        gained = self.mass / 2 * float((after**2 - rate**2).sum())
        return replace(phase, strain_rate=torch.from_numpy(after), heat=phase.heat - gained)

    def bathe(self, phase: Phase, time: float, count: int) -> Phase:
        """v meets a bath of its own; the heat goes into what is booked as the piston's energy, so the ledger stands."""
        _, rate = _moving(phase)
        keep = math.exp(-time / (self.barostat.time_ps * units.PICOSECOND))
        random = noise.generator(self.barostat.seed, count, noise.BAROSTAT).standard_normal((3, 3))
        spread = math.sqrt((1 - keep * keep) * self.kT / self.mass)
        return replace(phase, strain_rate=torch.from_numpy(keep * rate + spread * self._allowed(random)))

    def drift(self, phase: Phase, time: float) -> Phase:
        """Atoms and cell, v as it is: q ← e^{vt} q + sinh(vt)/v p/m,  p ← e^{−vt} p,  h ← h e^{vt}."""
        cell, rate = _moving(phase)
        values, axes = np.linalg.eigh(rate)
        x = time * values
        if not np.abs(x).max() < _MOST:
            raise RunError(f"cell: it changes by {np.abs(x).max():.3g} of its size in one step; lengthen its time_ps")
        along = np.divide(np.sinh(x), x, out=np.ones(3), where=x != 0)
        stretch, shrink, travel = ((axes * factor) @ axes.T for factor in (np.exp(x), np.exp(-x), time * along))
        moved = cell @ stretch
        gained = self.pressure * (_volume(moved) - _volume(cell)) - self.extra * self.kT * float(x.sum())

        def along_with(rows: Tensor, matrix: Array) -> Tensor:
            return rows @ torch.from_numpy(matrix).to(rows)

        return replace(
            phase,
            positions=along_with(phase.positions, stretch) + along_with(phase.momenta / phase.masses, travel),
            momenta=along_with(phase.momenta, shrink),
            cell=torch.from_numpy(moved),
            heat=phase.heat - gained,
        )

    def _allowed(self, matrix: Array) -> Array:
        """The part of a matrix that v can follow."""
        if self.barostat.shape == "isotropic":
            return float(np.trace(matrix)) / 3 * np.eye(3)
        part: Array = (matrix + matrix.T) / 2
        return part


def _moving(phase: Phase) -> tuple[Array, Array]:
    assert phase.cell is not None and phase.strain_rate is not None
    return phase.cell.numpy(), phase.strain_rate.numpy()


def _volume(cell: Array) -> float:
    return abs(float(np.linalg.det(cell)))
