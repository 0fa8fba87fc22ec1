"""The same in the native engine, with a trajectory that is whole up to the last frame whenever the run ends."""

from pathlib import Path

import mlcalc
from mlcalc.trajectory import TrajectoryWriter

potential = mlcalc.load("water")
structure = mlcalc.Structure.from_ase(mlcalc.water_box())
momenta = mlcalc.maxwell_boltzmann(structure, temperature_K=300, seed=1)
engine = mlcalc.NativeEngine(potential, structure, forces="mts", timestep_fs=4.0, n_inner=8, momenta=momenta)

with TrajectoryWriter(Path("water.trajectory"), structure, engine.provenance()) as writer:
    engine.run(5, writer=writer)

trajectory = mlcalc.read_trajectory("water.trajectory")
for time, energy in zip(trajectory.time_ps, trajectory.conserved, strict=True):
    print(f"{1000 * time:5.1f} fs   conserved energy {energy:.4f} eV")
print("evaluations:", dict(engine.counts))
