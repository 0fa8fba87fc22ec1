"""Temperature of normal modes, of a system that vibrates about one place.

    D = M^{−1/2} H M^{−1/2} = U Ω² Uᵀ,    q̇_k = Σ_i U_ik sqrt(m_i) v_i,    T_k = ⟨q̇_k²⟩ / k_B

At equilibrium all modes have one temperature. Forces that are no gradient, a resonance of multiple time stepping, or a
thermostat that reaches some modes only make them differ, and here one sees at which frequency. Translations are taken
out of velocities and modes. H is taken at one configuration, so it says nothing of a liquid, nor of a molecule that
turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcalc.diagnostics.autocorrelation import mean_with_error
from mlcalc.diagnostics.finding import Finding
from mlcalc.diagnostics.significance import least_sigma
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.units import BOLTZMANN, PICOSECOND, WAVENUMBER_OF_TERAHERTZ

Array = NDArray[np.float64]
_MOST_BANDS = 10
_FEWEST_INDEPENDENT = 10


@dataclass(frozen=True)
class ModeTemperatures:
    """Modes in order of frequency, and bands of as many modes each.

    Attributes
    ----------
    wavenumber : (n_modes,), cm⁻¹, below 0 where a mode is unstable; temperature, standard_error : (n_modes,), K
    bands : K, mean temperatures; band_edges : (n_bands + 1,), cm⁻¹
    mean : K, of all modes
    threshold : standard errors above which a band's deviation from the mean is no chance (0.27 %, for so many bands)
    """

    wavenumber: Array
    temperature: Array
    standard_error: Array
    bands: tuple[Finding, ...]
    deviations: tuple[Finding, ...]
    mean: Finding
    threshold: float

    @property
    def worst(self) -> Finding:
        """The most significant deviation of a band from all modes, K."""
        return max(self.deviations, key=_sigmas)

    @property
    def equal(self) -> bool:
        """Whether no band's deviation is significant."""
        return _sigmas(self.worst) < self.threshold


def _sigmas(deviation: Finding) -> float:
    return abs(deviation.value) / deviation.standard_error if deviation.standard_error else 0.0


def measure(velocities: ArrayLike, masses: ArrayLike, hessian: ArrayLike) -> ModeTemperatures:
    """Temperature of every mode of a Hessian.

    Parameters
    ----------
    velocities : (n_frames, n_atoms, 3), Å/time with time = Å·sqrt(amu/eV); masses : (n_atoms,), amu
    hessian : (3 n_atoms, 3 n_atoms), eV/Å², second derivatives of the energy (minus the Jacobian of the forces); its
        symmetric part is taken

    Raises
    ------
    UsageError
        for shapes that do not fit, values that are not finite, fewer than four frames or two atoms.
    TooShortToTell
        for fewer than ten independent samples of a band; `.estimate` is the ModeTemperatures all the same.
    """
    v, m, h = (np.asarray(values, dtype=float) for values in (velocities, masses, hessian))
    n = len(m)
    if v.ndim != 3 or v.shape[1:] != (n, 3) or h.shape != (3 * n, 3 * n):
        raise UsageError(
            f"velocities, masses, hessian: got shapes {v.shape}, {m.shape}, {h.shape}; give (n_frames, n_atoms, 3), "
            "(n_atoms,), (3 n_atoms, 3 n_atoms)"
        )
    if len(v) < 4 or n < 2 or not (np.isfinite(v).all() and np.isfinite(h).all()):
        raise UsageError(f"velocities: got {len(v)} frames of {n} atoms; give four or more of two or more, all finite")
    wavenumber, modes = _modes(h, m)
    squares = ((v * np.sqrt(m)[:, None]).reshape(len(v), -1) @ modes) ** 2 / BOLTZMANN
    singles = np.array([mean_with_error(squares[:, k])[:2] for k in range(squares.shape[1])])
    parts = np.array_split(np.arange(squares.shape[1]), min(_MOST_BANDS, squares.shape[1]))
    whole = squares.mean(axis=1)
    bands, few = _bands(
        squares, [(f"{wavenumber[part[0]]:.0f} to {wavenumber[part[-1]]:.0f} cm⁻¹", part) for part in parts]
    )
    deviations, _ = _bands(
        squares - whole[:, None], [(band.name, part) for band, part in zip(bands, parts, strict=True)]
    )
    value, error, _ = mean_with_error(whole)
    mean = Finding("temperature_of_modes", value, error, "K", f"{squares.shape[1]} modes, {len(v)} frames")
    found = ModeTemperatures(wavenumber, singles[:, 0], singles[:, 1], bands, deviations, mean, least_sigma(len(bands)))
    if few < _FEWEST_INDEPENDENT:
        raise TooShortToTell(
            f"normal_modes: {few:.1f} independent samples of a band; run long enough for {_FEWEST_INDEPENDENT}", found
        )
    return found


def components(vectors: ArrayLike, masses: ArrayLike, hessian: ArrayLike) -> tuple[Array, Array]:
    """Forces, or errors of forces, by mode: u_k = Σ_i U_ik F_i / sqrt(m_i), which is −ω_k² q_k in a harmonic system.

    Parameters
    ----------
    vectors : (n_vectors, n_atoms, 3), eV/Å; masses : (n_atoms,), amu
    hessian : as of `measure`

    Returns
    -------
    wavenumbers, (n_modes,), cm⁻¹, below 0 where a mode is unstable, and u, (n_vectors, n_modes), eV/Å/√amu

    Raises
    ------
    UsageError
        for shapes that do not fit.
    """
    f, m, h = (np.asarray(values, dtype=float) for values in (vectors, masses, hessian))
    n = len(m)
    if f.ndim != 3 or f.shape[1:] != (n, 3) or h.shape != (3 * n, 3 * n):
        raise UsageError(
            f"vectors, masses, hessian: got shapes {f.shape}, {m.shape}, {h.shape}; give (n_vectors, n_atoms, 3), "
            "(n_atoms,), (3 n_atoms, 3 n_atoms)"
        )
    wavenumber, modes = _modes(h, m)
    return wavenumber, (f / np.sqrt(m)[:, None]).reshape(len(f), -1) @ modes


def _modes(hessian: Array, masses: Array) -> tuple[Array, Array]:
    """(wavenumbers, modes as columns) without the three translations, in order of frequency."""
    roots = np.repeat(np.sqrt(masses), 3)
    translations = (np.tile(np.eye(3), (len(masses), 1)) * roots[:, None]) / np.sqrt(masses.sum())
    # an orthonormal basis of everything but translations
    basis = np.linalg.qr(translations, mode="complete")[0][:, 3:]
    dynamical = basis.T @ ((hessian + hessian.T) / 2 / np.outer(roots, roots)) @ basis
    squared, vectors = np.linalg.eigh(dynamical)
    frequency = np.sign(squared) * np.sqrt(np.abs(squared)) / (2 * np.pi) * PICOSECOND
    return frequency * WAVENUMBER_OF_TERAHERTZ, basis @ vectors


def _bands(values: Array, parts: Sequence[tuple[str, NDArray[np.intp]]]) -> tuple[tuple[Finding, ...], float]:
    """Mean over each band, with its error; and the fewest independent samples of them."""
    found, few = [], float(len(values))
    for name, part in parts:
        value, error, independent = mean_with_error(values[:, part].mean(axis=1))
        note = f"{len(part)} modes, {abs(value) / error if error else 0:.1f} σ"
        found.append(Finding(name, value, error, "K", note))
        few = min(few, independent)
    return tuple(found), few
