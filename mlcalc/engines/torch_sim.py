"""mlcalc potentials as torch-sim models, and multiple time stepping as a torch-sim integrator.

torch-sim (O. Cohen et al., doi:10.1088/3050-287X/ae1799) runs many systems as one batch. Its releases differ: 0.3, the
last for Python 3.11, makes an integrator from model and timestep; later ones take a pair (init, step). `mts` is both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted, required, split_forces
from mlcalc.integrators import respa
from mlcalc.integrators.phase import Phase
from mlcalc.neighbours import NeighbourCache
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

try:
    from torch_sim.integrators.md import MDState
    from torch_sim.models.interface import ModelInterface
    from torch_sim.state import SimState
except ImportError as error:
    raise UsageError(f"torch_sim: it cannot be imported ({error}); pip install 'mlcalc[torchsim]'") from error
try:
    from torch_sim.integrators import nve_init
except ImportError:  # 0.3
    from torch_sim.integrators import nve

    def nve_init(state: SimState, model: ModelInterface, *, kT: Any, seed: int | None = None) -> MDState:
        return nve(model, dt=None, kT=kT, seed=seed)[0](state)


class TorchSimModel(ModelInterface):
    """torch-sim model of any mlcalc potential; a batch of systems is one evaluation.

    Energies are always the conservative ones; "forces" are minus their gradient, or with forces="direct" the direct
    head's. The stress is minus the virial over the volume, (n_systems, 3, 3), eV/Å³; not a number where a system is not
    periodic in all directions.

    torch-sim 0.3 wraps atoms into the cell at every step. Here each atom is taken at the image nearest to where it was
    at the last call, so that wrapping does not use up the skin.

    Parameters
    ----------
    potential : see `mlcalc.load`; states must be on its device
    forces : "conservative" or "direct"
    dtype : of the states that torch-sim makes for this model; the potential computes in its own. float64 keeps
        positions and momenta as exact as in the native engine
    compute_stress : None stands for yes where conservative forces are asked for and the potential has a virial
    skin : Å, of the neighbour list

    Raises
    ------
    UsageError
        if the potential has no energy, no such forces or no virial; on evaluation, if it does not know an element or
        the state is on another device.
    RunError
        on evaluation, if a position is not finite, or the potential cannot take more than one system.
    """

    def __init__(
        self,
        potential: Potential,
        forces: str = "conservative",
        *,
        dtype: torch.dtype = torch.float64,
        compute_stress: bool | None = None,
        skin: float = 0.5,
    ) -> None:
        super().__init__()
        if forces not in ("conservative", "direct"):
            raise UsageError(f"forces: got {forces!r}; choose 'conservative' or 'direct'")
        if dtype not in (torch.float32, torch.float64):
            raise UsageError(f"dtype: got {dtype}; choose torch.float64 or torch.float32")
        if compute_stress is None:
            compute_stress = forces == "conservative" and bool(potential.provides & Wanted.VIRIAL)
        self._wanted = Wanted.ENERGY | Wanted[forces.upper()]
        potential.check_wanted(self._wanted | Wanted.VIRIAL if compute_stress else self._wanted)
        self.potential, self.force_kind = potential, forces
        self._dtype, self._compute_stress, self._compute_forces = dtype, compute_stress, True
        self._neighbours = NeighbourCache(potential.cutoff, skin)
        self._checked: Tensor | None = None
        self._last: Structure | None = None
        self._wrapped_by = torch.zeros(0, 3)

    @property
    def device(self) -> torch.device:
        return self.potential.device

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Energy (n_systems,), eV; forces (n_atoms, 3), eV/Å; stress (n_systems, 3, 3), eV/Å³, if it is computed."""
        structure = self.structure(SimState(**state) if isinstance(state, dict) else state)
        stress = self.compute_stress and bool(structure.periodic.all())
        evaluation = self.evaluate(structure, self._wanted | Wanted.VIRIAL if stress else self._wanted)
        results = {
            "energy": required(evaluation, "energy"),
            "forces": required(evaluation, f"{self.force_kind}_force"),
        }
        if stress:
            results["stress"] = -required(evaluation, "virial") / structure.cell.det().abs()[:, None, None]
        elif self.compute_stress:
            results["stress"] = torch.full_like(structure.cell, torch.nan)
        return results

    def structure(self, state: SimState) -> Structure:
        """The Structure of a state; elements are checked when they change."""
        if state.positions.device != self.device:
            raise UsageError(
                f"state: it is on {state.positions.device}, the potential on {self.device}; "
                "make the state with device=model.device"
            )
        structure = Structure(
            positions=state.positions,
            numbers=state.atomic_numbers.long(),
            cell=state.row_vector_cell.contiguous(),
            periodic=torch.as_tensor(state.pbc, device=self.device).expand(len(state.cell), 3),
            masses=state.masses,
            system=state.system_idx,
        )
        if self._checked is None or not torch.equal(self._checked, structure.numbers):
            self.potential.check_species(structure)
            self._checked = structure.numbers.clone()
        return structure

    def evaluate(self, structure: Structure, wanted: Wanted) -> Evaluation:
        """What the potential gives for a structure, with a neighbour list that is kept."""
        self._last = structure = structure.at(self._unwrapped(structure))
        evaluation = self.potential.evaluate(structure, self._neighbours(structure), wanted)
        if evaluation.energy is not None and len(evaluation.energy) != structure.n_systems:
            raise RunError(
                f"potential {self.potential.name!r}: it gave {len(evaluation.energy)} energy for a batch of "
                f"{structure.n_systems} systems; give it one system at a time (torch-sim's autobatcher)"
            )
        return evaluation

    def _unwrapped(self, structure: Structure) -> Tensor:
        """(n_atoms, 3), Å: each atom at the image nearest to where it was at the last call, if that had these cells."""
        last, cell, system = self._last, structure.cell, structure.system
        names = ("system", "cell", "periodic")
        if last is None or not all(torch.equal(getattr(last, name), getattr(structure, name)) for name in names):
            self._wrapped_by = torch.zeros_like(structure.positions)
            return structure.positions
        positions = structure.positions - self._wrapped_by
        moved = positions - last.positions
        if bool(moved.abs().max() <= self._neighbours.skin / 2):
            return positions
        # the pseudo-inverse gives lattice coordinates along the periodic vectors, however many there are
        inverse = torch.linalg.pinv(cell * structure.periodic[:, :, None])
        crossed = torch.einsum("ax,axs->as", moved, inverse[system]).round()
        self._wrapped_by = self._wrapped_by + torch.einsum("as,asx->ax", crossed, cell[system])
        return structure.positions - self._wrapped_by


