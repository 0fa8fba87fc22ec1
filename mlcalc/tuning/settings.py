"""Which steps to try, on how many replicas, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlcalc.errors import UsageError


@dataclass(frozen=True)
class TuneSettings:
    """Settings of a search; the defaults take some twenty minutes for 192 atoms on two CPU cores.

    Attributes
    ----------
    temperature_K : of the momenta
    timesteps_fs : inner steps to try, fs
    n_inner : numbers of inner steps in an outer step to try; 1 is conservative forces alone
    replicas : runs of each setting, from other momenta; the error of a drift goes down with their square root
    scan_ps : of every run of the map
    confirm_ps : of the runs that settle whether the fastest settings are safe, one setting after the other
    equilibration_ps : before all of it
    seed : of the momenta

    Raises
    ------
    UsageError
        for numbers outside their ranges.
    """

    temperature_K: float = 300.0
    timesteps_fs: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    n_inner: tuple[int, ...] = (1, 2, 4, 8, 16)
    replicas: int = 2
    scan_ps: float = 0.12
    confirm_ps: float = 0.5
    equilibration_ps: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, unit, most in (
            ("temperature_K", "K", 20_000),
            ("scan_ps", "ps", 1e6),
            ("confirm_ps", "ps", 1e6),
            ("equilibration_ps", "ps", 1e6),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 < value <= most):
                raise UsageError(f"{name}: got {value}; give a number of {unit} above 0 to {most:g}")
        if not self.timesteps_fs or not all(0 < step <= 20 for step in self.timesteps_fs):
            raise UsageError(f"timesteps_fs: got {self.timesteps_fs}; give one or more times above 0 to 20 fs")
        if not self.n_inner or not all(isinstance(m, int) and 1 <= m <= 1000 for m in self.n_inner):
            raise UsageError(f"n_inner: got {self.n_inner}; give one or more whole numbers from 1 to 1000")
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int) or self.replicas < 1:
            raise UsageError(f"replicas: got {self.replicas!r}; give a whole number of 1 or more")

    @property
    def careful_fs(self) -> float:
        """The step for equilibration: the longest up to half a femtosecond, or the shortest there is."""
        return max((step for step in self.timesteps_fs if step <= 0.5), default=min(self.timesteps_fs))
