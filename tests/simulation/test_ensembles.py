"""Ensembles from options, and GLE matrices from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlcalc.errors import UsageError
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.gle import GLE
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.integrators.sin_r import SINR
from mlcalc.simulation.ensembles import EnsembleOptions
from mlcalc.simulation.gle_matrices import read_gle_matrices

RAW = """# Generated at http://gle4md.org
# A MATRIX: (picoseconds^-1)
   2.5e+1    -1.0
   1.0       5.0D-1
# C MATRIX: (K)
   3.0e+2    1.0
   1.0       3.0e+2
"""


def options(folder: Path, **given: object) -> EnsembleOptions:
    (folder / "gle.txt").write_text(RAW)
    if given.get("gle_file"):
        given["gle_file"] = str(folder / "gle.txt")
    return EnsembleOptions(temperature_K=350.0, seed=7, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, "nve"),
        ({"ensemble": "langevin", "friction_per_ps": 2.0}, "langevin"),
        ({"ensemble": "nvt"}, Ensemble(Langevin(350.0, 1.0, 7))),
        ({"ensemble": "nvt", "thermostat": "bussi"}, Ensemble(Bussi(350.0, 0.1, 7))),
        (
            {"ensemble": "nvt", "thermostat": "nose-hoover", "thermostat_time_ps": 0.5},
            Ensemble(NoseHoover(350.0, 0.5)),
        ),
        (
            {"ensemble": "nvt", "thermostat": "gle", "gle_file": "gle.txt"},
            Ensemble(GLE(350.0, ((25.0, -1.0), (1.0, 0.5)), ((300.0, 1.0), (1.0, 300.0)), 7)),
        ),
        (
            {"ensemble": "langevin", "hydrogen_friction_per_ps": 20.0},
            Ensemble(Langevin(350.0, 1.0, 7, hydrogen_friction_per_ps=20.0)),
        ),
        ({"ensemble": "nvt", "thermostat": "sin-r"}, Ensemble(SINR(350.0, 0.01, 100.0, 1.0, 7))),
        (
            {"ensemble": "nvt", "thermostat": "sin-r", "thermostat_time_ps": 0.02, "regulation": 4.0},
            Ensemble(SINR(350.0, 0.02, 100.0, 4.0, 7)),
        ),
        (
            {"ensemble": "npt", "barostat": "full", "pressure_GPa": 0.0, "barostat_time_ps": 2.0},
            Ensemble(Langevin(350.0, 1.0, 7), Barostat(0.0, 2.0, "full", 7)),
        ),
        (
            {"ensemble": "npt", "thermostat": "bussi"},
            Ensemble(Bussi(350.0, 0.1, 7), Barostat(1e-4, 1.0, "isotropic", 7)),
        ),
    ],
)
def test_options_make_an_ensemble(tmp_path: Path, given: dict, made: Ensemble | str) -> None:
    assert options(tmp_path, **given).make() == made


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"thermostat": "bussi"}, "thermostat: got bussi with --ensemble nve"),
        ({"ensemble": "langevin", "thermostat": "bussi"}, "thermostat: got bussi with --ensemble langevin"),
        ({"friction_per_ps": 1.0}, "friction-per-ps: got 1.0 with ensemble nve"),
        (
            {"ensemble": "nvt", "thermostat": "bussi", "friction_per_ps": 1.0},
            "goes with the thermostat langevin or sin-r",
        ),
        (
            {"ensemble": "nvt", "thermostat": "bussi", "hydrogen_friction_per_ps": 1.0},
            "hydrogen-friction-per-ps: got 1.0",
        ),
        ({"ensemble": "nvt", "regulation": 2.0}, "regulation: got 2.0 .* it goes with the thermostat sin-r"),
        ({"ensemble": "npt", "thermostat": "sin-r"}, "barostat: got one with SINR"),
        ({"ensemble": "npt", "thermostat_time_ps": 1.0}, "it goes with the thermostat bussi or nose-hoover or sin-r"),
        ({"ensemble": "nvt", "gle_file": "gle.txt"}, "gle-file: got"),
        ({"ensemble": "nvt", "thermostat": "gle"}, "gle-file: the thermostat gle needs one"),
        ({"ensemble": "nvt", "pressure_GPa": 1.0}, "pressure-GPa: got 1.0 .* it goes with --ensemble npt"),
        ({"barostat": "full"}, "barostat: got full with ensemble nve"),
        ({"ensemble": "nvt", "thermostat": "bussi", "thermostat_time_ps": 0.0}, "time_ps: got 0.0"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(tmp_path: Path, given: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        options(tmp_path, **given).make()


def test_matrices_in_the_form_of_ipi(tmp_path: Path) -> None:
    """Atomic units where none are named; the inverse atomic time is 41341.37 ps⁻¹ (CODATA 2018)."""
    path = tmp_path / "gle.xml"
    path.write_text("<thermostat mode='gle'> <A shape='(2,2)'> [ 1e-3, -2e-4,\n 2e-4, 5e-4 ] </A> </thermostat>")
    drift, covariance = read_gle_matrices(path)
    np.testing.assert_allclose(drift, 41341.3733 * np.array([[1e-3, -2e-4], [2e-4, 5e-4]]), rtol=1e-7)
    assert covariance is None
    path.write_text("<A shape='(1,1)' units='inversecm'> [100] </A> <C shape='(1,1)' units='kelvin'> [300] </C>")
    drift, covariance = read_gle_matrices(path)
    assert drift[0][0] == pytest.approx(2 * np.pi * 100 * 2.99792458e10 * 1e-12)
    assert covariance == ((300.0,),)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("2.0 3.0\n", "has no matrix A"),
        ("# A MATRIX: (fortnights^-1)\n1.0\n", "gives A in 'fortnights"),
        ("# A MATRIX: (picoseconds^-1)\n1.0 2.0 3.0\n", "has 3 numbers in A"),
        ("<A shape='(1,1)'> [] </A>", "has 0 numbers in A"),
    ],
)
def test_unusable_files_are_refused(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "gle.txt").write_text(text)
    with pytest.raises(UsageError, match=word):
        read_gle_matrices(tmp_path / "gle.txt")
    with pytest.raises(UsageError, match="no file"):
        read_gle_matrices(tmp_path / "none.txt")
