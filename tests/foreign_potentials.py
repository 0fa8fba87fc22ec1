"""What an adapter of somebody else's network owes, asked in the same way of every family."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk
from divided_systems import sum_of_parts
from small_waters import few_waters

from mlcalc.diagnostics import jacobian_asymmetry
from mlcalc.errors import UsageError
from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials import load
from mlcalc.potentials.autodiff import AutodiffPotential
from mlcalc.probes.differences import sample_subspace
from mlcalc.probes.products import sample_products
from mlcalc.structure import Structure

EVERYTHING = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL
VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # mace-torch sets it
STEP = 1e-4  # Å; as in tests/potentials/test_forces.py


def silicon() -> ase.Atoms:
    """Eight atoms; the cell of 5.43 Å is smaller than twice any cutoff here."""
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def salt() -> ase.Atoms:
    """Two atoms in a rhombohedral, sheared cell, smaller than the cutoff: each is its own neighbour."""
    atoms = bulk("NaCl", "rocksalt", 5.64)
    atoms.set_cell(atoms.cell.array @ [[1, 0.05, 0.1], [0, 1.03, 0.02], [-0.04, 0, 0.97]], scale_atoms=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def frames() -> dict[str, ase.Atoms]:
    """What the package's own calculator is asked as well; copper's one atom has only images, with angles of 180°."""
    return {"silicon": silicon(), "water": few_waters(), "salt": salt(), "copper": bulk("Cu", "fcc", 3.6)}


def evaluate(
    potential: AutodiffPotential, atoms: ase.Atoms | list[ase.Atoms], wanted: Wanted = EVERYTHING, skin: float = 0.0
) -> Evaluation:
    structure = Structure.from_ase(atoms)
    return potential.evaluate(structure, neighbour_list(structure, potential.cutoff, skin=skin), wanted)


def precise(potential: AutodiffPotential) -> AutodiffPotential:
    """A copy in float64."""
    return copy.deepcopy(potential).to(dtype=torch.float64)


def check_agreement(
    found: Evaluation, atoms: ase.Atoms, calculator: Any, force_error: float, energy_error: float = 1e-5
) -> None:
    """Force as said, energy to 1e-5 eV/atom (some ten units in the last place of float32), virial to ten times that."""
    atoms = atoms.copy()
    atoms.calc = calculator
    assert abs(float(found.energy) - atoms.get_potential_energy()) < energy_error * len(atoms)
    np.testing.assert_allclose(found.conservative_force, atoms.get_forces(), atol=force_error, rtol=0)
    stress = -found.virial[0].numpy() / atoms.get_volume()
    scale = 10 * energy_error * len(atoms) / atoms.get_volume()
    np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), atol=scale, rtol=0)


def check_derivatives(potential: AutodiffPotential, atoms: ase.Atoms) -> None:
    """In float64: force and virial are slopes of the energy, along a random direction and for a random strain."""
    random = np.random.default_rng(1)
    found = evaluate(potential, atoms)
    direction, strain = random.normal(size=(len(atoms), 3)), random.normal(size=(3, 3))
    strain = strain + strain.T

    def energy(step: float, stretch: float) -> float:
        moved = atoms.copy()
        moved.positions += step * direction
        moved.set_cell(moved.cell.array @ (np.eye(3) + stretch * strain), scale_atoms=True)
        return float(evaluate(potential, moved, Wanted.ENERGY).energy)

    slope = (energy(STEP, 0) - energy(-STEP, 0)) / (2 * STEP)
    assert float((found.conservative_force.numpy() * direction).sum()) == pytest.approx(-slope, abs=1e-6)
    slope = (energy(0, STEP) - energy(0, -STEP)) / (2 * STEP)
    assert float((found.virial[0].numpy() * strain).sum()) == pytest.approx(-slope, rel=1e-6, abs=1e-5)


def check_jacobian(potential: AutodiffPotential, atoms: ase.Atoms, step: float = STEP) -> None:
    """In float64: a product by double backward is the difference of two forces, and both routes find λ = 0."""
    structure = Structure.from_ase(atoms)
    neighbours = neighbour_list(structure, potential.cutoff, skin=0.1)
    direction = torch.randn(structure.n_atoms, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    positions = structure.positions.clone().requires_grad_()
    attached = potential.differentiable(structure.at(positions), neighbours, Wanted.CONSERVATIVE).conservative_force
    (product,) = torch.autograd.grad(attached, positions, direction)  # Jᵀv, and J is symmetric
    ends = [
        potential.evaluate(structure.at(structure.positions + h * direction), neighbours, Wanted.CONSERVATIVE)
        for h in (step, -step)
    ]
    difference = (ends[0].conservative_force - ends[1].conservative_force) / (2 * step)
    torch.testing.assert_close(product, difference, rtol=0, atol=1e-5 * float(product.abs().max()))

    pairs = sample_products(potential, structure, "conservative", max_pairs=4, min_pairs=4)
    assert jacobian_asymmetry.from_products(pairs).value < 1e-10
    few = sample_subspace(potential, structure, "conservative", n_directions=4, n_scanned=2, step=step)
    # what is left is h² times a third derivative
    assert jacobian_asymmetry.from_subspace(few).value < 1e-5


def check_direct_product(potential: AutodiffPotential, atoms: ase.Atoms) -> None:
    """In float64: a product with the Jacobian of the direct force is the difference of two forces."""
    structure = Structure.from_ase(atoms)
    neighbours = neighbour_list(structure, potential.cutoff, skin=0.1)
    left, right = torch.randn(2, structure.n_atoms, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positions = structure.positions.clone().requires_grad_()
    force = potential.differentiable(structure.at(positions), neighbours, Wanted.DIRECT).direct_force
    (product,) = torch.autograd.grad(force, positions, left)
    ends = [structure.at(structure.positions + h * right) for h in (STEP, -STEP)]
    plus, minus = (potential.evaluate(one, neighbours, Wanted.DIRECT).direct_force for one in ends)
    slope = float((left * (plus - minus)).sum()) / (2 * STEP)
    assert float((product * right).sum()) == pytest.approx(slope, rel=1e-5)


def check_neighbours_and_batches(potential: AutodiffPotential, atoms: ase.Atoms, other: ase.Atoms) -> None:
    """In float64: a skin changes nothing, a batch is its systems one by one, and the answer asked for alone is it."""
    alone = [evaluate(potential, one) for one in (atoms, other)]
    padded = evaluate(potential, atoms, skin=0.7)
    batch = evaluate(potential, [atoms, other], skin=0.3)
    names = ["energy", "energies", "conservative_force", "virial"]
    for name in [
        name for name in names if getattr(alone[0], name) is not None
    ]:  # not every family has energies by atom
        value = getattr(alone[0], name)
        assert not value.requires_grad and value.dtype == torch.float64
        torch.testing.assert_close(getattr(padded, name), value, rtol=1e-11, atol=1e-11)
        both = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(batch, name), both, rtol=1e-11, atol=1e-11)
    force = evaluate(potential, atoms, Wanted.CONSERVATIVE).conservative_force
    torch.testing.assert_close(force, alone[0].conservative_force, rtol=1e-12, atol=1e-12)


def torch_state() -> tuple[Any, ...]:
    """What a package may not change."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.random.get_rng_state().tolist(),
        dict(os.environ),
        torch.index_select,
    )


