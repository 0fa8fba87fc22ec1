"""SevenNet on our neighbour list against its own calculator, finite differences, and torch's state before it came."""

from __future__ import annotations

from pathlib import Path

import ase
import foreign_potentials as foreign
import pytest
import torch
from ase.build import molecule

import mlcalc
from mlcalc.errors import CheckpointError, UsageError
from mlcalc.potentials import FAMILIES, names
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.sevennet import BUNDLED, SevenNet
from mlcalc.structure import Structure

NEEDS = "missing: sevenn (pip install 'mlcalc[sevennet]')"


@pytest.fixture(scope="module")
def potential() -> SevenNet:
    with undisturbed():
        pytest.importorskip("sevenn.calculator", reason=NEEDS)
    return mlcalc.load("7net-0")


@pytest.fixture(scope="module")
def double(potential):
    return foreign.precise(potential)


@pytest.fixture(scope="module")
def calculator(potential):
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-0", device="cpu")


@pytest.mark.parametrize("name", foreign.frames())
def test_it_agrees_with_the_packages_calculator(potential, double, calculator, name):
    """Measured: 1e-6 eV/Å in float32, 4e-6 between the precisions, on forces of 1 to 5 eV/Å. Tolerance: ten times."""
    atoms = foreign.frames()[name]
    for one, error in ((potential, 1e-5), (double, 4e-5)):
        foreign.check_agreement(foreign.evaluate(one, atoms), atoms, calculator, error)


def test_other_weights_agree_with_the_packages_calculator(potential):
    from sevenn.calculator import SevenNetCalculator

    other, salt = mlcalc.load("7net-l3i5"), foreign.salt()
    calculator = SevenNetCalculator("7net-l3i5", device="cpu")
    foreign.check_agreement(foreign.evaluate(other, salt), salt, calculator, 2e-5)
    assert (other.name, other.dtype) == ("7net-l3i5", torch.float32)
    assert other.fingerprint != potential.fingerprint


@pytest.mark.parametrize("name", ["7net-0", "7net-l3i5"])
def test_convolutions_are_the_packages(potential, name):
    """Neighbours first against edges first, in float64, with 0, 1, 2 and up to 43 neighbours.

    The package keeps its Clebsch–Gordan coefficients in float32, which leaves 8e-9 here; hence 1e-7.
    """
    quick, slow = (foreign.precise(mlcalc.load(name)) for _ in range(2))
    assert len(quick._quick) == 5
    slow._quick.clear()
    atoms = foreign.few_waters() * (2, 2, 1)
    atoms += ase.Atoms("NaClNaNa", [[40, 0, 0], [42.5, 0, 0], [45, 0, 0], [60, 0, 0]])
    atoms.pbc, atoms.cell = False, None
    assert len(atoms) > 2 * 32
    found, expected = foreign.evaluate(quick, atoms), foreign.evaluate(slow, atoms)
    for key in ("energy", "conservative_force", "virial"):
        theirs = getattr(expected, key)
        assert bool(theirs.abs().max() > 0.1)
        assert float((getattr(found, key) - theirs).abs().max() / theirs.abs().max()) < 1e-7


def test_force_and_virial_are_derivatives(double):
    foreign.check_derivatives(double, foreign.salt())


def test_jacobian_by_both_routes(double):
    foreign.check_jacobian(double, foreign.salt() * (2, 1, 1))


def test_neighbours_and_batches(double):
    foreign.check_neighbours_and_batches(double, foreign.salt(), molecule("H2O"))


def test_molecules_need_no_cell(potential, calculator):
    water = molecule("H2O")
    found = foreign.evaluate(potential, water)
    water.calc = calculator
    assert float(found.energy) == pytest.approx(water.get_potential_energy(), abs=3e-5)
    assert found.conservative_force.numpy() == pytest.approx(water.get_forces(), abs=1e-5)
    alone = foreign.evaluate(potential, ase.Atoms("O"))
    assert bool(torch.isfinite(alone.energy).all()) and not alone.conservative_force.any() and not alone.virial.any()


def test_unknown_elements_are_named(potential):
    with pytest.raises(UsageError, match="it holds Po, but potential '7net-0' knows only H, He, .*, Pu; remove"):
        potential.check_species(Structure.from_ase(ase.Atoms("PoO", [[0, 0, 0], [0, 0, 2]])))
    potential.check_species(Structure.from_ase(foreign.few_waters()))


def test_a_file_by_its_path(potential):
    import sevenn

    folder = Path(sevenn.__file__).parent / "pretrained_potentials"
    assert all((folder / file).is_file() for file in BUNDLED.values())
    same = mlcalc.load(f"sevennet:{folder / BUNDLED['7net-0']}", dtype=torch.float64)
    assert (same.name, same.dtype, same.cutoff) == ("checkpoint_sevennet_0", torch.float64, 5.0)
    assert same.to(torch.float32).fingerprint == potential.fingerprint
    with pytest.raises(CheckpointError, match="level of theory .*R2SCAN, PBE"):
        mlcalc.load(f"sevennet:{folder / 'SevenNet_MF_0/checkpoint_sevennet_mf_0.pth'}")


def test_bad_files_are_refused_in_one_line(potential, tmp_path):
    (tmp_path / "text.pth").write_text("not a checkpoint")
    for path, says in ((tmp_path / "text.pth", "no checkpoint that sevenn can read"), (tmp_path / "no.pth", "no file")):
        with pytest.raises(CheckpointError, match=says) as caught:
            mlcalc.load(f"sevennet:{path}")
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="takes no parameters"):
        mlcalc.load("7net-0", modal="PBE")


def test_torch_is_left_as_it_was(potential, monkeypatch):
    """Whatever the user has set, and whatever the package sets while it builds."""
    import sevenn.checkpoint

    build, start = sevenn.checkpoint.SevenNetCheckpoint.build_model, foreign.torch_state()

    def builds_and_disturbs(self):
        network = build(self)
        foreign.restore(start)
        return network

    monkeypatch.setattr(sevenn.checkpoint.SevenNetCheckpoint, "build_model", builds_and_disturbs)
    with foreign.torch_untouched():
        again = mlcalc.load("7net-0")
    assert again.fingerprint == potential.fingerprint


def test_an_import_leaves_torch_as_it_was(monkeypatch, tmp_path, capsys):
    (tmp_path / "rude_package.py").write_text("import foreign_potentials\nforeign_potentials.disturb()\nprint('hello')")
    monkeypatch.syspath_prepend(tmp_path)
    start = foreign.torch_state()
    try:
        assert foreign_module("rude_package", "sevennet").foreign_potentials is foreign
        assert foreign.torch_state() == start
    finally:
        foreign.restore(start)
    assert capsys.readouterr().out == ""


def test_a_missing_package(monkeypatch):
    foreign.check_missing_package(monkeypatch, "sevenn", "sevennet", "7net-0", "sevennet:some/file.pth")


def test_names():
    assert set(FAMILIES["sevennet"]) == set(BUNDLED) <= set(names())
    with pytest.raises(UsageError, match="choose one of 7net-0, .*sevennet:path"):
        mlcalc.load("7net-00")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu(double):
    foreign.check_gpu(double, foreign.precise(double).to("cuda"))


def test_it_can_be_divided_among_processes(potential):
    foreign.check_division(potential)
