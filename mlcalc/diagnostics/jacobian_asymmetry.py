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
    """Squares of Jacobian-vector products with random v; see `mlcalc.probes.jacobian.ProductSamples`."""

    @property
    def antisymmetric(self) -> Array:
        """|Jv − Jᵀv|²/4, (n_pairs,)"""

    @property
    def total(self) -> Array:
        """(|Jv|² + |Jᵀv|²)/2, (n_pairs,)"""

    @property
    def noise_floor(self) -> float:
        """λ of round-off alone"""


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
    """λ and its standard error by the delete-one jackknife, from the two squared norms of each pair."""
    n = len(total)
    value = math.sqrt(float(antisymmetric.sum() / total.sum()))
    if n < 2:
        return value, math.inf
    left_out = np.sqrt((antisymmetric.sum() - antisymmetric) / (total.sum() - total))
    return value, math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))


def from_products(samples: Products) -> Finding:
    """λ from random products: ‖A‖² = E|Jv − Jᵀv|²/4 and ‖J‖² = E|Jv|² for v with independent unit-variance entries.

    Raises
    ------
    TooShortToTell
        for fewer than four pairs; `.estimate` is the Finding all the same.
    """
    value, error = ratio(samples.antisymmetric, samples.total)
    n = len(samples.total)
    found = Finding("jacobian_asymmetry", value, error, "1", f"{n} pairs of products", samples.noise_floor)
    if n < _FEWEST_PAIRS:
        raise TooShortToTell(f"jacobian_asymmetry: {n} pairs of products; take {_FEWEST_PAIRS} or more", found)
    return found
