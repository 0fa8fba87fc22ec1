"""pair_style mlcalc in several processes: the same numbers as in one, and errors that end them all."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from conftest import small_network
from lammps_runs import driven, launched, set_up
from small_waters import gentle_network

from mlcalc.engines.ase import MLCalculator
from mlcalc.potentials.checkpoint import save_checkpoint


def long_row() -> ase.Atoms:
    """Twenty molecules along x and nothing beyond them: processes see parts, and one of four may own no atom.

    Periodic, and smaller than the cutoff, across the row, in a sheared cell; not periodic along it.
    """
    draw = np.random.default_rng(5)
    row = ase.Atoms(cell=[[95, 0, 0], [0, 2.9, 0], [0, 0.4, 3.0]], pbc=[False, True, True])
    for k in range(20):
        molecule = ase.Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        molecule.rotate(draw.uniform(0, 360), draw.normal(size=3))
        molecule.translate([3.1 * k + 1.5, 1, 1])
        row += molecule
    return row


#: name → what follows pair_style, and the command before the run; {folder} is where the potentials are
STYLES = {
    "painn": ("{folder}/painn.safetensors dtype float64", ""),
    "direct": ("{folder}/painn.safetensors dtype float64 forces direct", ""),
    "pet": ("{folder}/pet.safetensors dtype float64", "run_style respa 2 2 inner 1 1.0 1.5 outer 2"),
    "two": (
        "{folder}/energy.safetensors fast {folder}/pet.safetensors dtype float64",
        "run_style respa 2 2 inner 1 1.0 1.5 outer 2",
    ),
}
COMMANDS = """
processors * 1 1
{start}
pair_style mlcalc {style}
pair_coeff * * H O
compute e all pe/atom
compute s all stress/atom NULL virial
fix 1 all nve
timestep 0.0001
thermo_style custom step pe pxx pyy pzz pxy pxz pyz
thermo_modify norm no
dump 1 all custom 1000 {out} id fx fy fz c_e c_s[*]
dump_modify 1 sort id format float %.15g
{before}
run 0
print "$(pe:%.15g) $(pxx:%.15g) $(pyy:%.15g) $(pzz:%.15g) $(pxy:%.15g) $(pxz:%.15g) $(pyz:%.15g)" file {out}.totals
clear
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    for name in ("painn", "pet"):
        save_checkpoint(folder / f"{name}.safetensors", small_network(name, dtype=torch.float32), {"data": "none"})
    save_checkpoint(folder / "energy.safetensors", gentle_network("C"), {"data": "none"})
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """processes → style → (energy and pressures, what was dumped by atom): one start of the program each."""
    start = set_up(long_row(), folder / "data", ("H", "O"))
    results: dict[int, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for ranks in (1, 2, 4):
        outs = {name: folder / f"{name}.{ranks}" for name in STYLES}
        text = ""
        for name, (style, before) in STYLES.items():
            text += COMMANDS.format(start=start, style=style.format(folder=folder), before=before, out=outs[name])
        said = ""
        if ranks == 1:
            with driven(text):
                pass
        else:
            said = launched(text, folder, ranks)
        assert all(out.exists() for out in outs.values()), said
        results[ranks] = {
            name: (np.loadtxt(f"{out}.totals"), np.loadtxt(out, skiprows=9)) for name, out in outs.items()
        }
    return results


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("ranks", [2, 4])
def test_processes_agree(name, ranks, found):
    """Four processes cut the row at 24, 48 and 71 Å: the last owns nothing."""
    (totals, by_atom), (one_totals, one_by_atom) = found[ranks][name], found[1][name]
    np.testing.assert_allclose(by_atom[:, 1:4], one_by_atom[:, 1:4], rtol=0, atol=1e-10)
    np.testing.assert_allclose(totals, one_totals, rtol=1e-10, atol=1e-9 * np.abs(one_totals).max())
    scale = np.abs(one_by_atom[:, 4:]).max(axis=0)
    np.testing.assert_allclose(by_atom[:, 4:] / scale, one_by_atom[:, 4:] / scale, rtol=0, atol=1e-10)


def test_and_with_the_ase_calculator(found):
    atoms = long_row()
    atoms.calc = MLCalculator(small_network("painn"))
    # weights went through float32
    atoms.calc.potential.load_state_dict(small_network("painn", dtype=torch.float32).double().state_dict())
    totals, by_atom = found[4]["painn"]
    np.testing.assert_allclose(totals[0], atoms.get_potential_energy(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(by_atom[:, 1:4], atoms.get_forces(), rtol=0, atol=1e-9)


FAILING = """
from ase.calculators.calculator import Calculator
class Moody(Calculator):
    implemented_properties = ["energy", "forces"]
    def calculate(self, *arguments):
        raise ValueError("no inspiration today")
"""


def test_an_exception_in_the_model_is_an_error(tmp_path, monkeypatch):
    start = set_up(long_row(), tmp_path / "data", ("H", "O"))
    (tmp_path / "moody.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    told = "its calculator failed .no inspiration today"
    with (
        pytest.raises(Exception, match=told),
        driven(start, "pair_style mlcalc ase:moody:Moody\npair_coeff * * H O\nrun 0"),
    ):
        pass


def test_an_error_of_one_process_ends_all(folder):
    """Atoms that are too near, in the part of one of two processes."""
    start = set_up(long_row(), folder / "data", ("H", "O"))
    text = f"processors * 1 1\n{start}pair_style mlcalc {folder}/painn.safetensors\npair_coeff * * H O\n"
    said = launched(text + "set atom 1 x 1.5 y 1 z 1\nset atom 2 x 1.5 y 1 z 1.05\nrun 0\n", folder, 2)
    assert "ERROR: pair_style mlcalc: structure: atoms 0 and 1 are 0.050 Å apart" in said


def test_whole_systems_are_not_divided(folder):
    """A calculator finds its own neighbours."""
    start = set_up(long_row(), folder / "data", ("H", "O"))
    text = start + "pair_style mlcalc ase:ase.calculators.emt:EMT\npair_coeff * * H O\nrun 0\n"
    assert "runs in one process only; start LAMMPS without mpirun" in launched(text, folder, 2)
