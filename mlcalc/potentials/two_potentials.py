"""Two potentials as one: the forces of a fast one inside, the energy and forces of a slow one outside.

Multiple time stepping needs two forces, wherever they come from (M. Tuckerman, B. J. Berne, G. J. Martyna, J. Chem.
Phys. 97, 1990 (1992)). The conserved energy is the slow potential's.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from mlcalc.evaluation import Evaluation, Wanted, required
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure


class TwoPotentials(Potential):
    """`direct_force` from `fast`, everything else from `slow`; cutoffs, devices and dtypes may differ.

    Parameters
    ----------
    fast : its direct forces are taken where it has them, else its conservative ones
    slow : must have an energy and conservative forces

    Both get the neighbour list of the longer cutoff and leave out what is beyond their own.

    Raises
    ------
    UsageError
        if `slow` has no energy or no conservative forces.
    """

    def __init__(self, fast: Potential, slow: Potential) -> None:
        slow.check_wanted(Wanted.ENERGY | Wanted.CONSERVATIVE)
        self.fast, self.slow = fast, slow
        self.name = f"{fast.name} inside {slow.name}"
        self.cutoff = max(fast.cutoff, slow.cutoff)
        self.provides = slow.provides | Wanted.DIRECT
        self.differentiates = fast.differentiates and slow.differentiates
        kind = "direct" if fast.provides & Wanted.DIRECT else "conservative"
        self._fast_force = Wanted[kind.upper()], f"{kind}_force"
        fast.check_wanted(self._fast_force[0])
        self.interaction_depth = slow.interaction_depth

    @property
    def direct_depth(self) -> int:
        return self.fast.direct_depth if self._fast_force[0] is Wanted.DIRECT else self.fast.interaction_depth

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        return self._both("evaluate", structure, neighbours, wanted)

    def evaluate_part(
        self, structure: Structure, neighbours: Neighbours, wanted: Wanted, counted: Tensor
    ) -> Evaluation:
        return self._both("evaluate_part", structure, neighbours, wanted, counted)

    def differentiable(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        return self._both("differentiable", structure, neighbours, wanted)

    def _both(
        self, how: str, structure: Structure, neighbours: Neighbours, wanted: Wanted, *counted: Tensor
    ) -> Evaluation:
        self.check_wanted(wanted)

        def ask(potential: Potential, what: Wanted) -> Evaluation:
            here = potential.device
            more = (mask.to(here) for mask in counted)
            answer: Evaluation = getattr(potential, how)(structure.to(device=here), neighbours.to(here), what, *more)
            return answer.to(structure.device)

        answer = ask(self.slow, wanted & ~Wanted.DIRECT) if wanted & ~Wanted.DIRECT else Evaluation()
        if wanted & Wanted.DIRECT:
            flag, key = self._fast_force
            answer = replace(answer, direct_force=required(ask(self.fast, flag), key))
        return answer

    def check_species(self, structure: Structure) -> None:
        for potential in (self.fast, self.slow):
            potential.check_species(structure.to(device=potential.device))

    @property
    def device(self) -> torch.device:
        return self.slow.device

    @property
    def dtype(self) -> torch.dtype:
        return self.slow.dtype

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.fast.fingerprint} inside {self.slow.fingerprint}".encode()).hexdigest()
