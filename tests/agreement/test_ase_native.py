"""ASE class against native engine: the same neighbours, then the same trajectory."""

from __future__ import annotations

import ase.build
import numpy as np
import torch
from ase import units
from ase.md.velocitydistribution import thermalize_momenta

from mlcalc.engines.ase import MLCalculator
from mlcalc.engines.ase_dynamics import MTSVelocityVerlet
from mlcalc.engines.native import NativeEngine
from mlcalc.potentials.painn import PaiNN
from mlcalc.structure import Structure


def test_positions_agree_after_fifty_outer_steps() -> None:
    torch.manual_seed(0)
    network = PaiNN(["H", "O"], 3.0, channels=8, n_layers=2, n_radial=6, hidden=16, pair_channels=8).double()
    network.scale.fill_(0.2)  # random forces, made gentle enough for a dynamics
    molecule = ase.build.molecule("H2O")
    molecule.set_cell([3.1, 3.1, 3.1])
    molecule.pbc = True
    atoms = molecule.repeat(2)
    thermalize_momenta(atoms, temperature_K=50, rng=np.random.default_rng(0))
    structure = Structure.from_ase(atoms)
    engine = NativeEngine(
        network, structure, forces="mts", timestep_fs=1.0, n_inner=4, momenta=torch.tensor(atoms.get_momenta())
    )
    atoms.calc = MLCalculator(network)
    ours, theirs = engine.neighbours(structure), atoms.calc.neighbours(atoms.calc.structure(atoms))
    assert torch.equal(ours.centre, theirs.centre)
    assert torch.equal(ours.shift, theirs.shift)
    start = atoms.positions.copy()
    MTSVelocityVerlet(atoms, 1.0 * units.fs, n_inner=4).run(50)
    record = engine.run(50)
    assert np.abs(record.positions[-1] - start).max() > 0.02
    np.testing.assert_allclose(atoms.positions, record.positions[-1], atol=1e-10)
    np.testing.assert_allclose(atoms.get_total_energy(), record.conserved[-1], atol=1e-9)
