"""SevenNet-0 on silicon, corrected every 8 fs; in between its distilled student takes steps of 1 fs.

The student came from `mlcalc distill --teacher 7net-0 --structure si.cif --temperature 300 --out student.safetensors`.

Needs: pip install 'mlcalc[sevennet]'
"""

import ase.build

import mlcalc

silicon = mlcalc.Structure.from_ase(ase.build.bulk("Si", cubic=True) * (2, 2, 2))
pair = mlcalc.TwoPotentials(fast=mlcalc.load("silicon-7net-0"), slow=mlcalc.load("7net-0"))
engine = mlcalc.NativeEngine(
    pair,
    silicon,
    forces="mts",
    timestep_fs=8.0,  # the outer step
    n_inner=8,
    momenta=mlcalc.maxwell_boltzmann(silicon, 600.0, seed=0),
    ensemble=mlcalc.Ensemble(mlcalc.Langevin(300.0, friction_per_ps=5.0)),
)
trajectory = engine.run(5)
for time, energy in zip(trajectory.time_ps, trajectory.conserved, strict=True):
    print(f"{1000 * time:4.0f} fs   energy less heat {energy:.4f} eV")
print(dict(engine.counts))  # of evaluations: the student's alone are "direct"
