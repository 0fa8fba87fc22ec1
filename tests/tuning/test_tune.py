"""The map of steps, against the stability of a linear system, which is known exactly."""

from __future__ import annotations

import json
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

import mlcalc
from mlcalc import units
from mlcalc.cli import main
from mlcalc.errors import UsageError
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.tuning.result import SAFE, UNDECIDED, UNSTABLE, Trial, Tuning
from mlcalc.tuning.run import tune
from mlcalc.tuning.settings import TuneSettings
from mlcalc.tuning.text import WIDTH, render_text

_SPRING, _MASS, _ASYMMETRY = 100.0, 1.008, 0.3  # a period of 6.4 fs: velocity Verlet is unstable above 2.04 fs
_SETTINGS = TuneSettings(timesteps_fs=(0.25, 0.5, 2.5), n_inner=(1, 2, 4, 8), scan_ps=0.12, confirm_ps=0.5)


def hydrogens() -> ase.Atoms:
    atoms = ase.Atoms("H12", positions=3.0 * np.random.default_rng(0).normal(size=(12, 3)))
    atoms.set_masses([_MASS] * len(atoms))
    return atoms


@pytest.fixture(scope="module")
def found() -> Tuning:
    atoms = hydrogens()
    return tune(Harmonic(atoms.positions, spring=_SPRING, asymmetry=_ASYMMETRY), atoms, _SETTINGS)


def growth(timestep_fs: float, n_inner: int) -> float:
    """1/ps: how fast the energy of an atom in the plane of the curl can grow, ln|ρ|²/Δt of one outer step's matrix.

    In (x, y, p_x, p_y) every flow of r-RESPA is a matrix; ρ is the spectral radius of their product.
    """
    curl = _SPRING * _ASYMMETRY * np.sqrt(1.5 / (1 - _ASYMMETRY**2))  # as in mlcalc/potentials/harmonic.py
    rotation, inner = np.array([[0, -curl], [curl, 0]]), units.from_femtoseconds(timestep_fs)
    fast = -_SPRING * np.eye(2) + (rotation if n_inner > 1 else 0)

    def kick(force: np.ndarray, time: float) -> np.ndarray:
        return np.block([[np.eye(2), np.zeros((2, 2))], [time * force, np.eye(2)]])

    move = np.block([[np.eye(2), inner / _MASS * np.eye(2)], [np.zeros((2, 2)), np.eye(2)]])
    cycle = np.linalg.matrix_power(kick(fast, inner / 2) @ move @ kick(fast, inner / 2), n_inner)
    if n_inner > 1:
        slow = kick(-rotation, n_inner * inner / 2)
        cycle = slow @ cycle @ slow
    return float(2 * np.log(np.abs(np.linalg.eigvals(cycle)).max()) / (timestep_fs * n_inner / 1000))


def test_the_map_is_that_of_the_exact_steps(found: Tuning) -> None:
    """One sense of rotation grows by g, the other shrinks: thermal energy, 2kT in the plane, drifts by some g²t 2kT."""
    statuses = {}
    for trial in found.trials:
        rate = growth(trial.timestep_fs, trial.n_inner)
        foretold = rate**2 * trial.span_ps * 2000 * units.BOLTZMANN * found.temperature_K
        statuses[trial.timestep_fs, trial.n_inner] = trial.status
        if foretold > 20 or trial.exploded:
            assert trial.status == UNSTABLE
        elif foretold < 1e-6:
            assert trial.status in (SAFE, UNDECIDED)
    assert statuses[2.5, 1] == statuses[0.5, 4] == statuses[0.25, 8] == UNSTABLE
    assert found.trial(2.5, 1).exploded == _SETTINGS.replicas  # type: ignore[union-attr]
    assert (2.5, 2) not in statuses  # beyond an unstable one
    assert statuses[0.25, 1] in (SAFE, UNDECIDED)


def test_the_one_to_take_is_the_cheapest_that_is_safe(found: Tuning) -> None:
    best = found.best
    assert best is not None and best.span_ps >= _SETTINGS.confirm_ps
    assert best.ms_per_ps == min(one.ms_per_ps for one in found.trials if one.status == SAFE)
    cheaper = [one for one in found.trials if one.ms_per_ps < best.ms_per_ps]
    assert all(one.status != SAFE for one in cheaper)
    assert found.speed_up == pytest.approx(found.conservative.ms_per_ps / best.ms_per_ps)  # type: ignore[union-attr]


def test_errors_go_down_with_the_square_root_of_the_replicas() -> None:
    """The mean of N runs has the error of one over √N: sixteen against one, within the scatter of the errors."""

    crystal = bulk("Ar", a=5.3, cubic=True) * 2
    errors = []
    for replicas in (1, 16):
        settings = TuneSettings(30, (20.0,), (1,), replicas=replicas, scan_ps=1.0, confirm_ps=1.0, equilibration_ps=1.0)
        (trial,) = tune(LennardJones(cutoff=5.0), crystal, settings).trials
        errors.append(trial.drift_error)
    assert 2 < errors[0] / errors[1] < 8


def test_potentials_with_one_kind_of_force() -> None:
    atoms = bulk("Cu", cubic=True)
    settings = TuneSettings(timesteps_fs=(5.0,), scan_ps=0.1, confirm_ps=0.5)
    found = tune(mlcalc.AseCalculator(EMT()), atoms, settings)  # one system at a time, and no direct forces
    assert [(one.timestep_fs, one.n_inner) for one in found.trials] == [(5.0, 1)]
    direct = mlcalc.AseCalculator(EMT(), forces="direct")
    with pytest.raises(UsageError, match="direct forces only"):
        tune(direct, atoms, settings)


def test_text_fits_a_terminal_and_json_is_plain(found: Tuning, tmp_path: Path) -> None:
    text = render_text(found)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "exploded!" in text and "fastest safe: mlcalc run" in text
    found.write_json(tmp_path / "tuning.json")
    written = json.loads((tmp_path / "tuning.json").read_text())
    assert written["best"]["status"] == SAFE and len(written["trials"]) == len(found.trials)


def test_nothing_safe_is_said() -> None:
    trial = Trial(0.5, 1, drift=2.0, drift_error=0.1, clear=True, span_ps=1.0, replicas=2, exploded=0, ms_per_ps=1.0)
    tuning = Tuning("x", "y", 3, 300.0, (trial,))
    assert tuning.best is None and trial.status == UNSTABLE
    assert "No setting was found safe" in render_text(tuning)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"timesteps_fs": ()}, "timesteps_fs"), ({"n_inner": (0,)}, "n_inner"), ({"replicas": 0}, "replicas"),
        ({"scan_ps": float("nan")}, "scan_ps"), ({"temperature_K": -1.0}, "temperature_K"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(changes: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        TuneSettings(**changes)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write(tmp_path / "copper.xyz", bulk("Cu", cubic=True))
    arguments = ["tune", "--potential", "ase:ase.calculators.emt:EMT", "--structure", str(tmp_path / "copper.xyz")]
    arguments += ["--timesteps-fs", "2", "5", "--replicas", "1", "--json", str(tmp_path / "tuning.json")]
    assert main([*arguments, "--plot", str(tmp_path / "map.png")]) == 0
    assert "copper.xyz (4 atoms), 300 K" in capsys.readouterr().out
    assert json.loads((tmp_path / "tuning.json").read_text())["n_atoms"] == 4
    assert (tmp_path / "map.png").stat().st_size > 10_000
