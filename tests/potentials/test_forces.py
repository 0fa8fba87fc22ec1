"""What every potential owes: forces that are the gradient, a virial that is the strain derivative, symmetries.

Untrained networks will do: none of this depends on the weights.
"""

from __future__ import annotations

import ase
import ase.build
import numpy as np
import pytest
import torch

from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials import load
from mlcalc.structure import Structure

NAMES = ["painn", "pet", "lennard_jones", "harmonic"]
STEP = 1e-4  # Å; central differences are then good to some 1e-8 of the third derivative, and round-off to 1e-11/1e-4


@pytest.fixture
def subject(request, make_network, make_water):
    """(potential in float64, ase.Atoms in a triclinic cell smaller than twice the cutoff)"""
    name = request.param
    atoms = make_water()
    if name in ("painn", "pet"):
        return make_network(name), atoms
    if name == "harmonic":
        return load("harmonic", anchors=atoms.positions + 0.1, asymmetry=0.1), atoms
    argon = ase.build.bulk("Ar", "fcc", 5.3) * (2, 2, 2)
    argon.set_cell(argon.cell.array @ [[1.0, 0.02, 0], [0, 1.03, 0.01], [0, 0, 0.98]], scale_atoms=True)
    argon.rattle(0.2, seed=0)
    return load("lennard_jones"), argon


def evaluate(potential, atoms, wanted, *, dtype=torch.float64, skin=0.0) -> Evaluation:
    structure = Structure.from_ase(atoms, dtype=dtype)
    return potential.evaluate(structure, neighbour_list(structure, potential.cutoff, skin=skin), wanted)


def energy(potential, atoms) -> float:
    return float(evaluate(potential, atoms, Wanted.ENERGY).energy)


@pytest.mark.parametrize("subject", NAMES, indirect=True)
def test_conservative_force_is_minus_the_gradient(subject):
    potential, atoms = subject
    force = evaluate(potential, atoms, Wanted.CONSERVATIVE).conservative_force
    for atom, axis in [(0, 0), (1, 2), (5, 1), (len(atoms) - 1, 0)]:
        ahead, behind = atoms.copy(), atoms.copy()
        ahead.positions[atom, axis] += STEP
        behind.positions[atom, axis] -= STEP
        slope = (energy(potential, ahead) - energy(potential, behind)) / (2 * STEP)
        assert float(force[atom, axis]) == pytest.approx(-slope, abs=2e-7)


@pytest.mark.parametrize("subject", ["painn", "pet", "lennard_jones"], indirect=True)
def test_virial_is_minus_the_strain_derivative(subject):
    potential, atoms = subject
    virial = evaluate(potential, atoms, Wanted.VIRIAL).virial[0]
    assert torch.equal(virial, virial.T)

    def strained(strain: np.ndarray) -> float:
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return energy(potential, moved)

    for a, b in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]:
        strain = np.zeros((3, 3))
        # a network that is not constrained to rotate has a torque as well; the symmetric strain sees none of it
        strain[a, b] += STEP / 2
        strain[b, a] += STEP / 2
        slope = (strained(strain) - strained(-strain)) / (2 * STEP)
        assert float(virial[a, b]) == pytest.approx(-slope, abs=1e-6)


@pytest.mark.parametrize("subject", NAMES, indirect=True)
def test_gradients_can_be_taken_twice(subject):
    """`differentiable` carries the graph: its Jacobian by products is that of finite differences of `evaluate`."""
    potential, atoms = subject
    structure = Structure.from_ase(atoms)
    neighbours = neighbour_list(structure, potential.cutoff, skin=0.1)
    generator = torch.Generator().manual_seed(1)
    weights, direction = torch.randn(2, structure.n_atoms, 3, generator=generator, dtype=torch.float64)
    kinds = {Wanted.CONSERVATIVE: "conservative_force", Wanted.DIRECT: "direct_force"}
    for wanted, name in kinds.items():
        if not wanted & potential.provides:
            continue
        positions = structure.positions.clone().requires_grad_()
        attached = getattr(potential.differentiable(structure.at(positions), neighbours, wanted), name)
        (gradient,) = torch.autograd.grad((attached * weights).sum(), positions)

        def at(step, wanted=wanted, name=name):
            moved = structure.at(structure.positions + step * direction)
            return (getattr(potential.evaluate(moved, neighbours, wanted), name) * weights).sum()

        slope = (at(STEP) - at(-STEP)) / (2 * STEP)
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("subject", NAMES, indirect=True)
def test_joint_evaluation_equals_separate_ones(subject):
    potential, atoms = subject
    everything = potential.provides
    joint = evaluate(potential, atoms, everything)
    for wanted, name in (
        (Wanted.ENERGY, "energy"),
        (Wanted.ENERGY, "energies"),
        (Wanted.CONSERVATIVE, "conservative_force"),
        (Wanted.DIRECT, "direct_force"),
        (Wanted.VIRIAL, "virial"),
    ):
        if wanted & everything:
            alone = getattr(evaluate(potential, atoms, wanted), name)
            torch.testing.assert_close(getattr(joint, name), alone, rtol=1e-12, atol=1e-13)
        else:
            assert getattr(joint, name) is None


