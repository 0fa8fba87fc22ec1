"""What an audit does and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from mlcalc.errors import UsageError

_HOTTEST_K = 20_000.0  # above it atoms are a plasma, which no interatomic potential describes


@dataclass(frozen=True)
class AuditSettings:
    """Settings of an audit; the defaults take five to six minutes for 192 atoms on two CPU cores.

    Attributes
    ----------
    temperature_K : of the starting momenta
    inner_timestep_fs : step of the conservative and the direct run, and inner step of multiple time stepping
    n_inner : M, inner steps in an outer step
    duration_ps : of each of the three runs
    equilibration_ps : conservative dynamics before them, all momenta drawn afresh `equilibration_rounds` times
    ladder, ladder_ps : numbers of inner steps to try, and for how long each
    product_pairs : most pairs of Jacobian-vector products for λ of the direct force; `reference_pairs` of the
        conservative force, which is a check and costs more by product
    directions : for λ of a potential without derivatives: directions in which its force is differenced
    block_atoms : atoms whose couplings give λ_ij against distance
    timing_rounds : rounds of the cost table; each measures everything once
    seed : of momenta and probe vectors
    """

    temperature_K: float = 300.0
    inner_timestep_fs: float = 0.5
    n_inner: int = 8
    duration_ps: float = 0.5
    equilibration_ps: float = 0.1
    equilibration_rounds: int = 4
    ladder: tuple[int, ...] = (1, 2, 4, 8, 16)
    ladder_ps: float = 0.24
    product_pairs: int = 48
    reference_pairs: int = 8
    directions: int = 48
    block_atoms: int = 20
    timing_rounds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, unit in (("temperature_K", "K"), ("inner_timestep_fs", "fs"), ("duration_ps", "ps")):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name}: got {value}; give a finite number of {unit} above 0")
        if self.temperature_K > _HOTTEST_K:
            raise UsageError(
                f"temperature_K: got {self.temperature_K:g}; no potential holds above {_HOTTEST_K:g} K: give the "
                "temperature of your simulations"
            )
        if self.inner_timestep_fs > 20:
            raise UsageError(
                f"inner_timestep_fs: got {self.inner_timestep_fs:g}; nothing integrates above 20 fs: try 0.5"
            )
        if not all(isinstance(m, int) and m >= 1 for m in (self.n_inner, *self.ladder)):
            raise UsageError(f"n_inner: got {self.n_inner} (ladder {self.ladder}); give whole numbers of 1 or more")
        if self.duration_ps > 1e6:
            raise UsageError(f"duration_ps: got {self.duration_ps:g}; give at most 1e6 ps")
        if self.outer_steps < 8:
            raise UsageError(
                f"duration_ps: got {self.duration_ps:g}, only {self.outer_steps} outer steps of "
                f"{self.outer_timestep_fs:g} fs; give at least {8 * self.outer_timestep_fs / 1000:g} ps"
            )

    @property
    def outer_timestep_fs(self) -> float:
        return self.n_inner * self.inner_timestep_fs

    @property
    def outer_steps(self) -> int:
        """Outer steps in a run of `duration_ps`."""
        # never shorter than asked, round-off apart: a verdict may hang on it
        return math.ceil(1000 * self.duration_ps / self.outer_timestep_fs - 1e-10)

    @classmethod
    def quick(cls, **changes: Any) -> AuditSettings:
        """A few frames of everything: to see that an audit works, not what it finds."""
        quick = cls(
            duration_ps=0.064,
            equilibration_ps=0.004,
            equilibration_rounds=2,
            ladder=(1, 8, 16),
            ladder_ps=0.032,
            product_pairs=4,
            reference_pairs=2,
            directions=8,
            block_atoms=4,
            timing_rounds=2,
        )
        return replace(quick, **changes)
