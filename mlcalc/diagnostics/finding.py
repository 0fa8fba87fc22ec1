"""What a diagnostic found: a number with its error, its unit, and what it means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One number.

    Attributes
    ----------
    standard_error : one standard deviation of `value`; 0 where the number is exact
    noise_floor : what round-off alone would give, where that could be mistaken for a finding
    """

    name: str
    value: float
    standard_error: float
    unit: str
    note: str = ""
    noise_floor: float | None = None

    def __str__(self) -> str:
        floor = "" if self.noise_floor is None else f" (floor {self.noise_floor:.2g})"
        return f"{self.name}: {self.value:.4g} ± {self.standard_error:.2g} {self.unit}{floor}"
