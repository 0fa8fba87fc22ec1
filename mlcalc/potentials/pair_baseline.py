"""A pair potential under both heads, fitted to the data before the network and fixed from then on.

    E = ½ Σ_ij u_ij,    u_ij = Σ_n c_n(Z_i, Z_j) e_n(r_ij) + k max(0, r_w(Z_i, Z_j) − r_ij)⁴,    F_i = Σ_j u'_ij r̂_ij

The network learns what is left. In water that is a force of 0.23 eV/Å instead of 0.80, since the stiff O-H bonds are
nearly a pair potential. The direct force carries the exact gradient of this part, so it cancels in the difference of
the two forces, which multiple time stepping applies only every M steps: what this part holds of the stiffness
never stands in the correction.

The last term is a wall against distances that the data do not hold. Nothing in a network makes it repulsive there: one
without the wall, in mid-training, let two water molecules approach to 2.2 Å, and flew apart after 0.3 ps at 300 K.

| symbol | variable | what |
|---|---|---|
| c_n | coefficients | (n_species², n_radial), eV, symmetric in the two species |
| r_w | wall | (n_species²,), Å; 0 for no wall |
| k | _STIFFNESS | eV/Å⁴ |
| e_n | basis | radial functions, see radial.py |
| u, u' | energies, slopes | (n_edges,), eV and eV/Å |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlcalc.potentials.radial import RadialBasis

_STIFFNESS = 1000.0  # 0.1 Å inside the wall: 0.1 eV, 4 eV/Å, and a curvature about that of an O-H bond


class PairBaseline(nn.Module):
    """Energies and slopes of edges; zero until it is fitted."""

    coefficients: Tensor
    wall: Tensor

    def __init__(self, n_species: int, cutoff: float, n_radial: int = 16) -> None:
        super().__init__()
        self.n_species = n_species
        self.radial = RadialBasis(n_radial, cutoff)
        self.register_buffer("coefficients", torch.zeros(n_species**2, n_radial))
        self.register_buffer("wall", torch.zeros(n_species**2))

    def forward(self, distance: Tensor, centre: Tensor, neighbour: Tensor) -> tuple[Tensor, Tensor]:
        """u and du/dr of every edge: (n_edges,), eV and eV/Å.

        Parameters
        ----------
        distance : (n_edges,), Å
        centre, neighbour : (n_edges,), int64, species at the two ends, by their place in the network's list
        """
        pair = centre * self.n_species + neighbour
        coefficients = self.coefficients.index_select(0, pair)
        values, slopes = self.radial.with_slopes(distance)
        inside = (self.wall.index_select(0, pair) - distance).clamp(min=0)
        return (
            (coefficients * values).sum(dim=1) + _STIFFNESS * inside**4,
            (coefficients * slopes).sum(dim=1) - 4 * _STIFFNESS * inside**3,
        )
