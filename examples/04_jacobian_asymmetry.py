"""λ, the asymmetry of a force field's Jacobian: zero if the force is the gradient of an energy, whatever the energy."""

import mlcalc
from mlcalc.diagnostics import jacobian_asymmetry
from mlcalc.probes.products import sample_products

potential = mlcalc.load("water")
structure = mlcalc.Structure.from_ase(mlcalc.water_box())
for forces in ("conservative", "direct"):
    # random vectors v: |Jv − Jᵀv|² against |Jv|² + |Jᵀv|², without ever writing down the 576 × 576 Jacobian
    samples = sample_products(potential, structure, forces, max_pairs=4, min_pairs=4)
    print(f"{forces:12}", jacobian_asymmetry.from_products(samples))
