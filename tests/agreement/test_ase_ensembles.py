"""Ensembles in ASE against the native engine, which makes the same random numbers."""

from __future__ import annotations

from collections.abc import Callable

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import thermalize_momenta

from mlcalc.engines.ase import MLCalculator
from mlcalc.engines.ase_dynamics import MTSNPT, MTSBussi, MTSDynamics, MTSLangevin
from mlcalc.engines.native import NativeEngine
from mlcalc.errors import UsageError
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.integrators.sin_r import SINR
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure


def pair() -> TwoPotentials:
    return TwoPotentials(LennardJones(epsilon=0.0095, cutoff=4.8), LennardJones(cutoff=4.8))


def argon() -> ase.Atoms:
    atoms = bulk("Ar", cubic=True, a=5.4)
    atoms.rattle(0.1, seed=1)
    thermalize_momenta(atoms, temperature_K=60, rng=np.random.default_rng(0))
    momenta = atoms.get_momenta()
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    atoms.calc = MLCalculator(pair())
    return atoms


TIMESTEP = 8.0 * units.fs
KINDS: dict[str, tuple[Ensemble, Callable[[ase.Atoms], MTSDynamics]]] = {
    "Langevin": (
        Ensemble(Langevin(60.0, 5.0, seed=4)),
        lambda atoms: MTSLangevin(atoms, TIMESTEP, 4, temperature_K=60.0, friction=0.005 / units.fs, seed=4),
    ),
    "Bussi": (
        Ensemble(Bussi(60.0, 0.1, seed=4)),
        lambda atoms: MTSBussi(atoms, TIMESTEP, 4, temperature_K=60.0, taut=100 * units.fs, seed=4),
    ),
    "NPT": (
        Ensemble(Bussi(60.0, 0.1, seed=4), Barostat(0.05, 0.2, "full", seed=5)),
        lambda atoms: MTSNPT(
            atoms,
            TIMESTEP,
            4,
            thermostat=Bussi(60.0, 0.1, seed=4),
            pressure_au=0.05 * units.GPa,
            taup=200 * units.fs,
            shape="full",
            seed=5,
        ),
    ),  # fmt: skip
    "SIN(R)": (
        Ensemble(SINR(60.0)),
        lambda atoms: MTSDynamics(atoms, TIMESTEP, 4, Ensemble(SINR(60.0))),
    ),
    "any other": (
        Ensemble(NoseHoover(60.0, 0.1)),
        lambda atoms: MTSDynamics(atoms, TIMESTEP, 4, Ensemble(NoseHoover(60.0, 0.1))),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ase_and_native_agree_in_every_ensemble(kind: str) -> None:
    ensemble, make = KINDS[kind]
    atoms = argon()
    engine = NativeEngine(
        pair(),
        Structure.from_ase(atoms),
        timestep_fs=8.0,
        n_inner=4,
        momenta=torch.tensor(atoms.get_momenta()),
        ensemble=ensemble,
    )
    start, volume = atoms.positions.copy(), atoms.get_volume()
    dynamics = make(atoms)
    assert isinstance(dynamics, MolecularDynamics)
    dynamics.run(20)
    record = engine.run(20)
    assert np.abs(record.positions[-1] - start).max() > 0.02
    np.testing.assert_allclose(atoms.positions, record.positions[-1], atol=1e-9)
    np.testing.assert_allclose(atoms.cell, record.cell_of(-1), atol=1e-9)
    assert dynamics.heat == pytest.approx(record.heat[-1], abs=1e-9)
    assert (atoms.get_volume() != volume) == (kind == "NPT")
    fresh = atoms.copy()
    fresh.calc = MLCalculator(pair())
    np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-9)
    np.testing.assert_allclose(atoms.get_stress(), fresh.get_stress(), atol=1e-9)


def test_unusable_ensembles_are_refused() -> None:
    atoms = argon()
    with pytest.raises(UsageError, match="friction_per_ps: got 0"):
        MTSLangevin(atoms, TIMESTEP, temperature_K=300, friction=0.0)
    with pytest.raises(UsageError, match="time_ps: got 0"):
        MTSBussi(atoms, TIMESTEP, temperature_K=300, taut=0.0)
    with pytest.raises(UsageError, match="time_ps: got 0"):
        MTSNPT(atoms, TIMESTEP, thermostat=Bussi(60.0), pressure_au=0.0, taup=0.0)
    npt = {"thermostat": Bussi(60.0), "pressure_au": 0.0, "taup": 200 * units.fs}
    atoms.calc = MLCalculator(Harmonic(atoms.positions))
    with pytest.raises(UsageError, match="no virial"):
        MTSNPT(atoms, TIMESTEP, **npt)
    slab = argon()
    slab.pbc = (True, True, False)
    with pytest.raises(UsageError, match="periodic"):
        MTSNPT(slab, TIMESTEP, **npt)
