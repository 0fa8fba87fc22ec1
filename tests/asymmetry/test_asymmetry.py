"""λ of many structures: known ones are found, the distribution is right, and the command writes what it says."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk

import mlcalc
from mlcalc.asymmetry.figure import plot
from mlcalc.asymmetry.frames import frames_of, read_structures
from mlcalc.asymmetry.result import AsymmetryResult, FrameAsymmetry
from mlcalc.cli import main
from mlcalc.diagnostics import jacobian_asymmetry
from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import UsageError
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.probes.jacobian import exact_jacobian


def argon(n: int, repeats: int = 1) -> list[ase.Atoms]:
    frames = []
    for k in range(n):
        atoms = bulk("Ar", cubic=True, a=5.4) * (repeats, repeats, repeats)
        atoms.rattle(0.1, seed=k)
        frames.append(atoms)
    return frames


def result_of(values, errors, times=None, floor=1e-6) -> AsymmetryResult:
    times = times or [None] * len(values)
    frames = [
        FrameAsymmetry(k, time, 3, Finding("jacobian_asymmetry", value, error, "1", "8 pairs of products", floor))
        for k, (value, error, time) in enumerate(zip(values, errors, times, strict=True))
    ]
    return AsymmetryResult("made up", "direct", ("H2O",), tuple(frames))


def test_each_structure_has_its_own(make_network, make_water) -> None:
    """Reference: the dense Jacobian of each; 9 and 36 coordinates are done exactly."""
    network, frames = make_network("painn"), [make_water(1), make_water(4, seed=1), make_water(4, seed=2)]
    found = mlcalc.measure_asymmetry(network, frames, times_ps=[0.0, 0.1, 0.2])
    for atoms, frame in zip(frames, found.frames, strict=True):
        dense = exact_jacobian(network, mlcalc.Structure.from_ase(atoms), "direct")
        assert frame.finding.value == pytest.approx(jacobian_asymmetry.from_jacobian(dense).value, rel=1e-9)
        assert frame.above_floor
    assert found.largest.index == int(np.argmax(found.values))
    assert found.forces == "direct" and len(found.formulas) == 2


def test_by_differences() -> None:
    """A known curl by differences of forces: reference is the closed form in the potential's docstring."""
    settings = mlcalc.AsymmetrySettings(by_differences=True, directions=16)
    found = mlcalc.measure_asymmetry(Harmonic(asymmetry=0.1), argon(2, 2), settings)
    for frame in found.frames:
        assert frame.finding.value == pytest.approx(0.1, abs=3 * frame.finding.standard_error)
        assert "differences" in frame.finding.note
    assert found.values[0] != found.values[1]


def test_the_mean_and_the_spread_of_a_distribution() -> None:
    """Reference: the normal distribution that 400 values come from, with sampling errors as large as its width."""
    random = np.random.default_rng(0)
    width, error = 0.001, 0.001
    values = 0.02 + random.normal(scale=np.hypot(width, error), size=400)
    found = result_of(values.tolist(), [error] * 400)
    assert found.mean.value == pytest.approx(0.02, abs=3 * found.mean.standard_error)
    assert found.mean.standard_error == pytest.approx(np.hypot(width, error) / 20, rel=0.3)
    # sd of the variance of 400: 2σ⁴/n, half of it in the width; three times that
    assert found.spread == pytest.approx(width, rel=0.25)
    assert result_of([0.02], [0.001]).spread is None


def test_a_gradient_is_called_one() -> None:
    found = mlcalc.measure_asymmetry(LennardJones(), argon(3))
    assert not any(frame.above_floor for frame in found.frames)
    assert "gradient as far as" in str(found)
    assert "in 1 of 2 structures" in str(result_of([0.02, 1e-7], [0.001, 1e-8]))


def test_the_text_is_80_columns_wide(make_network, make_water) -> None:
    found = mlcalc.measure_asymmetry(
        make_network("painn"), [make_water(8), make_water(8, seed=1)], mlcalc.AsymmetrySettings(centres=6, max_pairs=8)
    )
    text = str(found)
    assert found.profile is not None and len(found.profile.distance) > 2
    assert all(len(line) <= 80 for line in text.splitlines()) and "distance, Å" in text
    assert max(map(len, str(result_of([1e-3] * 30, [1e-5] * 30, [0.1 * k for k in range(30)])).splitlines())) <= 80


def test_frames_of_a_run(tmp_path) -> None:
    """Of our trajectory, in memory and from its file; times are those of the run."""
    settings = mlcalc.SimulationSettings(
        steps=6, stride=2, forces="conservative", timestep_fs=5, n_inner=1, temperature_K=30
    )
    path = tmp_path / "argon.trajectory"
    mlcalc.simulate(LennardJones(), argon(1)[0], settings, path)
    trajectory = mlcalc.read_trajectory(path)
    found = mlcalc.measure_asymmetry(LennardJones(), trajectory)
    assert [frame.time_ps for frame in found.frames] == pytest.approx([0, 0.01, 0.02, 0.03])
    frames, times = read_structures(path)
    assert times == pytest.approx([0, 0.01, 0.02, 0.03])
    for one, other in zip(frames, frames_of(trajectory), strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)


def test_the_command(tmp_path, capsys) -> None:
    """Structures of different atoms in one file, every second of them."""
    path = tmp_path / "mixed.xyz"
    ase.io.write(path, [*argon(2), *argon(3, 2)])
    common = ["asymmetry", "--potential", "lennard_jones", "--structure", str(path)]
    written = tmp_path / "found.json", tmp_path / "found.png"
    assert main([*common, "--every", "2", "--centres", "4", "--json", str(written[0]), "--plot", str(written[1])]) == 0
    assert "mixed.xyz, 2 compositions" in capsys.readouterr().out
    found = json.loads(written[0].read_text())
    assert [frame["n_atoms"] for frame in found["frames"]] == [4, 32, 32]
    assert found["forces"] == "conservative" and found["mean"] < 1e-12
    assert written[1].read_bytes().startswith(b"\x89PNG")
    assert main([*common, "--forces", "direct"]) == 2
    assert "no direct forces" in capsys.readouterr().err
    assert main([*common[:-1], str(tmp_path / "none.xyz")]) == 2


def test_bad_requests() -> None:
    for options, word in (({"forces": "both"}, "forces"), ({"centres": 2}, "centres"), ({"memory_GiB": 0}, "memory")):
        with pytest.raises(UsageError, match=word):
            mlcalc.AsymmetrySettings(**options)
    with pytest.raises(UsageError, match="times_ps"):
        mlcalc.measure_asymmetry(LennardJones(), argon(2), times_ps=[0.0])
    with pytest.raises(UsageError, match="nothing to draw"):
        plot(result_of([0.01], [0.001]), "nowhere.png")
