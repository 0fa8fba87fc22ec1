"""mlcalc potentials as ASE calculators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ase
import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from mlcalc.errors import UsageError
from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.neighbours import NeighbourCache
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure


class MLCalculator(Calculator):
    """ASE calculator of any mlcalc potential.

    Energies are always the conservative ones; `forces` are minus their gradient, or with forces="direct" the direct
    head's. Everything that one evaluation gives is kept, so asking for more at the same positions costs nothing. Where
    the potential has both forces, the result "direct_forces" is there after each conservative evaluation.

    Parameters
    ----------
    potential : see `mlcalc.load`
    forces : "conservative" or "direct"
    non_conservative : the ecosystem's word: True is forces="direct"
    skin : Å, of the neighbour list

    Raises
    ------
    UsageError
        if the potential has no such forces.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "direct_forces"]  # noqa: RUF012

    def __init__(
        self,
        potential: Potential,
        forces: str = "conservative",
        *,
        non_conservative: bool = False,
        skin: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if forces not in ("conservative", "direct"):
            raise UsageError(f"forces: got {forces!r}; choose 'conservative' or 'direct'")
        self.potential = potential
        self.forces = "direct" if non_conservative else forces
        potential.check_wanted(Wanted.DIRECT if self.forces == "direct" else Wanted.CONSERVATIVE)
        self.neighbours = NeighbourCache(potential.cutoff, skin)
        self._checked: bytes | None = None

    def structure(self, atoms: ase.Atoms) -> Structure:
        """The Structure of these atoms on the potential's device, in float64; elements are checked when they change."""
        structure = Structure.from_ase(atoms, device=self.potential.device)
        key = atoms.numbers.tobytes()
        if key != self._checked:
            self.potential.check_species(structure)
            self._checked = key
        return structure

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """As ASE's, but a plain comparison comes first: comparing with a tolerance takes a millisecond."""
        mine = self.atoms
        if mine is not None and mine.arrays.keys() == atoms.arrays.keys():
            relevant = mine.arrays.keys() - {"momenta", "tags", "masses"}
            pairs = [(mine.arrays[key], atoms.arrays[key]) for key in relevant]
            pairs += [(mine.cell.array, atoms.cell.array), (mine.pbc, atoms.pbc)]
            if all(np.array_equal(*pair) for pair in pairs):
                return []
        return list(super().check_state(atoms, tol))

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, list(properties), list(system_changes))
        atoms = self.atoms
        assert atoms is not None
        structure = self.structure(atoms)
        wanted = self._wanted(properties, periodic=bool(atoms.pbc.all()))
        evaluation = self.potential.evaluate(structure, self.neighbours(structure), wanted)
        self.keep(evaluation, atoms.get_volume() if wanted & Wanted.VIRIAL else None)

    def _wanted(self, properties: Sequence[str], *, periodic: bool) -> Wanted:
        """Everything that comes nearly free with what is asked."""
        if self.forces == "direct":
            wanted = Wanted.ENERGY | Wanted.DIRECT
            if "stress" in properties:
                wanted |= Wanted.VIRIAL
                self.potential.check_wanted(Wanted.VIRIAL)
        else:
            wanted = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.DIRECT
            if periodic:
                wanted |= Wanted.VIRIAL
        return wanted & self.potential.provides

    def keep(self, evaluation: Evaluation, volume: float | None = None) -> None:
        """Fill `results` from an evaluation at the positions of `self.atoms`; volume in Å³ where a virial is there."""

        def array(value: torch.Tensor) -> Any:
            return value.detach().cpu().double().numpy()

        results: dict[str, Any] = {}
        if evaluation.energy is not None:
            results["energy"] = results["free_energy"] = float(evaluation.energy[0])
        if evaluation.energies is not None:
            results["energies"] = array(evaluation.energies)
        if evaluation.direct_force is not None:
            results["direct_forces"] = array(evaluation.direct_force)
        force = evaluation.direct_force if self.forces == "direct" else evaluation.conservative_force
        if force is not None:
            results["forces"] = array(force)
        if evaluation.virial is not None and volume is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(-array(evaluation.virial[0]) / volume)
        self.results = results
