"""torch-sim with our potentials, against ASE's calculator and the native engine."""

from __future__ import annotations

from dataclasses import replace

import ase
import ase.build
import numpy as np
import pytest
import torch
from torch import Tensor

torch_sim = pytest.importorskip("torch_sim", reason="missing: torch-sim (pip install 'mlcalc[torchsim]')")

from torch_sim.models.interface import validate_model_outputs  # noqa: E402
from torch_sim.models.lennard_jones import LennardJonesModel  # noqa: E402
from torch_sim.units import MetalUnits  # noqa: E402

import mlcalc  # noqa: E402
from mlcalc import units  # noqa: E402
from mlcalc.engines.ase import MLCalculator  # noqa: E402
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann  # noqa: E402
from mlcalc.engines.torch_sim import MTSState, TorchSimModel, mts, mts_init, mts_step  # noqa: E402
from mlcalc.errors import RunError, UsageError  # noqa: E402
from mlcalc.evaluation import JOINT, Evaluation, Wanted  # noqa: E402
from mlcalc.neighbours import Neighbours  # noqa: E402
from mlcalc.potentials.potential import Potential  # noqa: E402
from mlcalc.structure import Structure  # noqa: E402

#: sums over the atoms of a batch come in another order than over those of one system
ROUNDING = 1e-10


