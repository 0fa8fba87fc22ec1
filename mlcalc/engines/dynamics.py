"""What the native engines share: outer steps of a potential and an ensemble, over one system or a batch of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted, required, split_forces
from mlcalc.integrators import respa, velocity_verlet
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.phase import Batch, Phase, by_system, kinetic_energy
from mlcalc.integrators.respa import Forces
from mlcalc.neighbours import NeighbourCache
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

_WANTED = {
    "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE,
    "direct": Wanted.DIRECT,
    "mts": JOINT,
}


@dataclass(frozen=True)
class Stepping:
    """How to integrate.

    Attributes
    ----------
    forces : "conservative", "direct", or "mts": direct inside, conservative − direct every `n_inner` steps
    timestep_fs : the outer step, fs, of all systems or of each
    n_inner : inner steps in it
    ensemble : what is held constant

    Raises
    ------
    UsageError
        for values that cannot be used.
    """

    forces: str
    timestep_fs: float | tuple[float, ...]
    n_inner: int = 1
    ensemble: Ensemble = field(default_factory=Ensemble)

    def __post_init__(self) -> None:
        if self.forces not in _WANTED:
            raise UsageError(f"forces: got {self.forces!r}; choose one of {', '.join(_WANTED)}")
        for timestep_fs in self.timesteps_fs:
            if not (math.isfinite(timestep_fs) and timestep_fs > 0):
                raise UsageError(f"timestep_fs: got {timestep_fs}; give a finite time above 0 fs")
        n_inner = self.n_inner
        if isinstance(n_inner, bool) or not isinstance(n_inner, int) or n_inner < 1:
            raise UsageError(f"n_inner: got {n_inner!r}; give a whole number of inner steps, 1 or more")
        if self.forces != "mts" and n_inner != 1:
            raise UsageError(f"n_inner: got {n_inner} with forces={self.forces!r}; only forces='mts' has inner steps")
        if len(self.timesteps_fs) > 1 and self.ensemble.thermostat is not None:
            raise UsageError("timestep_fs: got one for each system, with a thermostat; give one for all")
        self.ensemble.check_timestep(max(self.timesteps_fs))

    @property
    def timesteps_fs(self) -> tuple[float, ...]:
        """One, or one of each system."""
        return self.timestep_fs if isinstance(self.timestep_fs, tuple) else (self.timestep_fs,)

    @property
    def kind(self) -> str:
        """Of the evaluation that ends an outer step."""
        return "joint" if self.forces == "mts" else self.forces

    @property
    def wanted(self) -> Wanted:
        """What that evaluation fills."""
        return _WANTED[self.forces] | (Wanted.VIRIAL if self.ensemble.barostat is not None else Wanted(0))

    @property
    def integrator(self) -> str:
        """Its name."""
        thermostat = self.ensemble.thermostat
        if thermostat is None:
            return "r-RESPA" if self.forces == "mts" else "velocity Verlet"
        name = "BAOAB" if isinstance(thermostat, Langevin) else type(thermostat).__name__
        if self.ensemble.barostat is not None:
            name += " with a Langevin piston"
        return name if self.n_inner == 1 else f"{name} in r-RESPA"

    def select(self, systems: Sequence[int]) -> Stepping:
        """The same for some systems of a batch."""
        if not isinstance(self.timestep_fs, tuple):
            return self
        return replace(self, timestep_fs=tuple(self.timestep_fs[k] for k in systems))

    def provenance(self, potential: Potential) -> dict[str, Any]:
        """What a record says of it, as JSON types."""
        thermostat, barostat = self.ensemble.thermostat, self.ensemble.barostat
        made = {
            "potential": potential.name,
            "fingerprint": potential.fingerprint,
            "integrator": self.integrator,
            "forces": self.forces,
            "timestep_fs": self.timestep_fs,
            "n_inner": self.n_inner,
            "thermostat": None if thermostat is None else asdict(thermostat),
        }
        return made if barostat is None else {**made, "barostat": asdict(barostat)}


@dataclass(frozen=True)
class State:
    """Where the dynamics is.

    Attributes
    ----------
    phase : float64
    evaluation : what the potential gave there
    n_inner_steps : made since the start
    """

    phase: Phase
    evaluation: Evaluation
    n_inner_steps: int

    def select(self, systems: Sequence[int]) -> State:
        """The state of some systems of a batch."""
        batch = self.phase.batch
        assert batch is not None
        atoms = batch.atoms(systems)
        numbers = torch.tensor(systems, device=atoms.device)
        values = {one.name: getattr(self.evaluation, one.name) for one in fields(Evaluation)}
        for name, value in values.items():
            if value is not None:
                values[name] = value.index_select(0, numbers if name in ("energy", "virial") else atoms)
        return State(self.phase.select(systems), Evaluation(**values), self.n_inner_steps)


class Dynamics:
    """Takes outer steps. Between two calls nothing waits for the device but the potential and its neighbour list.

    Parameters
    ----------
    structure : float64, on the potential's device
    skin : Å, of the neighbour list
    batch : which atom belongs to which system; None for one system
    fence : positions → those to evaluate instead, (n_atoms, 3), Å, if some are not to be evaluated

    Attributes
    ----------
    neighbours : the list, which is kept
    counts : how many "direct", "conservative", "joint" evaluations the dynamics made, and how many "frame" evaluations
        direct-only runs made for their records

    Raises
    ------
    UsageError
        for a potential that lacks what is wanted or does not know an element, or a barostat where there is no virial or
        no periodic cell.
    """

    def __init__(
        self,
        potential: Potential,
        structure: Structure,
        stepping: Stepping,
        *,
        skin: float,
        batch: Batch | None = None,
        fence: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if stepping.ensemble.barostat is not None:
            _check_barostat(stepping.forces, structure)
        potential.check_wanted(stepping.wanted)
        potential.check_species(structure)
        self.potential, self.structure, self.stepping, self.batch = potential, structure, stepping, batch
        self.neighbours = NeighbourCache(potential.cutoff, skin)
        self.counts: Counter[str] = Counter()
        self._fence = fence
        self._timestep = self._time_of(stepping)

    def _time_of(self, stepping: Stepping) -> float | Tensor:
        """Δt, internal units; (n_atoms, 1) where systems have their own."""
        times = [units.from_femtoseconds(time) for time in stepping.timesteps_fs]
        if len(times) == 1:
            return times[0]
        return torch.tensor(times, dtype=torch.float64, device=self.structure.device)[self.structure.system][:, None]

    def start(self, momenta: Tensor | None) -> Phase:
        """The phase at the structure's positions; momenta (n_atoms, 3), amu·Å/time, zero if not given."""
        positions = self.structure.positions
        if momenta is None:
            momenta = torch.zeros_like(positions)
        if momenta.shape != positions.shape or not bool(torch.isfinite(momenta).all()):
            raise UsageError(
                f"momenta: got shape {tuple(momenta.shape)}; give finite numbers of shape {tuple(positions.shape)}"
            )
        masses, numbers = self.structure.masses[:, None], self.structure.numbers
        phase = Phase(positions, momenta.to(positions), masses, batch=self.batch, numbers=numbers)
        return self.stepping.ensemble.start(phase, self.structure.cell[0])

    def at(self, phase: Phase, n_inner_steps: int = 0) -> State:
        """The state at a phase."""
        return State(phase, self.evaluate(phase, self.stepping.kind), n_inner_steps)

    def evaluate(self, phase: Phase, kind: str) -> Evaluation:
        """What the potential gives for a phase: "direct", "conservative", "joint" or "frame"."""
        self.counts[kind] += 1
        positions = phase.positions if self._fence is None else self._fence(phase.positions)
        structure = self.structure.at(positions, None if phase.cell is None else phase.cell[None])
        wanted = {"direct": Wanted.DIRECT, "frame": JOINT}.get(kind, self.stepping.wanted)
        return self.potential.evaluate(structure, self.neighbours(structure), wanted & self.potential.provides)

    def step(self, state: State) -> State:
        """The state an outer step later.

        Raises
        ------
        RunError, UsageError
            if the potential cannot evaluate where the atoms have come to.
        """
        stepping, ends = self.stepping, []

        def fast(phase: Phase) -> Tensor:
            return required(self.evaluate(phase, "direct"), "direct_force")

        def both(phase: Phase) -> Forces:
            ends.append(self.evaluate(phase, stepping.kind))
            return self._forces(ends[-1])

        forces, phase = self._forces(state.evaluation), state.phase
        if isinstance(self._timestep, Tensor) or stepping.ensemble.thermostat is None:
            phase = self._at_constant_energy(phase, forces, fast, both)
        else:
            phase, _ = stepping.ensemble.step(
                phase, forces, fast, both, self._timestep, stepping.n_inner, state.n_inner_steps
            )
        return State(phase, ends[-1], state.n_inner_steps + stepping.n_inner)

    def _at_constant_energy(
        self, phase: Phase, forces: Forces, fast: Callable[[Phase], Tensor], both: Callable[[Phase], Forces]
    ) -> Phase:
        if self.stepping.forces == "mts":
            return respa.step(phase, forces, fast, both, self._timestep, self.stepping.n_inner)[0]

        def one(positions: Tensor) -> Tensor:
            return both(replace(phase, positions=positions)).fast

        return velocity_verlet.step(phase, forces.fast, one, self._timestep)[0]

    def _forces(self, evaluation: Evaluation) -> Forces:
        """What acts outside and inside; a single force acts inside."""
        virial = None if evaluation.virial is None else evaluation.virial[0]
        if self.stepping.forces == "mts":
            return Forces(*split_forces(evaluation), virial)
        force = required(evaluation, f"{self.stepping.forces}_force")
        return Forces(torch.zeros_like(force), force, virial)

    def observe(self, state: State) -> dict[str, Tensor]:
        """The numbers of a `Frame`: () each or, in a batch, (n_systems,)."""
        now, phase = state.evaluation, state.phase
        if self.stepping.forces == "direct":
            # the dynamics needs no energy; only a record does
            now = self.evaluate(phase, "frame")
        kinetic = kinetic_energy(phase)
        unknown = torch.full_like(kinetic, math.nan)
        power = unknown
        if now.direct_force is not None and now.conservative_force is not None:
            difference = now.direct_force - now.conservative_force
            power = by_system(phase, phase.momenta / phase.masses * difference) * units.PICOSECOND
        return {
            "potential_energy": unknown if now.energy is None else now.energy.reshape(kinetic.shape),
            "kinetic_energy": kinetic,
            "heat": torch.as_tensor(phase.heat, dtype=kinetic.dtype, device=kinetic.device).expand_as(kinetic),
            "power": power,
        }


def _check_barostat(forces: str, structure: Structure) -> None:
    if forces == "direct":
        raise UsageError("barostat: direct forces have no virial; use forces='mts' or 'conservative'")
    if not bool(structure.periodic.all()):
        raise UsageError("barostat: the structure is not periodic in all directions; give it a cell, or no barostat")
