"""`mlcalc diagnose` on runs of our own: what it says, what it writes, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk
from jsonschema import Draft202012Validator

from mlcalc import cli
from mlcalc.diagnosis.bench import DiagnosisSettings
from mlcalc.diagnosis.read import read_record
from mlcalc.diagnosis.result import Row, schema
from mlcalc.diagnosis.run import diagnose
from mlcalc.diagnostics import box_volume
from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import TooShortToTell
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.record import Frames, Record, Series
from mlcalc.simulation.log import read_log
from mlcalc.simulation.plot import plot_log
from mlcalc.simulation.run import SimulationSettings, simulate
from mlcalc.trajectory import read_trajectory
from mlcalc.units import BOLTZMANN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 ps of 32 argon atoms in a bath, every fourth step kept."""
    folder = tmp_path_factory.mktemp("argon")
    argon: ase.Atoms = bulk("Ar", cubic=True, a=5.3) * (2, 2, 2)
    settings = SimulationSettings(
        steps=1200, forces="conservative", timestep_fs=10.0, n_inner=1, stride=4, ensemble="langevin",
        temperature_K=30.0, friction_per_ps=2.0,
    )  # fmt: skip
    simulate(LennardJones(cutoff=5.0), argon, settings, folder / "run.trajectory")
    return folder


