"""What i-PI wrote, read back: against the energies and temperatures that it computed itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlcalc.diagnosis.read import ReadSettings, read_record
from mlcalc.errors import UsageError
from mlcalc.units import BOHR, BOLTZMANN, HARTREE

SPRING = 0.02  # Hartree/Bohr²
_STRUCTURE = """6
# CELL(abcABC): 10 11 12 80 95 100 cell{angstrom} positions{angstrom}
H 0.1 0.2 0.3
H -0.1 0.2 0.1
O 0.3 -0.2 0.1
O 0.0 0.1 -0.2
C 0.2 0.1 0.0
H 0.1 0.0 -0.1
"""
_INPUT = """<simulation verbosity='quiet'><output prefix='s'>
<properties stride='1' filename='out'>
 [step, time{femtosecond}, conserved{electronvolt}, temperature, kinetic_md{kiloj/mol},
 potential{electronvolt}, cell_h{angstrom}, volume{angstrom3}]</properties>
<properties stride='1' filename='bare'>[time{picosecond}, potential, kinetic_md, volume]</properties>
<trajectory filename='x' stride='2' format='xyz'>positions{angstrom}</trajectory>
<trajectory filename='au' stride='2' format='xyz'>positions</trajectory>
<trajectory filename='v' stride='2' format='xyz'>velocities</trajectory>
<trajectory filename='vms' stride='4' format='xyz'>velocities{m/s}</trajectory>
<trajectory filename='p' stride='2' format='xyz'>momenta</trajectory>
<trajectory filename='vc' stride='2' format='ase'>v_centroid{ase}</trajectory>
<trajectory filename='xc' stride='2' format='ase'>x_centroid{ase}</trajectory>
<trajectory filename='f' stride='2' format='xyz'>forces</trajectory>
</output><total_steps>40</total_steps><prng><seed>3</seed></prng>
<ffdirect name='h'><pes>harmonic</pes><parameters>{k1: %s}</parameters></ffdirect>
<system><initialize nbeads='1'><file mode='xyz'>init.xyz</file>
<velocities mode='thermal' units='kelvin'>300</velocities></initialize>
<forces><force forcefield='h'/></forces>
<motion mode='dynamics'><dynamics mode='nve'><timestep units='femtosecond'>0.5</timestep></dynamics></motion>
<ensemble><temperature units='kelvin'>300</temperature></ensemble></system></simulation>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 steps of six atoms in a well."""
    pytest.importorskip("ipi", reason="missing: ipi (pip install 'mlcalc[ipi]')")
    folder = tmp_path_factory.mktemp("ipi")
    (folder / "init.xyz").write_text(_STRUCTURE)
    (folder / "input.xml").write_text(_INPUT % SPRING)
    program = Path(sys.executable).with_name("i-pi")
    done = subprocess.run([str(program), "input.xml"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_energies_and_temperatures_are_those_of_ipi(folder: Path) -> None:
    """Kinetic energy from velocities against kinetic_md, that against the temperature; ½ k r² against the potential.

    i-PI's xyz has six digits, and its masses are those of an older table than ASE's (1.00794 and 1.008 for hydrogen).
    """
    record = read_record([folder / "s.out", folder / "s.x_0.xyz", folder / "s.v_0.xyz"])
    frames, series = record.frames, record.series
    assert frames is not None and series is not None
    assert frames.velocities is not None and frames.positions is not None and series.kinetic_eV is not None
    kinetic = 0.5 * np.einsum("fix,fix,i->f", frames.velocities, frames.velocities, frames.masses)
    assert np.allclose(kinetic, series.kinetic_eV[::2], rtol=2e-4)
    # i-PI divides by 3 N and adds what the fixed centre of mass would have at the ensemble's 300 K
    assert np.allclose((18 * series.temperature_K - 3 * 300) * BOLTZMANN / 2, series.kinetic_eV, rtol=1e-5)
    potential = 0.5 * SPRING * HARTREE / BOHR**2 * (frames.positions**2).sum(axis=(1, 2))
    table = np.loadtxt(folder / "s.out")
    assert np.allclose(potential, table[::2, 5], rtol=1e-4)
    assert series.conserved_name == "conserved" and series.conserved_for_sure
    assert np.allclose(series.conserved_eV, series.conserved_eV[0], rtol=0.02)
    assert series.time_ps == pytest.approx(0.0005 * np.arange(41))
    assert frames.time_ps == pytest.approx(0.001 * np.arange(21))


def test_deuterium_is_heavy_hydrogen(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "heavy.xyz").write_text((folder / "s.x_0.xyz").read_text().replace(" C ", " D "))
    frames = read_record([tmp_path / "heavy.xyz"]).frames
    assert frames is not None
    assert frames.masses[4] == pytest.approx(2.014, abs=1e-3) and frames.numbers[4] == 1


def test_the_cell_is_that_of_ipi(folder: Path) -> None:
    frames = read_record([folder / "s.x_0.xyz"]).frames
    assert frames is not None
    xx, yy, zz, xy, xz, yz = np.loadtxt(folder / "s.out")[0, 6:12]
    assert np.allclose(frames.cell[0], [[xx, 0, 0], [xy, yy, 0], [xz, yz, zz]], atol=1e-4)


def test_units_and_formats_are_the_same(folder: Path) -> None:
    """Atomic units, m/s, momenta, and extended XYZ in ASE's units."""

    def frames(*names: str):  # type: ignore[no-untyped-def]
        return read_record([folder / "s.out", *(folder / f"s.{name}" for name in names)]).frames

    one = frames("x_0.xyz", "v_0.xyz")
    for names in (("au_0.xyz", "p_0.xyz"), ("xc.extxyz", "vc.extxyz")):
        other = frames(*names)
        assert np.allclose(other.positions, one.positions, atol=2e-6)
        assert np.allclose(other.velocities, one.velocities, rtol=3e-4, atol=1e-6)
        assert np.allclose(other.cell, one.cell, atol=1e-4)
    assert np.allclose(frames("vms_0.xyz").velocities, one.velocities[::2], rtol=1e-5)
    record = read_record([folder / "s.x_0.xyz", folder / "s.vms_0.xyz"])
    assert record.frames is not None and record.frames.n_frames == 11
    assert "11 frames in common" in record.remarks[0]
    bare = read_record([folder / "s.bare"]).series
    assert bare is not None and bare.conserved_name == "potential + kinetic_md" and not bare.conserved_for_sure
    full = read_record([folder / "s.out"]).series
    assert full is not None and full.kinetic_eV is not None
    potential = np.loadtxt(folder / "s.out")[:, 5]
    assert np.allclose(bare.conserved_eV, potential + full.kinetic_eV, rtol=1e-6)
    assert bare.time_ps == pytest.approx(full.time_ps)
    volume = np.linalg.det(one.cell[0])
    assert bare.volume_A3 == pytest.approx(41 * [volume]) and full.volume_A3 == pytest.approx(41 * [volume], rel=1e-6)