class Wrapped(Potential):
    """A potential that notes what is asked of it, and can be made to know one system only."""

    def __init__(self, inside: Potential, one_system: bool = False) -> None:
        self.inside, self.one_system = inside, one_system
        self.name, self.cutoff, self.provides = inside.name, inside.cutoff, inside.provides
        self.asked: list[Wanted] = []

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        self.asked.append(wanted)
        answer = self.inside.evaluate(structure, neighbours, wanted)
        if self.one_system and answer.energy is not None:
            answer = replace(answer, energy=answer.energy.sum()[None])
        return answer

    def differentiable(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        raise NotImplementedError

    device = property(lambda self: self.inside.device)
    dtype = property(lambda self: self.inside.dtype)
    fingerprint = property(lambda self: self.inside.fingerprint)


@pytest.fixture
def network(make_network):
    return make_network()


@pytest.fixture
def waters(make_water):
    """Two systems that differ in size, cell and positions."""
    return [make_water(4, seed=1), make_water(8, seed=2)]


def state_of(systems: list[ase.Atoms], dtype: torch.dtype = torch.float64) -> torch_sim.SimState:
    return torch_sim.io.atoms_to_state(systems, torch.device("cpu"), dtype)


def moving(systems: list[ase.Atoms], temperature_K: float = 100.0) -> torch_sim.SimState:
    """A state with the momenta that the native engine would start from."""
    state = state_of(systems)
    parts = [maxwell_boltzmann(Structure.from_ase(system), temperature_K, seed=5) for system in systems]
    state.momenta = torch.cat(parts)
    return state


def native(network: Potential, system: ase.Atoms, steps: int, **settings) -> np.ndarray:
    structure = Structure.from_ase(system)
    momenta = maxwell_boltzmann(structure, 100.0, seed=5)
    return NativeEngine(network, structure, momenta=momenta, **settings).run(steps, stride=steps)


def own_nve(state: torch_sim.SimState, model: TorchSimModel, dt: float, steps: int) -> torch_sim.SimState:
    """torch-sim's velocity Verlet, in either form of its interface."""
    dt, cold = torch.tensor(dt, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    try:
        from torch_sim.integrators import nve_init, nve_step
    except ImportError:
        from torch_sim.integrators import nve

        start, step = nve(model, dt=dt, kT=cold)
        state = start(state)
        for _ in range(steps):
            state = step(state)
        return state
    state = nve_init(state, model, kT=cold)
    for _ in range(steps):
        state = nve_step(state, model, dt=dt)
    return state


def own_mts(state: torch_sim.SimState, model: TorchSimModel, dt: float | Tensor, n_inner: int, steps: int) -> MTSState:
    after = mts_init(state, model, kT=0.0)
    for _ in range(steps):
        after = mts_step(after, model, dt=dt, n_inner=n_inner)
    return after


def assert_same_places(ours: Tensor, theirs: np.ndarray, cell: np.ndarray) -> None:
    """Up to lattice vectors: some releases of torch-sim wrap atoms into the cell."""
    away = (ours.numpy() - theirs) @ np.linalg.inv(cell)
    np.testing.assert_allclose((away - away.round()) @ cell, 0.0, atol=ROUNDING)


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_a_batch_gives_what_the_ase_calculator_gives(network, waters, forces):
    model = TorchSimModel(network, forces, compute_stress=True)
    outputs = model(state_of(waters))
    start = 0
    for k, system in enumerate(waters):
        calculator = MLCalculator(network, forces)
        stress = calculator.get_property("stress", system)
        assert abs(outputs["energy"][k].item() - calculator.get_potential_energy(system)) < ROUNDING
        stop = start + len(system)
        np.testing.assert_allclose(outputs["forces"][start:stop], calculator.get_forces(system), atol=ROUNDING)
        voigt = outputs["stress"][k].numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        np.testing.assert_allclose(voigt, stress, atol=ROUNDING)
        start = stop
    assert np.abs(stress).max() > 1e-3


def test_the_model_passes_torch_sims_own_examination():
    """Shapes, keys, a batch against its systems, inputs left as they are."""
    model = TorchSimModel(mlcalc.load("lennard_jones"))
    assert model.compute_stress
    validate_model_outputs(model, model.device, model.dtype)


def test_the_stress_is_not_a_number_where_there_is_no_volume(network):
    molecule = ase.build.molecule("H2O")
    outputs = TorchSimModel(network)(state_of([molecule]))
    assert outputs["stress"].isnan().all()
    assert abs(outputs["energy"].item() - MLCalculator(network).get_potential_energy(molecule)) < ROUNDING


def test_states_in_single_precision(network, waters):
    model = TorchSimModel(network, dtype=torch.float32)
    assert model.dtype == torch.float32
    after = own_mts(state_of(waters, torch.float32), model, 0.1, 2, steps=2)
    assert {getattr(after, name).dtype for name in ("positions", "momenta", "energy", "forces")} == {torch.float32}


def test_wrapped_atoms_need_no_new_neighbour_list(network, waters):
    model, state = TorchSimModel(network), state_of(waters)
    before = model(state)
    lattice = torch.tensor([[1, 0, 0], [0, -1, 0], [2, 1, -1]], dtype=torch.float64).repeat(
        len(state.positions) // 3, 1
    )
    rows = state.cell.mT[state.system_idx]
    state.positions = state.positions + torch.einsum("as,asx->ax", lattice, rows) + 0.01
    after = model(state)
    np.testing.assert_allclose(after["forces"], before["forces"], atol=ROUNDING)
    np.testing.assert_allclose(after["stress"], before["stress"], atol=ROUNDING)
    assert model._neighbours.n_builds == 1


def test_another_cell_needs_a_new_neighbour_list(network, waters):
    model = TorchSimModel(network)
    model(state_of(waters))
    for system in waters:
        system.set_cell(system.cell * 1.01, scale_atoms=True)
    state = state_of(waters)
    np.testing.assert_allclose(model(state)["forces"], TorchSimModel(network)(state)["forces"], atol=ROUNDING)


def test_torch_sims_nve_goes_where_the_native_engine_goes(network, waters):
    after = own_nve(moving(waters), TorchSimModel(network), units.from_femtoseconds(0.5), steps=20)
    parts = after.positions.split([len(system) for system in waters])
    for system, positions in zip(waters, parts, strict=True):
        record = native(network, system, 20, forces="conservative", timestep_fs=0.5)
        assert_same_places(positions, record.positions[-1], system.cell.array)
        assert np.abs(record.positions[-1] - system.positions).max() > 0.05


def test_mts_goes_where_the_native_engine_goes(network, waters):
    """The timestep is given in internal units: torch-sim's picosecond (CODATA 2014) differs by 4e-9 from ours."""
    after = own_mts(moving(waters), TorchSimModel(network), units.from_femtoseconds(1.0), 4, steps=20)
    start = 0
    for k, system in enumerate(waters):
        record = native(network, system, 20, forces="mts", timestep_fs=1.0, n_inner=4)
        here = slice(start, start + len(system))
        np.testing.assert_allclose(after.positions[here], record.positions[-1], atol=ROUNDING)
        np.testing.assert_allclose(after.momenta[here], record.momenta[-1], atol=ROUNDING)
        assert abs(after.energy[k].item() - record.potential_energy[-1]) < ROUNDING
        assert np.abs(record.positions[-1] - system.positions).max() > 0.1
        start += len(system)


def test_one_inner_step_is_velocity_verlet(network, waters):
    """r-RESPA with n = 1 is velocity Verlet with the sum of the forces, the conservative one."""
    model, dt = TorchSimModel(network), units.from_femtoseconds(0.5)
    ours, theirs = own_mts(moving(waters), model, dt, 1, steps=10), own_nve(moving(waters), model, dt, steps=10)
    np.testing.assert_allclose(ours.momenta, theirs.momenta, atol=ROUNDING)
    np.testing.assert_allclose(ours.forces, theirs.forces, atol=ROUNDING)


def test_systems_of_a_batch_can_have_their_own_timestep(network, waters):
    model = TorchSimModel(network)
    both = own_mts(moving(waters), model, torch.tensor([0.1, 0.2]), 2, steps=3)
    apart = [own_mts(moving([system]), model, dt, 2, steps=3) for system, dt in zip(waters, (0.1, 0.2), strict=True)]
    np.testing.assert_allclose(both.positions, torch.cat([one.positions for one in apart]), atol=1e-8)  # float32's 0.1


@pytest.mark.parametrize("n_inner", [1, 4])
def test_an_outer_step_costs_one_joint_and_direct_evaluations(network, waters, n_inner):
    counted = Wrapped(network)
    model = TorchSimModel(counted)
    state = mts_init(state_of(waters), model, kT=0.01)
    for _ in range(2):
        counted.asked.clear()
        state = mts_step(state, model, dt=0.1, n_inner=n_inner)
        assert counted.asked == [Wanted.DIRECT] * (n_inner - 1) + [JOINT]


def test_a_step_leaves_its_state_as_it_was(network, waters):
    model = TorchSimModel(network)
    state = mts_init(state_of(waters), model, kT=0.01)
    positions, momenta = state.positions.clone(), state.momenta.clone()
    mts_step(state, model, dt=0.1)
    assert torch.equal(state.positions, positions)
    assert torch.equal(state.momenta, momenta)


def test_integrate_and_its_autobatcher(network, waters):
    """In batches of one system as in a batch of both; at 0 K, since momenta are drawn batch by batch."""
    timestep = units.from_femtoseconds(1.0) / MetalUnits.time
    settings = dict(integrator=mts, n_steps=10, timestep=timestep, temperature=0.0, n_inner=4)
    model = TorchSimModel(network)
    together = torch_sim.integrate(waters, model, **settings)
    batcher = torch_sim.BinningAutoBatcher(model, memory_scales_with="n_atoms", max_memory_scaler=len(waters[1]))
    apart = torch_sim.integrate(waters, model, autobatcher=batcher, **settings)
    assert isinstance(together, MTSState)
    assert float((together.positions - state_of(waters).positions).abs().max()) > 0.01
    np.testing.assert_allclose(apart.positions, together.positions, atol=ROUNDING)
    assert isinstance(mts[0](state_of(waters), model, kT=0.01), MTSState)


def test_momenta_are_drawn_at_the_temperature(network, make_water):
    """The mean square of 720 components is known to 5 %; six times that is allowed."""
    start, _ = mts(TorchSimModel(network), dt=0.1, kT=0.02, seed=3)
    state = start(state_of([make_water(8)] * 10))
    assert abs(float((state.momenta.square() / state.masses[:, None]).mean()) / 0.02 - 1) < 0.3


def test_unknown_elements_are_refused(network, waters):
    model = TorchSimModel(network)
    model(state_of(waters))
    waters[0].symbols[0] = "Fe"
    with pytest.raises(UsageError, match="it holds Fe, but potential"):
        model(state_of(waters))


def test_a_potential_without_direct_forces_is_refused(waters):
    with pytest.raises(UsageError, match="'lennard_jones' has no direct forces"):
        mts_init(state_of(waters), TorchSimModel(mlcalc.load("lennard_jones")), kT=0.01)
    with pytest.raises(UsageError, match="'lennard_jones' has no direct forces"):
        TorchSimModel(mlcalc.load("lennard_jones"), "direct")


def test_a_potential_for_one_system_is_refused_a_batch(network, waters):
    model = TorchSimModel(Wrapped(network, one_system=True))
    assert model(state_of(waters[:1]))["energy"].shape == (1,)
    with pytest.raises(RunError, match="gave 1 energy for a batch of 2 systems"):
        model(state_of(waters))


def test_other_models_and_direct_forces_are_refused_by_mts(network, waters):
    for model in (LennardJonesModel(), TorchSimModel(network, "direct")):
        with pytest.raises(UsageError, match=r"give a TorchSimModel\(potential, 'conservative'\)"):
            mts_init(state_of(waters), model, kT=0.01)


def test_constraints_are_refused(network, waters):
    constraints = pytest.importorskip("torch_sim.constraints", reason="torch-sim 0.3 has no constraints")
    state = state_of(waters)
    state.constraints = [constraints.FixAtoms(atom_idx=[0])]
    with pytest.raises(UsageError, match="constraints are not supported"):
        mts_init(state, TorchSimModel(network), kT=0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(dt=-0.1), "dt: got -0.1"),
        (dict(dt=float("nan")), "dt: got nan"),
        (dict(dt=torch.ones(3)), "dt: got tensor"),
        (dict(dt=0.1, n_inner=0), "n_inner: got 0"),
        (dict(dt=0.1, n_inner=2.0), "n_inner: got 2.0"),
    ],
)
def test_bad_steps_are_refused(network, waters, settings, message):
    model = TorchSimModel(network)
    with pytest.raises(UsageError, match=message):
        mts_step(mts_init(state_of(waters), model, kT=0.0), model, **settings)


def test_bad_models_are_refused(network):
    with pytest.raises(UsageError, match="forces: got 'both'"):
        TorchSimModel(network, "both")
    with pytest.raises(UsageError, match=r"dtype: got torch\.float16"):
        TorchSimModel(network, dtype=torch.float16)
    with pytest.raises(UsageError, match="no virial"):
        TorchSimModel(mlcalc.load("harmonic"), compute_stress=True)


def test_a_run_that_diverges_stops(network, waters):
    model = TorchSimModel(network)
    state = mts_init(state_of(waters), model, kT=0.0)
    state.momenta = state.momenta * torch.nan
    with pytest.raises(RunError, match="positions: not finite"):
        mts_step(state, model, dt=0.1)
