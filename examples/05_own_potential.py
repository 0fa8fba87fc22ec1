"""A potential of one's own: pairwise energies over a graph of neighbours; forces and virial follow by differentiation.

In a package, name it under the entry-point group `mlcalc.potentials` and `mlcalc.load` and the command line know it.
"""

import ase.build
import torch

import mlcalc
from mlcalc.potentials.autodiff import AutodiffPotential, Graph, sum_over
from mlcalc.potentials.radial import envelope


class Morse(AutodiffPotential):
    """E = Σ_{i<j} D [(1 − exp(−a (r − r₀)))² − 1] u(r/r_c)"""

    def __init__(self, depth=0.3429, stiffness=1.3588, bond=2.866, cutoff=7.0):  # copper, doi:10.1103/PhysRev.114.687
        super().__init__("morse", cutoff, mlcalc.Wanted.ENERGY | mlcalc.Wanted.CONSERVATIVE | mlcalc.Wanted.VIRIAL)
        self.depth, self.stiffness, self.bond = depth, stiffness, bond

    def energies_and_direct(self, graph: Graph, wanted):
        r = torch.linalg.vector_norm(graph.vectors, dim=1)
        well = self.depth * ((1 - torch.exp(-self.stiffness * (r - self.bond))) ** 2 - 1)
        # each pair is there twice, so half of it goes to either atom
        return 0.5 * sum_over(well * envelope(r / self.cutoff), graph.centre, graph.n_atoms), None


copper = ase.build.bulk("Cu", "fcc", 3.61, cubic=True) * (2, 2, 2)
copper.rattle(0.05, seed=0)
copper.calc = mlcalc.MLCalculator(Morse())
print(f"energy {copper.get_potential_energy():.4f} eV, largest force {abs(copper.get_forces()).max():.4f} eV/Å")

# quick: seconds, to see that it works; leave the settings out for an audit to rely on
print(mlcalc.audit(Morse(), copper, mlcalc.AuditSettings.quick()))
