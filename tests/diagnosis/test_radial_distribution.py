"""Radial distributions against an ideal gas, a crystal, and a count over all images."""

from __future__ import annotations

import ase.build
import numpy as np
import pytest

from mlcalc.diagnosis import radial_distribution
from mlcalc.errors import TooShortToTell, UsageError

PERIODIC = (True, True, True)
#: skewed beyond what is reduced, turned in space, and left-handed
SKEWED = np.array([[7.0, 0.0, 0.0], [5.0, 6.5, 0.0], [-3.0, 4.0, 7.5]])
TURNED = SKEWED @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]


@pytest.mark.parametrize("cell", [SKEWED, TURNED, TURNED * [1, 1, -1]])
def test_ideal_gas(cell: np.ndarray) -> None:
    """g = 1 within errors for every pair, and errors as large as the scatter."""
    rng = np.random.default_rng(1)
    positions = rng.uniform(-1, 2, (160, 60, 3)) @ cell
    found = radial_distribution.measure(
        positions, np.broadcast_to(cell, (160, 3, 3)), PERIODIC, ["A"] * 40 + ["B"] * 20
    )
    assert [one.pair for one in found] == ["A-A", "A-B", "B-B"]
    for one in found:
        far = one.r > 1.0
        pulls = (one.g - 1)[far] / one.standard_error[far]
        assert abs(pulls.mean()) < 0.6 and 0.6 < pulls.std() < 1.5
        assert one.r[-1] < radial_distribution.greatest_range(cell[None])


def test_as_counted_over_all_images() -> None:
    """The definition, over 5³ images of a skewed cell; mdtraj has distances in single precision."""
    rng = np.random.default_rng(2)
    positions = rng.uniform(0, 1, (8, 12, 3)) @ TURNED
    (one,) = radial_distribution.measure(
        positions, np.broadcast_to(TURNED, (8, 3, 3)), PERIODIC, ["A"] * 12, bin_width=0.25
    )
    images = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3) @ TURNED
    counts = np.zeros(len(one.r))
    edges = 0.25 * np.arange(len(one.r) + 1)
    for r in positions:
        for i in range(12):
            apart = np.linalg.norm(np.delete(r, i, axis=0)[:, None] - r[i] + images, axis=2)
            counts += np.histogram(apart, edges)[0]
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    expected = counts * abs(np.linalg.det(TURNED)) / (8 * 12 * 11 * shells)
    assert np.allclose(one.g, expected, atol=1e-3)


def test_crystal() -> None:
    """Copper, rattled by 0.05 Å: twelve neighbours at a/√2, six at a."""
    rng = np.random.default_rng(3)
    copper = ase.build.bulk("Cu", a=3.6, cubic=True) * (3, 3, 3)
    positions = copper.positions + 0.05 * rng.normal(size=(40, len(copper), 3))
    cells = np.broadcast_to(copper.cell.array, (40, 3, 3))
    (one,) = radial_distribution.measure(positions, cells, PERIODIC, ["Cu"] * len(copper))
    assert one.peak is not None and one.height is not None
    # each of two atoms strays by 0.05 Å in every direction: ⟨r⟩ = d + σ²/d with σ² = 2·0.05²
    assert one.peak.value == pytest.approx(3.6 / np.sqrt(2), abs=3 * one.peak.standard_error)
    assert one.peak.standard_error < 0.02
    density = (len(copper) - 1) / copper.get_volume()
    neighbours = np.cumsum(4 * np.pi * one.r**2 * one.g * density * 0.05)
    assert np.interp(3.05, one.r, neighbours) == pytest.approx(12, abs=0.02)
    assert np.interp(4.0, one.r, neighbours) == pytest.approx(18, abs=0.05)


def test_a_range_beyond_half_the_width_is_refused() -> None:
    """mdtraj itself gives wrong numbers there without a word."""
    cells = np.broadcast_to(np.diag([8.0, 9.0, 10.0]), (10, 3, 3))
    positions = np.random.default_rng(0).uniform(0, 8, (10, 5, 3))
    assert radial_distribution.greatest_range(cells) == pytest.approx(4.0)
    radial_distribution.measure(positions, cells, PERIODIC, ["A"] * 5, r_max=4.0)
    with pytest.raises(UsageError, match=r"r_max: got 4.1 Å.*is 4 Å"):
        radial_distribution.measure(positions, cells, PERIODIC, ["A"] * 5, r_max=4.1)
    with pytest.raises(UsageError, match="not periodic"):
        radial_distribution.measure(positions, cells, (True, True, False), ["A"] * 5)
    with pytest.raises(UsageError, match="bin_width"):
        radial_distribution.measure(positions, cells, PERIODIC, ["A"] * 5, bin_width=3.0)
    with pytest.raises(TooShortToTell):
        radial_distribution.measure(positions[:3], cells[:3], PERIODIC, ["A"] * 5)


def test_half_the_width_of_a_skewed_cell() -> None:
    """Of the reduced cell: of the same lattice by its shortest vectors the faces are farthest apart."""
    sheared = np.array([[8.0, 0, 0], [16.0, 8.0, 0], [0, 0, 8.0]])
    assert radial_distribution.greatest_range(sheared[None]) == pytest.approx(4.0)