@pytest.mark.parametrize("subject", NAMES, indirect=True)
def test_results_are_detached_and_inputs_untouched(subject):
    potential, atoms = subject
    structure = Structure.from_ase(atoms)
    before = structure.positions.clone()
    answer = potential.evaluate(structure, neighbour_list(structure, potential.cutoff), potential.provides)
    filled = [value for value in vars(answer).values() if value is not None]
    assert all(not value.requires_grad and value.dtype == torch.float64 for value in filled)
    assert torch.equal(structure.positions, before)
    assert not structure.positions.requires_grad


@pytest.mark.parametrize("subject", NAMES, indirect=True)
def test_a_skin_changes_nothing(subject):
    potential, atoms = subject
    bare, padded = (evaluate(potential, atoms, potential.provides, skin=skin) for skin in (0.0, 0.7))
    for name, value in vars(bare).items():
        if value is not None:
            torch.testing.assert_close(getattr(padded, name), value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("subject", ["painn", "pet", "lennard_jones"], indirect=True)
def test_translation_and_wrapping_change_nothing(subject):
    potential, atoms = subject
    moved = atoms.copy()
    moved.positions += [0.3, -4.0, 11.0]
    moved.wrap()
    here, there = (evaluate(potential, one, potential.provides) for one in (atoms, moved))
    for name, value in vars(here).items():
        if value is not None:
            torch.testing.assert_close(getattr(there, name), value, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("subject", ["painn", "pet", "lennard_jones"], indirect=True)
def test_permutation_permutes(subject):
    potential, atoms = subject
    order = np.random.default_rng(0).permutation(len(atoms))
    here, there = evaluate(potential, atoms, potential.provides), evaluate(potential, atoms[order], potential.provides)
    torch.testing.assert_close(there.energy, here.energy, rtol=1e-12, atol=1e-12)
    for name in ("energies", "conservative_force", "direct_force"):
        value = getattr(here, name)
        if value is not None:
            torch.testing.assert_close(getattr(there, name), value[order], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("subject", ["painn", "lennard_jones"], indirect=True)
@pytest.mark.parametrize("improper", [False, True])
def test_rotation_rotates(subject, improper):
    """PET is not constrained to rotate with its input, and is not asked to."""
    potential, atoms = subject
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    if (np.linalg.det(rotation) < 0) != improper:
        rotation = -rotation
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.positions = atoms.positions @ rotation.T
    here, there = (evaluate(potential, one, potential.provides) for one in (atoms, turned))
    matrix = torch.as_tensor(rotation)
    torch.testing.assert_close(there.energies, here.energies, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(there.virial[0], matrix @ here.virial[0] @ matrix.T, rtol=1e-9, atol=1e-10)
    for name in ("conservative_force", "direct_force"):
        value = getattr(here, name)
        if value is not None:
            torch.testing.assert_close(getattr(there, name), value @ matrix.T, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("subject", ["painn", "pet", "lennard_jones"], indirect=True)
def test_forces_obey_newtons_third_law(subject):
    potential, atoms = subject
    answer = evaluate(potential, atoms, potential.provides)
    for force in (answer.conservative_force, answer.direct_force):
        if force is not None:
            torch.testing.assert_close(force.sum(dim=0), torch.zeros(3, dtype=force.dtype), rtol=0, atol=1e-11)


@pytest.mark.parametrize("subject", ["painn", "pet", "lennard_jones"], indirect=True)
def test_a_batch_is_its_systems_one_by_one(subject):
    potential, atoms = subject
    systems = [atoms, atoms[:3], atoms.copy()]
    systems[2].rattle(0.05, seed=1)
    batch = evaluate(potential, systems, potential.provides)
    alone = [evaluate(potential, system, potential.provides) for system in systems]
    for name, value in vars(batch).items():
        if value is not None:
            together = torch.cat([getattr(one, name) for one in alone])
            torch.testing.assert_close(value, together, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("subject", ["painn", "pet", "lennard_jones"], indirect=True)
def test_an_isolated_atom_feels_nothing(subject):
    potential, _ = subject
    symbol = "Ar" if potential.name == "lennard_jones" else "O"
    for atoms in (ase.Atoms(symbol), ase.Atoms(symbol, cell=[30, 30, 30], pbc=True)):
        answer = evaluate(potential, atoms, potential.provides)
        assert bool(torch.isfinite(answer.energy).all())
        for value in (answer.conservative_force, answer.direct_force, answer.virial):
            assert value is None or not value.any()


@pytest.mark.parametrize("subject", ["painn", "pet", "lennard_jones"], indirect=True)
def test_float32_is_float64_to_its_precision(subject):
    potential, atoms = subject
    double = evaluate(potential, atoms, potential.provides)
    single = evaluate(potential.to(torch.float32), atoms, potential.provides, dtype=torch.float32)
    assert single.conservative_force.dtype == torch.float32
    for name in ("conservative_force", "direct_force"):
        value = getattr(double, name)
        if value is not None:
            error = (getattr(single, name).double() - value).norm() / value.norm()
            assert 0 < float(error) < 2e-5  # some hundred operations of 6e-8 each


@pytest.mark.parametrize("architecture", ["painn", "pet"])
def test_forms_share_their_trunk(make_network, make_water, architecture):
    """C, NC and M with the same weights agree in what they have in common."""
    hybrid = make_network(architecture, "M")
    everything = evaluate(hybrid, make_water(), hybrid.provides)
    for form, names in (("C", ("energy", "conservative_force", "virial")), ("NC", ("energy", "direct_force"))):
        one = make_network(architecture, form)
        one.load_state_dict({key: hybrid.state_dict()[key] for key in one.state_dict()})
        answer = evaluate(one, make_water(), one.provides)
        for name in names:
            torch.testing.assert_close(getattr(answer, name), getattr(everything, name), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("architecture", ["painn", "pet"])
def test_direct_force_is_no_gradient(make_network, make_water, architecture):
    """The two heads of an untrained network differ: the tests above compare nothing with itself."""
    answer = evaluate(make_network(architecture), make_water(), JOINT)
    assert float((answer.direct_force - answer.conservative_force).abs().max()) > 1e-3


@pytest.mark.parametrize("subject", ["painn", "pet", "lennard_jones"], indirect=True)
def test_everything_is_continuous_as_an_atom_crosses_the_cutoff(subject):
    """What a pair gives fades as the fourth power of what is left to the cutoff, its force as the third at least."""
    potential, _ = subject
    symbol = "Ar" if potential.name == "lennard_jones" else "O"

    def pair(distance: float) -> Evaluation:
        return evaluate(potential, ase.Atoms(symbol * 2, [[0, 0, 0], [0, 0, distance]]), potential.provides)

    outside, inside = pair(potential.cutoff * 1.001), pair(potential.cutoff * 0.999)
    near = pair(potential.cutoff * 0.9)
    for name in ("energy", "conservative_force", "direct_force"):
        here, there, reference = getattr(inside, name), getattr(outside, name), getattr(near, name)
        if here is not None:
            size = (reference - there).abs().max()
            assert float(size) > 0
            # (0.001/0.1)³ = 1e-6 of what it is at 0.9 of the cutoff
            assert float((here - there).abs().max()) < 1e-5 * float(size)


@pytest.mark.parametrize("architecture", ["painn", "pet"])
def test_unknown_elements_are_named(make_network, architecture):
    network = make_network(architecture)
    with pytest.raises(ValueError, match="it holds Na, Cl, but potential .* knows only H, O"):
        network.check_species(Structure.from_ase(ase.build.bulk("NaCl", "rocksalt", 5.64)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("subject", ["painn", "pet", "lennard_jones"], indirect=True)
def test_gpu_agrees_with_cpu(subject):
    potential, atoms = subject
    on_cpu = evaluate(potential, atoms, potential.provides)
    structure = Structure.from_ase(atoms, device="cuda")
    potential = potential.to("cuda")
    on_gpu = potential.evaluate(structure, neighbour_list(structure, potential.cutoff), potential.provides)
    for name, value in vars(on_cpu).items():
        if value is not None:
            torch.testing.assert_close(getattr(on_gpu, name).cpu(), value, rtol=1e-9, atol=1e-10)
