"""An ensemble from what a command line says: each option belongs to something, and is refused where it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlcalc.errors import UsageError
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.gle import GLE
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.integrators.sin_r import SINR
from mlcalc.integrators.thermostat import Thermostat
from mlcalc.simulation.gle_matrices import read_gle_matrices

ENSEMBLES = ("nve", "nvt", "npt", "langevin")
THERMOSTATS = ("langevin", "bussi", "nose-hoover", "gle", "sin-r")

#: Option → what it belongs to: thermostats, or "npt"
_BELONGS = {
    "friction_per_ps": ("langevin", "sin-r"),
    "hydrogen_friction_per_ps": ("langevin",),
    "thermostat_time_ps": ("bussi", "nose-hoover", "sin-r"),
    "regulation": ("sin-r",),
    "gle_file": ("gle",),
    "barostat": ("npt",),
    "pressure_GPa": ("npt",),
    "barostat_time_ps": ("npt",),
}


@dataclass(frozen=True)
class EnsembleOptions:
    """What `mlcalc run` takes; None is what was not given.

    Attributes
    ----------
    ensemble : "nve", "nvt", "npt", or "langevin", which is "nvt" with that thermostat
    thermostat : "langevin" (default), "bussi", "nose-hoover", "gle" or "sin-r"
    temperature_K : K; seed : of all noise
    friction_per_ps : 1/ps, of "langevin" (default: 1) and "sin-r" (default: 100)
    hydrogen_friction_per_ps : 1/ps, of "langevin" (default: as the others)
    thermostat_time_ps : ps, of "bussi" and "nose-hoover" (default: 0.1), and of "sin-r" (default: 0.01)
    regulation : of "sin-r" (default: 1)
    gle_file : matrices of "gle", see `read_gle_matrices`
    barostat : of "npt": "isotropic" (default) or "full"
    pressure_GPa : (default: 1e-4, 1 bar); barostat_time_ps : ps (default: 1)
    """

    ensemble: str = "nve"
    thermostat: str | None = None
    temperature_K: float = 300.0
    seed: int = 0
    friction_per_ps: float | None = None
    hydrogen_friction_per_ps: float | None = None
    thermostat_time_ps: float | None = None
    regulation: float | None = None
    gle_file: str | None = None
    barostat: str | None = None
    pressure_GPa: float | None = None
    barostat_time_ps: float | None = None

    def make(self) -> Ensemble | str:
        """The ensemble; "nve" and a plain "langevin" as they are, by which `SimulationSettings` knows them.

        Raises
        ------
        UsageError
            for options that do not belong together, or values that cannot be used.
        """
        self._check()
        if self.ensemble == "nve" or (self.ensemble == "langevin" and self.hydrogen_friction_per_ps is None):
            return self.ensemble
        return Ensemble(self._thermostat(), self._barostat() if self.ensemble == "npt" else None)

    @property
    def _bath(self) -> str | None:
        return None if self.ensemble == "nve" else self.thermostat or "langevin"

    def _check(self) -> None:
        if self.thermostat is not None and self.ensemble in ("nve", "langevin"):
            raise UsageError(
                f"thermostat: got {self.thermostat} with --ensemble {self.ensemble}; it goes with nvt and npt"
            )
        for name, owners in _BELONGS.items():
            value = getattr(self, name)
            if value is not None and self._bath not in owners and self.ensemble not in owners:
                where = "--ensemble npt" if owners == ("npt",) else f"the thermostat {' or '.join(owners)}"
                chosen = self.ensemble if self._bath is None else f"{self.ensemble} and thermostat {self._bath}"
                raise UsageError(f"{name.replace('_', '-')}: got {value} with ensemble {chosen}; it goes with {where}")
        if self._bath == "gle" and self.gle_file is None:
            raise UsageError("gle-file: the thermostat gle needs one; give the matrices that GLE4MD wrote")

    def _thermostat(self) -> Thermostat:
        if self._bath == "gle":
            assert self.gle_file is not None
            return GLE(self.temperature_K, *read_gle_matrices(self.gle_file), self.seed)
        if self._bath == "nose-hoover":
            return NoseHoover(self.temperature_K, **self._given(time_ps=self.thermostat_time_ps))
        random: dict[str, Any] = {"temperature_K": self.temperature_K, "seed": self.seed}
        if self._bath == "bussi":
            return Bussi(**random, **self._given(time_ps=self.thermostat_time_ps))
        friction = self._given(friction_per_ps=self.friction_per_ps)
        if self._bath == "sin-r":
            return SINR(
                **random, **friction, **self._given(time_ps=self.thermostat_time_ps, regulation=self.regulation)
            )
        return Langevin(**random, **friction, hydrogen_friction_per_ps=self.hydrogen_friction_per_ps)

    @staticmethod
    def _given(**options: float | None) -> dict[str, Any]:
        return {name: value for name, value in options.items() if value is not None}

    def _barostat(self) -> Barostat:
        return Barostat(
            1e-4 if self.pressure_GPa is None else self.pressure_GPa,
            1.0 if self.barostat_time_ps is None else self.barostat_time_ps,
            self.barostat or "isotropic",
            self.seed,
        )
