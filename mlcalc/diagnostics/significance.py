"""How far apart numbers must be to be called different, when several are compared."""

from __future__ import annotations

from statistics import NormalDist

_BY_CHANCE = 0.0027  # of three standard errors, one comparison, both sides


def least_sigma(n_comparisons: int) -> float:
    """Standard errors that the largest of n comparisons exceeds by chance in 0.27 % of cases (Bonferroni); one: 3."""
    return NormalDist().inv_cdf(1 - _BY_CHANCE / 2 / max(1, n_comparisons))
