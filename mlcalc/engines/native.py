"""The native engine: velocity Verlet and r-RESPA on torch tensors, CPU or GPU, integrated in float64."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from mlcalc import units
from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted, required, split_forces
from mlcalc.integrators import langevin, respa, velocity_verlet
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.phase import Phase
from mlcalc.neighbours import NeighbourCache
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame, Trajectory, TrajectoryWriter, assemble, header

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
    """Dynamics of one system with conservative, direct, or both forces, at constant energy or in a bath.

    Parameters
    ----------
    forces : "conservative", "direct", or "mts": direct inside, conservative − direct every `n_inner` steps
    timestep_fs : the outer step; the inner one is timestep_fs / n_inner
    momenta : (n_atoms, 3), amu·Å/time; zero if not given (see `maxwell_boltzmann`)
    thermostat : a `Langevin` bath; None for constant energy
    skin : Å, of the neighbour list
    max_temperature_K : a run hotter than this has exploded

    Attributes
    ----------
    phase : positions and momenta now, float64
    time_ps : ps since the start
    heat : eV, what the thermostat has brought in since then
    counts : how many "direct", "conservative", "joint" evaluations the dynamics made, and how many "frame" evaluations
        direct-only runs made for their records

    Raises
    ------
    UsageError
        for a timestep, n_inner, forces or momenta that cannot be used, or elements that the potential does not know.
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
        thermostat: Langevin | None = None,
        skin: float = 0.5,
        max_temperature_K: float = 1e5,
    ) -> None:
        _check_settings(forces, timestep_fs, n_inner)
        if structure.n_systems != 1:
            raise UsageError(f"structure: got a batch of {structure.n_systems} systems; give one system to an engine")
        potential.check_wanted(_FORCES[forces])
        potential.check_species(structure)
        self.potential, self.forces, self.n_inner = potential, forces, n_inner
        self.timestep_fs, self.max_temperature_K, self.thermostat = timestep_fs, max_temperature_K, thermostat
        self.structure = structure.to(device=potential.device, dtype=torch.float64)
        self.neighbours = NeighbourCache(potential.cutoff, skin)
        self.counts: Counter[str] = Counter()
        self.n_inner_steps, self.heat = 0, 0.0
        self.phase = self._start(momenta)
        self._now: Evaluation = self._evaluate(self.phase.positions, forces if forces != "mts" else "joint")

    @property
    def time_ps(self) -> float:
        return self.n_inner_steps * self._inner_fs / 1000

    @property
    def _inner_fs(self) -> float:
        return self.timestep_fs / self.n_inner

    @property
    def evaluation(self) -> Evaluation:
        """What the potential gave at the present positions."""
        return self._now

    def resume(self, frame: Frame) -> None:
        """Go back to a recorded frame of a run with these settings: what follows is that run's, bit for bit."""
        positions, momenta = (
            torch.tensor(part, device=self.structure.device) for part in (frame.positions, frame.momenta)
        )
        self.phase = Phase(positions, momenta, self.phase.masses)
        self.n_inner_steps, self.heat = round(1000 * frame.time_ps / self._inner_fs), frame.heat
        self._now = self._evaluate(positions, self.forces if self.forces != "mts" else "joint")

    def _start(self, momenta: Tensor | None) -> Phase:
        positions = self.structure.positions
        if momenta is None:
            momenta = torch.zeros_like(positions)
        if momenta.shape != positions.shape or not bool(torch.isfinite(momenta).all()):
            raise UsageError(
                f"momenta: got shape {tuple(momenta.shape)}; give finite numbers of shape {tuple(positions.shape)}"
            )
        return Phase(positions, momenta.to(positions), self.structure.masses[:, None])

    def _evaluate(self, positions: Tensor, kind: str) -> Evaluation:
        self.counts[kind] += 1
        structure = self.structure.at(positions)
        wanted = JOINT if kind in ("joint", "frame") else _FORCES[kind]
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
        if self.thermostat is not None:
            self.phase, _, heat = langevin.step(
                self.phase, self._split(self._now), self._direct, self._both, timestep, self.n_inner, self._bathe
            )
            self.heat += heat
        elif self.forces == "mts":
            self.phase, _ = respa.step(
                self.phase, self._split(self._now), self._direct, self._both, timestep, self.n_inner
            )
        else:
            self.phase, _ = velocity_verlet.step(self.phase, self._split(self._now).fast, self._one, timestep)
        self.n_inner_steps += self.n_inner

    def _bathe(self, phase: Phase, k: int) -> tuple[Phase, float]:
        assert self.thermostat is not None
        inner = units.from_femtoseconds(self._inner_fs)
        return langevin.bathe(phase, self.thermostat, inner, self.n_inner_steps + k)

    def _split(self, evaluation: Evaluation) -> respa.Forces:
        """What acts outside and inside; a single force acts inside."""
        if self.forces == "mts":
            return respa.Forces(*split_forces(evaluation))
        force = required(evaluation, f"{self.forces}_force")
        return respa.Forces(torch.zeros_like(force), force)

    def _direct(self, positions: Tensor) -> Tensor:
        return required(self._evaluate(positions, "direct"), "direct_force")

    def _both(self, positions: Tensor) -> respa.Forces:
        self._now = self._evaluate(positions, "joint" if self.forces == "mts" else self.forces)
        return self._split(self._now)

    def _one(self, positions: Tensor) -> Tensor:
        return self._both(positions).fast

    def frame(self) -> Frame:
        """The present state as a record keeps it."""
        now = self._now
        if self.forces == "direct":
            # the dynamics needs no energy; only a record does
            now = self._evaluate(self.phase.positions, "frame")
        momenta = self.phase.momenta
        velocities = momenta / self.phase.masses
        kinetic = float((momenta * velocities).sum() / 2)
        energy = math.nan if now.energy is None else float(now.energy[0])
        power = math.nan
        if now.direct_force is not None and now.conservative_force is not None:
            power = float((velocities * (now.direct_force - now.conservative_force)).sum()) * units.PICOSECOND
        return Frame(
            time_ps=self.time_ps,
            positions=self.phase.positions.cpu().numpy().copy(),
            momenta=momenta.cpu().numpy().copy(),
            potential_energy=energy,
            kinetic_energy=kinetic,
            heat=self.heat,
            power=power,
        )

    def temperature(self, kinetic_energy: float) -> float:
        """K; kinetic energy in eV. The centre of mass counts only where a bath moves it."""
        freedom = 3 * self.structure.n_atoms - (3 if self.thermostat is None else 0)
        return units.temperature_from_kinetic(kinetic_energy, max(1, freedom))

    def _too_hot(self, frame: Frame) -> bool:
        # written so that not-a-number counts as too hot
        return not self.temperature(frame.kinetic_energy) <= self.max_temperature_K

    def _last_words(self, cause: str) -> str:
        kinetic = float((self.phase.momenta.square() / (2 * self.phase.masses)).sum())
        reason = cause or f"temperature {self.temperature(kinetic):.3g} K"
        return (
            f"run: it exploded after {self.time_ps:.4g} ps ({reason}); "
            f"shorten timestep_fs ({self.timestep_fs:g}) or n_inner ({self.n_inner}), or relax the structure first"
        )

    def provenance(self) -> dict[str, Any]:
        """How this engine integrates, as JSON types."""
        integrator = "r-RESPA" if self.forces == "mts" else "velocity Verlet"
        if self.thermostat is not None:
            integrator = "BAOAB" if self.n_inner == 1 else "BAOAB in r-RESPA"
        return {
            "potential": self.potential.name,
            "fingerprint": self.potential.fingerprint,
            "integrator": integrator,
            "forces": self.forces,
            "timestep_fs": self.timestep_fs,
            "n_inner": self.n_inner,
            "thermostat": None if self.thermostat is None else asdict(self.thermostat),
        }

    def _trajectory(self, frames: list[Frame]) -> Trajectory:
        return assemble(header(self.structure, self.provenance()), frames)


def _check_settings(forces: str, timestep_fs: float, n_inner: int) -> None:
    if forces not in _FORCES:
        raise UsageError(f"forces: got {forces!r}; choose one of {', '.join(_FORCES)}")
    if not (math.isfinite(timestep_fs) and timestep_fs > 0):
        raise UsageError(f"timestep_fs: got {timestep_fs}; give a finite time above 0 fs")
    if isinstance(n_inner, bool) or not isinstance(n_inner, int) or n_inner < 1:
        raise UsageError(f"n_inner: got {n_inner!r}; give a whole number of inner steps, 1 or more")
    if forces != "mts" and n_inner != 1:
        raise UsageError(f"n_inner: got {n_inner} with forces={forces!r}; only forces='mts' has inner steps")
