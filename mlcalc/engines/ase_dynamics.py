"""Multiple time stepping as an ASE molecular-dynamics class."""

from __future__ import annotations

import math
from typing import Any

import ase
import torch
from ase.md.md import MolecularDynamics
from torch import Tensor

from mlcalc.engines.ase import MLCalculator
from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted, required, split_forces
from mlcalc.integrators import respa
from mlcalc.integrators.phase import Phase
from mlcalc.structure import Structure


class MTSVelocityVerlet(MolecularDynamics):
    """NVE with direct forces inside and conservative corrections every outer step (r-RESPA; see `integrators.respa`).

    A step costs n_inner − 1 direct evaluations and one joint one, whose results are the calculator's at the end of the
    step: loggers and observers cost no evaluation.

    Parameters
    ----------
    atoms : with an `MLCalculator` with conservative forces, of a potential that has both
    timestep : the outer one, in ASE's unit of time (e.g. 4 * ase.units.fs)
    n_inner : inner steps in an outer step
    **kwargs : as for `ase.md.md.MolecularDynamics`: trajectory, logfile, loginterval …

    Raises
    ------
    UsageError
        for another calculator, constraints, or a timestep or n_inner that cannot be used.
    RunError
        from `step`, if a position is no longer finite.
    """

    def __init__(self, atoms: ase.Atoms, timestep: float, n_inner: int = 8, **kwargs: Any) -> None:
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
        self.potential.check_wanted(JOINT)
        self.n_inner = n_inner
        self._template: Structure | None = None
        super().__init__(atoms, timestep, **kwargs)

    def todict(self) -> dict[str, Any]:
        return {**super().todict(), "n_inner": self.n_inner}

    def step(self, forces: Any = None) -> None:
        """One outer step."""
        atoms, results = self.atoms, self.calculator.results
        if "direct_forces" not in results or self.calculator.check_state(atoms):
            atoms.get_forces()
            self._template = None
            results = self.calculator.results
        template = self._template = self._template or self.calculator.structure(atoms)
        device = template.device
        fast = torch.as_tensor(results["direct_forces"], device=device)
        slow = torch.as_tensor(results["forces"], device=device) - fast
        phase = Phase(
            torch.tensor(atoms.positions, device=device),
            torch.tensor(atoms.get_momenta(), device=device),
            torch.as_tensor(atoms.get_masses()[:, None], device=device),
        )
        last: list[Evaluation] = []

        def direct(positions: Tensor) -> Tensor:
            return required(self._evaluate(template, positions, Wanted.DIRECT), "direct_force")

        def both(positions: Tensor) -> respa.Forces:
            wanted = self.calculator._wanted(("forces",), periodic=bool(atoms.pbc.all()))
            last.append(self._evaluate(template, positions, wanted))
            return respa.Forces(*split_forces(last[0]))

        phase, _ = respa.step(phase, respa.Forces(slow, fast), direct, both, float(self.dt), self.n_inner)
        if not bool(torch.isfinite(phase.momenta).all()):
            raise RunError(
                f"run: not finite after step {self.nsteps}; shorten timestep or n_inner ({self.n_inner}), or relax the "
                "structure first"
            )
        atoms.positions = phase.positions.cpu().numpy()
        atoms.set_momenta(phase.momenta.cpu().numpy())
        self.calculator.atoms = atoms.copy()
        self.calculator.keep(last[0], atoms.get_volume() if last[0].virial is not None else None)

    def _evaluate(self, template: Structure, positions: Tensor, wanted: Wanted) -> Evaluation:
        structure = template.at(positions)
        return self.potential.evaluate(structure, self.calculator.neighbours(structure), wanted)
