"""Exported models of metatomic against metatomic's own ASE calculator, finite differences, and torch's state."""

from __future__ import annotations

import os
import warnings

import ase
import foreign_potentials as foreign
import numpy as np
import pytest
import torch
from ase.build import molecule

import mlcalc
from mlcalc.errors import CheckpointError, RunError, UsageError
from mlcalc.evaluation import JOINT, Wanted
from mlcalc.potentials.metatomic import Metatomic
from mlcalc.structure import Structure

NEEDS = "missing: metatomic-torch (pip install 'mlcalc[metatomic]')"


@pytest.fixture(scope="module")
def tiny():
    pytest.importorskip("metatomic.torch", reason=NEEDS)
    import tiny_metatomic

    return tiny_metatomic


@pytest.fixture(scope="module")
def file(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("metatomic") / "tiny.pt"
    tiny.export(path)
    return path


@pytest.fixture(scope="module")
def potential(file) -> Metatomic:
    return mlcalc.load(f"metatomic:{file}")


def calculator(path, **options):
    pytest.importorskip("metatomic_ase", reason=NEEDS)
    from metatomic_ase import MetatomicCalculator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that have changed
        return MetatomicCalculator(path, device="cpu", check_consistency=True, **options)


def check_both_forces(potential, path, atoms, error, **options):
    """In one forward pass, the conservative force as the calculator's and the direct one as that of its other mode."""
    found = foreign.evaluate(potential, atoms, potential.provides)
    foreign.check_agreement(found, atoms, calculator(path, **options), error, energy_error=error)
    other = calculator(path, non_conservative="forces", **options)
    np.testing.assert_allclose(found.direct_force, other.get_forces(atoms), atol=error, rtol=0)
    assert float(found.conservative_force.abs().max()) > 0.1 and float(found.direct_force.abs().max()) > 0.01


@pytest.mark.parametrize("name", ["silicon", "water", "salt"])
def test_it_agrees_with_the_packages_calculator(potential, file, name):
    """In float64, and in units that are not ours: nothing but round-off."""
    assert (potential.name, potential.dtype) == ("tiny", torch.float64)
    assert potential.cutoff == pytest.approx(4.0)
    check_both_forces(potential, file, foreign.frames()[name], 1e-12)


@pytest.mark.parametrize(
    "options",
    [
        dict(dtype="float32"),  # forces reach 1 eV/Å and energies 10 eV: some ten units in the last place
        dict(direct="non_conservative_forces", by_atom=False),  # its name until 2025
    ],
    ids=["float32", "former names"],
)
def test_other_exports(tiny, tmp_path, options):
    path = tmp_path / "other.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.export(path, **options)
    one = mlcalc.load(f"metatomic:{path}")
    check_both_forces(one, path, foreign.few_waters(), 1e-5 if options.get("dtype") else 1e-12)


def test_variants(tiny, potential, tmp_path):
    path = tmp_path / "variant.pt"
    tiny.export(path, variant="/pbe", direct="")
    one = mlcalc.load(f"metatomic:{path}?variant=pbe")
    assert one.provides == Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL
    salt = foreign.salt()
    assert float(foreign.evaluate(one, salt).energy) == pytest.approx(float(foreign.evaluate(potential, salt).energy))
    for wish in ("", "?variant=r2scan"):
        with pytest.raises(UsageError, match=r"output 'energy'.*as metatomic:.*variant\.pt\?variant=NAME"):
            mlcalc.load(f"metatomic:{path}{wish}")
    with pytest.raises(UsageError, match="has no direct forces"):
        foreign.evaluate(one, salt, Wanted.DIRECT)


def test_force_and_virial_are_derivatives(potential):
    foreign.check_derivatives(potential, foreign.salt())


def test_jacobian_by_both_routes(potential):
    foreign.check_jacobian(potential, foreign.salt() * (2, 1, 1))


def test_jacobian_of_the_direct_force_is_not_symmetric(potential):
    """Against differences of forces: all of it, and λ, which is far from 0 here."""
    structure = Structure.from_ase(foreign.few_waters()[:9])
    neighbours = mlcalc.neighbour_list(structure, potential.cutoff, skin=0.1)
    positions = structure.positions.clone().requires_grad_()
    force = potential.differentiable(structure.at(positions), neighbours, Wanted.DIRECT).direct_force.flatten()
    rows = torch.stack([torch.autograd.grad(one, positions, retain_graph=True)[0].flatten() for one in force])
    columns, h = [], foreign.STEP
    for direction in torch.eye(27, dtype=torch.float64).reshape(27, 9, 3):
        ends = [structure.at(structure.positions + step * direction) for step in (h, -h)]
        plus, minus = (potential.evaluate(one, neighbours, Wanted.DIRECT).direct_force.flatten() for one in ends)
        columns.append((plus - minus) / (2 * h))
    torch.testing.assert_close(rows, torch.stack(columns, dim=1), rtol=0, atol=1e-6 * float(rows.abs().max()))
    assert float((rows - rows.T).norm() / 2 / rows.norm()) > 0.01


def test_neighbours_and_batches(potential):
    foreign.check_neighbours_and_batches(potential, foreign.few_waters(), molecule("H2O"))
    both, alone = (
        foreign.evaluate(potential, foreign.few_waters(), which).direct_force for which in (JOINT, Wanted.DIRECT)
    )
    assert torch.equal(both, alone) and float(alone.sum(dim=0).abs().max()) < 1e-12
    single = foreign.evaluate(potential, ase.Atoms("O"), potential.provides)
    assert bool(torch.isfinite(single.energy).all()) and not single.conservative_force.any() and not single.virial.any()


def test_its_own_forces_make_a_pair_for_multiple_time_stepping(potential):
    """Four outer steps of 1 fs, both forces from one file: energy moves by less than 1 meV for each atom."""
    from ase import units

    atoms = foreign.few_waters()
    atoms.calc = mlcalc.MLCalculator(potential)
    dynamics = mlcalc.MTSVelocityVerlet(atoms, timestep=1.0 * units.fs, n_inner=4)
    before = atoms.get_total_energy()
    dynamics.run(4)
    assert atoms.get_kinetic_energy() > 0.01
    assert abs(atoms.get_total_energy() - before) < 1e-3 * len(atoms)


def test_an_energy_without_slope_is_no_force_of_zero(tiny, tmp_path):
    tiny.export(tmp_path / "severed.pt", severed=True)
    one = mlcalc.load(f"metatomic:{tmp_path}/severed.pt")
    assert foreign.evaluate(one, foreign.salt(), Wanted.ENERGY | Wanted.DIRECT).energy.isfinite()
    with pytest.raises(RunError, match="'severed': its energy cannot be differentiated"):
        foreign.evaluate(one, foreign.salt(), JOINT)


def test_nothing_passed_in_is_changed(potential):
    structure = Structure.from_ase(foreign.salt())
    neighbours = mlcalc.neighbour_list(structure, potential.cutoff)
    for ask in (potential.evaluate, potential.differentiable):
        ask(structure, neighbours, potential.provides)
        assert not structure.positions.requires_grad and not structure.cell.requires_grad


def test_what_it_cannot_do_is_said(potential):
    with pytest.raises(UsageError, match="it holds Cu, but potential 'tiny' knows only H, O, Na, Si, Cl; remove"):
        potential.check_species(Structure.from_ase(ase.Atoms("CuO", [[0, 0, 0], [0, 0, 2]])))
    with pytest.raises(
        UsageError, match=r"dtype: got torch\.float32; potential 'tiny' was exported for torch\.float64"
    ):
        potential.to(dtype=torch.float32)
    with pytest.raises(UsageError, match="device: got meta; potential 'tiny' was exported for cpu, cuda"):
        potential.to("meta")


def test_what_it_cannot_read_is_refused_in_one_line(tiny, tmp_path):
    (tmp_path / "text.pt").write_text("not a model")
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "linear.pt")
    for name, says in (("text", "no model that metatomic can read"), ("no", "no file"), ("linear", "no model that")):
        with pytest.raises(CheckpointError, match=says) as caught:
            mlcalc.load(f"metatomic:{tmp_path / name}.pt")
        assert "\n" not in str(caught.value)


def test_torch_is_left_as_it_was(file, potential, monkeypatch):
    import metatomic.torch

    read, start = metatomic.torch.load_atomistic_model, foreign.torch_state()

    def reads_and_disturbs(path):
        model = read(path)
        foreign.restore(start)
        os.environ[foreign.VARIABLE] = "1"
        return model

    monkeypatch.setattr(metatomic.torch, "load_atomistic_model", reads_and_disturbs)
    with foreign.torch_untouched():
        again = mlcalc.load(f"metatomic:{file}")
    assert again.fingerprint == potential.fingerprint


def test_a_missing_package(monkeypatch):
    foreign.check_missing_package(monkeypatch, "metatomic", "metatomic", "metatomic:some/file.pt")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu(file, potential):
    foreign.check_gpu(potential, mlcalc.load(f"metatomic:{file}", device="cuda"), potential.provides)
