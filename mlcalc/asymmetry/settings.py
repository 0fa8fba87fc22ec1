"""What is measured of the asymmetry, and how well."""

from __future__ import annotations

from dataclasses import dataclass

from mlcalc.errors import UsageError


@dataclass(frozen=True)
class AsymmetrySettings:
    """Settings of `measure_asymmetry`.

    Attributes
    ----------
    forces : "direct" or "conservative"; direct where the potential has them, unless given
    relative_error : of each structure's λ, one standard error, at which its sampling stops
    max_pairs, min_pairs : bounds on its pairs of products; structures of at most max_pairs/3 atoms are done exactly
    directions : in which forces are differenced, for a potential without derivatives or with `by_differences`
    by_differences : differences of forces although there are derivatives: they need little memory
    centres : atoms whose couplings give λ_ij against distance, spread over the structures; 0 for none
    memory_GiB : that derivatives may take; half of what is free unless given
    seed : of probe vectors and centres
    """

    forces: str | None = None
    relative_error: float = 0.05
    max_pairs: int = 64
    min_pairs: int = 8
    directions: int = 48
    by_differences: bool = False
    centres: int = 0
    memory_GiB: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.forces not in (None, "direct", "conservative"):
            raise UsageError(f"forces: got {self.forces!r}; choose direct or conservative")
        if self.centres != 0 and self.centres < 4:
            raise UsageError(
                f"centres: got {self.centres}; give 0 for none, or 4 or more, for an error by their spread"
            )
        if self.directions < 8:
            raise UsageError(f"directions: got {self.directions}; give 8 or more")
        if self.memory_GiB is not None and not self.memory_GiB > 0:
            raise UsageError(f"memory_GiB: got {self.memory_GiB}; give a number above 0")
