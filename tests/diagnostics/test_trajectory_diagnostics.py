"""Trajectory diagnostics on motions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from mlcalc.diagnostics import (
    equipartition,
    mean_square_displacement,
    normal_modes,
    rigid_bonds,
    unwrapping,
    velocity_spectrum,
)
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.units import BOLTZMANN, PICOSECOND, WAVENUMBER_OF_TERAHERTZ

MASSES = np.array([16.0, 1.0, 1.0] * 16)
ELEMENTS = ["O", "H", "H"] * 16


def thermal(
    rng: np.random.Generator, n_frames: int, kelvin: np.ndarray, masses: np.ndarray, memory: float = 0.0
) -> np.ndarray:
    """Maxwell–Boltzmann velocities, (n_frames, n_atoms, 3); each forgets the last as an autoregressive process."""
    v = rng.normal(size=(n_frames, len(masses), 3))
    for k in range(1, n_frames):
        v[k] = memory * v[k - 1] + np.sqrt(1 - memory**2) * v[k]
    return v * np.sqrt(BOLTZMANN * kelvin / masses)[:, None]


def without_drift(velocities: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """The same with total momentum zero in every frame."""
    return velocities - np.einsum("i,fix->fx", masses / masses.sum(), velocities)[:, None]


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_temperatures_and_their_errors(fixed: bool, memory: float) -> None:
    """Equal temperatures over 40 seeds: no bias by the fixed centre of mass, errors as large as the scatter.

    Four heavy and two light atoms: with 3 N_α in the place of 3 Σ (1 − m_i/M) heavy ones would come out 25 % too cold.
    """
    rng = np.random.default_rng(5)
    masses, names = np.array([40.0, 40.0, 40.0, 40.0, 1.0, 1.0]), ["Ar"] * 4 + ["H"] * 2
    pulls, differ = [], 0
    for _ in range(40):
        v = thermal(rng, 2000, np.full(6, 300.0), masses, memory)
        found = equipartition.measure(without_drift(v, masses) if fixed else v, masses, names)
        pulls += [[(one.value - 300) / one.standard_error for one in (found.temperature, *found.elements)]]
        differ += not found.equal
    assert np.abs(np.mean(pulls, axis=0)).max() < 4 / np.sqrt(40)
    assert 0.6 < np.std(pulls) < 1.25
    assert differ <= 1


def test_unequal_temperatures_are_found() -> None:
    """The temperatures published for ORB under a global thermostat (arXiv 2412.11569): H 336 K, O 230 K."""
    kelvin = np.where(np.array(ELEMENTS) == "H", 336.0, 230.0)
    v = without_drift(thermal(np.random.default_rng(0), 400, kelvin, MASSES, 0.8), MASSES)
    found = equipartition.measure(v, MASSES, ELEMENTS)
    by_name = {one.name: one for one in found.elements}
    for name, expected in (("H", 336.0), ("O", 230.0)):
        one = by_name[f"temperature_{name}"]
        assert one.value == pytest.approx(expected, abs=4 * one.standard_error)
        assert one.standard_error < 8
    assert not found.equal and found.worst is not None
    assert found.worst.value == pytest.approx(-106, abs=4 * found.worst.standard_error)
    assert abs(found.worst.value) > 10 * found.worst.standard_error


def test_temperatures_that_have_no_meaning_are_refused() -> None:
    v = thermal(np.random.default_rng(0), 50, np.full(48, 300.0), MASSES)
    with pytest.raises(UsageError, match="one atom"):
        equipartition.measure(v[:, :1], MASSES[:1], ["O"])
    frozen = v.copy()
    frozen[:, 3] = 0
    with pytest.raises(UsageError, match="never move.*first is 3"):
        equipartition.measure(frozen, MASSES, ELEMENTS)
    with pytest.raises(UsageError, match="shapes"):
        equipartition.measure(v, MASSES[:-1], ELEMENTS)
    with pytest.raises(UsageError, match="finite"):
        equipartition.measure(np.full_like(v, np.nan), MASSES, ELEMENTS)
    slow = thermal(np.random.default_rng(0), 50, np.full(48, 300.0), MASSES, 0.99)
    with pytest.raises(TooShortToTell) as caught:
        equipartition.measure(slow, MASSES, ELEMENTS)
    assert isinstance(caught.value.estimate, equipartition.Equipartition)


def test_rigid_bonds_are_found_and_vibrating_ones_are_not() -> None:
    """Dumbbells across the face of a cell: one turns at fixed length, the other also vibrates by 2 %."""
    time = np.linspace(0, 7, 200)
    turning = np.stack([np.cos(time), np.sin(time), 0 * time], axis=1)
    cells = np.broadcast_to(8 * np.eye(3), (200, 3, 3))
    for vibration, pairs in ((0.0, [(0, 1), (1, 0)]), (0.02, [])):
        half = (0.5 * (1 + vibration * np.sin(8 * time)))[:, None] * turning
        assert rigid_bonds.find(np.stack([half, -half], axis=1) % 8.0, cells, (True, True, True)) == pairs
    straight = np.outer(np.linspace(0, 0.5, 30), [0.0, 1.0, 0.0])  # a free flight past each other turns the bond too
    passing = np.stack([straight, -straight + [1.0, 0, 0]], axis=1)
    assert not rigid_bonds.find(passing, cells[:30], (True, True, True))


def test_spectrum_of_harmonic_oscillators() -> None:
    """Two kinds of oscillators, 500 and 3400 cm⁻¹, random phases: peaks there, C(t) = cos ωt, 3 degrees of freedom."""
    rng = np.random.default_rng(1)
    time = 0.001 * np.arange(6000)
    frequency = np.repeat([500.0, 3400.0], 8) / WAVENUMBER_OF_TERAHERTZ  # 1/ps
    phase = rng.uniform(0, 2 * np.pi, (16, 3))
    v = np.cos(2 * np.pi * frequency[:, None] * time[:, None, None] + phase)
    found = velocity_spectrum.measure(time, v, np.ones(16), ["slow"] * 8 + ["fast"] * 8)
    for one, wanted in zip(found, (500.0, 3400.0), strict=True):
        step = one.wavenumber[1]
        assert one.peak.value == pytest.approx(wanted, abs=3 * one.peak.standard_error)
        assert one.peak.standard_error < 0.2 * step
        assert one.density.sum() * step == pytest.approx(3.0)
        near = np.abs(one.wavenumber - wanted) < 30
        assert one.density[near].sum() * step > 2.9
        omega = 2 * np.pi * wanted / WAVENUMBER_OF_TERAHERTZ
        assert np.allclose(one.correlation, np.cos(omega * one.lag_ps), atol=0.02)
        assert not one.is_folded


def test_spectrum_of_a_process_with_friction_and_its_errors() -> None:
    """Velocities that forget as exp(−γt) have the density 3·4γ/(γ² + ω²), folded at the highest wavenumber."""
    rng = np.random.default_rng(2)
    gamma, dt = 20.0, 0.002
    v = thermal(rng, 4000, np.full(12, 300.0), np.ones(12), float(np.exp(-gamma * dt)))
    (one,) = velocity_spectrum.measure(dt * np.arange(4000), v, np.ones(12), ["X"] * 12, resolution=80)
    x = 2 * np.pi * one.wavenumber / WAVENUMBER_OF_TERAHERTZ * dt
    memory = np.exp(-gamma * dt)
    exact = 3 * 2 * dt * (1 - memory**2) / (1 - 2 * memory * np.cos(x) + memory**2) / WAVENUMBER_OF_TERAHERTZ
    exact *= BOLTZMANN * 300 / (v**2).mean()  # the integral is 3 whatever the kinetic energy of this record
    pulls = (one.density - exact)[1:-1] / one.standard_error[1:-1]
    assert abs(pulls.mean()) < 0.5 and 0.7 < pulls.std() < 1.4
    assert np.allclose(one.correlation[:20], np.exp(-gamma * one.lag_ps[:20]), atol=0.1)


def test_motions_too_fast_for_the_frames_are_noticed() -> None:
    noise = np.random.default_rng(0).normal(size=(2000, 4, 3))
    (one,) = velocity_spectrum.measure(0.01 * np.arange(2000), noise, np.ones(4), ["X"] * 4)
    assert one.is_folded and one.folded == pytest.approx(0.05, abs=0.01)
    with pytest.raises(TooShortToTell):
        velocity_spectrum.measure(0.01 * np.arange(60), noise[:60], np.ones(4), ["X"] * 4)


@pytest.mark.parametrize("blocks", [4, 8])
def test_diffusion_of_random_walks_and_its_error(blocks: int) -> None:
    """D of two kinds of walkers with a common drift; deviations over claimed errors have a spread near 1 over 40 seeds.

    Taking out the centre of mass of N independent walkers of equal mass leaves D (1 − 1/N).
    """
    rng = np.random.default_rng(3)
    time, exact = 0.01 * np.arange(1600), np.array([0.23, 1.0])
    pulls, exponents = [], []
    for _ in range(40):
        size = np.sqrt(2 * np.repeat(exact, 20) * 0.01)[:, None]
        positions = np.cumsum(size * rng.normal(size=(1600, 40, 3)), axis=0) + 5 * time[:, None, None]
        labels = ["A"] * 20 + ["B"] * 20
        found = mean_square_displacement.measure(time, positions, np.ones(40), labels, blocks=blocks)
        mean = exact.mean()
        # Var(x_i − X) = σ_i² (1 − 2/N) + Σσ²/N²
        expected = exact * (1 - 2 / 40) + mean / 40
        pulls.append(
            [
                (one.coefficient.value - e) / one.coefficient.standard_error
                for one, e in zip(found, expected, strict=True)
            ]
        )
        exponents += [one.exponent.value for one in found]
        assert all(one.diffusive for one in found)
    assert np.abs(np.mean(pulls, axis=0)).max() < 4 / np.sqrt(40)
    assert 0.7 < np.std(pulls) < 1.3
    assert np.mean(exponents) == pytest.approx(1, abs=0.02)


def test_displacement_is_its_definition() -> None:
    """Against the double sum over atoms and time origins."""
    positions = np.random.default_rng(0).normal(size=(30, 3, 3)).cumsum(axis=0)
    found = mean_square_displacement._displacement(positions)
    for lag in (0, 1, 7, 29):
        moved = positions[lag:] - positions[: len(positions) - lag]
        assert found[lag] == pytest.approx((moved**2).sum(axis=2).mean(), abs=1e-9)


def test_atoms_that_stay_do_not_diffuse() -> None:
    rng = np.random.default_rng(0)
    time = 0.01 * np.arange(1600)
    found = mean_square_displacement.measure(time, rng.normal(size=(1600, 20, 3)), np.ones(20), ["A"] * 20)
    assert not found[0].diffusive and found[0].exponent.value == pytest.approx(0, abs=0.05)
    assert abs(found[0].coefficient.value) < 4 * found[0].coefficient.standard_error
    with pytest.raises(UsageError, match="31 frames"):
        mean_square_displacement.measure(time[:31], rng.normal(size=(31, 20, 3)), np.ones(20), ["A"] * 20)
    with pytest.raises(UsageError, match="blocks: got 3"):
        mean_square_displacement.measure(time, rng.normal(size=(1600, 20, 3)), np.ones(20), ["A"] * 20, blocks=3)
    for n in (32, 100, 159):
        with pytest.raises(TooShortToTell):
            mean_square_displacement.measure(time[:n], rng.normal(size=(n, 20, 3)), np.ones(20), ["A"] * 20)


def test_finite_size_correction_of_water() -> None:
    """Yeh and Hummer: ξ k_B T/(6πηL) at 298 K, 0.89 mPa·s, L = 24.8 Å by SI arithmetic, 2.8e-10 m²/s."""
    si = 2.837297 * 1.380649e-23 * 298 / (6 * np.pi * 0.89e-3 * 24.8e-10)
    assert mean_square_displacement.finite_size_correction(298, 24.8, 0.89) == pytest.approx(si * 1e8, rel=1e-9)
    with pytest.raises(UsageError, match="viscosity"):
        mean_square_displacement.finite_size_correction(298, 24.8, 0.0)


def test_unwrapping_gives_back_the_path() -> None:
    """A walk folded into a skewed cell that breathes comes back but for where it started."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(0.2 * rng.normal(size=(300, 5, 3)), axis=0)
    cell = np.array([[6.0, 0, 0], [2.0, 5.0, 0], [-1.0, 1.5, 7.0]])
    cells = np.broadcast_to(cell, (300, 3, 3))
    folded = (walk @ np.linalg.inv(cell)) % 1 @ cell
    assert unwrapping.is_wrapped(folded, cells, (True, True, True))
    assert not unwrapping.is_wrapped(walk, cells, (True, True, True))
    back = unwrapping.unwrap(folded, cells, (True, True, True))
    assert np.allclose(back - back[0], walk - walk[0], atol=1e-9)
    only_z = unwrapping.unwrap(folded, cells, (False, False, True))
    assert not np.allclose(only_z - only_z[0], walk - walk[0], atol=1e-3)


