"""Audit a potential whose answer is known: wells whose direct force has a curl of 1 %.

An argon crystal with a harmonic well around each atom. The conservative force must pass, the direct force must be found
to have an asymmetry λ of 0.01, and multiple time stepping must make up for it.
"""

import ase.build

import mlcalc

crystal = ase.build.bulk("Ar", "fcc", 5.3, cubic=True) * (2, 2, 2)
potential = mlcalc.load("harmonic", anchors=crystal.positions, spring=5.0, asymmetry=0.01)

result = mlcalc.audit(potential, crystal, mlcalc.AuditSettings(temperature_K=50.0))
print(result)
print("λ as built:", potential.asymmetry)
