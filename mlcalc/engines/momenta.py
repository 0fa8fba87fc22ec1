"""Momenta to start from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.structure import Structure


def maxwell_boltzmann(structure: Structure, temperature_K: float, seed: int) -> Tensor:
    """Momenta at a temperature: normal deviates with zero total momentum, scaled to the temperature exactly.

    System k of a batch gets the momenta that it would get alone with seed + k.

    Returns
    -------
    (n_atoms, 3), amu·Å/time, float64

    Raises
    ------
    UsageError
        for a temperature that is negative, not finite, or above 1e6 K.
    """
    if not 0 <= temperature_K <= 1e6:
        raise UsageError(f"temperature_K: got {temperature_K}; give a temperature from 0 to 1e6 K")
    masses = structure.masses.double().cpu()[:, None].split(structure.atoms_per_system.tolist())
    momenta = [_of_one(part, temperature_K, seed + k) for k, part in enumerate(masses)]
    return torch.cat(momenta).to(structure.device)


def _of_one(masses: Tensor, temperature_K: float, seed: int) -> Tensor:
    """The same for one system of masses (n_atoms, 1)."""
    n_atoms = len(masses)
    generator = torch.Generator().manual_seed(seed)
    momenta = torch.randn(n_atoms, 3, dtype=torch.float64, generator=generator) * masses.sqrt()
    momenta -= masses * momenta.sum(dim=0) / masses.sum()
    now = units.temperature_from_kinetic(float((momenta.square() / (2 * masses)).sum()), max(1, 3 * n_atoms - 3))
    return momenta * (math.sqrt(temperature_K / now) if now > 0 else 0.0)
