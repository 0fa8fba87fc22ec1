"""CHGNet on our neighbour list against its own calculator, finite differences, and torch's state before it came."""

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
from mlcalc.potentials.chgnet import BUNDLED, CHGNet
from mlcalc.structure import Structure

NEEDS = "missing: chgnet (pip install 'mlcalc[chgnet]')"


@pytest.fixture(scope="module")
def potential() -> CHGNet:
    pytest.importorskip("chgnet", reason=NEEDS)
    return mlcalc.load("chgnet")


@pytest.fixture(scope="module")
def double(potential):
    return foreign.precise(potential)


def own_calculator(name: str):
    """The package's calculator with its own weights."""
    from chgnet.model.dynamics import CHGNetCalculator
    from chgnet.model.model import CHGNet as Theirs

    theirs = Theirs.load(model_name=BUNDLED[name], use_device="cpu", verbose=False)
    return CHGNetCalculator(theirs, use_device="cpu")


@pytest.mark.parametrize("frame", foreign.frames())
@pytest.mark.parametrize("name", BUNDLED)
def test_it_agrees_with_the_packages_calculator(potential, name, frame):
    """Measured, in either precision: up to 7e-5 eV/Å on forces of 1 to 5 eV/Å. Tolerance: three times.

    The package has float32 only.
    """
    atoms, calculator = foreign.frames()[frame], own_calculator(name)
    for dtype in (torch.float32, torch.float64):
        found = foreign.evaluate(mlcalc.load(name, dtype=dtype), atoms)
        foreign.check_agreement(found, atoms, calculator, 2e-4)


def test_weights_differ(potential):
    loaded = [mlcalc.load(name) for name in BUNDLED]
    assert [one.name for one in loaded] == list(BUNDLED)
    assert [one.cutoff for one in loaded] == [6.0, 5.0, 6.0]
    assert len({one.fingerprint for one in loaded}) == 3
    assert loaded[0].fingerprint == potential.fingerprint


def test_force_and_virial_are_derivatives(double):
    foreign.check_derivatives(double, foreign.salt())


def test_jacobian_by_both_routes(double):
    """The force ripples within thousandths of an Å, here as in the package: the step has to be far below."""
    foreign.check_jacobian(double, foreign.silicon(), step=3e-6)


def test_neighbours_and_batches(double):
    """The second system has edges and no angles, the last one neither."""
    far = ase.Atoms("NaCl", [[0, 0, 0], [0, 0, 4.0]], cell=[12, 12, 12], pbc=True)
    foreign.check_neighbours_and_batches(double, foreign.salt(), far)
    alone = foreign.evaluate(double, ase.Atoms("O", cell=[20, 20, 20], pbc=True))
    assert bool(torch.isfinite(alone.energy).all()) and not alone.conservative_force.any() and not alone.virial.any()


def test_the_energy_is_continuous_where_edges_and_angles_end(double):
    """An oxygen atom crosses 3 Å (angles) and 6 Å (edges) from a molecule: 2e-6 Å change no more than a slope does."""

    def energy(distance: float) -> float:
        atoms = molecule("H2O", cell=[20, 20, 20], pbc=True)
        atoms += ase.Atoms("O", [atoms.positions[0] + [0, 0, distance]])
        return float(foreign.evaluate(double, atoms, mlcalc.Wanted.ENERGY).energy)

    for cutoff in (double.angle_cutoff, double.cutoff):
        jump = energy(cutoff + 1e-6) - energy(cutoff - 1e-6)
        assert abs(jump) < 1e-4


def test_what_is_not_periodic_is_refused(potential):
    with pytest.raises(UsageError, match=r"not periodic along every lattice vector.*center\(vacuum=6\)"):
        potential.check_species(Structure.from_ase(molecule("H2O")))
    box = molecule("H2O", vacuum=6, pbc=True)
    potential.check_species(Structure.from_ase(box))
    with pytest.raises(UsageError, match="not periodic"):
        potential.check_species(Structure.from_ase([box, molecule("H2O", vacuum=6, pbc=[True, True, False])]))


def test_unknown_elements_are_named(potential):
    lump = ase.Atoms("PoYb", [[0, 0, 0], [0, 0, 2]], cell=[9, 9, 9], pbc=True)
    for one, symbols in ((potential, "Po"), (mlcalc.load("chgnet-r2scan"), "Yb, Po")):
        with pytest.raises(UsageError, match=f"it holds {symbols}, but potential '{one.name}' knows only H, He, .*Pu;"):
            one.check_species(Structure.from_ase(lump))
    with pytest.raises(UsageError, match="it holds Cm"):
        potential.check_species(Structure.from_ase(ase.Atoms("Cm", cell=[9, 9, 9], pbc=True)))


def test_a_file_by_its_path(potential):
    import chgnet

    (file,) = (Path(chgnet.__file__).parent / "pretrained" / "0.3.0").glob("*.tar")
    same = mlcalc.load(f"chgnet:{file}", dtype=torch.float64)
    assert (same.name, same.dtype) == (file.stem, torch.float64)
    one, other = (foreign.evaluate(which, foreign.salt()) for which in (same, foreign.precise(potential)))
    assert torch.equal(one.energy, other.energy)


def test_bad_files_are_refused_in_one_line(potential, tmp_path):
    (tmp_path / "text.tar").write_text("not a file of weights")
    for path, says in ((tmp_path / "text.tar", "no file that chgnet can read"), (tmp_path / "no.tar", "no file")):
        with pytest.raises(CheckpointError, match=says) as caught:
            mlcalc.load(f"chgnet:{path}")
        assert "\n" not in str(caught.value)


def test_torch_is_left_as_it_was(potential, monkeypatch, capsys):
    """Whatever the user has set, and whatever the package sets while it builds; nor does it print."""
    from chgnet.model.model import CHGNet as Theirs

    build, start = Theirs.from_file, foreign.torch_state()

    def builds_and_disturbs(path, **options):
        network = build(path, **options)
        foreign.restore(start)
        return network

    monkeypatch.setattr(Theirs, "from_file", builds_and_disturbs)
    with foreign.torch_untouched():
        again = mlcalc.load("chgnet")
    assert again.fingerprint == potential.fingerprint
    assert capsys.readouterr().out == ""


def test_a_missing_package(monkeypatch):
    foreign.check_missing_package(monkeypatch, "chgnet", "chgnet", "chgnet-r2scan", "chgnet:some/file")


def test_names():
    assert set(FAMILIES["chgnet"]) == set(BUNDLED) <= set(names())
    with pytest.raises(UsageError, match="choose one of .*chgnet-r2scan.*chgnet:path"):
        mlcalc.load("chgnet-0.1.0")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu(double):
    foreign.check_gpu(double, foreign.precise(double).to("cuda"))


def test_it_can_be_divided_among_processes(potential):
    foreign.check_division(potential)