def test_everything_of_a_run_of_ours(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A crystal at 30 K: temperatures of atoms and modes are right, neighbours at a/√2, and nothing diffuses."""
    files = [str(folder / "run.trajectory"), "--potential", "lennard_jones", "--temperature-K", "30", "--skip-ps", "2"]
    written = ["--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]
    assert cli.main(["diagnose", *files, *written]) == 0
    out = capsys.readouterr().out
    table = out.partition("\nresult ")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "as wanted" in table and "conserved" in table and "not done" not in table
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((tmp_path / "out.json").read_text())
    Draft202012Validator(schema()).validate(result)
    assert result["format"] == "mlcalc-diagnosis-1" and result["n_atoms"] == 32 and result["formula"] == "Ar32"
    found = {row["label"].strip(): row for row in result["findings"]}
    for name in ("temperature", "temperature of normal modes"):
        assert found[name]["value"] == pytest.approx(30, abs=4 * found[name]["standard_error"])
        assert found[name]["standard_error"] < 2
    assert found["g(r) of Ar-Ar, first peak"]["value"] == pytest.approx(5.3 / np.sqrt(2), abs=0.05)
    assert "not linear" in found["diffusion of Ar"]["reason"]
    # the highest mode of fcc argon lies at 2.0 THz = 67 cm⁻¹ (Y. Fujii et al., Phys. Rev. B 10, 3647 (1974), 10 K)
    modes = next(curve for curve in result["curves"] if curve["diagnostic"] == "normal modes")
    assert len(modes["x"]) == 93 and min(modes["x"]) > 5 and 50 < max(modes["x"]) < 80
    assert {curve["diagnostic"] for curve in result["curves"]} >= {"drift", "velocity spectrum", "diffusion"}


def test_the_schema_is_one_and_damage_does_not_fit(folder: Path) -> None:
    """Whatever a diagnosis has and has not: no frames, no times, numbers that are not finite."""
    Draft202012Validator.check_schema(schema())
    validator = Draft202012Validator(schema())
    log, gas = read_record([folder / "run.log"]), made_up({"O": 300.0, "H": 300.0}, n_frames=20)
    assert gas.frames is not None
    infinite = Row("volume", "volume", Finding("volume", np.nan, np.inf, "Å³"))
    untimed = diagnose(replace(gas, frames=replace(gas.frames, time_ps=None, velocities=None)))
    for found in (diagnose(log), diagnose(gas), untimed, replace(untimed, rows=(infinite,))):
        validator.validate(found.to_dict())
    good = diagnose(log).to_dict()
    assert not validator.is_valid({**good, "n_frames": -1})
    assert not validator.is_valid({**good, "findings": [{**good["findings"][0], "judgement": "fine"}]})
    assert not validator.is_valid({**good, "not_done": {"weather": "no data"}})
    assert not validator.is_valid({name: value for name, value in good.items() if name != "curves"})


def test_power_of_a_run_that_the_direct_force_drives(tmp_path: Path) -> None:
    """Wells with a curl: what the direct force brings in is the rise of the energy; under MTS it is no heating."""
    atoms = ase.Atoms("Ar8", positions=3.0 * np.array(list(np.ndindex(2, 2, 2))))
    wells = Harmonic(atoms.positions, spring=1.0, curl=0.01)
    settings = SimulationSettings(steps=500, forces="direct", timestep_fs=4.0, n_inner=1, temperature_K=100.0)
    simulate(wells, atoms, replace(settings, on_drift="continue"), tmp_path / "direct.trajectory")
    record = read_record([tmp_path / "direct.trajectory"])
    (power,) = diagnose(record).rows_of("non-conservative power")
    assert record.series is not None and record.series.conserved_eV is not None
    gained = float(record.series.conserved_eV[-1] - record.series.conserved_eV[0]) / 2.0 / 8 * 1000
    assert power.finding.value == pytest.approx(gained, rel=0.02)
    simulate(wells, atoms, replace(settings, steps=20, forces="mts", n_inner=2), tmp_path / "mts.trajectory")
    assert not diagnose(read_record([tmp_path / "mts.trajectory"])).rows_of("non-conservative power")


def test_cells_that_a_barostat_moved_are_read(tmp_path: Path) -> None:
    atoms = bulk("Ar", a=5.3, cubic=True) * 2
    pressed = Ensemble(Bussi(40.0), Barostat(0.1, time_ps=0.1))
    settings = SimulationSettings(
        steps=20, stride=5, forces="conservative", n_inner=1, ensemble=pressed, temperature_K=40.0
    )
    simulate(LennardJones(), atoms, settings, tmp_path / "npt.trajectory")
    frames = read_record([tmp_path / "npt.trajectory"]).frames
    assert frames is not None
    expected = read_trajectory(tmp_path / "npt.trajectory").cells
    assert expected is not None
    assert np.array_equal(frames.cell, expected) and not np.allclose(frames.cell[0], frames.cell[-1])
    logged = read_record([tmp_path / "npt.log"]).series
    assert logged is not None and logged.volume_A3 is not None
    np.testing.assert_allclose(logged.volume_A3, np.linalg.det(expected), rtol=1e-12)
    for files in (["npt.log"], ["npt.trajectory"], ["npt.trajectory", "npt.log"]):
        found = diagnose(read_record([tmp_path / file for file in files]))
        volume, *density = found.rows_of("volume")
        assert volume.finding.value == pytest.approx(np.linalg.det(expected).mean())
        # fcc argon, 32 atoms of 39.948 g/mol
        grams = [32 * 39.948 / 6.02214076e23 / (1e-24 * np.linalg.det(expected)).mean()] * (len(found.formula) > 0)
        assert [row.finding.value for row in density] == pytest.approx(grams, rel=1e-3)
    plot_log(read_log(tmp_path / "npt.log"), tmp_path / "npt.png")
    assert (tmp_path / "npt.png").stat().st_size > 1000


def test_the_mean_volume_has_the_error_of_a_correlated_series() -> None:
    """AR(1) with a memory of 20 samples: its mean has the variance σ² (1 + a)/(1 − a)/n (M. B. Priestley, 1981)."""
    draw, a, n = np.random.default_rng(1), np.exp(-1 / 20), 20_000
    values = np.empty(n)
    values[0] = draw.normal()
    for k in range(1, n):
        values[k] = a * values[k - 1] + np.sqrt(1 - a * a) * draw.normal()
    found = box_volume.measure(1000 + 10 * values, mass=600.0)
    assert found.volume.standard_error == pytest.approx(10 * np.sqrt((1 + a) / (1 - a) / n), rel=0.2)
    assert found.volume.value == pytest.approx(1000, abs=4 * found.volume.standard_error)
    assert found.density is not None and found.density.value == pytest.approx(0.6 * 1.66053906660, rel=2e-3)
    with pytest.raises(TooShortToTell):
        box_volume.measure(1000 + 10 * values[:100])


def test_a_volume_that_does_not_change_is_not_told(folder: Path) -> None:
    found = diagnose(read_record([folder / "run.trajectory", folder / "run.log"]))
    assert not found.rows_of("volume") and "volume" not in found.not_done


def test_a_log_alone_gives_the_drift(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diagnose", str(folder / "run.log")]) == 0
    out = capsys.readouterr().out
    assert "drift of conserved_eV" in out and "from kinetic energy and temperature" in out
    assert "temperature: no trajectory among the files" in out


def test_without_velocities_the_remedy_is_named(folder: Path) -> None:
    record = read_record([folder / "run.trajectory"])
    assert record.frames is not None
    found = diagnose(replace(record, frames=replace(record.frames, velocities=None, time_ps=None)))
    assert "no velocities in these files; write them (LAMMPS: dump" in found.not_done["temperature"]
    assert "--interval-fs" in found.not_done["diffusion"]
    assert "radial distribution" not in found.not_done


def made_up(kelvin: dict[str, float], n_frames: int = 600, seed: int = 0) -> Record:
    """Ideal-gas positions, Maxwell–Boltzmann velocities of each element's own temperature."""
    rng = np.random.default_rng(seed)
    masses = np.array([16.0, 1.0, 1.0] * 8)
    numbers = np.array([8, 1, 1] * 8)
    temperatures = np.where(numbers == 8, kelvin["O"], kelvin["H"])
    frames = Frames(
        numbers,
        masses,
        np.broadcast_to(9.0 * np.eye(3), (n_frames, 3, 3)),
        np.array([True, True, True]),
        rng.uniform(0, 9, (n_frames, 24, 3)),
        rng.normal(size=(n_frames, 24, 3)) * np.sqrt(BOLTZMANN * temperatures / masses)[:, None],
        0.001 * np.arange(n_frames),
    )
    return Record("made up", frames)


def rows(record: Record, **settings: float) -> dict[str, str]:
    """label → judgement"""
    return {row.label.strip(): row.judgement for row in diagnose(record, DiagnosisSettings(**settings)).rows}


def test_elements_at_different_temperatures_stand_out() -> None:
    """336 and 230 K, as published for a direct model (arXiv 2412.11569); and twice 300 K."""
    assert rows(made_up({"O": 230.0, "H": 336.0}))["O − H"] == "attention"
    equal = made_up({"O": 300.0, "H": 300.0})
    assert rows(equal)["O − H"] == "good"
    assert rows(equal, temperature_K=300.0)["temperature"] == "good"
    assert rows(equal, temperature_K=350.0)["temperature"] == "attention"


def test_frozen_atoms_and_explosions_are_left_out() -> None:
    record = made_up({"O": 300.0, "H": 300.0})
    assert record.frames is not None and record.frames.velocities is not None and record.frames.positions is not None
    held, broken = record.frames.velocities.copy(), record.frames.positions.copy()
    held[:, :3] = 0
    broken[500:] = np.nan
    found = diagnose(replace(record, frames=replace(record.frames, velocities=held, positions=broken)))
    assert any("3 atoms never move" in remark for remark in found.remarks)
    assert any("not finite from number 501" in remark for remark in found.remarks)
    assert found.n_frames == 500
    kelvin = next(row.finding for row in found.rows if row.label == "temperature")
    assert kelvin.value == pytest.approx(300, abs=4 * kelvin.standard_error)


def test_a_total_energy_that_a_bath_moves_is_not_taken_for_conserved() -> None:
    rng = np.random.default_rng(0)
    time = 0.01 * np.arange(400)
    kinetic = 1 + 0.05 * rng.normal(size=400)
    series = Series(
        time, conserved_eV=2 + 0.05 * rng.normal(size=400), conserved_name="TotEng", conserved_for_sure=False,
        kinetic_eV=kinetic, n_atoms=10,
    )  # fmt: skip
    assert "a bath is at work" in diagnose(Record("log", series=series)).not_done["drift"]
    quiet = replace(series, conserved_eV=2 + 1e-4 * rng.normal(size=400))
    found = diagnose(Record("log", series=quiet))
    assert found.rows[0].judgement == "good" and any("taken for conserved" in remark for remark in found.remarks)
    drifting = replace(quiet, conserved_eV=np.asarray(quiet.conserved_eV) + 0.01 * time)
    assert diagnose(Record("log", series=drifting)).rows[0].judgement == "attention"


def test_temperatures_that_do_not_fit_the_log_are_noticed() -> None:
    """As velocities of one bead of eight would: eight times too hot."""
    record = made_up({"O": 2400.0, "H": 2400.0})
    series = Series(time_ps=np.arange(3.0), temperature_K=np.array([300.0, 301.0, 299.0]))
    found = diagnose(replace(record, series=series))
    assert any("the log says 300 K" in remark for remark in found.remarks)


def test_finite_size_correction_is_added_or_told() -> None:
    """For walkers in a periodic cell at 300 K."""
    record = made_up({"O": 300.0, "H": 300.0})
    walk = np.cumsum(0.1 * np.random.default_rng(0).normal(size=(600, 24, 3)), axis=0) % 9.0
    assert record.frames is not None
    record = replace(record, frames=replace(record.frames, positions=walk))
    told = diagnose(record)
    assert any("η" in remark for remark in told.remarks)
    found = {
        row.label.strip(): row.finding.value for row in diagnose(record, DiagnosisSettings(viscosity_mPa_s=1.0)).rows
    }
    shift = found["of H in an infinite cell"] - found["diffusion of H"]
    si = 2.837297 * 1.380649e-23 * 300 / (6 * np.pi * 1e-3 * 9e-10) * 1e8
    assert shift == pytest.approx(si, rel=0.05)  # by the measured temperature


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.trajectory"], "no file"),
        (["run.trajectory", "--interval-fs", "1"], "times of their own"),
        (["run.trajectory", "--skip-ps", "1000"], "give less"),
        (["run.trajectory", "run.trajectory"], "two of them have positions"),
        (["run.trajectory", "--r-max-A", "-1"], "from 0|above 0"),
        (["run.trajectory", "--json", "run.log/out.json"], "cannot write"),
        (["run.trajectory", "--units", "lj"], "invalid choice"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(
    folder: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    try:
        status = cli.main(["diagnose", *arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    error = capsys.readouterr().err
    assert status == 2 and error.startswith("mlcalc: error: ") and error.count("\n") == 1
    assert any(word in error for word in message.split("|"))


@pytest.mark.parametrize("name", ["text", "text.txt", "geometry.in", "text.out", "text.csv"])
@pytest.mark.filterwarnings("error")
def test_a_file_of_an_unknown_kind_gets_one_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By its name ASE takes one of them for a geometry of FHI-aims, warns, and finds no atoms."""
    (tmp_path / name).write_text("nothing of the kind\n1 2 3\n")
    assert cli.main(["diagnose", str(tmp_path / name)]) == 2
    error = capfd.readouterr().err
    assert error.startswith("mlcalc: error: trajectory: neither mlcalc nor ASE can read") and error.count("\n") == 1


def test_a_range_that_is_too_long_is_said_and_the_rest_is_done(folder: Path) -> None:
    found = diagnose(read_record([folder / "run.trajectory"]), DiagnosisSettings(r_max_A=9.0))
    assert "half the cell's smallest width is 5.3 Å" in found.not_done["radial distribution"]
    assert found.rows_of("temperature")
