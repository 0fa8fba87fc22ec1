"""One outer step of any ensemble, of the exact flows of its parts.

    T(Δt/2) N(Δt/2) G(Δt/2)  exp(Δt/2 L_slow) [ B(δt/2) A(δt/2) O(δt) A(δt/2) B(δt/2) ]^n exp(Δt/2 L_slow)  G N T

in between r-RESPA with its fast kicks B; A drifts the atoms, and the cell with them; T is a thermostat that acts
outside, O one that acts inside, N the noise of the piston and G its force. What an ensemble lacks falls away: nothing
is left of it but r-RESPA at constant energy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mlcalc.errors import UsageError
from mlcalc.integrators import respa
from mlcalc.integrators.barostat import Barostat, Piston
from mlcalc.integrators.phase import Batch, Phase, drift
from mlcalc.integrators.respa import Forces
from mlcalc.integrators.thermostat import Thermostat, check_resolved


@dataclass(frozen=True)
class Ensemble:
    """What is held constant: energy, or temperature, or temperature and pressure.

    Attributes
    ----------
    thermostat : None for constant energy
    barostat : None for constant volume

    Raises
    ------
    UsageError
        for a barostat without a temperature above 0.
    """

    thermostat: Thermostat | None = None
    barostat: Barostat | None = None

    def __post_init__(self) -> None:
        for name, part, kind in (("thermostat", self.thermostat, Thermostat), ("barostat", self.barostat, Barostat)):
            if part is not None and not isinstance(part, kind):
                raise UsageError(f"{name}: got {part!r}; give a {kind.__name__}, such as Ensemble(Langevin(300))")
        if self.barostat is not None and (self.thermostat is None or not self.thermostat.temperature_K > 0):
            raise UsageError(f"barostat: got one with thermostat {self.thermostat}; give a thermostat above 0 K too")
        if self.barostat is not None and self.thermostat is not None and not self.thermostat.constant_pressure:
            name = type(self.thermostat).__name__
            raise UsageError(
                f"barostat: got one with {name}, which knows no pressure; give another thermostat, or none"
            )

    @classmethod
    def of(cls, given: Ensemble | None) -> Ensemble:
        """What was given, or constant energy.

        Raises
        ------
        UsageError
            for anything else, such as a thermostat alone.
        """
        if given is not None and not isinstance(given, Ensemble):
            raise UsageError(f"ensemble: got {given!r}; give an Ensemble, such as Ensemble(Langevin(300))")
        return given or cls()

    @property
    def name(self) -> str:
        """nve, nvt or npt"""
        return "nve" if self.thermostat is None else "nvt" if self.barostat is None else "npt"

    @property
    def memory_ps(self) -> float:
        """ps, how long it keeps what something else brings in; infinite at constant energy."""
        if self.thermostat is None:
            return math.inf
        return max(self.thermostat.memory_ps, self.barostat.time_ps if self.barostat else 0.0)

    def freedom(self, n_atoms: int) -> int:
        """Degrees of freedom of the kinetic energy; the centre of mass counts only where a thermostat moves it."""
        return 3 * n_atoms - 3 if self.thermostat is None else self.thermostat.freedom(n_atoms)

    def check_timestep(self, timestep_fs: float) -> None:
        """Refuse an outer step, fs, that is too long for its parts.

        Raises
        ------
        UsageError
            naming the part.
        """
        if self.thermostat is not None:
            self.thermostat.check_timestep(timestep_fs)
        if self.barostat is not None:
            check_resolved("the barostat", self.barostat.time_ps, timestep_fs)

    def start(self, phase: Phase, cell: Tensor) -> Phase:
        """The phase with what the ensemble adds to it; cell (3, 3), Å.

        Raises
        ------
        UsageError
            for a phase from which a part cannot start, or a barostat on a batch.
        """
        if phase.batch is not None and self.barostat is not None:
            raise UsageError("barostat: got one with a batch of systems; run them one by one, or without")
        if self.thermostat is not None:
            own = _start(self.thermostat, phase, phase.batch)
            phase = self.thermostat.physical(replace(phase, own=own))
        if self.barostat is not None:
            cell = cell.detach().cpu().double()
            phase = replace(phase, cell=cell, strain_rate=torch.zeros_like(cell))
        return phase

    def step(
        self,
        phase: Phase,
        forces: Forces,
        fast: Callable[[Phase], Tensor],
        both: Callable[[Phase], Forces],
        timestep: float,
        n_inner: int,
        count: int,
    ) -> tuple[Phase, Forces]:
        """One outer step, which evaluates as often as `respa.step`, and is called like it.

        Parameters
        ----------
        count : inner steps made in this run so far: the numbers of the random numbers follow from it

        Returns
        -------
        the phase an outer step later, and the forces there
        """
        half, piston = timestep / 2, self._piston(len(phase.momenta))
        go = piston.drift if piston else self.thermostat.drift if self.thermostat else drift

        def move(phase: Phase, time: float, k: int) -> Phase:
            if self.thermostat is None or not self.thermostat.inside:
                return go(phase, time)
            return go(self.thermostat.act(go(phase, time / 2), time, count + k), time / 2)

        if self.thermostat is not None:
            phase = self.thermostat.conjugate(phase)
        phase = self._outside(phase, half, 2 * count)
        if piston is not None:
            phase = piston.kick(piston.bathe(phase, half, 2 * count), _virial(forces), half)
        phase, forces = respa.step(phase, forces, fast, both, timestep, n_inner, move)
        last = 2 * (count + n_inner) - 1
        if piston is not None:
            phase = piston.bathe(piston.kick(phase, _virial(forces), half), half, last)
        phase = self._outside(phase, half, last)
        return (phase if self.thermostat is None else self.thermostat.physical(phase)), forces

    def _outside(self, phase: Phase, time: float, count: int) -> Phase:
        if self.thermostat is None or self.thermostat.inside:
            return phase
        return self.thermostat.act(phase, time, count)

    def _piston(self, n_atoms: int) -> Piston | None:
        if self.barostat is None:
            return None
        assert self.thermostat is not None
        return Piston(self.barostat, self.thermostat.kT, self.thermostat.freedom(n_atoms), n_atoms)


def _start(thermostat: Thermostat, phase: Phase, batch: Batch | None) -> Tensor | None:
    """A thermostat's own variables, made for each system of a batch by itself."""
    if batch is None:
        return thermostat.start(phase)
    parts: list[Tensor] = []
    for k in range(batch.n_systems):
        try:
            part = thermostat.start(phase.select([k]))
        except UsageError as error:
            raise UsageError(f"system {k}: {error}") from error
        if part is not None:
            parts.append(part)
    return torch.cat(parts, dim=1) if parts else None


def _virial(forces: Forces) -> Tensor:
    assert forces.virial is not None
    return forces.virial
