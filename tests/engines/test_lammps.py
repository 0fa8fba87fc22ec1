"""pair_style mlcalc in one process: against LAMMPS's own pair style, r-RESPA, units, boxes, and every refusal."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from conftest import small_network, water_like
from lammps_runs import ROOT, by_tag, counted, driven, forces, launched, pressures, set_up  # noqa: F401
from small_waters import few_waters, gentle_network

from mlcalc.engines.ase import MLCalculator
from mlcalc.potentials import load
from mlcalc.potentials.autodiff import AutodiffPotential
from mlcalc.potentials.checkpoint import save_checkpoint

KCAL = units.kcal / units.mol
BY_ATOM = """
compute e all pe/atom
compute s all stress/atom NULL pair
compute sum all reduce sum c_e c_s[1]
thermo_style custom step pe press c_sum[1] c_sum[2]
"""


@pytest.fixture(scope="module")
def water(tmp_path_factory):
    """(folder, commands that make 24 atoms of water and a gentle potential for them)"""
    folder = tmp_path_factory.mktemp("lammps")
    save_checkpoint(folder / "gentle.safetensors", gentle_network(), {"data": "none: random weights"})
    save_checkpoint(folder / "energy.safetensors", gentle_network("C"), {"data": "none: random weights"})
    save_checkpoint(folder / "direct.safetensors", gentle_network("NC"), {"data": "none: random weights"})
    start = set_up(few_waters(), folder / "data", ("H", "O"))
    return folder, f"{start}pair_style mlcalc {folder}/gentle.safetensors dtype float64\npair_coeff * * H O\n"


def cluster() -> ase.Atoms:
    """Argon below the onset of our switch and LAMMPS's cutoff: the textbook formula, whoever computes it."""
    atoms = bulk("Ar", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.pbc = False
    atoms.set_cell([30.0, 31.0, 32.0])
    atoms.center()
    return atoms


@pytest.mark.parametrize("unit_style", ["metal", "real"])
def test_lennard_jones_is_that_of_lammps(unit_style, tmp_path):
    """Energy, forces, pressure, and per-atom energy and stress, against pair_style lj/cut."""
    start = set_up(cluster(), tmp_path / "data", ("Ar",), unit_style)
    # LAMMPS has 23.060549 kcal/mol to the eV (utils::get_conversion_factor), CODATA's 23.060548
    energy = 0.01034 * (23.060549 if unit_style == "real" else 1.0)
    styles = (
        "pair_style mlcalc lennard_jones\npair_coeff * * Ar\n",
        f"pair_style lj/cut 8.5\npair_coeff * * {energy!r} 3.4\n",
    )
    found = []
    for style in styles:
        with driven(start + style + BY_ATOM + "run 0") as lmp:
            by_atom = [
                by_tag(lmp, lmp.numpy.extract_compute("e", 1, 1)),
                by_tag(lmp, lmp.numpy.extract_compute("s", 1, 2)),
            ]
            found.append([np.array(lmp.get_thermo("pe")), forces(lmp), pressures(lmp), *by_atom])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11 * np.abs(theirs).max())


def mixed_boundaries() -> ase.Atoms:
    atoms = water_like(4)
    atoms.set_cell([5.8, 5.5, 3.3])
    atoms.pbc = (True, False, True)
    atoms.positions[:, 1] += 10 - atoms.positions[:, 1].min()
    atoms.cell[1, 1] = 30
    return atoms


