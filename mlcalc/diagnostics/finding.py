"""What a diagnostic found: a number with its error, its unit, and what it means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One number.

    Attributes
    ----------
    standard_error : one standard deviation of `value`; 0 where the number is exact
    note : how it was measured; after a semicolon, what tells it from noise
    noise_floor : what round-off alone would give, where that could be mistaken for a finding
    """

    name: str
    value: float
    standard_error: float
    unit: str
    note: str = ""
    noise_floor: float | None = None

    @property
    def floor_in_words(self) -> str:
        """The noise floor in words, with what tells the value from it: " (noise floor 1e-6; …)", or nothing."""
        evidence = "".join(self.note.partition("; ")[1:])
        return "" if self.noise_floor is None else f" (noise floor {self.noise_floor:.0e}{evidence})"

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.4g} ± {self.standard_error:.2g} {self.unit}{self.floor_in_words}"
