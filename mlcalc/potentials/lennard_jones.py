"""Lennard-Jones, switched off smoothly: the potential that must pass every diagnostic.

    E = Σ_{i<j} 4ε [(σ/r)¹² − (σ/r)⁶] s(r)
    s = 1 for r < r_on,  1 − x⁴(35 − 84x + 70x² − 20x³) with x = (r − r_on)/(r_c − r_on) between,  0 for r > r_c

The switch has three continuous derivatives at both ends (the smoothstep polynomial of degree 7), so that forces and
their first two derivatives are continuous. Below r_on it is the textbook formula (J. E. Lennard-Jones,
doi:10.1088/0959-5309/43/5/301).

| symbol | variable |
|---|---|
| ε, σ | epsilon (eV), sigma (Å) |
| r_c | cutoff, Å |
| r_on | onset, Å |
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential, Graph, sum_over


def switch(distance: Tensor, onset: float, cutoff: float) -> Tensor:
    """s(r): 1 up to the onset, 0 from the cutoff, three continuous derivatives; any shape, Å."""
    x = ((distance - onset) / (cutoff - onset)).clamp(0.0, 1.0)
    return 1 - x**4 * (35 + x * (-84 + x * (70 - 20 * x)))


class LennardJones(AutodiffPotential):
    """One kind of interaction between all atoms, whatever their elements.

    Parameters
    ----------
    epsilon : eV, above 0
    sigma : Å, above 0
    cutoff : r_c, Å
    onset : r_on, Å; 0.8 r_c if not given

    The defaults are argon's (A. Rahman, doi:10.1103/PhysRev.136.A405: ε/k_B = 120 K, σ = 3.4 Å), cut at 2.5 σ.

    Raises
    ------
    UsageError
        unless epsilon and sigma are positive and 0 ≤ onset < cutoff.
    """

    interaction_depth = 1

    def __init__(
        self,
        *,
        epsilon: float = 0.01034,
        sigma: float = 3.4,
        cutoff: float = 8.5,
        onset: float | None = None,
    ) -> None:
        for name, value, unit in (("epsilon", epsilon, "eV"), ("sigma", sigma, "Å"), ("cutoff", cutoff, "Å")):
            if not 0 < value < math.inf:
                raise UsageError(f"{name}: got {value}; give a number in {unit} above 0")
        onset = 0.8 * cutoff if onset is None else onset
        if not 0 <= onset < cutoff:
            raise UsageError(f"onset: got {onset}; give a distance in Å from 0 to less than the cutoff, {cutoff}")
        provides = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL
        super().__init__("lennard_jones", float(cutoff), provides)
        self.epsilon = float(epsilon)
        self.sigma = float(sigma)
        self.onset = float(onset)

    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        distance = torch.linalg.vector_norm(graph.vectors, dim=1)
        sixth = (self.sigma / distance) ** 6
        pair = 4 * self.epsilon * (sixth**2 - sixth) * switch(distance, self.onset, self.cutoff)
        # each pair is there twice, so half of it goes to either atom
        return 0.5 * sum_over(pair, graph.centre, graph.n_atoms), None

    def extra_repr(self) -> str:
        return f"epsilon={self.epsilon!r} sigma={self.sigma!r} cutoff={self.cutoff!r} onset={self.onset!r}"


POTENTIAL = LennardJones