@pytest.mark.parametrize("make", [water_like, mixed_boundaries])
@pytest.mark.parametrize("architecture", ["painn", "pet"])
def test_boxes_smaller_than_the_cutoff(make, architecture, tmp_path):
    """Triclinic, and periodic in part; types in the other order than species."""
    network = small_network(architecture, dtype=torch.float32)
    save_checkpoint(tmp_path / "small.safetensors", network, {"data": "none: random weights"})
    atoms = make()
    start = set_up(atoms, tmp_path / "data", ("O", "H"))
    style = f"pair_style mlcalc {tmp_path}/small.safetensors dtype float64\npair_coeff * * O H\n"
    with driven(start + style + "run 0") as lmp:
        energy, found, pressure = lmp.get_thermo("pe"), forces(lmp), pressures(lmp)
    atoms.calc = MLCalculator(network.double())
    np.testing.assert_allclose(energy, atoms.get_potential_energy(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found, atoms.get_forces(), rtol=0, atol=1e-9)
    if atoms.pbc.all():
        np.testing.assert_allclose(pressure, -atoms.get_stress() / units.bar, rtol=1e-6, atol=1e-2)


def test_a_type_that_is_left_alone(water):
    """NULL: argon atoms feel nothing, and water nothing of them."""
    folder, start = water
    with driven(start + "run 0") as lmp:
        alone = forces(lmp)
    atoms = few_waters() + ase.Atoms("Ar2", [[3, 3, 3], [5, 1, 1]])
    text = set_up(atoms, folder / "argon", ("H", "Ar", "O"))
    style = f"pair_style mlcalc {folder}/gentle.safetensors dtype float64\n"
    overlay = f"pair_style hybrid/overlay {style.removeprefix('pair_style ').strip()} zero 8.0\n"
    coefficients = "pair_coeff * * mlcalc H NULL O\npair_coeff * * zero\n"
    with driven(text + overlay + coefficients + "run 0") as lmp:
        found = forces(lmp)
    np.testing.assert_allclose(found[:24], alone, rtol=0, atol=1e-12)
    assert not found[24:].any()


# ---------------------------------------------------------------------------------------------- multiple time stepping

MTS = "run_style respa 2 {n} inner 1 1.0 1.5 outer 2\n"
HOT = "velocity all create 300 7\nthermo_modify format float %.15g\ncompute count all pair mlcalc\n"


def test_one_joint_evaluation_an_outer_step(water, counted):  # noqa: F811
    """And M − 1 direct ones, in several runs with different M; what the plugin counts is what the potential sees."""
    thermo = "thermo 1\nthermo_style custom step pe c_count[1] c_count[2] c_count[3]\nfix 1 all nve\ntimestep 0.001\n"
    with driven(water[1], HOT + thermo) as lmp:
        for n_inner, n_steps in ((4, 6), (1, 3), (2, 5)):
            before = dict(counted)
            lmp.commands_string(MTS.format(n=n_inner) + f"run {n_steps}")
            spent = {kind: counted[kind] - before[kind] for kind in counted}
            assert spent == {"joint": 1 + n_steps, "direct": (n_inner - 1) * n_steps, "conservative": 0}  # 1: setup
        told = [lmp.extract_compute("count", 0, 1)[k] for k in range(3)]
        assert told == [counted["joint"], counted["direct"], counted["conservative"]]
        lmp.commands_string("run_style verlet\nrun 3")
        assert counted["conservative"] == 4


def test_the_number_of_inner_steps_is_learnt_where_levels_hide_it(water, counted):  # noqa: F811
    """Three levels: inner on the first, outer on the third, 2 · 2 inner steps in an outer one."""
    with driven(water[1], HOT + "fix 1 all nve\ntimestep 0.001\n") as lmp:
        lmp.commands_string("run_style respa 3 2 2 inner 1 1.0 1.5 outer 3\nrun 5")
    # setup, then a first step whose last inner evaluation could not be known as such
    assert counted == {"joint": 1 + 5, "direct": 4 + 4 * 3, "conservative": 0}


def trajectory(start: str, commands: str) -> np.ndarray:
    with driven(start, HOT + commands) as lmp:
        return np.concatenate([by_tag(lmp, lmp.numpy.extract_atom(key)) for key in ("x", "v")])


def test_one_inner_step_is_verlet(water):
    run = "fix 1 all nve\ntimestep 0.0005\nrun 10"
    np.testing.assert_allclose(
        trajectory(water[1], MTS.format(n=1) + run), trajectory(water[1], run), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    "ensemble",
    [
        "fix 1 all nvt temp 300 300 0.1",
        "fix 1 all npt temp 300 300 0.1 iso 0 0 1.0",
        "fix 1 all nve\nfix 2 all langevin 300 300 0.1 11",
    ],
    ids=["nvt", "npt", "langevin"],
)
def test_ensembles(ensemble, water):
    """With one inner step they are what they are with Verlet; with four they run."""
    run = f"{ensemble}\ntimestep 0.0005\nrun 5"
    one, plain = trajectory(water[1], MTS.format(n=1) + run), trajectory(water[1], run)
    # r-RESPA applies barostat and friction at another place in the step than Verlet: there they agree only as the step
    # gets short
    np.testing.assert_allclose(one, plain, rtol=0, atol=1e-11 if "nvt" in ensemble else 1e-3)
    with driven(water[1], HOT + f"{ensemble}\ntimestep 0.002\n{MTS.format(n=4)}run 5") as lmp:
        assert np.isfinite(lmp.get_thermo("etotal"))


def test_minimize_goes_downhill_with_conservative_forces(water, counted):  # noqa: F811
    with driven(water[1], MTS.format(n=4), "run 0") as lmp:
        before = lmp.get_thermo("pe")
        lmp.command("minimize 0 1e-3 20 40")
        assert lmp.get_thermo("pe") < before - 1e-4
    assert counted["joint"] == 1 and counted["conservative"] > 5


def test_hybrid_overlay_with_a_classical_style(water, counted):  # noqa: F811
    """Inner and outer as styles of their own follow the one style; a classical one on top adds its energy."""
    folder, start = water
    model = f"mlcalc {folder}/gentle.safetensors dtype float64"
    both = f"pair_style hybrid/overlay {model} forces inner {model} forces outer lj/cut 5.0\n"
    weak = "pair_coeff * * lj/cut {epsilon} 2.0\n"
    coefficients = "pair_coeff * * mlcalc 1 H O\npair_coeff * * mlcalc 2 H O\n"
    run = "fix 1 all nve\ntimestep 0.002\nrun_style respa 2 4 hybrid 1 2 1\n"
    geometry = start.split("pair_style")[0]
    hot = HOT.replace("compute count all pair mlcalc\n", "")
    with driven(geometry, both + coefficients + weak.format(epsilon=0.0), hot + run + "run 5") as lmp:
        silent, energy = by_tag(lmp, lmp.numpy.extract_atom("x")), lmp.get_thermo("pe")
    assert counted == {"joint": 1 + 5, "direct": 1 + 4 * 5, "conservative": 0}  # one direct evaluation more a step
    with driven(start, HOT + "fix 1 all nve\ntimestep 0.002\n" + MTS.format(n=4) + "run 5") as lmp:
        np.testing.assert_allclose(silent, by_tag(lmp, lmp.numpy.extract_atom("x")), rtol=0, atol=1e-12)
        np.testing.assert_allclose(energy, lmp.get_thermo("pe"), rtol=0, atol=1e-10)
        alone = lmp.get_thermo("pe")
    with driven(geometry, both + coefficients + weak.format(epsilon=0.001), run + "run 0") as lmp:
        total = lmp.get_thermo("pe")
    with driven(geometry, "pair_style lj/cut 5.0\npair_coeff * * 0.001 2.0\nrun 0") as lmp:
        classical = lmp.get_thermo("pe")
    with driven(start, "run 0") as lmp:
        alone = lmp.get_thermo("pe")
    np.testing.assert_allclose(total, alone + classical, rtol=0, atol=1e-10)


def test_another_potential_inside(water):
    """fast: the direct forces of one potential, the energy and the conservative forces of another."""
    folder, start = water
    style = f"pair_style mlcalc {folder}/energy.safetensors fast {folder}/direct.safetensors dtype float64\n"
    run = "pair_coeff * * H O\nfix 1 all nve\ntimestep 0.0005\n"
    with driven(start.split("pair_style")[0], style + run, HOT, MTS.format(n=2), "run 3") as lmp:
        positions = by_tag(lmp, lmp.numpy.extract_atom("x"))
        atoms = few_waters()
        atoms.positions = positions
        atoms.calc = MLCalculator(load(folder / "energy.safetensors", dtype=torch.float64))
        np.testing.assert_allclose(lmp.get_thermo("pe"), atoms.get_potential_energy(), rtol=0, atol=1e-9)


# ---------------------------------------------------------------------------------------------- refusals

GENTLE = "pair_style mlcalc {folder}/gentle.safetensors "
ENERGY = "pair_style mlcalc {folder}/energy.safetensors "
DIRECT = "pair_style mlcalc {folder}/direct.safetensors "
CALCULATOR = "pair_style mlcalc ase:ase.calculators.lj:LennardJones"
RUN = "\npair_coeff * * H O\nrun 0"
NPT = "forces direct\nfix 1 all npt temp 300 300 0.1 iso 0 0 1"
#: mistake → what the error says, what is given
REFUSED = {
    "no potential": ("choose one of", "pair_style mlcalc absent"),
    "no file": ("no file", "pair_style mlcalc /nowhere/x.safetensors"),
    "keyword": ("choose from device", GENTLE + "treads 2"),
    "value missing": ("pairs of keyword and value", GENTLE + "threads"),
    "threads": ("threads N", GENTLE + "threads 0"),
    "device": ("choose cpu", GENTLE + "device abacus"),
    "no direct forces": ("fast POTENTIAL", ENERGY + "forces direct"),
    "no conservative forces": ("write forces direct", DIRECT),
    "tied to places": ("boundary f f f", "pair_style mlcalc harmonic" + RUN),
    "element": ("chemical symbols", GENTLE + "\npair_coeff * * H Xx"),
    "number of elements": ("2 atom types", GENTLE + "\npair_coeff * * H"),
    "other elements": ("knows only H, O", GENTLE + "\npair_coeff * * H Si\nrun 0"),
    "newton": ("write newton on", "newton off\n" + GENTLE + RUN),
    "exclusions": ("neigh_modify", "neigh_modify exclude type 1 1\n" + GENTLE + RUN),
    "respa": ("run_style verlet", MTS.format(n=2) + ENERGY + RUN),
    "pressure": ("has no virial", DIRECT + NPT + RUN),
    "energies by atom": (
        "gives no energies by atom",
        CALCULATOR + BY_ATOM + RUN,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_what_to_do(case, water):
    words, commands = REFUSED[case]
    geometry = water[1].split("pair_style")[0]
    if case == "newton":  # must come before the box
        geometry, commands = "newton off\n" + geometry, commands.removeprefix("newton off\n")
    with pytest.raises(Exception, match="mlcalc") as caught, driven(geometry + commands.format(folder=water[0])):
        pass
    assert words in str(caught.value)


def test_other_units_are_refused():
    with (
        pytest.raises(Exception, match="units metal"),
        driven("units lj\nregion b block 0 9 0 9 0 9\ncreate_box 1 b\nmass 1 1.0\npair_style mlcalc lennard_jones"),
    ):
        pass


def test_bonds_that_would_leave_pairs_out_are_refused(tmp_path):
    start = """
    units metal
    atom_style bond
    region b block 0 30 0 30 0 30
    create_box 1 b bond/types 1 extra/bond/per/atom 1 extra/special/per/atom 2
    mass 1 39.948
    create_atoms 1 single 1 1 1
    create_atoms 1 single 1 1 5
    """
    style = "pair_style mlcalc lennard_jones\npair_coeff * * Ar\nbond_style zero\nbond_coeff * 3.0\n"
    bond = "create_bonds single/bond 1 1 2\nrun 0"
    with pytest.raises(Exception, match="special_bonds lj/coul 1 1 1"), driven(start + style + bond):
        pass
    with driven(start + style + "special_bonds lj/coul 1 1 1\n" + bond) as lmp:
        assert abs(lmp.get_thermo("pe") - 4 * 0.01034 * ((3.4 / 4) ** 12 - (3.4 / 4) ** 6)) < 1e-9


def test_a_position_that_is_not_finite_ends_the_run(water):
    with pytest.raises(Exception, match="shorten the timestep"), driven(water[1], "run 0") as lmp:
        lmp.numpy.extract_atom("x")[0, 0] = np.nan
        lmp.command("run 1 pre no")


def test_a_force_that_is_not_finite_ends_the_run(water, monkeypatch):
    evaluate = AutodiffPotential.evaluate

    def broken(self, *arguments):
        found = evaluate(self, *arguments)
        found.conservative_force[3, 1] = np.nan
        return found

    monkeypatch.setattr(AutodiffPotential, "evaluate", broken)
    with pytest.raises(Exception, match="the force on atom 4 is not finite"), driven(water[1], "run 0"):
        pass


def test_atoms_on_top_of_each_other_end_the_run(water):
    with pytest.raises(Exception, match="taken for an error"), driven(water[1]) as lmp:
        lmp.commands_string("set atom 1 x 0.8 y 0.8 z 0.8\nset atom 2 x 0.8 y 0.8 z 0.85\nrun 0")


def test_another_version_of_lammps_is_refused(tmp_path):
    """The announcement, compiled as if for an older LAMMPS, with nothing behind it."""
    sources = ROOT / "lammps_plugin" / "src"
    settings = subprocess.run(
        [sys.executable, ROOT / "lammps_plugin" / "find_wheels.py"], capture_output=True, text=True, check=True
    ).stdout.strip()
    headers, _, _, mpi, *_ = settings.split(";")
    nothing = tmp_path / "nothing.cpp"
    nothing.write_text('#include "pair.h"\nLAMMPS_NS::Pair *new_pair_mlcalc(LAMMPS_NS::LAMMPS *) { return nullptr; }\n')
    folder = tmp_path / "plugins"
    folder.mkdir()
    defined = ["-DLAMMPS_SMALLBIG", "-DMLCALC_LAMMPS_VERSION=20240829", '-DMLCALC_LAMMPS_WHEEL="2024.8.29.0.0"']
    subprocess.run(
        ["g++", "-std=c++17", "-shared", "-fPIC", *defined, f"-I{headers}", f"-I{mpi}", sources / "plugin.cpp", nothing]
        + ["-o", folder / "oldplugin.so"],
        check=True,
    )
    text = f"plugin clear\nplugin load {folder}/oldplugin.so\nunits metal\npair_style mlcalc lennard_jones\n"
    said = launched(text, tmp_path)
    assert "built for LAMMPS 20240829, and this is LAMMPS 20250722" in said
    assert "lammps[mpi]==2024.8.29.0.0" in said


def test_lmp_by_itself_finds_its_python(water, tmp_path):
    """The program, not driven from Python, in an empty environment."""
    import lammps
    import mlcalc_lammps

    path = tmp_path / "in.alone"
    path.write_text(water[1] + "run 0\nprint 'energy $(pe:%.10f)'\n")
    program = [f"{lammps.__path__[0]}/lmp", "-in", path, "-log", "none", "-nocite"]
    mpi = next(one for one in importlib.metadata.files("mpich") if one.name == "libmpi.so.12").locate().parent
    empty = {"LD_LIBRARY_PATH": str(mpi), "LAMMPS_PLUGIN_PATH": mlcalc_lammps.plugin_folder(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, capture_output=True, text=True, env=empty, timeout=120)
    with driven(water[1], "run 0") as lmp:
        assert f"energy {lmp.get_thermo('pe'):.10f}" in done.stdout, done.stdout + done.stderr
