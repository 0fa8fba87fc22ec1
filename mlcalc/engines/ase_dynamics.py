"""Multiple time stepping as ASE molecular-dynamics classes: constant energy, temperature, and pressure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ase
import torch
from ase import units as ase_units
from ase.md.md import MolecularDynamics
from torch import Tensor

from mlcalc import units
from mlcalc.engines.ase import MLCalculator
from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted, required, split_forces
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.phase import Phase
from mlcalc.integrators.respa import Forces
from mlcalc.integrators.thermostat import Thermostat
from mlcalc.structure import Structure


class MTSDynamics(MolecularDynamics):
    """Direct forces inside and conservative corrections every outer step, in any ensemble of the native engine.

    A step costs n_inner − 1 direct evaluations and one joint one, whose results are the calculator's at the end of the
    step: loggers and observers cost no evaluation.

    Parameters
    ----------
    atoms : with an `MLCalculator` with conservative forces, of a potential that has both
    timestep : the outer one, in ASE's unit of time (e.g. 4 * ase.units.fs)
    n_inner : inner steps in an outer step
    ensemble : what is held constant, see `mlcalc.Ensemble`; energy if not given
    **kwargs : as for `ase.md.md.MolecularDynamics`: trajectory, logfile, loginterval …

    Attributes
    ----------
    heat : eV, what thermostat and barostat have brought in; total energy less heat is conserved

    Raises
    ------
    UsageError
        for another calculator, constraints, momenta, a timestep or n_inner that cannot be used, or a barostat where
        there is no virial or no periodic cell.
    RunError
        from `step`, if a position is no longer finite.
    """

    def __init__(
        self, atoms: ase.Atoms, timestep: float, n_inner: int = 8, ensemble: Ensemble | None = None, **kwargs: Any
    ) -> None:
        if not isinstance(atoms.calc, MLCalculator):
            raise UsageError(f"atoms: its calculator is {atoms.calc!r}; attach an mlcalc MLCalculator")
        if atoms.calc.forces != "conservative":
            raise UsageError(
                "atoms: its calculator gives direct forces; attach MLCalculator(potential, 'conservative')"
            )
        if atoms.constraints:
            raise UsageError("atoms: constraints are not supported with multiple time stepping; remove them")
        if not (math.isfinite(timestep) and timestep > 0):
            raise UsageError(f"timestep: got {timestep}; give a finite time above 0, e.g. 4 * ase.units.fs")
        if isinstance(n_inner, bool) or not isinstance(n_inner, int) or n_inner < 1:
            raise UsageError(f"n_inner: got {n_inner!r}; give a whole number of inner steps, 1 or more")
        self.calculator = atoms.calc
        self.potential = self.calculator.potential
        self.n_inner, self.ensemble = n_inner, Ensemble.of(ensemble)
        self.ensemble.check_timestep(timestep / ase_units.fs)
        constant_pressure = self.ensemble.barostat is not None
        self.potential.check_wanted(JOINT | Wanted.VIRIAL if constant_pressure else JOINT)
        if constant_pressure and not atoms.pbc.all():
            raise UsageError("atoms: they are not periodic in all directions; give them a cell, or no barostat")
        self._phase = self.ensemble.start(_phase_of(atoms, self.potential.device), torch.tensor(atoms.cell.array))
        atoms.set_momenta(self._phase.momenta.cpu().numpy())  # others only where a thermostat bounds them
        self._template: Structure | None = None
        self._count = 0
        super().__init__(atoms, timestep, **kwargs)

    def todict(self) -> dict[str, Any]:
        return {**super().todict(), "n_inner": self.n_inner}

    @property
    def heat(self) -> float:
        return float(self._phase.heat)

    def step(self, forces: Any = None) -> None:
        """One outer step."""
        atoms, calculator = self.atoms, self.calculator
        if "direct_forces" not in calculator.results or calculator.check_state(atoms):
            atoms.get_forces()
            self._template = None
        template = self._template = self._template or calculator.structure(atoms)
        phase = _phase_of(atoms, template.device)
        phase = replace(self._phase, positions=phase.positions, momenta=phase.momenta, masses=phase.masses)
        if phase.cell is not None:
            phase = replace(phase, cell=torch.tensor(atoms.cell.array))
        last: list[Evaluation] = []

        def direct(phase: Phase) -> Tensor:
            return required(self._evaluate(template, phase, Wanted.DIRECT), "direct_force")

        def both(phase: Phase) -> Forces:
            wanted = calculator._wanted(("forces",), periodic=bool(atoms.pbc.all()))
            last.append(self._evaluate(template, phase, wanted))
            virial = last[0].virial
            return Forces(*split_forces(last[0]), None if virial is None else virial[0])

        phase, _ = self.ensemble.step(
            phase, self._forces_now(phase), direct, both, float(self.dt), self.n_inner, self._count
        )
        if not bool(torch.isfinite(phase.momenta).all()):
            raise RunError(
                f"run: not finite after step {self.nsteps}; shorten timestep or n_inner ({self.n_inner}), or relax the "
                "structure first"
            )
        self._phase, self._count = phase, self._count + self.n_inner
        self._give_back(phase, last[0])

    def _forces_now(self, phase: Phase) -> Forces:
        """From the calculator's results, which belong to the atoms as they are."""
        results, like = self.calculator.results, phase.positions
        fast = torch.as_tensor(results["direct_forces"], device=like.device)
        slow = torch.as_tensor(results["forces"], device=like.device) - fast
        virial = None
        if "stress" in results:
            stress = -self.atoms.get_volume() * self.atoms.get_stress(voigt=False)
            virial = torch.as_tensor(stress, device=like.device)
        return Forces(slow, fast, virial)

    def _give_back(self, phase: Phase, evaluation: Evaluation) -> None:
        atoms = self.atoms
        atoms.positions = phase.positions.cpu().numpy()
        atoms.set_momenta(phase.momenta.cpu().numpy())
        if phase.cell is not None:
            atoms.set_cell(phase.cell.numpy())
        self.calculator.atoms = atoms.copy()
        self.calculator.keep(evaluation, atoms.get_volume() if evaluation.virial is not None else None)

    def _evaluate(self, template: Structure, phase: Phase, wanted: Wanted) -> Evaluation:
        structure = template.at(phase.positions, None if phase.cell is None else phase.cell[None])
        return self.potential.evaluate(structure, self.calculator.neighbours(structure), wanted)


