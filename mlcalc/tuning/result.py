"""What a search found: a drift for every setting tried, what each costs, and the one to take."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlcalc.audit import thresholds as limit

SAFE, UNDECIDED, UNSTABLE = "safe", "undecided", "unstable"


@dataclass(frozen=True)
class Trial:
    """One setting, run on some replicas at constant energy.

    Attributes
    ----------
    timestep_fs : fs, the inner step; n_inner : M, inner steps in an outer one
    drift, drift_error : meV/atom/ps, mean over the replicas and its standard error; not a number if one exploded
    clear : whether each run tells a drift from a slow oscillation of its energy
    span_ps : ps, length of each run
    replicas, exploded : how many ran, and how many of them flew apart
    ms_per_ps : ms of computing for a picosecond, from the cost of evaluations
    """

    timestep_fs: float
    n_inner: int
    drift: float
    drift_error: float
    clear: bool
    span_ps: float
    replicas: int
    exploded: int
    ms_per_ps: float

    @property
    def outer_fs(self) -> float:
        return self.timestep_fs * self.n_inner

    @property
    def status(self) -> str:
        """safe, undecided or unstable, by the thresholds of the audit.

        What was run for `SHORTEST_RUN` is unstable if it surely drifts by more than `DRIFT_TOLERANCE`; a shorter run,
        whose error is itself known badly, only beyond `DRIFT_LIMIT`.
        """
        error = limit.SIGNIFICANCE.value * self.drift_error
        tolerance, most = limit.DRIFT_TOLERANCE.value, limit.DRIFT_LIMIT.value
        long_enough = self.clear and self.span_ps >= limit.SHORTEST_RUN.value * (1 - 1e-9)
        # written so that not-a-number is unstable
        if self.exploded or not abs(self.drift) <= (min(tolerance + error, most) if long_enough else most + error):
            return UNSTABLE
        return SAFE if long_enough and abs(self.drift) + error <= tolerance else UNDECIDED


@dataclass(frozen=True)
class Tuning:
    """The result.

    Attributes
    ----------
    trials : in the order of the map; a setting beyond an unstable one (neither of its steps shorter) was not run
    best : the cheapest safe one, if any was found
    conservative : the cheapest with conservative forces alone that is not unstable, to compare with
    """

    potential: str
    structure: str
    n_atoms: int
    temperature_K: float
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        return min((one for one in self.trials if one.status == SAFE), key=lambda one: one.ms_per_ps, default=None)

    @property
    def conservative(self) -> Trial | None:
        stable = (one for one in self.trials if one.n_inner == 1 and one.status != UNSTABLE)
        return min(stable, key=lambda one: one.ms_per_ps, default=None)

    @property
    def speed_up(self) -> float:
        """Of the best over conservative forces alone at the longest step that suits them; nan if there is no best."""
        best, alone = self.best, self.conservative
        return alone.ms_per_ps / best.ms_per_ps if best and alone else math.nan

    def trial(self, timestep_fs: float, n_inner: int) -> Trial | None:
        """That of a setting, if it was run."""
        return next((t for t in self.trials if (t.timestep_fs, t.n_inner) == (timestep_fs, n_inner)), None)

    def as_dict(self) -> dict[str, Any]:
        """JSON types; null where a number is not known."""

        def plain(value: Any) -> Any:
            return None if isinstance(value, float) and not math.isfinite(value) else value

        def told(trial: Trial | None) -> dict[str, Any] | None:
            if trial is None:
                return None
            return {name: plain(value) for name, value in asdict(trial).items()} | {"status": trial.status}

        return {
            "potential": self.potential,
            "structure": self.structure,
            "n_atoms": self.n_atoms,
            "temperature_K": self.temperature_K,
            "best": told(self.best),
            "speed_up_over_conservative": plain(self.speed_up),
            "trials": [told(trial) for trial in self.trials],
            "thresholds": {
                one.name: one.value for one in (limit.DRIFT_TOLERANCE, limit.DRIFT_LIMIT, limit.SHORTEST_RUN)
            },
        }

    def write_json(self, path: str | Path) -> None:
        """Write `as_dict` to a file."""
        Path(path).write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