@dataclass(kw_only=True)
class MTSState(MDState):
    """torch-sim's MDState after an outer step; `forces` are conservative.

    Attributes
    ----------
    direct_forces : (n_atoms, 3), eV/Å, at these positions
    """

    direct_forces: Tensor

    _atom_attributes = MDState._atom_attributes | {"direct_forces"}


def mts_init(state: SimState, model: TorchSimModel, *, kT: float | Tensor, **options: Any) -> MTSState:
    """Energies, both forces, and momenta: the state's own or, if it has none, drawn by torch-sim at kT.

    Parameters
    ----------
    kT : eV, a number or (n_systems,)
    options : of torch-sim's own initialisation, such as `seed` in 0.3 (later the seed is `state.rng`)

    Raises
    ------
    UsageError
        for another model, a potential that has not both forces, or constraints.
    """
    if not isinstance(model, TorchSimModel) or model.force_kind != "conservative":
        raise UsageError(f"model: got {type(model).__name__}; give a TorchSimModel(potential, 'conservative')")
    model.potential.check_wanted(JOINT)
    if getattr(state, "constraints", None):  # not in 0.3
        raise UsageError("state: constraints are not supported with multiple time stepping; remove them")
    start = nve_init(state, model, kT=kT, **options)
    direct = required(model.evaluate(model.structure(start), Wanted.DIRECT), "direct_force")
    return MTSState(**{field.name: getattr(start, field.name) for field in fields(start)}, direct_forces=direct)