class MTSVelocityVerlet(MTSDynamics):
    """NVE by r-RESPA (see `integrators.respa`); arguments as in `MTSDynamics`."""

    def __init__(self, atoms: ase.Atoms, timestep: float, n_inner: int = 8, **kwargs: Any) -> None:
        super().__init__(atoms, timestep, n_inner, **kwargs)


class MTSLangevin(MTSDynamics):
    """NVT by BAOAB in r-RESPA (see `integrators.langevin`); other arguments as in `MTSDynamics`.

    Parameters
    ----------
    temperature_K : K
    friction : in ASE's inverse time, e.g. 0.001 / ase.units.fs
    seed : of the noise
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        timestep: float,
        n_inner: int = 8,
        *,
        temperature_K: float,
        friction: float,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        bath = Langevin(temperature_K, friction * units.PICOSECOND, seed)
        super().__init__(atoms, timestep, n_inner, Ensemble(bath), **kwargs)


class MTSBussi(MTSDynamics):
    """NVT by stochastic velocity rescaling (see `integrators.bussi`); other arguments as in `MTSDynamics`.

    Parameters
    ----------
    temperature_K : K
    taut : relaxation time in ASE's unit, e.g. 100 * ase.units.fs
    seed : of the noise
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        timestep: float,
        n_inner: int = 8,
        *,
        temperature_K: float,
        taut: float,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        bath = Bussi(temperature_K, taut / units.PICOSECOND, seed)
        super().__init__(atoms, timestep, n_inner, Ensemble(bath), **kwargs)


class MTSNPT(MTSDynamics):
    """NPT with a Langevin piston (see `integrators.barostat`); other arguments as in `MTSDynamics`.

    Parameters
    ----------
    thermostat : of the atoms, e.g. `mlcalc.Bussi(300)`
    pressure_au : eV/Å³, e.g. 1 * ase.units.bar
    taup : time of the barostat in ASE's unit, e.g. 1000 * ase.units.fs
    shape : "isotropic" or "full"
    seed : of the piston's noise
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        timestep: float,
        n_inner: int = 8,
        *,
        thermostat: Thermostat,
        pressure_au: float,
        taup: float,
        shape: str = "isotropic",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        barostat = Barostat(pressure_au / ase_units.GPa, taup / units.PICOSECOND, shape, seed)
        super().__init__(atoms, timestep, n_inner, Ensemble(thermostat, barostat), **kwargs)


def _phase_of(atoms: ase.Atoms, device: torch.device) -> Phase:
    return Phase(
        torch.tensor(atoms.positions, device=device),
        torch.tensor(atoms.get_momenta(), device=device),
        torch.tensor(atoms.get_masses()[:, None], device=device),
        numbers=torch.tensor(atoms.numbers, device=device),
    )
