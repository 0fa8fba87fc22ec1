"""The same laws, judged by physical_validation (P. T. Merz, M. R. Shirts, PLoS ONE 13, e0202764 (2018)).

It is told energies, volumes and the state point, and answers in standard errors. Fixed seeds.
"""

from __future__ import annotations

import numpy as np
import pytest
from coupled import CELL, MASS, PRESSURE, TEMPERATURE, N, resting_centre, run, volumes

from mlcalc import units
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.integrators.phase import kinetic_energy
from mlcalc.integrators.thermostat import Thermostat

physical_validation = pytest.importorskip("physical_validation", reason="missing: physical-validation")

#: eV, Å, GPa, ps in its own kJ/mol, nm, bar, ps
UNITS = physical_validation.data.UnitData(
    kb=units.BOLTZMANN, energy_conversion=96.48533, length_conversion=0.1, volume_conversion=1e-3,
    temperature_conversion=1.0, pressure_conversion=1e4, time_conversion=1.0,
)  # fmt: skip


def simulation(n_atoms: int, ensemble: object, **observables: np.ndarray):  # type: ignore[no-untyped-def]
    """What physical_validation calls the data of a simulation in an external field: no degree of freedom is missing."""
    return physical_validation.data.SimulationData(
        units=UNITS,
        dt=0.004,
        system=physical_validation.data.SystemData(
            natoms=n_atoms, nconstraints=0, ndof_reduction_tra=0, ndof_reduction_rot=0, mass=np.full(n_atoms, MASS)
        ),
        ensemble=ensemble,
        observables=physical_validation.data.ObservableData(**observables),
    )


def springs(make, temperature: float) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    """Energies of the tangled springs of two atoms under multiple time stepping, 64 fs apart."""
    ensemble = Ensemble(make(temperature))
    phases = list(run(ensemble, ensemble.start(resting_centre(2, 3), CELL), 1200, 8.0, 2))[40::8]
    # U = Σ k q²/2 + 40 G²/2, G = Σ q q' (coupled.py)
    q = np.stack([phase.positions.flatten().numpy() for phase in phases])
    potential = (np.linspace(1.0, 2.5, 6) * q * q).sum(axis=1) / 2 + 20.0 * (q * np.roll(q, 1, axis=1)).sum(axis=1) ** 2
    kinetic = np.array([kinetic_energy(phase) for phase in phases])
    return {"kinetic_energy": kinetic, "potential_energy": potential, "total_energy": kinetic + potential}


def at(temperature: float, energies: dict[str, np.ndarray]):  # type: ignore[no-untyped-def]
    state = physical_validation.data.EnsembleData("NVT", natoms=2, volume=1.0, temperature=temperature)
    return simulation(2, state, **energies)


def of_kinetic_energy(data) -> float:  # type: ignore[no-untyped-def]
    """Standard errors by which its mean or its width is off; 64 fs are three autocorrelation times."""
    told = {"verbosity": 0, "bootstrap_seed": 1, "data_is_uncorrelated": True}
    return max(map(abs, physical_validation.kinetic_energy.distribution(data, **told)))


@pytest.mark.parametrize(
    "make",
    [
        lambda kelvin: Langevin(kelvin, 20.0),
        lambda kelvin: Bussi(kelvin, 0.02, external_field=True),
        lambda kelvin: NoseHoover(kelvin, 0.02, external_field=True),
    ],
    ids=["Langevin", "Bussi", "NoseHoover"],
)
def test_energies_of_a_thermostat(make) -> None:  # type: ignore[no-untyped-def]
    """Mean and width of the kinetic energy; and energies at two temperatures, whose distributions must have the ratio
    exp(−Δβ E), whatever the springs are. Told another temperature it objects, so it would see one that is wrong."""
    cold, hot = springs(make, 300.0), springs(make, 400.0)
    assert of_kinetic_energy(at(300.0, cold)) < 3 and of_kinetic_energy(at(400.0, hot)) < 3
    assert of_kinetic_energy(at(400.0, cold)) > 3
    for total in (False, True):
        assert abs(check(at(300.0, cold), at(400.0, hot), total_energy=total)) < 3
    assert abs(check(at(300.0, cold), at(700.0, hot), total_energy=True)) > 3


def check(one, other, **more: bool) -> float:  # type: ignore[no-untyped-def]
    """Standard errors between the measured slope of ln(P₂/P₁) and that of the state points."""
    (off,) = physical_validation.ensemble.check(one, other, verbosity=0, data_is_uncorrelated=True, **more)
    return float(off)


@pytest.mark.parametrize(
    ("thermostat", "shape"),
    [(Langevin(TEMPERATURE, 20.0), "isotropic"), (Bussi(TEMPERATURE, 0.02), "full")],
    ids=["Langevin, isotropic", "Bussi, full"],
)
def test_volumes_at_two_pressures(thermostat: Thermostat, shape: str) -> None:
    """P₂(V)/P₁(V) ∝ exp(−β ΔP V), whatever U(V) is. Told twice the difference of pressures it objects."""
    found = {factor: volumes(thermostat, shape, 1.0, 18, factor * PRESSURE) for factor in (1.0, 1.5)}

    def gas(factor: float, told: float) -> object:
        state = physical_validation.data.EnsembleData(
            "NPT", natoms=N, pressure=told * PRESSURE / units.GIGAPASCAL, temperature=TEMPERATURE
        )
        return simulation(N, state, volume=found[factor])

    assert abs(check(gas(1.0, 1.0), gas(1.5, 1.5))) < 3
    assert abs(check(gas(1.0, 1.0), gas(1.5, 2.0))) > 3
