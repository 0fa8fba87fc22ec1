"""Generalised Langevin equation: coloured noise from auxiliary momenta s, given by two matrices.

    d(p, s) = −A (p, s) dt + B dW,    B Bᵀ = A C + C Aᵀ,    p and s mass-scaled (p/√m)

M. Ceriotti, G. Bussi, M. Parrinello, J. Chem. Theory Comput. 6, 1170 (2010), doi:10.1021/ct900563s. Its exact solution
over a time t, for a free particle, is their equation 28:

    (p, s) ← T (p, s) + S ξ,    T = exp(−t A),    S Sᵀ = C − T C Tᵀ,    ξ normal

With C = kT 1 it samples the canonical ensemble; another C holds each frequency at a temperature of its own (quantum
thermostats). It acts on every inner step, in the place of BAOAB's O: its matrices reach up to the fastest vibrations,
which an outer step does not resolve. A one-by-one matrix A = (γ) is Langevin dynamics.

| symbol | variable |
|---|---|
| A | drift_per_ps |
| C | covariance_K, over the Boltzmann constant |
| s | own, (n_own, n_atoms, 3) |
| T, S | keep, spread |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.integrators import noise
from mlcalc.integrators.phase import Phase, by_system
from mlcalc.integrators.thermostat import Thermostat, check_temperature

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class GLE(Thermostat):
    """A bath of coloured noise.

    Attributes
    ----------
    temperature_K : K; of C = kT 1 where `covariance_K` is not given, and of starting momenta
    drift_per_ps : A, (n, n), 1/ps; row and column 0 are the momentum
    covariance_K : C, (n, n), K; canonical if not given
    seed : of the noise, which is a function of the seed and of the number of the inner step alone

    Raises
    ------
    UsageError
        for matrices that are not square or not finite, a drift that does not decay, or a covariance that no noise
        makes.
    """

    temperature_K: float
    drift_per_ps: Rows
    covariance_K: Rows | None = None
    seed: int = 0

    inside = True

    def __post_init__(self) -> None:
        check_temperature(self.temperature_K, zero=self.covariance_K is None)
        noise.check_seed(self.seed)
        for name, rows in (("drift_per_ps", self.drift_per_ps), ("covariance_K", self.covariance_K)):
            if rows is not None:
                object.__setattr__(self, name, _square(name, rows, len(self.drift_per_ps)))
        _check_drift(np.array(self.drift_per_ps), np.array(self._covariance))

    @property
    def _covariance(self) -> Rows:
        n = len(self.drift_per_ps)
        return self.covariance_K or tuple(tuple(row) for row in (self.temperature_K * np.eye(n)).tolist())

    @property
    def memory_ps(self) -> float:
        """The inverse friction of slow motion, A_pp − A_ps A_ss⁻¹ A_sp: an element of the inverse of A."""
        return float(abs(np.linalg.inv(np.array(self.drift_per_ps))[0, 0]))

    def start(self, phase: Phase) -> Tensor:
        """s, drawn from what C says of it where p is as it is."""
        covariance = units.BOLTZMANN * np.array(self._covariance)
        given, rest = covariance[0, 0], covariance[1:, 1:]
        mean = covariance[1:, 0] / given if given else np.zeros(len(rest))
        root = torch.from_numpy(_root(rest - given * np.outer(mean, mean)))
        scaled = (phase.momenta / phase.masses.sqrt()).cpu()
        random = noise.normal_of(phase, scaled.expand(len(rest), -1, -1), self.seed, 0, noise.START)
        own = torch.from_numpy(mean)[:, None, None] * scaled + torch.einsum("ab,bix->aix", root, random)
        return own.to(phase.momenta.device)

    def act(self, phase: Phase, time: float, count: int) -> Phase:
        assert phase.own is not None
        root = phase.masses.sqrt()
        own = phase.own.reshape(-1, *phase.momenta.shape)
        both = torch.cat([(phase.momenta / root)[None], own])
        keep, spread = _propagator(self.drift_per_ps, self._covariance, time, both.device)
        random = noise.normal_of(phase, both, self.seed, count)
        both = torch.einsum("ab,bix->aix", keep, both) + torch.einsum("ab,bix->aix", spread, random)
        momenta = root * both[0]
        heat = (momenta.square() - phase.momenta.square()) / (2 * phase.masses)
        return replace(phase, momenta=momenta, own=both[1:], heat=phase.heat + by_system(phase, heat))


@lru_cache(maxsize=16)
def _propagator(drift_per_ps: Rows, covariance_K: Rows, time: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """T and S, (n, n), float64."""
    drift = torch.tensor(drift_per_ps, dtype=torch.float64) / units.PICOSECOND
    covariance = units.BOLTZMANN * np.array(covariance_K)
    keep = torch.linalg.matrix_exp(-time * drift)
    spread = torch.from_numpy(_root(covariance - keep.numpy() @ covariance @ keep.numpy().T))
    return keep.to(device), spread.to(device)


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance; round-off below zero is zero."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    root: np.ndarray = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def _square(name: str, rows: Rows, n: int) -> Rows:
    try:
        matrix = np.array(rows, dtype=float)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (n, n) or n < 1 or not np.isfinite(matrix).all():
        raise UsageError(f"{name}: got a shape of {matrix.shape}; give finite numbers, {max(n, 1)} by {max(n, 1)}")
    return tuple(tuple(row) for row in matrix.tolist())


def _check_drift(drift: np.ndarray, covariance: np.ndarray) -> None:
    slowest = np.linalg.eigvals(drift).real.min()
    if not slowest > 0:
        raise UsageError(
            f"drift_per_ps: an eigenvalue has the real part {slowest:.3g}; all must be above 0, or nothing decays"
        )
    if np.abs(covariance - covariance.T).max() > 1e-6 * np.abs(covariance).max():
        raise UsageError("covariance_K: it is not symmetric; give the covariance C, not its root or its transpose")
    for what, matrix in (("C", covariance), ("A C + C Aᵀ", drift @ covariance + covariance @ drift.T)):
        least = np.linalg.eigvalsh((matrix + matrix.T) / 2).min()
        # files give their numbers to a dozen digits
        if least < -1e-6 * np.abs(matrix).max():
            raise UsageError(
                f"covariance_K: {what} has the eigenvalue {least:.3g}, and no noise has that; give A and C that belong "
                "together"
            )