def harmonic_crystal(rng: np.random.Generator, kelvin: np.ndarray, n_frames: int) -> tuple[np.ndarray, ...]:
    """(velocities, masses, Hessian, wavenumbers) of random springs; each mode has its own temperature."""
    n = 5
    masses = np.array([1.0, 16.0, 1.0, 12.0, 14.0])
    links = rng.normal(size=(3 * n, 3 * n))
    shift = np.tile(np.eye(3), (n, 1)) / np.sqrt(n)
    outside = np.eye(3 * n) - shift @ shift.T
    hessian = outside @ (links @ links.T) @ outside
    roots = np.repeat(np.sqrt(masses), 3)
    squared, modes = np.linalg.eigh(hessian / np.outer(roots, roots))
    omega, modes = np.sqrt(squared[3:]), modes[:, 3:]
    time = 0.007 * PICOSECOND * np.arange(n_frames)
    # an Ornstein–Uhlenbeck amplitude for each mode, so that its energy is canonical at its temperature
    memory = 0.97
    amplitude = rng.normal(size=(2, n_frames, len(omega)))
    for k in range(1, n_frames):
        amplitude[:, k] = memory * amplitude[:, k - 1] + np.sqrt(1 - memory**2) * amplitude[:, k]
    angle = time[:, None] * omega
    rates = (amplitude[0] * np.cos(angle) + amplitude[1] * np.sin(angle)) * np.sqrt(BOLTZMANN * kelvin)
    velocities = (rates @ modes.T / roots).reshape(n_frames, n, 3)
    return velocities, masses, hessian, omega / (2 * np.pi) * PICOSECOND * WAVENUMBER_OF_TERAHERTZ


