"""Any ASE calculator as a potential: other people's models, empirical force fields, electronic structure.

The calculator finds its own neighbours, so its cutoff is 0 here. It offers no derivatives of its forces: λ comes from
differences of forces (mlcalc/probes/differences.py).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import operator
from typing import Any

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator, all_changes
from ase.stress import voigt_6_to_full_3x3_stress
from torch import Tensor

from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

#: What calculators call the forces of a head of their own: ORB; metatomic, now and formerly
DIRECT_NAMES = ("direct_forces", "non_conservative_force", "non_conservative_forces")
#: Beginning of a potential's name that stands for a calculator, "ase:package.module:factory?key=value&key=value"
PREFIX = "ase:"


class AseCalculator(Potential):
    """A potential made of an ASE calculator.

    Parameters
    ----------
    calculator : an instance of any ASE calculator
    forces : what its "forces" are, "conservative" (minus the gradient of its energy) or "direct"
    name : what reports call it; the calculator's class if not given

    Energies are the calculator's "free_energy" where it has one: that is the one whose gradient the forces are.

    Raises
    ------
    UsageError
        if the object is no calculator, or computes no forces.
    """

    differentiates = False

    def __init__(self, calculator: BaseCalculator, *, forces: str = "conservative", name: str | None = None) -> None:
        offered = getattr(calculator, "implemented_properties", None)
        if offered is None or not hasattr(calculator, "calculate"):
            raise UsageError(f"calculator: got {type(calculator).__name__}; give an instance of an ASE calculator")
        if "forces" not in offered:
            raise UsageError(f"calculator: {type(calculator).__name__} computes no forces; choose one that does")
        if forces not in ("conservative", "direct"):
            raise UsageError(f"forces: got {forces!r}; choose 'conservative' or 'direct'")
        self.calculator = calculator
        self.name = name or type(calculator).__name__
        self.cutoff = 0.0
        self._forces_of = {
            Wanted.CONSERVATIVE: "forces" if forces == "conservative" else None,
            Wanted.DIRECT: "forces" if forces == "direct" else next((k for k in DIRECT_NAMES if k in offered), None),
        }
        self.provides = Wanted.ENERGY if "energy" in offered else Wanted(0)
        for flag, key in self._forces_of.items():
            self.provides |= flag if key else Wanted(0)
        if "stress" in offered and self.provides & Wanted.CONSERVATIVE:
            self.provides |= Wanted.VIRIAL

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        self.check_wanted(wanted)
        found = [self._results(atoms, wanted) for atoms in structure.to_ase()]

        def tensor(parts: Any) -> Tensor:
            return torch.as_tensor(np.array(parts), dtype=structure.dtype, device=structure.device)

        def forces(flag: Wanted) -> Tensor | None:
            return tensor(np.concatenate([one[self._forces_of[flag]] for one in found])) if wanted & flag else None

        return Evaluation(
            energy=tensor([one.get("free_energy", one["energy"]) for one in found]) if wanted & Wanted.ENERGY else None,
            conservative_force=forces(Wanted.CONSERVATIVE),
            direct_force=forces(Wanted.DIRECT),
            virial=tensor([one["virial"] for one in found]) if wanted & Wanted.VIRIAL else None,
        )

    def _results(self, atoms: ase.Atoms, wanted: Wanted) -> dict[Any, Any]:
        """What the calculator finds for one system."""
        keys = [key for flag, key in self._forces_of.items() if wanted & flag and key]
        keys += ["energy"] * bool(wanted & Wanted.ENERGY) + ["stress"] * bool(wanted & Wanted.VIRIAL)
        try:
            self.calculator.calculate(atoms, keys, list(all_changes))
        except Exception as error:  # calculators raise whatever lies beneath them
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise RunError(f"potential {self.name!r}: its calculator failed ({reason[0]})") from error
        results = dict(self.calculator.results)
        missing = [key for key in keys if key not in results]
        if missing:
            raise RunError(
                f"potential {self.name!r}: its calculator promises {missing[0]!r} and gave only "
                f"{', '.join(sorted(results)) or 'nothing'}; it cannot be used with these settings"
            )
        if wanted & Wanted.VIRIAL:
            results["virial"] = -voigt_6_to_full_3x3_stress(results["stress"]) * atoms.get_volume()
        return results

    def differentiable(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        raise UsageError(
            f"potential {self.name!r}: an ASE calculator gives no derivatives of its forces; use differences of forces"
        )

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    @property
    def fingerprint(self) -> str:
        """Of the calculator's class and parameters; weights that it has loaded by itself are not in it."""
        kind = type(self.calculator)
        parameters = json.dumps(getattr(self.calculator, "parameters", {}), sort_keys=True, default=repr)
        return hashlib.sha256(f"{kind.__module__}.{kind.__qualname__} {parameters}".encode()).hexdigest()


def from_specification(text: str) -> AseCalculator:
    """The potential that "ase:package.module:factory?key=value&key=value" names.

    The factory, which may be a class's own ("Class.method"), is called with the keys; values are Python literals,
    anything else a string. The key `forces` is ours (see `AseCalculator`).

    Raises
    ------
    UsageError
        if the text has another form, the module or factory is not there, or the factory refuses its arguments.
    """
    place, _, query = text.removeprefix(PREFIX).partition("?")
    module_name, _, factory_name = place.partition(":")
    pairs = [item.partition("=") for item in query.split("&") if item]
    if not factory_name or any(not (key and equals) for key, equals, _ in pairs):
        raise UsageError(f"potential: got {text!r}; write ase:package.module:factory?key=value&key=value")
    try:
        factory = operator.attrgetter(factory_name)(importlib.import_module(module_name))
    except (ImportError, ValueError) as error:  # a module without a name is a ValueError
        raise UsageError(f"potential {text!r}: {error}; install the package that holds it") from error
    except AttributeError as error:
        raise UsageError(f"potential {text!r}: {module_name} has no {factory_name}; check the name") from error
    arguments = {key: _literal(value) for key, _, value in pairs}
    forces = arguments.pop("forces", "conservative")
    try:
        calculator = factory(**arguments)
    except Exception as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UsageError(f"potential {text!r}: {factory_name} refused its arguments ({reason[0]})") from error
    return AseCalculator(calculator, forces=forces, name=text)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
