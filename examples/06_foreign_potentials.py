"""Audit other people's potentials on silicon: SevenNet-0 and CHGNet.

Needs: pip install 'mlcalc[sevennet,chgnet]'
"""

import ase.build

import mlcalc

silicon = ase.build.bulk("Si", cubic=True)
silicon.rattle(0.05, seed=0)

for name in ("7net-0", "chgnet"):
    # quick: a few frames of everything, to see that it works; leave the settings out for an audit to rely on
    print(mlcalc.audit(mlcalc.load(name), silicon, mlcalc.AuditSettings.quick()))
