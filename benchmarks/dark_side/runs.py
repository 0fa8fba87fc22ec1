"""The simulations: what each row of the page needs, and a queue that lets all of them grow together."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ase
import ase.io

import mlcalc
from dark_side.amplified import Amplified
from dark_side.learning import LATEST
from mlcalc.errors import RunError
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.gle import GLE
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.thermostat import Thermostat
from mlcalc.potentials.potential import Potential
from mlcalc.simulation.run import SimulationSettings, simulate
from mlcalc.trajectory import read_trajectory

TEMPERATURE_K = 300.0
INNER_FS, FRAME_FS = 0.5, 4.0  # frames reach up to 4170 cm⁻¹
ROUNDS_PS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0)
EQUILIBRATION_PS = 2.0

BUSSI = Bussi(TEMPERATURE_K, 0.1, seed=1)
#: Friction of 25/ps on vibrations, of 25 − 35²/50 = 0.5/ps on diffusion
SMOOTH_GLE = GLE(TEMPERATURE_K, ((25.0, 35.0), (35.0, 50.0)), seed=1)


@dataclass(frozen=True)
class Run:
    """One simulation of 64 molecules of water from the common start.

    Attributes
    ----------
    name : of its files
    forces, n_inner : as of `SimulationSettings`; the inner step is 0.5 fs
    thermostat : None at constant energy
    target_ps : how long it becomes
    strength : of `Amplified`; None is the potential as it is
    learnt : with the head of `learning.learn` instead of the bundled potential
    """

    name: str
    forces: str
    target_ps: float
    thermostat: Thermostat | None = None
    n_inner: int = 1
    strength: float | None = None
    learnt: bool = False

    @property
    def compared(self) -> bool:
        """Whether its diffusion and its distributions stand beside those of other runs."""
        return self in COMPARED

    @property
    def settled_ps(self) -> float:
        """ps, left out of averages: a bath and a force that is no gradient take a while to agree on a temperature."""
        return 0.0 if self.thermostat is None else 0.5

    def settings(self, length_ps: float) -> SimulationSettings:
        outer = INNER_FS * self.n_inner
        return SimulationSettings(
            steps=round(1000 * length_ps / outer),
            forces=self.forces,
            timestep_fs=outer,
            n_inner=self.n_inner,
            stride=max(1, round(FRAME_FS / outer)),
            ensemble=Ensemble(self.thermostat),
            temperature_K=TEMPERATURE_K,
            seed=1,
            on_drift="continue",
        )


def _langevin(time_fs: float) -> Langevin:
    return Langevin(TEMPERATURE_K, 1000 / time_fs, seed=1)


COMPARED = (
    Run("bussi-direct", "direct", 25, BUSSI),
    Run("bussi-conservative", "conservative", 25, BUSSI),
    Run("bussi-mts8", "mts", 25, BUSSI, n_inner=8),
    Run("langevin10-direct", "direct", 25, _langevin(10)),
    Run("langevin100-direct", "direct", 25, _langevin(100)),
)
RUNS = (
    *COMPARED,
    Run("nve-direct", "direct", 20),
    Run("nve-mts8", "mts", 25, n_inner=8),
    Run("nve-mts16", "mts", 2, n_inner=16),
    Run("nve-conservative", "conservative", 15),
    Run("nve-forces", "direct", 1, learnt=True),
    Run("bussi-forces", "direct", 15, BUSSI, learnt=True),
    Run("gle-forces", "direct", 4, SMOOTH_GLE, learnt=True),
    *(Run(f"nve-strength{s}", "direct", 0.5, strength=s) for s in (3, 10, 30)),
    *(Run(f"bussi-strength{s}", "direct", 4, BUSSI, strength=s) for s in (10, 30)),
    *(Run(f"gle-strength{s}", "direct", 4, SMOOTH_GLE, strength=s) for s in (1, 10, 30)),
)


def run_all(potential: Potential, scratch: Path, names: tuple[str, ...], most_ps: float) -> None:
    """Every run up to the first round's length, then every one up to the second's, and so on; goes on where it was."""
    start = common_start(potential, scratch)
    ended: set[str] = set()
    for round_ps in ROUNDS_PS:
        for run in RUNS:
            if run.name not in ended and (not names or run.name in names):
                length = min(round_ps, run.target_ps, most_ps)
                if not _grow(run, potential, start, scratch, length):
                    ended.add(run.name)


def _grow(run: Run, potential: Potential, start: ase.Atoms, scratch: Path, length_ps: float) -> bool:
    """Whether it can go on."""
    used = potential if run.strength is None else Amplified(potential, run.strength)
    if run.learnt:
        checkpoint = scratch / "learning" / LATEST
        if not checkpoint.exists():
            say(f"{run.name}: waits for {checkpoint}, which the step learn writes")
            return False
        used = mlcalc.load(checkpoint)
    path, began = scratch / f"{run.name}.traj", time.perf_counter()
    if path.exists() and reached(path) >= length_ps - 1e-9:
        return True
    try:
        simulate(used, start, run.settings(length_ps), path, restart=True)
    except RunError as error:
        say(f"{run.name}: {error}")
        return False
    say(f"{run.name}: {length_ps:g} ps, {time.perf_counter() - began:.0f} s")
    return True


def reached(path: Path) -> float:
    """ps, the last whole frame of a trajectory."""
    times = read_trajectory(path).time_ps
    return float(times[-1]) if len(times) else 0.0


def common_start(potential: Potential, scratch: Path) -> ase.Atoms:
    """The bundled box after 2 ps of MTS in a Langevin bath; each run draws its momenta anew."""
    path = scratch / "start.extxyz"
    if not path.exists():
        atoms = ase.io.read(mlcalc.__path__[0] + "/potentials/pretrained/water-64.xyz")
        bath = Run("start", "mts", EQUILIBRATION_PS, Langevin(TEMPERATURE_K, 5.0), n_inner=8)
        say("equilibrating")
        simulate(potential, atoms, bath.settings(EQUILIBRATION_PS), scratch / "start.traj", restart=True)
        atoms.positions = read_trajectory(scratch / "start.traj").positions[-1]
        ase.io.write(path, atoms)
    read: ase.Atoms = ase.io.read(path)
    return read


def say(what: str) -> None:
    """A line of progress, with the time."""
    print(time.strftime("%H:%M:%S"), what, file=sys.stderr, flush=True)
