"""MACE with random weights on our neighbour list against its own calculator, finite differences, and torch's state."""

from __future__ import annotations

import copy
import importlib.util
import os
import sys

import ase
import foreign_potentials as foreign
import numpy as np
import pytest
import torch
from ase.build import molecule

import mlcalc
from mlcalc.errors import CheckpointError, UsageError
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.structure import Structure

# its e3nn is not the one that sevenn needs, so CI runs this file by itself: make test-apart
NEEDS = "mace-torch (pip install 'mlcalc[mace]') wants an environment of its own"
NUMBERS = (1, 8, 11, 14, 17)


@pytest.fixture(scope="module")
def modules():
    if importlib.util.find_spec("mace") is None:
        pytest.skip(NEEDS)
    return foreign_module("mace.modules", "mace")


@undisturbed()
def network(modules, kind: str, dtype: torch.dtype, heads: list[str], **options):
    """Random weights, scaled to forces of some eV/Å; isolated atoms of −2000 to −1 eV, as in all-electron energies."""
    from e3nn import o3

    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    isolated = np.stack([np.linspace(-2000, -1, len(NUMBERS)) + k for k in range(len(heads))])
    return getattr(modules, kind)(
        r_max=4.0,
        num_bessel=6,
        num_polynomial_cutoff=5,
        max_ell=2,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(NUMBERS),
        hidden_irreps=o3.Irreps("8x0e+8x1o"),
        MLP_irreps=o3.Irreps("8x0e"),
        atomic_energies=isolated,
        avg_num_neighbors=12.0,
        atomic_numbers=list(NUMBERS),
        correlation=2,
        gate=torch.nn.functional.silu,
        radial_MLP=[16, 16],
        heads=heads,
        **options,
    )


@pytest.fixture(scope="module")
def scaled(modules):
    options = dict(atomic_inter_scale=30.0, atomic_inter_shift=0.1)
    return network(modules, "ScaleShiftMACE", torch.float64, ["default"], **options)


@pytest.fixture(scope="module")
def two_heads(modules):
    """In float32, with the repulsion of nuclei and distances transformed by the pair's radii."""
    options = dict(pair_repulsion=True, distance_transform="Agnesi")
    return network(modules, "MACE", torch.float32, ["pbe", "Default"], **options)


@pytest.fixture(scope="module")
def file(scaled, tmp_path_factory):
    path = tmp_path_factory.mktemp("mace") / "scaled.model"
    torch.save(scaled, path)
    return path


@pytest.fixture(scope="module")
def potential(file):
    return mlcalc.load(f"mace:{file}")


def calculator(network, **options):
    from mace.calculators import MACECalculator

    return MACECalculator(models=[copy.deepcopy(network)], device="cpu", default_dtype="", **options)


@pytest.mark.parametrize("name", ["silicon", "water", "salt"])
def test_it_agrees_with_the_packages_calculator(potential, scaled, name):
    """The model is in float64, and the energies of isolated atoms reach 2000 eV: 1e-10 of them is round-off."""
    atoms = foreign.frames()[name]
    found = foreign.evaluate(potential, atoms)
    assert potential.dtype == torch.float64 and float(found.conservative_force.abs().max()) > 0.1
    foreign.check_agreement(found, atoms, calculator(scaled), 1e-9, energy_error=1e-9)


def test_heads(two_heads, tmp_path):
    """In float32 the package adds −2000 eV, whose last place is 1e-4 eV, to the energy of each atom."""
    path, salt = tmp_path / "two.model", foreign.salt()
    torch.save(two_heads, path)
    for wish, head in (("", "Default"), ("?head=pbe", "pbe"), ("?head=Default", "Default")):
        one = mlcalc.load(f"mace:{path}{wish}")
        assert (one.name, one.dtype) == ("two", torch.float32)
        found = foreign.evaluate(one, salt)
        foreign.check_agreement(found, salt, calculator(two_heads, head=head), 1e-5, energy_error=3e-4)
    with pytest.raises(UsageError, match="heads pbe, Default, and r2scan was asked for; choose one as mace:"):
        mlcalc.load(f"mace:{path}?head=r2scan")


