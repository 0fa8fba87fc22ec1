"""Many systems in one batch: each follows the trajectory that it would have alone."""

from __future__ import annotations

from dataclasses import replace

import ase
import ase.build
import numpy as np
import pytest
import torch

from mlcalc.engines.batch import BatchEngine
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.gle import GLE
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure

SIZES = ((1, 1, 1), (2, 1, 1), (2, 2, 1))
#: Short, so that the cells may be small: lists hold images all the same
LJ = LennardJones(sigma=3.4, cutoff=5.0)
BOTH = TwoPotentials(LennardJones(sigma=3.3, cutoff=5.0), LJ)


def argon(size: tuple[int, int, int]) -> ase.Atoms:
    atoms = ase.build.bulk("Ar", cubic=True, a=5.3).repeat(size)
    atoms.rattle(0.05, seed=sum(size))
    return atoms


BATCH = Structure.from_ase([argon(size) for size in SIZES])
NUMBERS = range(len(SIZES))


def momenta_of(structure: Structure, temperature_K: float = 80.0, seed: int = 1) -> torch.Tensor:
    return maxwell_boltzmann(structure, temperature_K, seed)


def options(forces: str, ensemble: Ensemble | None = None) -> dict:
    return {"forces": forces, "timestep_fs": 8.0, "n_inner": 4 if forces == "mts" else 1, "ensemble": ensemble}


def test_momenta_of_a_batch_are_those_of_its_systems() -> None:
    whole = momenta_of(BATCH).split(BATCH.atoms_per_system.tolist())
    for k in NUMBERS:
        assert torch.equal(whole[k], momenta_of(BATCH.select([k]), seed=1 + k))


BATHS = {
    "constant energy": Ensemble(),
    "Langevin": Ensemble(Langevin(80.0, 5.0, seed=3)),
    "Bussi": Ensemble(Bussi(80.0, 0.1, seed=3)),
    "NoseHoover": Ensemble(NoseHoover(80.0, 0.1)),
    "GLE": Ensemble(GLE(80.0, ((10.0, 30.0, 0.0), (-30.0, 60.0, 20.0), (0.0, -20.0, 15.0)), seed=3)),
}


@pytest.mark.parametrize("forces", ["mts", "conservative", "direct"])
@pytest.mark.parametrize("bath", BATHS)
def test_each_system_does_what_it_would_do_alone(bath: str, forces: str) -> None:
    """Frames to round-off, thermostats' variables too; seeds count up from the thermostat's."""
    ensemble = BATHS[bath]
    engine = BatchEngine(BOTH, BATCH, momenta=momenta_of(BATCH), **options(forces, ensemble))
    together = engine.run(12, stride=4)
    for k in NUMBERS:
        bath_of_one = ensemble.thermostat
        if bath_of_one is not None and not isinstance(bath_of_one, NoseHoover):
            bath_of_one = replace(bath_of_one, seed=3 + k)
        one = BATCH.select([k])
        native = NativeEngine(BOTH, one, momenta=momenta_of(one, seed=1 + k), **options(forces, Ensemble(bath_of_one)))
        alone = native.run(12, stride=4)
        assert together[k].provenance == alone.provenance
        for name in ("time_ps", "positions", "momenta", "potential_energy", "kinetic_energy", "heat", "power", "state"):
            there, here = getattr(together[k], name), getattr(alone, name)
            if here is None:
                assert there is None
            else:
                np.testing.assert_allclose(there, here, rtol=1e-10, atol=1e-11, err_msg=name)
        assert np.ptp(alone.positions, axis=0).max() > 0.05


def test_a_network_is_evaluated_in_batches_to_round_off() -> None:
    """The bundled potential in single precision, 8 inner steps."""
    import mlcalc

    water = mlcalc.water_box()
    systems = [water[:24], water[:48]]
    batch = Structure.from_ase(systems)
    settings = {"timestep_fs": 4.0, "n_inner": 8}
    together = BatchEngine(mlcalc.load("water"), batch, momenta=momenta_of(batch, 300.0), **settings).run(1)
    for k, part in enumerate(together):
        one = batch.select([k])
        alone = NativeEngine(mlcalc.load("water"), one, momenta=momenta_of(one, 300.0, 1 + k), **settings).run(1)
        np.testing.assert_allclose(part.positions, alone.positions, atol=1e-6)
        np.testing.assert_allclose(part.conserved, alone.conserved, atol=1e-4)


def test_every_system_has_its_own_timestep() -> None:
    engine = BatchEngine(BOTH, BATCH, momenta=momenta_of(BATCH), **{**options("mts"), "timestep_fs": (2.0, 4.0, 8.0)})
    together = engine.run(10, stride=10)
    for k, timestep_fs in enumerate((2.0, 4.0, 8.0)):
        one = BATCH.select([k])
        native = NativeEngine(
            BOTH, one, momenta=momenta_of(one, seed=1 + k), **{**options("mts"), "timestep_fs": timestep_fs}
        )
        alone = native.run(10, stride=10)
        np.testing.assert_allclose(together[k].positions, alone.positions, atol=1e-11)
        np.testing.assert_array_equal(together[k].time_ps, alone.time_ps)
        assert together[k].provenance["timestep_fs"] == timestep_fs
