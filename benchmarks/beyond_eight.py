"""Outer steps longer than 4 fs in water, by the hydrogen mass, friction on hydrogen, or SIN(R): docs/beyond_eight.md.

    mlcalc export water water.pt2                           # the same network, faster; not needed
    python benchmarks/beyond_eight.py run --potential water.pt2 --scratch RUNS    # goes on where it was cut off
    python benchmarks/beyond_eight.py keep --potential water.pt2 --scratch RUNS   # series and costs
    python benchmarks/beyond_eight.py page

Runs go in rounds, so that each has something after the first. `--reference FILE` takes a conservative trajectory that
is there already.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ase
import ase.io
import numpy as np
import torch
from dark_side.amplified import Amplified

import mlcalc
from mlcalc import units
from mlcalc.diagnosis import radial_distribution
from mlcalc.diagnostics import equipartition, nve_drift
from mlcalc.errors import RunError, TooShortToTell
from mlcalc.evaluation import JOINT, Wanted
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.sin_r import SINR
from mlcalc.masses import repartition_hydrogen_mass
from mlcalc.memory import keep_freed_memory
from mlcalc.simulation.run import SimulationSettings, simulate
from mlcalc.structure import Structure
from mlcalc.trajectory import Trajectory, read_trajectory

KELVIN, FRAME_FS, SKIP_PS, LAG_PS = 300.0, 8.0, 0.2, 0.4
KEPT = Path(__file__).parent / "results" / "beyond_eight.npz"
PAIRS = ("H-O", "O-O")


@dataclass(frozen=True)
class Cell:
    """One run: a method, its inner step, its number of inner steps, and how much worse than it is the fast force is."""

    method: str
    inner_fs: float
    n_inner: int
    strength: float = 1.0

    @property
    def name(self) -> str:
        worse = "" if self.strength == 1 else f"-times-{self.strength:g}"
        return f"{self.method}-{self.inner_fs:g}-{self.n_inner}{worse}"

    @property
    def mass(self) -> float | None:
        return 3.0 if self.method.startswith("hmr") else None

    @property
    def regulation(self) -> float:
        return 4.0 if self.method == "sin-r-4" else 1.0

    @property
    def ensemble(self) -> Ensemble:
        if "sin-r" in self.method:
            return Ensemble(SINR(KELVIN, regulation=self.regulation, seed=1))
        if self.method.endswith("langevin"):
            return Ensemble(Langevin(KELVIN, 1.0, seed=1, hydrogen_friction_per_ps=20.0))
        return Ensemble(Bussi(KELVIN, 0.1, seed=1))


REFERENCE = Cell("conservative", 0.5, 1)
CELLS = (
    *(Cell("bussi", 0.5, n) for n in (8, 12, 16, 20, 32)),
    *(Cell("hmr", 1.0, n) for n in (4, 8, 16)),
    *(Cell("langevin", 0.5, n) for n in (12, 16, 20)),
    Cell("hmr-langevin", 1.0, 16),
    *(Cell("sin-r", 0.5, n) for n in (16, 20, 32)),
    Cell("sin-r-4", 0.5, 20),
    Cell("hmr-sin-r", 1.0, 16),
    *(Cell("bussi", 0.5, n, 10.0) for n in (8, 16)),
    Cell("hmr", 1.0, 8, 10.0),
    Cell("langevin", 0.5, 16, 10.0),
    Cell("sin-r", 0.5, 16, 10.0),
)


def run(given: argparse.Namespace) -> None:
    potential = mlcalc.load(given.potential)
    atoms = mlcalc.water_box() if given.start is None else ase.io.read(given.start)
    rounds = np.arange(given.round_ps, given.picoseconds + 1e-9, given.round_ps)
    cells = [cell for cell in CELLS if not given.cells or cell.name in given.cells]
    for end_ps in rounds:
        for cell in cells if given.reference else (REFERENCE, *cells):
            began = time.perf_counter()
            said = advance(cell, potential, atoms, given.scratch, float(end_ps))
            print(f"{cell.name}: {said}, {time.perf_counter() - began:.0f} s", flush=True)


def advance(cell: Cell, potential, atoms: ase.Atoms, scratch: Path, end_ps: float) -> str:  # type: ignore[no-untyped-def]
    """To `end_ps`, from where it is; a run that has exploded stays where it is."""
    path = scratch / f"{cell.name}.trajectory"
    last_words = path.with_suffix(".exploded")
    if last_words.exists():
        return last_words.read_text()
    outer_fs = cell.inner_fs * cell.n_inner
    stride = max(1, round(FRAME_FS / outer_fs))
    settings = SimulationSettings(
        steps=stride * round(1000 * end_ps / (stride * outer_fs)),
        stride=stride, timestep_fs=outer_fs, n_inner=cell.n_inner,
        forces="conservative" if cell is REFERENCE else "mts", ensemble=cell.ensemble, temperature_K=KELVIN, seed=1,
        max_energy_change_meV=1e9, on_drift="continue",
    )  # fmt: skip
    potential = potential if cell.strength == 1 else Amplified(potential, cell.strength)
    start = atoms if cell.mass is None else repartition_hydrogen_mass(atoms, cell.mass)
    try:
        outcome = simulate(potential, start, settings, path, restart=True)
    except RunError as error:
        last_words.write_text(str(error))
        return str(error)
    return f"{outcome.time_ps:.4g} ps"


def keep(given: argparse.Namespace) -> None:
    """Reduce trajectories to the series that the page is made of."""
    kept: dict[str, np.ndarray] = {}
    paths = {cell.name: given.scratch / f"{cell.name}.trajectory" for cell in (REFERENCE, *CELLS)}
    if given.reference:
        paths[REFERENCE.name] = given.reference
    for cell in (REFERENCE, *CELLS):
        if not paths[cell.name].exists():
            continue
        for name, values in reduced(cell, read_trajectory(paths[cell.name])).items():
            kept[f"{cell.name}/{name}"] = values
        last_words = paths[cell.name].with_suffix(".exploded")
        kept[f"{cell.name}/exploded"] = np.array(last_words.read_text() if last_words.exists() else "")
    kept["costs"] = costs(mlcalc.load(given.potential), given.rounds)
    np.savez_compressed(given.results, allow_pickle=False, **kept)
    print(f"{given.results}: {len(kept)} series; direct, conservative, joint, SIN(R)'s bath: {kept['costs']} ms")


def reduced(cell: Cell, record: Trajectory) -> dict[str, np.ndarray]:
    """Series over the frames, and what their positions say; what comes before SKIP_PS is left out."""
    used = record.time_ps >= SKIP_PS - 1e-9
    made = {"reached_ps": record.time_ps[-1:]}
    if used.sum() < 8:
        return made
    time_ps, positions, masses = record.time_ps[used], record.positions[used], record.masses
    elements = [{1: "H", 8: "O"}[int(number)] for number in record.numbers]
    velocities = record.momenta[used] / masses[None, :, None]
    scale = (1 + cell.regulation) / cell.regulation if "sin-r" in cell.method else 1.0
    series = _estimate(lambda: equipartition.measure(velocities, masses, elements)).series
    made |= {f"T_{name}": scale * series[:, k] for k, name in enumerate(dict.fromkeys(elements))}
    bonds = bond_lengths(record, positions)
    cells = np.broadcast_to(record.cell, (len(positions), 3, 3))
    made |= {"time_ps": time_ps, "potential": record.potential_energy[used], "conserved": record.conserved[used]}
    made |= {"bond": bonds.mean(axis=1), "spread": bonds.std(axis=1)}
    for found in _estimate(lambda: radial_distribution.measure(positions, cells, record.periodic, elements)):
        pair = "-".join(sorted(found.pair.split("-")))
        made |= {f"r_{pair}": found.r, f"g_{pair}": found.g, f"error_{pair}": found.standard_error}
    made["moved"] = displacements(record, positions, time_ps)
    drift = _estimate(lambda: nve_drift.measure(time_ps, record.conserved[used], len(masses), KELVIN))
    made["balance"] = np.array([drift.slope.value, drift.slope.standard_error])
    made["pumped"] = np.array([drift.foretold.value, drift.foretold.standard_error])
    return {
        name: np.asarray(values, dtype=np.float32 if name[:2] in ("g_", "er") else float)
        for name, values in made.items()
    }


def displacements(record: Trajectory, positions: np.ndarray, time_ps: np.ndarray) -> np.ndarray:
    """(n_oxygens,), Å², mean square of what each moves in LAG_PS; runs are too short for diffusion."""
    lag = round(LAG_PS / (time_ps[1] - time_ps[0]))
    weights = record.masses / record.masses.sum()
    relative = positions - np.einsum("i,fix->fx", weights, positions)[:, None, :]
    oxygens = relative[:, record.numbers == 8]
    return np.square(oxygens[lag:] - oxygens[:-lag]).sum(axis=2).mean(axis=0) if len(positions) > lag else np.empty(0)


def bond_lengths(record: Trajectory, positions: np.ndarray) -> np.ndarray:
    """(n_frames, n_hydrogens), Å, each to the oxygen that was nearest at first."""
    hydrogens, oxygens = (np.flatnonzero(record.numbers == number) for number in (1, 8))

    def distances(frame: np.ndarray, to: np.ndarray) -> np.ndarray:
        away = frame[..., hydrogens, None, :] - frame[..., to, :]
        fractions = away @ np.linalg.inv(record.cell)
        return np.linalg.norm((fractions - np.round(fractions)) @ record.cell, axis=-1)

    owners = oxygens[distances(positions[0], np.tile(oxygens, (len(hydrogens), 1))).argmin(axis=1)]
    return np.array([distances(frame, owners[:, None])[:, 0] for frame in positions])


def _estimate(measure):  # type: ignore[no-untyped-def]
    try:
        return measure()
    except TooShortToTell as short:
        return short.estimate


def costs(potential, rounds: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(4,), ms, the fastest of each, taken in turn: direct, conservative, joint evaluation; SIN(R) beside one."""
    structure = Structure.from_ase(mlcalc.water_box())
    neighbours = mlcalc.neighbour_list(structure, potential.cutoff, skin=0.5)
    bath, inner = SINR(KELVIN), units.from_femtoseconds(0.5)
    momenta = mlcalc.maxwell_boltzmann(structure, KELVIN, seed=1)
    phase = mlcalc.NativeEngine(
        potential, structure, forces="direct", timestep_fs=0.5, ensemble=Ensemble(bath), momenta=momenta
    ).phase
    kinds = [
        lambda wanted=wanted: potential.evaluate(structure, neighbours, wanted)
        for wanted in (Wanted.DIRECT, Wanted.ENERGY | Wanted.CONSERVATIVE, JOINT)
    ]
    kinds.append(lambda: bath.drift(bath.act(bath.drift(phase, inner / 2), inner, 1), inner / 2))
    took = np.empty((rounds, len(kinds)))
    for round_ in took:
        for k, kind in enumerate(kinds):
            began = time.perf_counter()
            kind()
            round_[k] = 1000 * (time.perf_counter() - began)
    return took.min(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("run", "keep", "page"):
        step = steps.add_parser(name)
        step.add_argument("--results", type=Path, default=KEPT)
        if name != "page":
            step.add_argument("--potential", default="water")
            step.add_argument("--scratch", type=Path, required=True, help="folder of the trajectories")
            step.add_argument("--reference", type=Path, help="a conservative trajectory at 300 K of the same box")
        if name == "run":
            step.add_argument("--start", help="a structure in equilibrium (default: the bundled box)")
            step.add_argument("--picoseconds", type=float, default=2.0)
            step.add_argument("--round-ps", type=float, default=0.5)
            step.add_argument("--cells", nargs="*", help=", ".join(cell.name for cell in CELLS))
        if name == "keep":
            step.add_argument("--rounds", type=int, default=40, help="of timing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if given.step == "page":
        from beyond_eight_page import write

        write(given.results, CELLS, REFERENCE)
        return
    given.scratch.mkdir(parents=True, exist_ok=True)
    {"run": run, "keep": keep}[given.step](given)


if __name__ == "__main__":
    sys.exit(main())
