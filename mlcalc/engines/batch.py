"""The native engine for many systems at once: one neighbour list and one evaluation for all of them.

A system of a batch follows the trajectory that it would have alone, to round-off: it has its own noise, its own heat
and, if wanted, its own timestep. One that explodes leaves the batch at the next report, and the others go on.

Between reports nothing waits for the device but the potential and its neighbour list. A report waits for a few numbers
of each system; positions and momenta follow by themselves while the next step is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlcalc import units
from mlcalc.engines.dynamics import Dynamics, State, Stepping
from mlcalc.engines.fence import Fence
from mlcalc.engines.reports import Ending, FramesUnderway, Report
from mlcalc.errors import RunError, UsageError
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.noise import check_seed
from mlcalc.integrators.phase import Batch, Phase, by_system
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame, Layout, Trajectory, TrajectoryWriter, assemble, header

_SCALARS = ("potential_energy", "kinetic_energy", "heat", "power")  # as `Dynamics.observe` names them


class BatchEngine:
    """Dynamics of many systems with conservative, direct, or both forces, at constant energy or temperature.

    Parameters
    ----------
    structure : one or more systems, of any sizes (`Structure.from_ase` of a sequence, `Structure.replicated`)
    forces : "conservative", "direct", or "mts": direct inside, conservative − direct every `n_inner` steps
    timestep_fs : the outer step, of all systems; or one for each, at constant energy
    momenta : (n_atoms, 3), amu·Å/time; zero if not given (see `maxwell_boltzmann`, which takes batches)
    ensemble : what is held constant in each system; energy if not given
    seeds : of the noise of each system; if not given, system k has the thermostat's seed + k
    skin : Å, of the neighbour list
    max_temperature_K : a system hotter than this has exploded

    Attributes
    ----------
    active : the numbers of the systems that go on
    endings : number → why it does not, of those that have left
    counts : evaluations of the batch, see `NativeEngine`

    Raises
    ------
    UsageError
        for a timestep, n_inner, forces, seeds or momenta that cannot be used, a barostat, elements that the potential
        does not know, or a potential that takes one system at a time.
    """

    def __init__(
        self,
        potential: Potential,
        structure: Structure,
        *,
        forces: str = "mts",
        timestep_fs: float | Sequence[float] | np.ndarray,
        n_inner: int = 1,
        momenta: Tensor | None = None,
        ensemble: Ensemble | None = None,
        seeds: Sequence[int] | None = None,
        skin: float = 0.5,
        max_temperature_K: float = 1e5,
    ) -> None:
        self.ensemble = Ensemble.of(ensemble)
        times = tuple(map(float, timestep_fs)) if isinstance(timestep_fs, Sequence | np.ndarray) else timestep_fs
        self._stepping = Stepping(forces, times, n_inner, self.ensemble)
        self.potential, self.forces, self.n_inner = potential, forces, n_inner
        self.skin, self.max_temperature_K = skin, max_temperature_K
        self.structure = structure.to(device=potential.device, dtype=torch.float64)
        for name, values in (("timestep_fs", times), ("seeds", seeds)):
            if isinstance(values, Sequence) and len(values) != self.n_systems:
                raise UsageError(f"{name}: got {len(values)} for {self.n_systems} systems; give one for each")
        sizes = tuple(self.structure.atoms_per_system.tolist())
        self._whole = Batch(sizes, self._seeds(seeds), self.structure.device)
        self.counts: Counter[str] = Counter()
        self.active: tuple[int, ...] = tuple(range(self.n_systems))
        self.endings: dict[int, Ending] = {}
        self._fence = Fence(self.structure.positions)
        self._dynamics = self._dynamics_of(self.active, self._fence)
        phase = self._dynamics.start(momenta)
        try:
            self._state = self._dynamics.at(phase)
        except (RunError, UsageError) as error:
            raise self._named(error, phase) from error
        self._check_batched()
        owns = [self._state.phase.select([k]).own for k in self.active]
        self._n_state = [0 if own is None else own.numel() for own in owns]

    def _seeds(self, given: Sequence[int] | None) -> tuple[int, ...]:
        thermostat = self.ensemble.thermostat
        first = 0 if thermostat is None else asdict(thermostat).get("seed", 0)
        seeds = tuple(range(first, first + self.n_systems)) if given is None else tuple(given)
        for seed in seeds:
            check_seed(seed)
        return seeds

    def _named(self, error: RunError | UsageError, phase: Phase) -> RunError | UsageError:
        """The error of the first system that cannot be evaluated alone, or else of the batch."""
        for k in range(self.n_systems):
            alone = phase.select([k])
            try:
                self._dynamics_of([k], Fence(alone.positions)).at(alone)
            except (RunError, UsageError) as own_error:
                return type(own_error)(f"system {k}: {own_error}")
        return error

    def _check_batched(self) -> None:
        energy = self._state.evaluation.energy
        if energy is not None and len(energy) != self.n_systems:
            raise UsageError(
                f"potential {self.potential.name!r}: it gave {len(energy)} energy for a batch of {self.n_systems} "
                "systems; run them one by one in a NativeEngine"
            )

    def _dynamics_of(self, systems: Sequence[int], fence: Fence) -> Dynamics:
        """Dynamics of some systems, with a neighbour list of its own."""
        dynamics = Dynamics(
            self.potential,
            self.structure if len(systems) == self.n_systems else self.structure.select(systems),
            self._stepping.select(systems),
            skin=self.skin,
            batch=self._whole.select(systems),
            fence=fence,
        )
        dynamics.counts = self.counts
        return dynamics

    @property
    def n_systems(self) -> int:
        """At the start."""
        return self.structure.n_systems

    @property
    def state(self) -> State:
        """Phase and evaluation of the active systems."""
        return self._state

    @property
    def timesteps_fs(self) -> tuple[float, ...]:
        """The outer step of each system."""
        given = self._stepping.timesteps_fs
        return given if len(given) == self.n_systems else given * self.n_systems

    def time_ps(self, system: int) -> float:
        """ps since the start, of a system that goes on."""
        return self._state.n_inner_steps * (self.timesteps_fs[system] / self.n_inner) / 1000

    def temperature(self, kinetic_energy: float, system: int) -> float:
        """K; kinetic energy in eV. The centre of mass counts only where a bath moves it."""
        freedom = self.ensemble.freedom(self._whole.sizes[system])
        return units.temperature_from_kinetic(kinetic_energy, max(1, freedom))

    def layout(self, system: int) -> Layout:
        """What a trajectory's writer must know of the frames of a system."""
        return Layout(self._n_state[system])

    def provenance(self, system: int) -> dict[str, Any]:
        """How a system is integrated, as JSON types: as a `NativeEngine` would say that does the same alone."""
        made = self._stepping.provenance(self.potential)
        made["timestep_fs"] = self.timesteps_fs[system]
        if made["thermostat"] is not None and "seed" in made["thermostat"]:
            made["thermostat"] = {**made["thermostat"], "seed": self._whole.seeds[system]}
        return made

    def structure_of(self, system: int) -> Structure:
        """A system at the start."""
        return self.structure.select([system])

    def resume(self, frames: Sequence[Frame | None]) -> None:
        """Go back to recorded frames of a run with these settings, one of each system: what follows is that run's, bit
        for bit. A system without a frame has ended before.

        Raises
        ------
        UsageError
            for frames that are not of one moment of such a run.
        """
        if len(frames) != self.n_systems or len(self.active) != self.n_systems:
            raise UsageError(
                f"frames: got {len(frames)} for {self.n_systems} systems of which {len(self.active)} go on; give one "
                "for each system (or None) to a new engine"
            )
        alive = {k: frame for k, frame in enumerate(frames) if frame is not None}
        steps = {round(1000 * frame.time_ps / (self.timesteps_fs[k] / self.n_inner)) for k, frame in alive.items()}
        if len(steps) != 1:
            raise UsageError(f"frames: they are of {len(steps)} different steps; give frames of one")
        phase = self._state.phase.select(list(alive))
        own = None
        if phase.own is not None:
            parts = [self._own_of(frame, self._state.phase.select([k]).own) for k, frame in alive.items()]
            own = torch.cat(parts, dim=1)

        def tensor(values: Any) -> Tensor:
            return torch.as_tensor(np.array(values), dtype=torch.float64, device=self.structure.device)

        phase = replace(
            phase,
            positions=tensor(np.concatenate([frame.positions for frame in alive.values()])),
            momenta=tensor(np.concatenate([frame.momenta for frame in alive.values()])),
            heat=tensor([frame.heat for frame in alive.values()]),
            own=own,
        )
        for k in set(self.active) - set(alive):
            self.endings[k] = Ending(0.0, "it had ended before", exploded=False)
        self.active = tuple(alive)
        self._fence = Fence(phase.positions)
        self._dynamics = self._dynamics_of(self.active, self._fence)
        self._state = self._dynamics.at(phase, steps.pop())

    @staticmethod
    def _own_of(frame: Frame, like: Tensor | None) -> Tensor:
        assert like is not None
        if frame.state is None or frame.state.size != like.numel():
            raise UsageError("frame: it holds the state of another ensemble; resume with the one of its run")
        return torch.as_tensor(frame.state.copy()).to(like).reshape(like.shape)

    def run(
        self,
        n_steps: int,
        *,
        stride: int = 1,
        writers: Sequence[TrajectoryWriter] | None = None,
        on_report: Callable[[Report], None] | None = None,
    ) -> list[Trajectory]:
        """Go on for `n_steps` outer steps, recording the first state and every `stride`-th after it.

        Parameters
        ----------
        writers : one for each system
        on_report : see `advance`

        Returns
        -------
        the frames of this call, of each system; fewer of those that ended
        """
        frames: list[list[Frame]] = [[] for _ in range(self.n_systems)]

        def record(system: int, frame: Frame) -> None:
            frames[system].append(frame)
            if writers is not None:
                writers[system].append(frame)

        self.advance(n_steps, record, stride=stride, on_report=on_report)
        heads = [header(self.structure_of(k), self.provenance(k), self.layout(k)) for k in range(self.n_systems)]
        return [assemble(head, part) for head, part in zip(heads, frames, strict=True)]

    def advance(
        self,
        n_steps: int,
        on_frame: Callable[[int, Frame], None],
        *,
        stride: int = 1,
        first: bool = True,
        on_report: Callable[[Report], None] | None = None,
    ) -> None:
        """As `run`, but nothing is kept, and the first state is left out where `first` is false.

        Parameters
        ----------
        on_frame : takes number and frame of each system, after the next outer step has begun
        on_report : is called at once, without positions; it may `drop` systems

        Raises
        ------
        RunError
            if the potential fails on the batch, but on no system alone; and whatever the two callables raise.
        """
        if n_steps < 0 or stride < 1:
            raise UsageError(
                f"n_steps, stride: got {n_steps}, {stride}; give 0 or more steps and a stride of 1 or more"
            )
        waiting: list[FramesUnderway] = []
        try:
            for k in range(n_steps + 1):
                if k:
                    self._step()
                while waiting:
                    waiting.pop().hand_to(on_frame)
                if not self.active:
                    break
                if k % stride == 0 and (k or first):
                    report = self.report()
                    if report.systems:
                        waiting.append(FramesUnderway(report, self._state))
                    if on_report is not None:
                        on_report(report)
        finally:
            while waiting:
                waiting.pop().hand_to(on_frame)

    def report(self) -> Report:
        """The active systems now; those that have exploded leave the batch before.

        Raises
        ------
        UsageError
            if there is no active system.
        """
        if not self.active:
            raise UsageError("report: no system goes on; see endings")
        seen = self._dynamics.observe(self._state)
        phase = self._state.phase
        escaped = by_system(phase, (self._fence.last != phase.positions).double())
        # one copy, for each waits for the device
        *rows, away = torch.stack([*(seen[name] for name in _SCALARS), escaped]).cpu().numpy()
        values = dict(zip(_SCALARS, rows, strict=True))
        numbers = zip(values["kinetic_energy"], self.active, strict=True)
        temperature = np.array([self.temperature(float(kinetic), k) for kinetic, k in numbers])
        # written so that not-a-number counts as too hot
        sane = (temperature <= self.max_temperature_K) & (away == 0)
        for k in np.flatnonzero(~sane):
            self._end(self.active[k], f"temperature {temperature[k]:.3g} K")
        if not sane.all():
            self._keep([int(k) for k in np.flatnonzero(sane)])
        times = np.array([self.time_ps(k) for k in self.active])
        return Report(self.active, times, temperature[sane], *(values[name][sane] for name in _SCALARS))

    def drop(self, systems: Iterable[int], reason: str = "dropped") -> None:
        """Take systems out of the batch."""
        gone = set(systems)
        if not gone <= set(self.active):
            raise UsageError(f"systems: got {sorted(gone)}; give some of those that go on")
        for k in sorted(gone):
            self.endings[k] = Ending(self.time_ps(k), reason, exploded=False)
        self._keep([place for place, k in enumerate(self.active) if k not in gone])

    def _end(self, system: int, cause: str) -> None:
        time_ps = self.time_ps(system)
        reason = (
            f"system {system}: it exploded after {time_ps:.4g} ps ({cause}); shorten timestep_fs "
            f"({self.timesteps_fs[system]:g}) or n_inner ({self.n_inner}), or relax the structure first"
        )
        self.endings[system] = Ending(time_ps, reason, exploded=True)

    def _keep(self, places: Sequence[int]) -> None:
        """Go on with the active systems at these places alone."""
        self.active = tuple(self.active[place] for place in places)
        if self.active:
            self._fence, self._state = self._fenced(places), self._state.select(places)
            self._dynamics = self._dynamics_of(self.active, self._fence)

    def _fenced(self, places: Sequence[int]) -> Fence:
        assert self._state.phase.batch is not None
        return Fence(self._fence.last[self._state.phase.batch.atoms(places)])

    def _step(self) -> None:
        """One outer step; systems that cannot take it leave the batch, and it is taken again without them."""
        while self.active:
            before = self._fence.last
            try:
                self._state = self._dynamics.step(self._state)
            except (RunError, UsageError) as error:
                self._fence.last = before
                self._keep(self._those_that_can(error))
            else:
                return

    def _those_that_can(self, error: Exception) -> list[int]:
        """Places of the systems that can take the step alone."""
        able = []
        for place, system in enumerate(self.active):
            try:
                self._dynamics_of([system], self._fenced([place])).step(self._state.select([place]))
            except (RunError, UsageError) as own_error:
                self._end(system, str(own_error))
            else:
                able.append(place)
        if len(able) == len(self.active):
            raise RunError(f"run: the batch cannot be evaluated, but each of its systems can ({error})") from error
        return able
