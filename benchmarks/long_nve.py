"""The drift of one long constant-energy run of the bundled water: what the model cards and the README quote.

    python benchmarks/long_nve.py --forces mts --n-inner 8 --picoseconds 10 --threads 1

Prints the drift every picosecond, so that a run that is cut off has said something.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import mlcalc
from mlcalc.diagnostics import nve_drift
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import TooShortToTell
from mlcalc.memory import keep_freed_memory
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame

_INNER_FS, _FRAME_FS, _TEMPERATURE_K = 0.5, 4.0, 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", default="water")
    parser.add_argument("--forces", choices=("mts", "conservative", "direct"), default="mts")
    parser.add_argument("--n-inner", type=int, default=8)
    parser.add_argument("--picoseconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()

    n_inner = arguments.n_inner if arguments.forces == "mts" else 1
    outer_fs = n_inner * _INNER_FS
    structure = Structure.from_ase(mlcalc.water_box())
    momenta = maxwell_boltzmann(structure, _TEMPERATURE_K, seed=arguments.seed)
    engine = NativeEngine(
        mlcalc.load(arguments.potential),
        structure,
        forces=arguments.forces,
        timestep_fs=outer_fs,
        n_inner=n_inner,
        momenta=momenta,
    )
    stride = max(1, round(_FRAME_FS / outer_fs))
    started = time.perf_counter()
    instants: list[float] = []
    energies: list[float] = []
    temperatures: list[float] = []

    def record(frame: Frame) -> None:
        instants.append(frame.time_ps)
        energies.append(frame.conserved)
        temperatures.append(engine.temperature(frame.kinetic_energy))
        if len(instants) % round(1000 / (stride * outer_fs)) == 0:
            print(f"{said()}   {time.perf_counter() - started:.0f} s", flush=True)

    def said() -> str:
        try:
            drift = nve_drift.measure(instants, energies, structure.n_atoms, float(np.mean(temperatures)))
        except TooShortToTell as short:
            drift = short.estimate
            assert isinstance(drift, nve_drift.Drift)
        parts = (("slope", drift.slope), ("foretold", drift.foretold), ("best", drift.per_atom))
        numbers = "   ".join(f"{name} {f.value:.5f} ± {f.standard_error:.5f}" for name, f in parts if f is not None)
        return f"{instants[-1]:.2f} ps   {numbers}   {np.mean(temperatures):.0f} K"

    engine.run(round(1000 * arguments.picoseconds / outer_fs), stride=stride, on_frame=record)
    print(f"{arguments.forces}, outer step {outer_fs:g} fs, meV/atom/ps: {said()}")


if __name__ == "__main__":
    main()
