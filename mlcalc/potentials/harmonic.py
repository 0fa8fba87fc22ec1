"""Isotropic wells, with a direct force whose curl is known: the potential that diagnostics are tested on.

Each atom i sits in a well of its own around anchor a_i, and knows nothing of the others. With u = x_i − a_i:

    E = Σ_i k u²/2,    f_conservative = −k u,    f_direct = −k u + c n̂ × u

The curl c adds an antisymmetric part A to the Jacobian J = −k 1 + A of each atom, |A|² = 2c² and |J|² = 3k² + 2c², so
that the asymmetry is, whatever the number of atoms,

    λ = |A|/|J| = sqrt(2c² / (3k² + 2c²)),    c = k λ sqrt(3 / (2(1 − λ²)))

and the direct force feeds P = c Σ_i v_i·(n̂ × u_i) into the motion: circling around n̂ gains energy.

| symbol | variable |
|---|---|
| k | spring, eV/Å² |
| c | curl, eV/Å² |
| n̂ | axis |
| λ | asymmetry |
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mlcalc.errors import UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.autodiff import sum_over
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure


class Harmonic(Potential, nn.Module):
    """An isotropic well for each atom, with a curl of chosen size in the direct force.

    The wells are an external field: they stay where they are when the cell is repeated, momentum is not conserved, and
    there is no virial. An engine must not wrap positions into the cell.

    Parameters
    ----------
    anchors : (n_atoms, 3) or one point (3,) for all atoms, Å. A batch of m copies of one system may give the anchors of
        one: they are repeated.
    spring : k > 0, eV/Å²
    asymmetry : λ of the direct force's Jacobian, 0 ≤ λ < 1
    curl : c, eV/Å², instead of `asymmetry`; its sign is the sense of rotation
    axis : n̂, (3,), any length above 0

    Raises
    ------
    UsageError
        for anchors of another shape, a spring that is not positive, or an asymmetry outside [0, 1).
    """

    anchors: Tensor
    _axis: Tensor

    def __init__(
        self,
        anchors: np.ndarray | Tensor | Sequence[float] | Sequence[Sequence[float]] = (0.0, 0.0, 0.0),
        *,
        spring: float = 1.0,
        asymmetry: float = 0.0,
        curl: float | None = None,
        axis: Sequence[float] = (0.0, 0.0, 1.0),
    ) -> None:
        nn.Module.__init__(self)
        points = torch.atleast_2d(torch.as_tensor(anchors, dtype=torch.float64).detach().clone())
        if points.shape[1:] != (3,) or len(points) == 0 or not bool(torch.isfinite(points).all()):
            raise UsageError(
                f"anchors: got shape {tuple(points.shape)}; give finite points, (n_atoms, 3) or (3,), in Å"
            )
        if not 0 < spring < math.inf:
            raise UsageError(f"spring: got {spring}; give a spring constant in eV/Å² above 0")
        if not 0 <= asymmetry < 1:
            raise UsageError(f"asymmetry: got {asymmetry}; give 0 or more, less than 1")
        if curl is not None and asymmetry != 0:
            raise UsageError(f"curl: got {curl} with asymmetry {asymmetry}; give one of them, the other follows")
        if curl is not None and not math.isfinite(curl):
            raise UsageError(f"curl: got {curl}; give a finite number in eV/Å²")
        direction = torch.as_tensor(axis, dtype=torch.float64)
        if direction.shape != (3,) or not 0 < float(direction.norm()) < math.inf:
            raise UsageError(f"axis: got {axis}; give a vector of three numbers that is not zero")
        self.name = "harmonic"
        self.cutoff = 1.0  # no pair interacts; a neighbour list must have some reach
        self.provides = JOINT
        self.spring = float(spring)
        self.curl = spring * asymmetry * math.sqrt(1.5 / (1 - asymmetry**2)) if curl is None else float(curl)
        self.register_buffer("anchors", points)
        self.register_buffer("_axis", direction / direction.norm())

    @property
    def asymmetry(self) -> float:
        """λ of the direct force's Jacobian, from the equation above."""
        return math.sqrt(2 * self.curl**2 / (3 * self.spring**2 + 2 * self.curl**2))

    @property
    def device(self) -> torch.device:
        return self.anchors.device

    @property
    def dtype(self) -> torch.dtype:
        return self.anchors.dtype

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"harmonic {self.spring!r} {self.curl!r}".encode())
        for tensor in (self.anchors, self._axis):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        with torch.no_grad():
            return self.differentiable(structure, neighbours, wanted)

    def differentiable(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        self.check_wanted(wanted)
        away = structure.positions.to(self.dtype) - self._anchors_of(structure)
        back = -self.spring * away
        energies = energy = direct = None
        if wanted & (Wanted.ENERGY | Wanted.CONSERVATIVE):
            energies = (0.5 * self.spring * away.square().sum(dim=1)).double().to(structure.dtype)
            energy = sum_over(energies, structure.system, structure.n_systems)
        if wanted & Wanted.DIRECT:
            turned = torch.linalg.cross(self._axis.expand_as(away), away)
            direct = (back + self.curl * turned).to(structure.dtype)
        conservative = back.to(structure.dtype) if wanted & Wanted.CONSERVATIVE else None
        return Evaluation(energy, energies, conservative, direct)

    def _anchors_of(self, structure: Structure) -> Tensor:
        copies, rest = divmod(structure.n_atoms, len(self.anchors))
        if rest:
            raise UsageError(
                f"structure: it has {structure.n_atoms} atoms, but potential 'harmonic' has {len(self.anchors)} "
                "anchors; give one anchor for each atom"
            )
        return self.anchors.repeat(copies, 1)


POTENTIAL = Harmonic