def test_isolated_atoms_take_no_digits_from_the_energy(potential):
    """In float32 the interaction keeps its 7 digits, whatever the isolated atoms are: 1e-5 eV here."""
    rough, atoms = copy.deepcopy(potential).to(dtype=torch.float32), foreign.few_waters()
    change = []
    for one in (potential, rough):
        moved = atoms.copy()
        moved.positions[0] += 0.01
        change.append(float(foreign.evaluate(one, moved).energy - foreign.evaluate(one, atoms).energy))
    assert abs(change[0]) > 1e-3 and change[1] == pytest.approx(change[0], abs=3e-5)


def test_force_and_virial_are_derivatives(potential):
    foreign.check_derivatives(potential, foreign.salt())


def test_jacobian_by_both_routes(potential):
    """Through the scripted e3nn 0.4.4, where nested transforms of torch.func are wrong by half a percent."""
    foreign.check_jacobian(potential, foreign.salt() * (2, 1, 1))


def test_jacobian_is_the_packages_hessian(potential, scaled):
    """All of it, against mace-torch's own second derivatives."""
    salt = foreign.salt()
    structure = Structure.from_ase(salt)
    positions = structure.positions.requires_grad_()
    neighbours = mlcalc.neighbour_list(structure, potential.cutoff)
    force = potential.differentiable(structure.at(positions), neighbours, mlcalc.Wanted.CONSERVATIVE).conservative_force
    rows = [torch.autograd.grad(one, positions, retain_graph=True)[0].flatten() for one in force.flatten()]
    hessian = calculator(scaled).get_hessian(salt).reshape(6, 6)
    np.testing.assert_allclose(-torch.stack(rows).numpy(), hessian, rtol=0, atol=1e-10 * np.abs(hessian).max())


def test_neighbours_and_batches(potential):
    foreign.check_neighbours_and_batches(potential, foreign.salt(), molecule("H2O"))
    alone = foreign.evaluate(potential, ase.Atoms("O"))
    assert float(alone.energy) == pytest.approx(float(potential.offsets[1]) + 0.1, abs=1e-9)  # the network's shift
    assert not alone.conservative_force.any() and not alone.virial.any()


def test_unknown_elements_are_named(potential):
    with pytest.raises(UsageError, match="it holds Cu, but potential 'scaled' knows only H, O, Na, Si, Cl; remove"):
        potential.check_species(Structure.from_ase(ase.Atoms("CuO", [[0, 0, 0], [0, 0, 2]])))
    potential.check_species(Structure.from_ase(foreign.few_waters()))


def test_weights_and_dtype_make_the_fingerprint(potential, file, two_heads, tmp_path):
    torch.save(two_heads, tmp_path / "two.model")
    others = [mlcalc.load(f"mace:{tmp_path}/two.model{wish}") for wish in ("", "?head=pbe")]
    assert len({one.fingerprint for one in (potential, *others)}) == 3
    assert mlcalc.load(f"mace:{file}").fingerprint == potential.fingerprint
    assert mlcalc.load(f"mace:{file}", dtype=torch.float32).dtype == torch.float32


def test_what_it_cannot_read_is_refused_in_one_line(modules, tmp_path):
    (tmp_path / "text.model").write_text("not a model")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "linear.model")
    for file, says in (("text", "no file that mace-torch can read"), ("no", "no file"), ("linear", "holds a Linear")):
        with pytest.raises(CheckpointError, match=says) as caught:
            mlcalc.load(f"mace:{tmp_path / file}.model")
        assert "\n" not in str(caught.value)


def test_torch_is_left_as_it_was(file, potential, monkeypatch):
    """Whatever the user has set, and whatever the package sets while it is imported or reads."""
    read, start = torch.load, foreign.torch_state()

    def reads_and_disturbs(*args, **options):
        found = read(*args, **options)
        foreign.restore(start)
        os.environ[foreign.VARIABLE] = "1"
        return found

    monkeypatch.setattr(torch, "load", reads_and_disturbs)
    monkeypatch.delitem(sys.modules, "mace")  # imported anew, it sets its variable
    try:
        foreign.disturb()
        del os.environ[foreign.VARIABLE]
        disturbed = foreign.torch_state()
        again = mlcalc.load(f"mace:{file}")
        assert foreign.torch_state() == disturbed
    finally:
        foreign.restore(start)
    assert again.fingerprint == potential.fingerprint


def test_a_missing_package(monkeypatch):
    foreign.check_missing_package(monkeypatch, "mace", "mace", "mace:some/file.model")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu(potential):
    foreign.check_gpu(potential, copy.deepcopy(potential).to("cuda"))


def test_it_can_be_divided_among_processes(potential):
    foreign.check_division(potential)
