"""The native engine: velocity Verlet and r-RESPA, in any ensemble, on torch tensors, CPU or GPU, in float64."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlcalc import units
from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted, required, split_forces
from mlcalc.integrators import velocity_verlet
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.phase import Phase, kinetic_energy
from mlcalc.integrators.respa import Forces
from mlcalc.neighbours import NeighbourCache
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame, Layout, Trajectory, TrajectoryWriter, assemble, header

_FORCES = {
    "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE,
    "direct": Wanted.DIRECT,
    "mts": JOINT,
}


class Explosion(RunError):
    """A run that left physics; `.trajectory` holds the frames before."""

    def __init__(self, message: str, trajectory: Trajectory) -> None:
        super().__init__(message)
        self.trajectory = trajectory


class Exploded(RunError):
    """The same from `NativeEngine.advance`, which keeps no frames."""


def maxwell_boltzmann(structure: Structure, temperature_K: float, seed: int) -> Tensor:
    """Momenta at a temperature: normal deviates with zero total momentum, scaled to the temperature exactly.

    Returns
    -------
    (n_atoms, 3), amu·Å/time, float64

    Raises
    ------
    UsageError
        for a temperature that is negative, not finite, or above 1e6 K.
    """
    if not 0 <= temperature_K <= 1e6:
        raise UsageError(f"temperature_K: got {temperature_K}; give a temperature from 0 to 1e6 K")
    if structure.n_systems != 1:
        raise UsageError(f"structure: got a batch of {structure.n_systems} systems; draw momenta one by one")
    masses = structure.masses.double().cpu()[:, None]
    generator = torch.Generator().manual_seed(seed)
    momenta = torch.randn(structure.n_atoms, 3, dtype=torch.float64, generator=generator) * masses.sqrt()
    momenta -= masses * momenta.sum(dim=0) / masses.sum()
    freedom = max(1, 3 * structure.n_atoms - 3)
    now = units.temperature_from_kinetic(float((momenta.square() / (2 * masses)).sum()), freedom)
    scale = math.sqrt(temperature_K / now) if now > 0 else 0.0
    return (momenta * scale).to(structure.device)


class NativeEngine:
    """Dynamics of one system with conservative, direct, or both forces, in an ensemble.

    Parameters
    ----------
    forces : "conservative", "direct", or "mts": direct inside, conservative − direct every `n_inner` steps
    timestep_fs : the outer step; the inner one is timestep_fs / n_inner
    momenta : (n_atoms, 3), amu·Å/time; zero if not given (see `maxwell_boltzmann`)
    ensemble : what is held constant, an `Ensemble` of a thermostat and a barostat; energy if not given
    skin : Å, of the neighbour list
    max_temperature_K : a run hotter than this has exploded

    Attributes
    ----------
    phase : positions and momenta now, float64, and what the ensemble adds to them
    time_ps : ps since the start
    heat : eV, what thermostat and barostat have brought in since then
    counts : how many "direct", "conservative", "joint" evaluations the dynamics made, and how many "frame" evaluations
        direct-only runs made for their records

    Raises
    ------
    UsageError
        for a timestep, n_inner, forces or momenta that cannot be used, elements that the potential does not know, or a
        barostat where there is no virial or no periodic cell.
    """

    def __init__(
        self,
        potential: Potential,
        structure: Structure,
        *,
        forces: str = "mts",
        timestep_fs: float,
        n_inner: int = 1,
        momenta: Tensor | None = None,
        ensemble: Ensemble | None = None,
        skin: float = 0.5,
        max_temperature_K: float = 1e5,
    ) -> None:
        _check_settings(forces, timestep_fs, n_inner)
        if structure.n_systems != 1:
            raise UsageError(f"structure: got a batch of {structure.n_systems} systems; give one system to an engine")
        self.ensemble = Ensemble.of(ensemble)
        self.ensemble.check_timestep(timestep_fs)
        self._wanted = _FORCES[forces]
        if self.ensemble.barostat is not None:
            _check_barostat(forces, structure)
            self._wanted |= Wanted.VIRIAL
        potential.check_wanted(self._wanted)
        potential.check_species(structure)
        self.potential, self.forces, self.n_inner = potential, forces, n_inner
        self.timestep_fs, self.max_temperature_K = timestep_fs, max_temperature_K
        self.structure = structure.to(device=potential.device, dtype=torch.float64)
        self.neighbours = NeighbourCache(potential.cutoff, skin)
        self.counts: Counter[str] = Counter()
        self.n_inner_steps = 0
        self.phase = self.ensemble.start(self._start(momenta), self.structure.cell[0])
        self._now: Evaluation = self._evaluate(self.phase, forces if forces != "mts" else "joint")

    @property
    def time_ps(self) -> float:
        return self.n_inner_steps * self._inner_fs / 1000

    @property
    def heat(self) -> float:
        return self.phase.heat

    @property
    def _inner_fs(self) -> float:
        return self.timestep_fs / self.n_inner

    @property
    def evaluation(self) -> Evaluation:
        """What the potential gave at the present positions."""
        return self._now

    def resume(self, frame: Frame) -> None:
        """Go back to a recorded frame of a run with these settings: what follows is that run's, bit for bit."""
        self.n_inner_steps = round(1000 * frame.time_ps / self._inner_fs)
        self.phase = self._phase_of(frame)
        self._now = self._evaluate(self.phase, self.forces if self.forces != "mts" else "joint")

    def _phase_of(self, frame: Frame) -> Phase:
        fits = (_size(frame.state), frame.cell is not None) == (self.layout.n_state, self.layout.moving_cell)
        if not fits:
            raise UsageError("frame: it holds the state of another ensemble; resume with the one of its run")

        def tensor(values: Any) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=self.structure.device)

        phase = replace(self.phase, positions=tensor(frame.positions), momenta=tensor(frame.momenta), heat=frame.heat)
        state = frame.state
        if frame.cell is not None and state is not None:
            rate, state = torch.tensor(state[:9]).reshape(3, 3), state[9:]
            phase = replace(phase, cell=torch.tensor(frame.cell), strain_rate=rate)
        if self.phase.own is None or state is None:
            return phase
        return replace(phase, own=torch.tensor(state).to(self.phase.own))

    def _start(self, momenta: Tensor | None) -> Phase:
        positions = self.structure.positions
        if momenta is None:
            momenta = torch.zeros_like(positions)
        if momenta.shape != positions.shape or not bool(torch.isfinite(momenta).all()):
            raise UsageError(
                f"momenta: got shape {tuple(momenta.shape)}; give finite numbers of shape {tuple(positions.shape)}"
            )
        masses, numbers = self.structure.masses[:, None], self.structure.numbers
        return Phase(positions, momenta.to(positions), masses, numbers=numbers)

    def _evaluate(self, phase: Phase, kind: str) -> Evaluation:
        self.counts[kind] += 1
        structure = self.structure.at(phase.positions, None if phase.cell is None else phase.cell[None])
        wanted = {"direct": Wanted.DIRECT, "frame": JOINT}.get(kind, self._wanted)
        return self.potential.evaluate(structure, self.neighbours(structure), wanted & self.potential.provides)

    def run(
        self,
        n_steps: int,
        *,
        stride: int = 1,
        writer: TrajectoryWriter | None = None,
        on_frame: Callable[[Frame], None] | None = None,
    ) -> Trajectory:
        """Go on for `n_steps` outer steps, recording the first state and every `stride`-th after it.

        Returns
        -------
        the frames of this call

        Raises
        ------
        Explosion
            if a position is not finite or the temperature passes `max_temperature_K`; frames so far are kept.
        """
        frames: list[Frame] = []

        def record(frame: Frame) -> None:
            frames.append(frame)
            if writer is not None:
                writer.append(frame)
            if on_frame is not None:
                on_frame(frame)

        try:
            self.advance(n_steps, record, stride=stride)
        except Exploded as error:
            raise Explosion(str(error), self._trajectory(frames)) from error.__cause__
        return self._trajectory(frames)

    def advance(self, n_steps: int, on_frame: Callable[[Frame], None], *, stride: int = 1, first: bool = True) -> None:
        """As `run`, but nothing is kept, and the first state is left out where `first` is false.

        Raises
        ------
        RunError
            as `run`; and whatever `on_frame` raises.
        """
        if n_steps < 0 or stride < 1:
            raise UsageError(
                f"n_steps, stride: got {n_steps}, {stride}; give 0 or more steps and a stride of 1 or more"
            )
        if first:
            on_frame(self._sane_frame())
        for k in range(1, n_steps + 1):
            try:
                self._step()
            except (RunError, UsageError) as error:
                raise Exploded(self._last_words(str(error))) from error
            if k % stride == 0:
                on_frame(self._sane_frame())
            elif k % 64 == 0 and not bool(torch.isfinite(self.phase.positions.sum())):
                raise Exploded(self._last_words(""))

    def _sane_frame(self) -> Frame:
        frame = self.frame()
        if self._too_hot(frame):
            raise Exploded(self._last_words(""))
        return frame

    def _step(self) -> None:
        timestep = units.from_femtoseconds(self.timestep_fs)
        if self.ensemble.thermostat is None and self.forces != "mts":
            self.phase, _ = velocity_verlet.step(self.phase, self._split(self._now).fast, self._one, timestep)
        else:
            self.phase, _ = self.ensemble.step(
                self.phase, self._split(self._now), self._direct, self._both, timestep, self.n_inner, self.n_inner_steps
            )
        self.n_inner_steps += self.n_inner

    def _split(self, evaluation: Evaluation) -> Forces:
        """What acts outside and inside; a single force acts inside."""
        virial = None if evaluation.virial is None else evaluation.virial[0]
        if self.forces == "mts":
            return Forces(*split_forces(evaluation), virial)
        force = required(evaluation, f"{self.forces}_force")
        return Forces(torch.zeros_like(force), force, virial)

    def _direct(self, phase: Phase) -> Tensor:
        return required(self._evaluate(phase, "direct"), "direct_force")

    def _both(self, phase: Phase) -> Forces:
        self._now = self._evaluate(phase, "joint" if self.forces == "mts" else self.forces)
        return self._split(self._now)

    def _one(self, positions: Tensor) -> Tensor:
        return self._both(replace(self.phase, positions=positions)).fast

    def frame(self) -> Frame:
        """The present state as a record keeps it."""
        now = self._now
        if self.forces == "direct":
            # the dynamics needs no energy; only a record does
            now = self._evaluate(self.phase, "frame")
        momenta = self.phase.momenta
        velocities = momenta / self.phase.masses
        energy = math.nan if now.energy is None else float(now.energy[0])
        power = math.nan
        if now.direct_force is not None and now.conservative_force is not None:
            power = float((velocities * (now.direct_force - now.conservative_force)).sum()) * units.PICOSECOND
        return Frame(
            time_ps=self.time_ps,
            positions=self.phase.positions.cpu().numpy().copy(),
            momenta=momenta.cpu().numpy().copy(),
            potential_energy=energy,
            kinetic_energy=kinetic_energy(self.phase),
            heat=self.heat,
            power=power,
            cell=None if self.phase.cell is None else self.phase.cell.numpy().copy(),
            state=self._state(),
        )

    def _state(self) -> np.ndarray | None:
        """The strain rate and the thermostat's own variables, or what there is of them."""
        parts = [part.flatten().cpu() for part in (self.phase.strain_rate, self.phase.own) if part is not None]
        return torch.cat(parts).numpy() if parts else None

    @property
    def layout(self) -> Layout:
        """What a trajectory's writer must know of the frames."""
        return Layout(_size(self._state()), self.phase.cell is not None)

    def temperature(self, kinetic_energy: float) -> float:
        """K; kinetic energy in eV. The centre of mass counts only where a bath moves it."""
        return units.temperature_from_kinetic(kinetic_energy, max(1, self.ensemble.freedom(self.structure.n_atoms)))

    def _too_hot(self, frame: Frame) -> bool:
        # written so that not-a-number counts as too hot
        return not self.temperature(frame.kinetic_energy) <= self.max_temperature_K

    def _last_words(self, cause: str) -> str:
        reason = cause or f"temperature {self.temperature(kinetic_energy(self.phase)):.3g} K"
        return (
            f"run: it exploded after {self.time_ps:.4g} ps ({reason}); "
            f"shorten timestep_fs ({self.timestep_fs:g}) or n_inner ({self.n_inner}), or relax the structure first"
        )

    def provenance(self) -> dict[str, Any]:
        """How this engine integrates, as JSON types."""
        thermostat, barostat = self.ensemble.thermostat, self.ensemble.barostat
        made = {
            "potential": self.potential.name,
            "fingerprint": self.potential.fingerprint,
            "integrator": self._integrator(),
            "forces": self.forces,
            "timestep_fs": self.timestep_fs,
            "n_inner": self.n_inner,
            "thermostat": None if thermostat is None else asdict(thermostat),
        }
        return made if barostat is None else {**made, "barostat": asdict(barostat)}

    def _integrator(self) -> str:
        thermostat = self.ensemble.thermostat
        if thermostat is None:
            return "r-RESPA" if self.forces == "mts" else "velocity Verlet"
        name = "BAOAB" if isinstance(thermostat, Langevin) else type(thermostat).__name__
        if self.ensemble.barostat is not None:
            name += " with a Langevin piston"
        return name if self.n_inner == 1 else f"{name} in r-RESPA"

    def _trajectory(self, frames: list[Frame]) -> Trajectory:
        return assemble(header(self.structure, self.provenance(), self.layout), frames)


def _size(values: np.ndarray | None) -> int:
    return 0 if values is None else values.size


def _check_barostat(forces: str, structure: Structure) -> None:
    if forces == "direct":
        raise UsageError("barostat: direct forces have no virial; use forces='mts' or 'conservative'")
    if not bool(structure.periodic.all()):
        raise UsageError("barostat: the structure is not periodic in all directions; give it a cell, or no barostat")


def _check_settings(forces: str, timestep_fs: float, n_inner: int) -> None:
    if forces not in _FORCES:
        raise UsageError(f"forces: got {forces!r}; choose one of {', '.join(_FORCES)}")
    if not (math.isfinite(timestep_fs) and timestep_fs > 0):
        raise UsageError(f"timestep_fs: got {timestep_fs}; give a finite time above 0 fs")
    if isinstance(n_inner, bool) or not isinstance(n_inner, int) or n_inner < 1:
        raise UsageError(f"n_inner: got {n_inner!r}; give a whole number of inner steps, 1 or more")
    if forces != "mts" and n_inner != 1:
        raise UsageError(f"n_inner: got {n_inner} with forces={forces!r}; only forces='mts' has inner steps")
