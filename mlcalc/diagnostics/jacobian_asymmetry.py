"""Asymmetry of the Jacobian of the forces, λ = ‖(J − Jᵀ)/2‖_F / ‖J‖_F.

Bigi, Langer, Ceriotti, arXiv 2412.11569: 0 for a gradient, 1 for a purely rotational field. Only a force with λ = 0
conserves an energy; published direct models lie between 0.004 and 0.032.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import TooShortToTell, UsageError

Array = NDArray[np.float64]
_FEWEST_PAIRS = 4


class Products(Protocol):
    """Squares of Jacobian-vector products with random v; see `mlcalc.probes.products.ProductSamples`."""

    @property
    def antisymmetric(self) -> Array:
        """|Jv − Jᵀv|²/4, (n_pairs,)"""

    @property
    def total(self) -> Array:
        """(|Jv|² + |Jᵀv|²)/2, (n_pairs,)"""

    @property
    def noise_floor(self) -> float:
        """λ of round-off alone"""

    @property
    def exact(self) -> bool:
        """whether v ran over all unit vectors"""


class Subspace(Protocol):
    """J between random directions, by differences; see `mlcalc.probes.differences.SubspaceSamples`."""

    @property
    def products(self) -> Array:
        """v_jᵀ J v_k, (n, n)"""

    @property
    def total(self) -> Array:
        """|J v_k|², (n,)"""

    @property
    def finer(self) -> Array:
        """products of the first m directions at a quarter of the step, (m, m)"""

    @property
    def coarser(self) -> Array:
        """products of the first m directions at twice the step, (m, m)"""


def from_jacobian(jacobian: Array, noise_floor: float | None = None) -> Finding:
    """λ of a whole Jacobian, (3 n_atoms, 3 n_atoms)."""
    jacobian = np.asarray(jacobian, dtype=float)
    if jacobian.ndim != 2 or jacobian.shape[0] != jacobian.shape[1]:
        raise UsageError(f"jacobian: got shape {jacobian.shape}; give a square matrix")
    norm = float(np.linalg.norm(jacobian))
    if not norm > 0:
        raise UsageError("jacobian: it is zero or not finite; λ has no meaning there")
    value = float(np.linalg.norm(jacobian - jacobian.T)) / 2 / norm
    return Finding("jacobian_asymmetry", value, 0.0, "1", "exact, by rows", noise_floor)


def ratio(antisymmetric: Array, total: Array) -> tuple[float, float]:
    """λ and its standard error by the delete-one jackknife, from the two squared norms of each pair.

    The jackknife's error is itself uncertain; (n − 1)/(n − 3), the variance of Student's t with n − 1 degrees of
    freedom, makes up for it. Without it, sampling that stops at a wanted error stops where the error happens to come
    out small: over 120 seeds one estimate in 60 was more than three such errors off, with it none.
    """
    n = len(total)
    if not total.any():
        return 0.0, 0.0  # no force depends on any position: nothing that is not a gradient
    value = math.sqrt(float(antisymmetric.sum() / total.sum()))
    if n < _FEWEST_PAIRS:
        return value, math.inf
    left_out = np.sqrt((antisymmetric.sum() - antisymmetric) / (total.sum() - total))
    variance = (n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum())
    return value, math.sqrt(variance * (n - 1) / (n - 3))


def from_products(samples: Products) -> Finding:
    """λ from products: ‖A‖² = E|Jv − Jᵀv|²/4 and ‖J‖² = E|Jv|² for v with independent unit-variance entries.

    Over all unit vectors their sums are the norms, and λ is exact.

    Raises
    ------
    TooShortToTell
        for fewer than four pairs; `.estimate` is the Finding all the same.
    """
    value, error = ratio(samples.antisymmetric, samples.total)
    n = len(samples.total)
    if samples.exact:
        return Finding("jacobian_asymmetry", value, 0.0, "1", f"exact, {n} pairs of products", samples.noise_floor)
    found = Finding("jacobian_asymmetry", value, error, "1", f"{n} pairs of products", samples.noise_floor)
    if n < _FEWEST_PAIRS:
        raise TooShortToTell(f"jacobian_asymmetry: {n} pairs of products; take {_FEWEST_PAIRS} or more", found)
    return found


def from_subspace(samples: Subspace) -> Finding:
    """λ from J between random directions v of independent signs: ‖A‖² = E (v_jᵀ A v_k)² for j ≠ k, ‖J‖² = E ‖J v_k‖².

    n directions make n(n − 1)/2 pairs, each free of the symmetric part of J. (The other estimate that needs no Jᵀv,
    ‖A‖² = (‖J‖² − tr JJ)/2, is a small difference of two noisy numbers: its error grows as 1/λ.)

    The noise floor comes from the same products at other steps h: round-off grows as 1/h, curvature as h², and an
    asymmetry stays. The note says which it was.
    """
    n = len(samples.total)
    odd = _squares_of_pairs(samples.products)
    value = math.sqrt(odd.sum() / (n * (n - 1)) / samples.total.mean())
    # delete-one jackknife over directions: the pairs of one direction are not independent of each other
    without = (odd.sum() - 2 * odd.sum(axis=1)) / ((n - 1) * (n - 2))
    left_out = np.sqrt(without.clip(min=0) * (n - 1) / (samples.total.sum() - samples.total))
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    m = len(samples.finer)
    scale = m * (m - 1) * samples.total.mean()
    middle = samples.products[:m, :m]
    # with noise ε/h at step h, a quarter of the step differs by variance (16 + 1) ε², twice the step by (1/4 + 1) ε²;
    # with curvature c h², twice the step differs by 3 c
    round_off = math.sqrt(_squares_of_pairs(samples.finer - middle).sum() / scale / 17)
    curved = _squares_of_pairs(samples.coarser - middle).sum() / scale - 1.25 * round_off**2
    curvature = math.sqrt(max(0.0, curved) / 9)
    floor = math.hypot(round_off, curvature)
    if value > 10 * floor:
        evidence = "flat in the step: real"
    else:
        evidence = "grows as 1/h: round-off" if round_off > curvature else "grows as h²: the step is too long"
    return Finding("jacobian_asymmetry", value, error, "1", f"{n} directions by differences; {evidence}", floor)


def _squares_of_pairs(products: Array) -> Array:
    """((M_jk − M_kj)/2)², (n, n)"""
    return ((products - products.T) / 2) ** 2
