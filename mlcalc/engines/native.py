"""The native engine: velocity Verlet and r-RESPA, in any ensemble, on torch tensors, CPU or GPU, in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlcalc import units
from mlcalc.engines.dynamics import Dynamics, Stepping
from mlcalc.engines.momenta import maxwell_boltzmann as maxwell_boltzmann
from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import Evaluation
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.phase import Phase, kinetic_energy
from mlcalc.neighbours import NeighbourCache
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame, Layout, Trajectory, TrajectoryWriter, assemble, header


class Explosion(RunError):
    """A run that left physics; `.trajectory` holds the frames before."""

    def __init__(self, message: str, trajectory: Trajectory) -> None:
        super().__init__(message)
        self.trajectory = trajectory


class Exploded(RunError):
    """The same from `NativeEngine.advance`, which keeps no frames."""


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
        self.ensemble = Ensemble.of(ensemble)
        stepping = Stepping(forces, timestep_fs, n_inner, self.ensemble)
        if structure.n_systems != 1:
            raise UsageError(
                f"structure: got a batch of {structure.n_systems} systems; give one system, or use BatchEngine"
            )
        self.potential, self.forces, self.n_inner = potential, forces, n_inner
        self.timestep_fs, self.max_temperature_K = timestep_fs, max_temperature_K
        self.structure = structure.to(device=potential.device, dtype=torch.float64)
        self._dynamics = Dynamics(potential, self.structure, stepping, skin=skin)
        self._state = self._dynamics.at(self._dynamics.start(momenta))

    @property
    def phase(self) -> Phase:
        return self._state.phase

    @property
    def n_inner_steps(self) -> int:
        """Inner steps since the start."""
        return self._state.n_inner_steps

    @property
    def counts(self) -> Counter[str]:
        return self._dynamics.counts

    @property
    def neighbours(self) -> NeighbourCache:
        """The neighbour list, which is kept."""
        return self._dynamics.neighbours

    @property
    def time_ps(self) -> float:
        return self.n_inner_steps * self._inner_fs / 1000

    @property
    def heat(self) -> float:
        return float(self.phase.heat)

    @property
    def _inner_fs(self) -> float:
        return self.timestep_fs / self.n_inner

    @property
    def evaluation(self) -> Evaluation:
        """What the potential gave at the present positions."""
        return self._state.evaluation

    def resume(self, frame: Frame) -> None:
        """Go back to a recorded frame of a run with these settings: what follows is that run's, bit for bit."""
        self._state = self._dynamics.at(self._phase_of(frame), round(1000 * frame.time_ps / self._inner_fs))

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
        return replace(phase, own=torch.tensor(state).to(self.phase.own).reshape(self.phase.own.shape))

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
        self._state = self._dynamics.step(self._state)

    def frame(self) -> Frame:
        """The present state as a record keeps it."""
        scalars = {name: float(value) for name, value in self._dynamics.observe(self._state).items()}
        return Frame(
            time_ps=self.time_ps,
            positions=self.phase.positions.cpu().numpy().copy(),
            momenta=self.phase.momenta.cpu().numpy().copy(),
            cell=None if self.phase.cell is None else self.phase.cell.numpy().copy(),
            state=self._variables(),
            **scalars,
        )

    def _variables(self) -> np.ndarray | None:
        """The strain rate and the thermostat's own variables, or what there is of them."""
        parts = [part.flatten().cpu() for part in (self.phase.strain_rate, self.phase.own) if part is not None]
        return torch.cat(parts).numpy() if parts else None

    @property
    def layout(self) -> Layout:
        """What a trajectory's writer must know of the frames."""
        return Layout(_size(self._variables()), self.phase.cell is not None)

    def temperature(self, kinetic_energy: float) -> float:
        """K; kinetic energy in eV. The centre of mass counts only where a bath moves it."""
        return units.temperature_from_kinetic(kinetic_energy, max(1, self.ensemble.freedom(self.structure.n_atoms)))

    def _too_hot(self, frame: Frame) -> bool:
        # written so that not-a-number counts as too hot
        return not self.temperature(frame.kinetic_energy) <= self.max_temperature_K

    def _last_words(self, cause: str) -> str:
        reason = cause or f"temperature {self.temperature(float(kinetic_energy(self.phase))):.3g} K"
        return (
            f"run: it exploded after {self.time_ps:.4g} ps ({reason}); "
            f"shorten timestep_fs ({self.timestep_fs:g}) or n_inner ({self.n_inner}), or relax the structure first"
        )

    def provenance(self) -> dict[str, Any]:
        """How this engine integrates, as JSON types."""
        return self._dynamics.stepping.provenance(self.potential)

    def _trajectory(self, frames: list[Frame]) -> Trajectory:
        return assemble(header(self.structure, self.provenance(), self.layout), frames)


def _size(values: np.ndarray | None) -> int:
    return 0 if values is None else values.size
