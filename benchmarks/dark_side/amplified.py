"""A potential whose direct force is as far from its conservative one as one likes: its curl, dialled."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from mlcalc.evaluation import JOINT, Evaluation, Wanted, required
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure


class Amplified(Potential):
    """f = f_conservative + s (f_direct − f_conservative), as its direct force.

    What is amplified is what training has left of a direct head's own curl, not an artificial field. The Jacobian's
    antisymmetric part grows by s exactly, so λ by nearly as much.

    Parameters
    ----------
    base : with energy and both forces
    strength : s; 0 is the conservative force, 1 the base's direct one
    """

    def __init__(self, base: Potential, strength: float) -> None:
        base.check_wanted(JOINT)
        self.base, self.strength = base, strength
        self.name = f"{base.name}, difference of forces times {strength:g}"
        self.cutoff, self.provides, self.differentiates = base.cutoff, base.provides, base.differentiates

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        return self._amplify(self.base.evaluate(structure, neighbours, wanted | JOINT))

    def differentiable(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        return self._amplify(self.base.differentiable(structure, neighbours, wanted | JOINT))

    def _amplify(self, found: Evaluation) -> Evaluation:
        conservative, direct = (required(found, f"{kind}_force") for kind in ("conservative", "direct"))
        return replace(found, direct_force=conservative + self.strength * (direct - conservative))

    def check_species(self, structure: Structure) -> None:
        self.base.check_species(structure)

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.base.fingerprint} times {self.strength!r}".encode()).hexdigest()
