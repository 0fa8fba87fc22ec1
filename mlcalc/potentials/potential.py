"""What a potential is."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlcalc.errors import UsageError
from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.neighbours import Neighbours
from mlcalc.structure import Structure


class Potential(abc.ABC):
    """A map from a structure and its neighbours to energy and forces.

    Attributes
    ----------
    name : what reports call it
    cutoff : Å; the neighbour list must reach at least this far. 0 if the potential finds its own neighbours
    provides : everything that `evaluate` can fill
    differentiates : whether `differentiable` works
    interaction_depth : how many edges lie at most between an atom and those that its energy depends on: the number of
        message-passing layers, 1 without; 0 where that is not known, and only whole systems can be evaluated
    """

    name: str
    cutoff: float
    provides: Wanted
    differentiates: bool = True
    interaction_depth: int = 0

    @property
    def direct_depth(self) -> int:
        """As `interaction_depth`, of the direct force on an atom: it knows the features of both ends of an edge."""
        return self.interaction_depth + 1 if self.interaction_depth else 0

    @abc.abstractmethod
    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        """Fill what is wanted, in one forward pass.

        With DIRECT alone there is no automatic differentiation. Results are detached, in the structure's dtype.
        Neighbours may reach beyond the cutoff (a skin); the potential must give the same answer.
        """

    def evaluate_part(
        self, structure: Structure, neighbours: Neighbours, wanted: Wanted, counted: Tensor
    ) -> Evaluation:
        """What some of the atoms contribute: over parts that together count each atom once, the sum is `evaluate`'s.

        For a system divided among processes. The energy, of which forces and virials are derivatives, is the sum over
        the counted atoms; forces act on the other atoms too. Of those there must be all within `interaction_depth`
        edges (`direct_depth` for direct forces) of a counted one, and every edge both ways.

        Parameters
        ----------
        counted : (n_atoms,), bool

        Raises
        ------
        UsageError
            if the potential can only be evaluated on whole systems.
        """
        raise UsageError(f"potential {self.name!r} cannot be divided among processes; use one process")

    @abc.abstractmethod
    def differentiable(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        """As `evaluate`, but attached to the graph of `structure.positions`, for Jacobians and training.

        Gradients may be taken twice.
        """

    @property
    @abc.abstractmethod
    def device(self) -> torch.device:
        """Where the potential computes."""

    @property
    @abc.abstractmethod
    def dtype(self) -> torch.dtype:
        """The floating dtype in which the potential computes."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 over whatever determines the potential's values."""

    def check_species(self, structure: Structure) -> None:  # noqa: B027 (some potentials know every element)
        """Refuse elements that the potential does not know. Called once per run, not per step."""

    def check_wanted(self, wanted: Wanted) -> None:
        """Refuse what the potential cannot give.

        Raises
        ------
        UsageError
            naming what is missing.
        """
        missing = wanted & ~self.provides
        if missing:
            words = {
                Wanted.ENERGY: "energy",
                Wanted.CONSERVATIVE: "conservative forces",
                Wanted.DIRECT: "direct forces",
                Wanted.VIRIAL: "virial (stress)",
            }
            lacks = ", ".join(words[flag] for flag in missing)
            raise UsageError(f"potential {self.name!r} has no {lacks}; choose another potential or other forces")


def check_elements(structure: Structure, name: str, known: Sequence[int]) -> None:
    """Refuse a structure with elements beyond the known atomic numbers of the potential of that name.

    Raises
    ------
    UsageError
        naming both.
    """
    strangers = sorted(set(structure.numbers.tolist()) - set(known))
    if strangers:
        unknown, understood = (", ".join(chemical_symbols[number] for number in part) for part in (strangers, known))
        raise UsageError(
            f"structure: it holds {unknown}, but potential {name!r} knows only {understood}; "
            "remove these atoms or load a potential trained for them"
        )
