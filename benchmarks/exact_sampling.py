"""The canonical distribution of a slow potential, without an error of the step, at the price of multiple time stepping.

Generalised hybrid Monte Carlo (A. M. Horowitz, Phys. Lett. B 268, 247 (1991), doi:10.1016/0370-2693(91)90812-5) whose
moves are r-RESPA: momenta are refreshed in part, some outer steps are tried, and taken with the probability
min(1, exp(−ΔH/kT)), H with the slow energy; else the momenta turn round.

A kick changes momenta by a function of positions alone, so a step keeps volumes and can be run backwards whatever the
forces are: a fast force that is the gradient of nothing, as a student's, leaves the distribution exact. It only costs
acceptance. What is lost is the dynamics: where the momenta turn round too often, atoms hardly leave their places. The
error of H does not grow from step to step, so longer trials are taken as often and turn the momenta round less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mlcalc import units
from mlcalc.engines.dynamics import Dynamics, State, Stepping
from mlcalc.engines.momenta import maxwell_boltzmann
from mlcalc.errors import RunError, UsageError
from mlcalc.integrators import noise
from mlcalc.integrators.phase import kinetic_energy
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame, Layout, TrajectoryWriter, read_trajectory

_LAYOUT = Layout(n_state=1)  # how many trials were taken


@dataclass(frozen=True)
class Sampling:
    """How to sample; friction refreshes momenta as a Langevin bath would. A trial is of n_outer outer steps."""

    temperature_K: float
    friction_per_ps: float
    inner_timestep_fs: float
    n_inner: int
    n_outer: int = 1
    seed: int = 0

    @property
    def outer_fs(self) -> float:
        return self.n_inner * self.inner_timestep_fs

    @property
    def trial_fs(self) -> float:
        return self.n_outer * self.outer_fs


def sample(potential: Potential, structure: Structure, settings: Sampling, n_trials: int, path: Path) -> float:
    """A frame for each trial, added to those that the file has; the share of trials that were taken."""
    stepping = Stepping("mts", settings.outer_fs, settings.n_inner)
    dynamics = Dynamics(potential, structure, stepping, skin=0.5)
    if path.exists() and not read_trajectory(path).n_frames:
        path.unlink()  # cut off before its first frame
    if path.exists():
        last = read_trajectory(path).frame(-1)
        positions, momenta = torch.tensor(last.positions), torch.tensor(last.momenta)
        phase = replace(dynamics.start(momenta), positions=positions)
        done, taken = round(1000 * last.time_ps / settings.trial_fs), int(last.state[0])
        writer = TrajectoryWriter.reopen(path)
    else:
        phase = dynamics.start(maxwell_boltzmann(structure, settings.temperature_K, settings.seed))
        done = taken = 0
        writer = TrajectoryWriter(path, structure, stepping.provenance(potential), _LAYOUT)
    with writer:
        state = dynamics.at(phase)
        for trial in range(done, n_trials):
            state, accepted = _trial(dynamics, state, settings, trial)
            taken += accepted
            writer.append(_frame(state, (trial + 1) * settings.trial_fs / 1000, taken))
    return taken / max(1, n_trials)


def _trial(dynamics: Dynamics, state: State, settings: Sampling, trial: int) -> tuple[State, bool]:
    """A refreshment and a trial."""
    phase, kT = state.phase, units.BOLTZMANN * settings.temperature_K
    keep = math.exp(-settings.friction_per_ps * settings.trial_fs / 1000)
    random = noise.normal(phase.momenta, settings.seed, trial)
    spread = math.sqrt((1 - keep**2) * kT) * phase.masses.sqrt()
    before = replace(state, phase=replace(phase, momenta=keep * phase.momenta + spread * random))
    turned = replace(before, phase=replace(before.phase, momenta=-before.phase.momenta))
    after = before
    try:
        for _ in range(settings.n_outer):
            after = dynamics.step(after)
    except (RunError, UsageError):  # atoms on top of one another: the energy there is infinite
        return turned, False
    change = (_energy(after) - _energy(before)) / kT
    accepted = bool(noise.generator(settings.seed, trial, noise.START).uniform() < math.exp(min(0.0, -change)))
    return (after, True) if accepted else (turned, False)


def _energy(state: State) -> float:
    assert state.evaluation.energy is not None
    return float(state.evaluation.energy.sum() + kinetic_energy(state.phase))


def _frame(state: State, time_ps: float, taken: int) -> Frame:
    phase, energy = state.phase, state.evaluation.energy
    assert energy is not None
    return Frame(
        time_ps=time_ps,
        positions=phase.positions.numpy().copy(),
        momenta=phase.momenta.numpy().copy(),
        potential_energy=float(energy.sum()),
        kinetic_energy=float(kinetic_energy(phase)),
        heat=0.0,
        power=math.nan,
        state=torch.tensor([float(taken)]).double().numpy(),
    )
