"""What a thermostat is."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import Tensor

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.integrators.phase import Phase, drift

#: a number of atoms, or those of each system of a batch
Counted = TypeVar("Counted", int, Tensor)


@dataclass(frozen=True)
class Thermostat(abc.ABC):
    """Something that changes momenta towards a temperature, exactly for its part of the dynamics.

    Attributes
    ----------
    temperature_K : K
    inside : whether it acts on every inner step, between the half drifts, or on half an outer step at either end
    constant_pressure : whether a barostat may go with it
    """

    temperature_K: float
    inside: ClassVar[bool]
    constant_pressure: ClassVar[bool] = True

    @property
    def kT(self) -> float:
        """eV"""
        return units.BOLTZMANN * self.temperature_K

    @property
    @abc.abstractmethod
    def memory_ps(self) -> float:
        """ps, within which it takes out again what something else brings in."""

    @property
    def caveat(self) -> str:
        """What a user of its records must know, or nothing."""
        return ""

    def freedom(self, n_atoms: Counted) -> Counted:
        """Degrees of freedom that it holds at the temperature; 3 less where it leaves the centre of mass at rest."""
        return 3 * n_atoms

    def check_timestep(self, timestep_fs: float) -> None:  # noqa: B027 (exact flows follow any step)
        """Refuse an outer step that is too long for it.

        Raises
        ------
        UsageError
            with the least relaxation time.
        """

    def start(self, phase: Phase) -> Tensor | None:
        """Its own variables before the first step, as `Phase.own`, or None; of one system, which may be in a batch.

        Raises
        ------
        UsageError
            for a phase from which it cannot start.
        """
        return None

    def conjugate(self, phase: Phase) -> Phase:
        """Before an outer step: the phase with the momenta that forces kick, where these are not m v."""
        return phase

    def physical(self, phase: Phase) -> Phase:
        """After it: the phase with momenta m v again."""
        return phase

    def drift(self, phase: Phase, time: float) -> Phase:
        """How its atoms move, without a barostat."""
        return drift(phase, time)

    @abc.abstractmethod
    def act(self, phase: Phase, time: float, count: int) -> Phase:
        """The phase after `time` (internal units) with the bath, its heat booked; each system of a batch on its own.

        Parameters
        ----------
        count : which call of the run this is: the number of its random numbers
        """


def check_temperature(temperature_K: float, *, zero: bool = False) -> None:
    """Refuse temperatures of no bath; 0 K is one where `zero`.

    Raises
    ------
    UsageError
        with the range.
    """
    if not (0 < temperature_K <= 1e6 or (zero and temperature_K == 0)):
        where = "from" if zero else "above"
        raise UsageError(f"temperature_K: got {temperature_K}; give a temperature {where} 0 to 1e6 K")


def check_time(name: str, time_ps: float) -> None:
    """Refuse a relaxation time that is not one.

    Raises
    ------
    UsageError
        with the range.
    """
    if not (math.isfinite(time_ps) and 0 < time_ps <= 1e6):
        raise UsageError(f"{name}: got {time_ps}; give a time above 0 to 1e6 ps")


def check_resolved(what: str, time_ps: float, timestep_fs: float) -> None:
    """Refuse an oscillation that outer steps do not resolve.

    Raises
    ------
    UsageError
        for a time of less than five steps.
    """
    if 1000 * time_ps < 5 * timestep_fs:
        raise UsageError(
            f"time_ps: got {time_ps} for {what} with outer steps of {timestep_fs:g} fs; give five steps or more, "
            f"{0.005 * timestep_fs:g} ps"
        )


def check_centre_at_rest(thermostat: Thermostat, phase: Phase) -> None:
    """Refuse a phase whose centre of mass moves under a thermostat that counts it as being at rest.

    Raises
    ------
    UsageError
        if it moves, or if there is nothing but the centre of mass.
    """
    name, n_atoms = type(thermostat).__name__, len(phase.momenta)
    freedom = thermostat.freedom(n_atoms)
    if freedom < 1:
        raise UsageError(f"structure: it has one atom, whose momentum {name} leaves at rest; use Langevin")
    total, size = float(phase.momenta.sum(dim=0).norm()), float(phase.momenta.norm())
    if freedom < 3 * n_atoms and total > 1e-6 * size:
        raise UsageError(
            f"momenta: they sum to {total:.3g}, not to 0, which {name} keeps; give momenta of maxwell_boltzmann, or "
            "external_field=True where something outside holds the atoms"
        )