def test_what_cannot_be_used_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="holds forces; give positions"):
        read_record([folder / "s.f_0.xyz"])
    with pytest.raises(UsageError, match="two of them have positions"):
        read_record([folder / "s.x_0.xyz", folder / "s.au_0.xyz"])
    with pytest.raises(UsageError, match="both logs"):
        read_record([folder / "s.out", folder / "s.bare"])
    with pytest.raises(UsageError, match="s.none"):
        read_record([folder / "s.none"])


def test_killed_and_restarted_runs(folder: Path, tmp_path: Path) -> None:
    """A torn last frame is left out; steps that a restarted run wrote again stand once, as it wrote them last."""
    text, table = (folder / "s.x_0.xyz").read_text(), (folder / "s.out").read_text()
    (tmp_path / "cut.xyz").write_text(text[:-3])
    (tmp_path / "cut.out").write_text(table[:-30])
    record = read_record([tmp_path / "cut.out", tmp_path / "cut.xyz"])
    assert record.frames is not None and record.frames.n_frames == 20
    assert record.series is not None and record.series.steps is not None and len(record.series.steps) == 40
    assert len(record.remarks) == 2
    lines = text.splitlines(keepends=True)
    (tmp_path / "again.xyz").write_text("".join(lines[: 8 * 15] + lines[8 * 10 :]))
    frames = read_record([tmp_path / "again.xyz"], ReadSettings(interval_fs=1.0)).frames
    assert frames is not None and frames.steps is not None and frames.time_ps is not None
    assert frames.steps.tolist() == list(range(0, 41, 2))
    assert frames.time_ps == pytest.approx(0.001 * np.arange(21))