def mts_step(
    state: MTSState, model: TorchSimModel, *, dt: float | Tensor, n_inner: int = 8, kT: Any = None
) -> MTSState:
    """One outer step of r-RESPA (see `integrators.respa`): n_inner − 1 direct evaluations and a joint one.

    Positions are not wrapped; they and the momenta keep the state's dtype.

    Parameters
    ----------
    state : from `mts_init` or a step before
    dt : the outer step, internal time units (`torch_sim.units.MetalUnits.time` is 1 ps), a number or (n_systems,)
    n_inner : inner steps in an outer step
    kT : torch-sim gives it to every integrator; not used

    Returns
    -------
    a new state; the one passed in is not changed

    Raises
    ------
    UsageError
        for a dt or n_inner that cannot be used.
    RunError
        if a position is no longer finite.
    """
    if isinstance(n_inner, bool) or not isinstance(n_inner, int) or n_inner < 1:
        raise UsageError(f"n_inner: got {n_inner!r}; give a whole number of inner steps, 1 or more")
    timestep = _by_atom(dt, state)
    structure = model.structure(state)
    last: list[Evaluation] = []

    def direct(phase: Phase) -> Tensor:
        return required(model.evaluate(structure.at(phase.positions), Wanted.DIRECT), "direct_force")

    def both(phase: Phase) -> respa.Forces:
        last.append(model.evaluate(structure.at(phase.positions), JOINT))
        return respa.Forces(*split_forces(last[0]))

    now = Evaluation(conservative_force=state.forces, direct_force=state.direct_forces)
    phase = Phase(state.positions, state.momenta, state.masses[:, None])
    phase = respa.step(phase, respa.Forces(*split_forces(now)), direct, both, timestep, n_inner)[0]
    after = copy.copy(state)
    after.positions, after.momenta = phase.positions, phase.momenta
    after.energy, after.forces = required(last[0], "energy"), required(last[0], "conservative_force")
    after.direct_forces = required(last[0], "direct_force")
    return after


def _by_atom(dt: float | Tensor, state: SimState) -> Tensor:
    """The timestep as a number without dimensions, or as (n_atoms, 1) where systems have their own."""
    timestep = torch.as_tensor(dt, dtype=state.positions.dtype, device=state.positions.device)
    if timestep.shape not in ((), (len(state.cell),)) or not bool((timestep.isfinite() & (timestep > 0)).all()):
        raise UsageError(f"dt: got {dt}; give a finite time above 0, one for all or one for each system")
    return timestep if timestep.ndim == 0 else timestep[state.system_idx, None]


class MTS(NamedTuple):
    """An integrator for `torch_sim.integrate` of any release: the pair (init, step), and callable as 0.3 wants it."""

    init: Callable[..., MTSState]
    step: Callable[..., MTSState]

    def __call__(
        self, model: TorchSimModel, *, dt: float | Tensor, kT: float | Tensor, n_inner: int = 8, **options: Any
    ) -> tuple[Callable[..., MTSState], Callable[..., MTSState]]:
        """(init(state), update(state)) with model, dt and n_inner bound."""

        def init(state: SimState, kT: float | Tensor = kT) -> MTSState:
            return self.init(state, model, kT=kT, **options)

        def update(state: MTSState, dt: float | Tensor = dt, kT: Any = None) -> MTSState:
            return self.step(state, model, dt=dt, n_inner=n_inner)

        return init, update


mts = MTS(mts_init, mts_step)
