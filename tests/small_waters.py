"""A small box of water and a small network for it, for tests that run dynamics."""

from __future__ import annotations

import ase
import numpy as np
import torch

from mlcalc.potentials.painn import PaiNN


def few_waters() -> ase.Atoms:
    """Eight water molecules on a grid of 3.2 Å, turned at random but always the same way."""
    draw = np.random.default_rng(1)
    box = ase.Atoms(cell=[6.4, 6.4, 6.4], pbc=True)
    for corner in np.ndindex(2, 2, 2):
        molecule = ase.Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        molecule.rotate(draw.uniform(0, 360), draw.normal(size=3))
        molecule.translate(3.2 * np.array(corner) + 0.8)
        box += molecule
    return box


def gentle_network(form: str = "M") -> PaiNN:
    """Untrained; its forces are weak, so that nothing flies apart."""
    torch.manual_seed(0)
    sizes = dict(channels=8, n_layers=2, n_radial=6, hidden=16, pair_channels=8)
    network = PaiNN(["H", "O"], cutoff=3.0, form=form, **sizes)
    network.scale.fill_(0.01)
    return network
