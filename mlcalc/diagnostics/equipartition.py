"""Temperature of each element, and whether they are equal.

    T_α = Σ_{i∈α} m_i |v_i − V|² / (k_B n_α),    n_α = 3 Σ_{i∈α} (1 − m_i/M),    V = Σ m_i v_i / M

At equilibrium every degree of freedom has the kinetic energy k_B T/2, so all elements have one temperature. Forces that
are no gradient heat some motions more than others, and a global thermostat hides it: it keeps the mean right while
hydrogen is hot and oxygen cold (Bigi, Langer, Ceriotti, arXiv 2412.11569: 336 K and 230 K at 300 K).

Velocities relative to that of the centre of mass have ⟨m_i |v_i − V|²⟩ = 3 k_B T (1 − m_i/M), whether the dynamics
keeps total momentum or its thermostat lets it move. So the centre of mass is always taken out, and its three degrees of
freedom are shared by mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcalc.diagnostics.autocorrelation import mean_with_error
from mlcalc.diagnostics.finding import Finding
from mlcalc.diagnostics.significance import least_sigma
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.units import BOLTZMANN

Array = NDArray[np.float64]
_FEWEST_INDEPENDENT = 10


@dataclass(frozen=True)
class Equipartition:
    """Temperatures, K, each with its standard error.

    Attributes
    ----------
    temperature : of all atoms; elements : of each
    differences : between each two elements; `.note` says how many standard errors (σ) it is
    threshold : standard errors above which the largest difference is no chance (0.27 %, for so many pairs)
    series : (n_frames, n_elements), K
    """

    temperature: Finding
    elements: tuple[Finding, ...]
    differences: tuple[Finding, ...]
    threshold: float
    series: Array

    @property
    def worst(self) -> Finding | None:
        """The most significant difference; None for a single element."""
        return max(self.differences, key=_sigmas, default=None)

    @property
    def equal(self) -> bool:
        """Whether no difference is significant."""
        return self.worst is None or _sigmas(self.worst) < self.threshold


def _sigmas(difference: Finding) -> float:
    return abs(difference.value) / difference.standard_error if difference.standard_error else 0.0


def measure(velocities: ArrayLike, masses: ArrayLike, elements: Sequence[str]) -> Equipartition:
    """Temperature of each element.

    Parameters
    ----------
    velocities : (n_frames, n_atoms, 3), Å/time with time = Å·sqrt(amu/eV); masses : (n_atoms,), amu
    elements : (n_atoms,), any labels: those with the same one are taken together

    Raises
    ------
    UsageError
        for shapes that do not fit, values that are not finite, a single atom (with its centre of mass taken out no
        degree of freedom is left), or atoms that never move: frozen ones have none either.
    TooShortToTell
        for fewer than ten independent samples of a temperature; `.estimate` is the Equipartition all the same.
    """
    v, m = np.asarray(velocities, dtype=float), np.asarray(masses, dtype=float)
    labels = np.asarray(elements)
    _check(v, m, labels)
    names = list(dict.fromkeys(elements))
    relative = v - np.einsum("i,fix->fx", m / m.sum(), v)[:, None, :]
    twice_kinetic = np.einsum("fix,fix,i->fi", relative, relative, m)
    freedom = 3 * (1 - m / m.sum())
    inside = np.array([labels == name for name in names], dtype=float)
    series = twice_kinetic @ inside.T / (BOLTZMANN * inside @ freedom)
    whole = twice_kinetic.sum(axis=1) / (BOLTZMANN * freedom.sum())

    few = len(v) / 1.0
    found, differences = [], []
    for k, name in enumerate(names):
        value, error, independent = mean_with_error(series[:, k])
        note = f"{int(inside[k].sum())} atoms, {inside[k] @ freedom:.5g} degrees of freedom"
        found.append(Finding(f"temperature_{name}", value, error, "K", f"{note}, {independent:.0f} samples"))
        few = min(few, independent)
    for a, b in combinations(range(len(names)), 2):
        value, error, independent = mean_with_error(series[:, a] - series[:, b])
        note = f"{abs(value) / error if error else 0:.1f} σ"
        differences.append(Finding(f"temperature_{names[a]}-{names[b]}", value, error, "K", note))
        few = min(few, independent)
    value, error, independent = mean_with_error(whole)
    temperature = Finding("temperature", value, error, "K", f"{len(v)} frames, {independent:.0f} samples")
    equipartition = Equipartition(temperature, tuple(found), tuple(differences), least_sigma(len(differences)), series)
    if few < _FEWEST_INDEPENDENT:
        raise TooShortToTell(
            f"equipartition: {few:.1f} independent samples of a temperature; run long enough for {_FEWEST_INDEPENDENT}",
            equipartition,
        )
    return equipartition


def _check(velocities: Array, masses: Array, labels: NDArray[np.str_]) -> None:
    if velocities.ndim != 3 or velocities.shape[1:] != (len(masses), 3) or len(labels) != len(masses):
        raise UsageError(
            f"velocities, masses, elements: got shapes {velocities.shape}, {masses.shape}, {labels.shape}; give "
            "(n_frames, n_atoms, 3), (n_atoms,), (n_atoms,)"
        )
    if len(velocities) < 4 or not np.isfinite(velocities).all():
        raise UsageError(f"velocities: got {len(velocities)} frames, finite or not; give four or more finite ones")
    if len(masses) < 2:
        raise UsageError("velocities: one atom has no degree of freedom beside its centre of mass; give two or more")
    frozen = np.flatnonzero((velocities == 0).all(axis=(0, 2)))
    if len(frozen):
        raise UsageError(
            f"velocities: {len(frozen)} atoms never move (the first is {frozen[0]}), so they have no "
            "temperature; leave frozen atoms out"
        )
