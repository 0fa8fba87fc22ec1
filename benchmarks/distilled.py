"""What a distilled student gains: the teacher alone against multiple time steps with the student inside.

    python benchmarks/distilled.py --slow 7net-0 --fast student.safetensors --structure si.cif --n-inner 8

Both run at constant energy from the same equilibrated start with the same inner timestep; speed is measured side by
side, a stretch of either in turn. It asserts nothing.
"""

from __future__ import annotations

import argparse
import time

import ase.io
import numpy as np
import torch

import mlcalc
from mlcalc.diagnostics import nve_drift
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import TooShortToTell
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.memory import keep_freed_memory
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame

_STRETCHES = 10  # that a run is cut into, in turn with the other


def drift(name: str, records: list[Frame], n_atoms: int, temperature: float) -> str:
    times, energies = [record.time_ps for record in records], [record.conserved for record in records]
    try:
        found = nve_drift.measure(times, energies, n_atoms, temperature)
    except TooShortToTell as short:
        assert isinstance(short.estimate, nve_drift.Drift)
        found = short.estimate
    return f"{name}: slope {found.slope.value:.4f} ± {found.slope.standard_error:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", required=True)
    parser.add_argument("--fast", required=True)
    parser.add_argument("--structure", required=True)
    parser.add_argument("--n-inner", type=int, default=8)
    parser.add_argument("--inner-timestep-fs", type=float, default=1.0)
    parser.add_argument("--picoseconds", type=float, default=1.0)
    parser.add_argument("--temperature-K", type=float, default=300.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    slow, fast = mlcalc.load(options.slow), mlcalc.load(options.fast)
    pair = TwoPotentials(fast, slow)
    structure = Structure.from_ase(ase.io.read(options.structure))
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
