"""What a distilled student gains: the teacher alone against multiple time steps with the student inside.

    python benchmarks/distilled.py --slow 7net-0 --fast student.safetensors --structure si.cif --n-inner 8

Both run at constant energy from the same equilibrated start with the same inner timestep; speed is measured side by
side, a stretch of either in turn. It asserts nothing.

With `--radial-distribution FOLDER` they run in a Langevin bath instead, with random numbers of their own, one after the
other; the radial distribution functions after the first picosecond go to results/, a picosecond at a time. Frames are
kept in FOLDER, and a run that was cut off goes on. Where the teacher alone would take too long, `--reference exact`
samples its canonical distribution by hybrid Monte Carlo in its place, with the student in the moves.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import torch
from exact_sampling import Sampling, sample
from radial_errors import error_by_atoms

import mlcalc
from mlcalc.diagnosis import radial_distribution
from mlcalc.diagnostics import nve_drift
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import TooShortToTell
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.memory import keep_freed_memory
from mlcalc.potentials.potential import Potential
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.simulation.run import SimulationSettings, simulate
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame, read_trajectory
from mlcalc.units import temperature_from_kinetic

_STRETCHES = 10  # that a run is cut into, in turn with the other
_FRAME_FS, _EQUILIBRATION_PS, _FRICTION = 16.0, 1.0, 5.0  # fs from frame to frame; ps left out; 1/ps
_RESULTS = Path(__file__).parent / "results" / "distilled.json"


def drift(name: str, records: list[Frame], n_atoms: int, temperature: float) -> str:
    times, energies = [record.time_ps for record in records], [record.conserved for record in records]
    try:
        found = nve_drift.measure(times, energies, n_atoms, temperature)
    except TooShortToTell as short:
        assert isinstance(short.estimate, nve_drift.Drift)
        found = short.estimate
    return f"{name}: slope {found.slope.value:.4f} ± {found.slope.standard_error:.4f}"


def radial_distributions(options: argparse.Namespace, pair: TwoPotentials) -> None:
    """g(r) of both runs in a bath, the quick one first; or of one, where they are made side by side."""
    system = Path(options.structure).stem if options.structure else "water box"
    inside = f"{system}: {Path(options.fast).stem} inside {options.slow}, M = {options.n_inner}"
    reference = f"{system}: {options.slow} " + ("alone" if options.reference == "alone" else "exactly")
    for seed, name in enumerate((inside, reference)):
        if options.only not in (None, seed):
            continue
        path = options.radial_distribution / f"{seed}.trajectory"
        for picosecond in range(1, math.ceil(options.picoseconds + _EQUILIBRATION_PS) + 1):
            said = {}
            if name is inside:
                _in_a_bath(options, pair, options.n_inner, seed, picosecond, path)
            elif options.reference == "alone":
                _in_a_bath(options, pair.slow, 1, seed, picosecond, path)
            else:
                said["taken"] = _exactly(options, pair, seed, picosecond, path)
            if picosecond > _EQUILIBRATION_PS:
                _write(name, {**_distribution(path), **said})
                print(f"{name}: {picosecond} ps", flush=True)
    one, other = (_read().get(name) for name in (inside, reference))
    if one and other:
        for label in one["pairs"]:
            found = apart(one["pairs"][label], other["pairs"][label])
            print(f"{label}: mean square of their difference over its variance {found:.2f}", end="")
            if all("by_atoms" in run["pairs"][label] for run in (one, other)):
                found = apart(one["pairs"][label], other["pairs"][label], "by_atoms")
                print(f", by atoms {found:.2f}", end="")
            print()


def _read() -> dict[str, Any]:
    return json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}


def _write(name: str, found: dict[str, Any]) -> None:
    """Whole or not at all."""
    draft = _RESULTS.with_suffix(".part")
    draft.write_text(json.dumps({**_read(), name: found}) + "\n")
    draft.replace(_RESULTS)


def _exactly(options: argparse.Namespace, pair: TwoPotentials, seed: int, picoseconds: int, path: Path) -> float:
    """The same by hybrid Monte Carlo; the share of trials that were taken."""
    settings = Sampling(
        options.temperature_K,
        _FRICTION,
        options.inner_timestep_fs,
        options.n_inner,
        n_outer=round(_FRAME_FS / (options.n_inner * options.inner_timestep_fs)),
        seed=seed,
    )
    n_trials = round(1000 * picoseconds / settings.trial_fs)
    return sample(pair, Structure.from_ase(_atoms(options)), settings, n_trials, path)


def _in_a_bath(
    options: argparse.Namespace, potential: Potential, n_inner: int, seed: int, picoseconds: int, path: Path
) -> None:
    """The run up to some time; what is in the file is not done again."""
    outer_fs = n_inner * options.inner_timestep_fs
    settings = SimulationSettings(
        steps=round(1000 * picoseconds / outer_fs),
        forces="conservative" if n_inner == 1 else "mts",
        timestep_fs=outer_fs,
        n_inner=n_inner,
        stride=round(_FRAME_FS / outer_fs),
        ensemble="langevin",
        temperature_K=options.temperature_K,
        friction_per_ps=_FRICTION,
        seed=seed,
        on_drift="continue",  # in a bath the balance of multiple time stepping walks at random
    )
    simulate(potential, _atoms(options), settings, path, restart=True)


def _distribution(path: Path) -> dict[str, Any]:
    record = read_trajectory(path)
    keep = record.time_ps > _EQUILIBRATION_PS
    symbols = np.array([ase.data.chemical_symbols[number] for number in record.numbers])
    positions, cells = record.positions[keep], np.broadcast_to(record.cell, (int(keep.sum()), 3, 3))
    kinetic, freedom = record.kinetic_energy[keep].mean(), 3 * record.n_atoms  # the bath moves the centre of mass, too
    pairs = {}
    for one in radial_distribution.measure(positions, cells, record.periodic, symbols.tolist()):
        kinds = [np.flatnonzero(symbols == symbol) for symbol in one.pair.split("-")]
        r_max = one.r[0] + one.r[-1]  # these are centres of bins
        by_atoms = error_by_atoms(positions, record.cell, *kinds, r_max, len(one.r))
        columns = {"r": one.r, "g": one.g, "standard_error": one.standard_error, "by_atoms": by_atoms}
        pairs[one.pair] = {name: [round(value, 5) for value in column.tolist()] for name, column in columns.items()}
    return {
        "picoseconds": float(record.time_ps[-1]) - _EQUILIBRATION_PS,
        "temperature_K": temperature_from_kinetic(float(kinetic), freedom),
        "pairs": pairs,
    }


def _atoms(options: argparse.Namespace) -> ase.Atoms:
    return ase.io.read(options.structure) if options.structure else mlcalc.water_box()


def apart(one: dict[str, Any], other: dict[str, Any], errors: str = "standard_error") -> float:
    """Mean over r of the squared difference by its variance; about 1 where they differ by chance."""
    difference = np.array(one["g"]) - np.array(other["g"])
    variance = np.array(one[errors]) ** 2 + np.array(other[errors]) ** 2
    known = variance > 0
    return float(np.mean(difference[known] ** 2 / variance[known]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", required=True)
    parser.add_argument("--fast", required=True)
    parser.add_argument("--structure", help="(default: the bundled water box)")
    parser.add_argument("--n-inner", type=int, default=8)
    parser.add_argument("--inner-timestep-fs", type=float, default=1.0)
    parser.add_argument("--picoseconds", type=float, default=1.0)
    parser.add_argument("--temperature-K", type=float, default=300.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--radial-distribution", type=Path, metavar="FOLDER")
    parser.add_argument("--reference", choices=("alone", "exact"), default="alone")
    parser.add_argument("--only", type=int, choices=(0, 1), help="0: with the student, 1: the reference")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    slow, fast = mlcalc.load(options.slow), mlcalc.load(options.fast)
    pair = TwoPotentials(fast, slow)
    if options.radial_distribution:
        options.radial_distribution.mkdir(parents=True, exist_ok=True)
        return radial_distributions(options, pair)
    structure = Structure.from_ase(_atoms(options))
    outer_fs = options.n_inner * options.inner_timestep_fs
    momenta = maxwell_boltzmann(structure, 2 * options.temperature_K, seed=0)  # half becomes potential energy
    bath = Ensemble(Langevin(options.temperature_K, friction_per_ps=5.0))
    warm = NativeEngine(
        pair,
        structure,
        forces="mts",
        timestep_fs=outer_fs,
        n_inner=options.n_inner,
        momenta=momenta,
        ensemble=bath,
    )
    warm.advance(round(300 / outer_fs), lambda _: None)
    start, momenta = structure.at(warm.phase.positions), warm.phase.momenta
    alone = NativeEngine(slow, start, forces="conservative", timestep_fs=options.inner_timestep_fs, momenta=momenta)
    split = NativeEngine(pair, start, forces="mts", timestep_fs=outer_fs, n_inner=options.n_inner, momenta=momenta)

    cycles = max(1, round(1000 * options.picoseconds / outer_fs / _STRETCHES))
    records: dict[str, list[Frame]] = {"teacher alone": [], "with student": []}
    took: dict[str, list[float]] = {name: [] for name in records}
    for stretch in range(_STRETCHES):
        for name, engine, steps in (
            ("teacher alone", alone, cycles * options.n_inner),
            ("with student", split, cycles),
        ):
            stride = options.n_inner if engine is alone else 1
            began = time.perf_counter()
            engine.advance(steps, records[name].append, stride=stride, first=stretch == 0)
            took[name].append(1000 * (time.perf_counter() - began) / (cycles * options.n_inner))
        ratio = float(np.median(np.array(took["teacher alone"]) / np.array(took["with student"])))
        print(
            f"{alone.time_ps:.3f} ps   ms per inner step: {np.median(took['teacher alone']):.1f} alone, "
            f"{np.median(took['with student']):.1f} with student   ratio {ratio:.2f}",
            flush=True,
        )
    for name, frames in records.items():
        temperature = float(np.mean([alone.temperature(frame.kinetic_energy) for frame in frames]))
        print(drift(name, frames, structure.n_atoms, temperature), f"meV/atom/ps   {temperature:.0f} K")


if __name__ == "__main__":
    main()
