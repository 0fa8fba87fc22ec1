"""Multiple time stepping in ASE: direct forces every 0.5 fs, conservative ones every 4 fs, energy conserved."""

from ase import units
from ase.md.velocitydistribution import thermalize_momenta

import mlcalc

atoms = mlcalc.water_box()
atoms.calc = mlcalc.MLCalculator(mlcalc.load("water"))
thermalize_momenta(atoms, temperature_K=300)

# the timestep is the outer one, as in OpenMM, i-PI and LAMMPS; loggers and trajectories see outer steps only
dynamics = mlcalc.MTSVelocityVerlet(atoms, timestep=4 * units.fs, n_inner=8, logfile="-", loginterval=1)
dynamics.run(5)