def test_temperatures_of_modes_that_were_dialled() -> None:
    rng = np.random.default_rng(0)
    kelvin = np.full(12, 300.0)
    kelvin[-2:] = 900.0
    velocities, masses, hessian, wavenumber = harmonic_crystal(rng, kelvin, 4000)
    drifting = velocities + np.array([0.3, 0.0, -0.1])
    found = normal_modes.measure(drifting, masses, hessian)
    assert np.allclose(found.wavenumber, wavenumber, rtol=1e-9)
    pulls = (found.temperature - kelvin) / found.standard_error
    assert np.abs(pulls).max() < 4 and 0.4 < pulls.std() < 1.6
    assert not found.equal and found.worst.value > 200
    same = normal_modes.measure(*harmonic_crystal(rng, np.full(12, 300.0), 4000)[:3])
    assert same.equal and same.mean.value == pytest.approx(300, abs=4 * same.mean.standard_error)


def test_forces_by_mode_are_those_of_oscillators() -> None:
    """In a harmonic system M^(−1/2) F is −ω² q in each mode, and nothing of it is lost but the net force."""
    rng = np.random.default_rng(1)
    _, masses, hessian, wavenumber = harmonic_crystal(rng, np.full(12, 300.0), 50)
    moved = rng.normal(size=(3, 5, 3))
    forces = -(moved.reshape(3, -1) @ hessian).reshape(3, 5, 3)
    found, by_mode = normal_modes.components(forces, masses, hessian)
    assert np.allclose(found, wavenumber, rtol=1e-9)
    _, amplitude = normal_modes.components(moved * masses[:, None], masses, hessian)  # M^(−1/2) M x is what q is of
    omega = wavenumber * 2 * np.pi / (PICOSECOND * WAVENUMBER_OF_TERAHERTZ)
    assert np.allclose(by_mode, -(omega**2) * amplitude, atol=1e-9 * np.abs(by_mode).max())
    assert (by_mode**2).sum() == pytest.approx((forces**2 / masses[:, None]).sum(), rel=1e-9)
    with pytest.raises(UsageError, match="shapes"):
        normal_modes.components(forces[0], masses, hessian)


def test_hessians_that_do_not_fit_are_refused() -> None:
    velocities, masses, hessian, _ = harmonic_crystal(np.random.default_rng(0), np.full(12, 300.0), 50)
    with pytest.raises(UsageError, match="shapes"):
        normal_modes.measure(velocities, masses, hessian[:-1])
    with pytest.raises(UsageError, match="finite"):
        normal_modes.measure(velocities, masses, np.full_like(hessian, np.nan))
    with pytest.raises(TooShortToTell):
        normal_modes.measure(velocities, masses, hessian)