def disturb() -> None:
    """Change all of it."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    torch.random.manual_seed(9)
    os.environ[VARIABLE] = "1"
    usual = torch.index_select
    torch.index_select = lambda *args, **options: usual(*args, **options)


def restore(state: tuple[Any, ...]) -> None:
    """Undo `disturb`, whatever the code under test did."""
    torch.set_default_device(None)
    torch.set_default_dtype(state[0])
    torch.set_grad_enabled(state[2])
    torch.use_deterministic_algorithms(state[3], warn_only=state[4])
    torch.set_float32_matmul_precision(state[5])
    torch.backends.cudnn.benchmark = state[6]
    os.environ.pop(VARIABLE, None)
    torch.index_select = state[-1]


@contextmanager
def torch_untouched() -> Iterator[None]:
    """Torch is disturbed first; what happens inside may change nothing of that."""
    start = torch_state()
    try:
        disturb()
        disturbed = torch_state()
        yield
        assert torch_state() == disturbed
    finally:
        restore(start)


def check_missing_package(monkeypatch: pytest.MonkeyPatch, module: str, extra: str, *names: str) -> None:
    """Where it cannot be imported, loading any of these says in one line what to install."""
    for loaded in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    for name in names:
        with pytest.raises(UsageError, match=rf"pip install 'mlcalc\[{extra}\]'") as caught:
            load(name)
        assert "\n" not in str(caught.value)


def check_gpu(potential: AutodiffPotential, on_gpu: AutodiffPotential, wanted: Wanted = EVERYTHING) -> None:
    """In float64: the same there as on the CPU."""
    structure = Structure.from_ase(salt(), device="cuda")
    found = on_gpu.evaluate(structure, neighbour_list(structure, on_gpu.cutoff), wanted)
    for name, value in vars(evaluate(potential, salt(), wanted)).items():
        if value is not None:
            torch.testing.assert_close(getattr(found, name).cpu(), value, rtol=1e-9, atol=1e-9)


def check_division(potential: AutodiffPotential) -> None:
    """Two halves of a chain, each with what lies within `interaction_depth` edges of it, add up to the whole.

    With one edge less they do not: the number is no larger than it must be.
    """
    potential = copy.deepcopy(potential).double()
    reach = potential.interaction_depth * potential.cutoff
    cells = int(1.6 * reach) + 4  # of 2.6 Å: half of them and what they see is less than all
    number = potential.numbers[-1]
    chain = ase.Atoms([number] * 2, [[0, 0, 0], [1.3, 1.1, 0.9]], cell=[2.6, 15, 15], pbc=True) * (cells, 1, 1)
    chain.rattle(0.1, seed=0)
    structure = Structure.from_ase(chain)
    parts = (structure.positions[:, 0] > 1.3 * cells).long()
    whole = potential.evaluate(structure, neighbour_list(structure, potential.cutoff), EVERYTHING)
    for depth in (potential.interaction_depth, potential.interaction_depth - 1):
        found, largest = sum_of_parts(potential, structure, EVERYTHING, parts, depth)
        assert largest < len(chain)
        error = float((found.conservative_force - whole.conservative_force).abs().max())
        largest_force = float(whole.conservative_force.abs().max())
        assert (error < 1e-9 * largest_force) == (depth == potential.interaction_depth)
