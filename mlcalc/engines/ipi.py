"""One potential for all that an i-PI run asks of it: every force component and bead, one forward pass for both forces.

i-PI makes a driver for each force component and asks each in turn. With multiple time stepping it wants the direct
force after every inner step, and after the last one the conservative force as well, but asks for the direct one first.
So the driver counts: after M − 1 inner steps the next direct request gets a joint evaluation, whose other half waits
for the conservative request that follows. What is answered never depends on the count, only what it costs: an answer
is looked up by positions and cell, and evaluated where it is not there.

This module needs no i-PI, so that a socket client can run where i-PI is not installed.
"""

from __future__ import annotations

import json
import math
import threading
import urllib.parse
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import torch

from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.neighbours import NeighbourCache
from mlcalc.potentials import load
from mlcalc.potentials.potential import Potential
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure
from mlcalc.units import IPI_ANGSTROM, IPI_ELECTRONVOLT

#: What i-PI wants of a driver, all in atomic units: potential energy; forces (n_atoms, 3); virial (3, 3); extras (JSON)
Answer = tuple[float, np.ndarray, np.ndarray, str]

COMPONENTS = ("conservative", "direct")


class IpiForces:
    """Answers i-PI's requests for the components of one potential's forces.

    Parameters
    ----------
    atoms : elements, masses and periodicity; where they are not periodic, i-PI's cell is not looked at
    n_inner : M, inner steps in an outer one; None where i-PI runs with one kind of force
    n_beads : of the ring polymer, 1 if classical
    extras : give i-PI the direct force as an extra of the conservative one, "direct_force" in Hartree/Bohr
    skin : Å, of the neighbour list

    Attributes
    ----------
    counts : how many "direct", "conservative" and "joint" evaluations were made

    Raises
    ------
    UsageError
        for elements that the potential does not know, forces that it does not have, or counts below 1.
    """

    def __init__(
        self,
        potential: Potential,
        atoms: ase.Atoms,
        *,
        n_inner: int | None = None,
        n_beads: int = 1,
        extras: bool = False,
        skin: float = 0.5,
    ) -> None:
        if n_beads < 1 or (n_inner is not None and n_inner < 1):
            raise UsageError(f"n_inner, n_beads: got {n_inner}, {n_beads}; give whole numbers, 1 or more")
        if n_inner is not None or extras:
            potential.check_wanted(Wanted.CONSERVATIVE | Wanted.DIRECT)
        self.potential, self.n_inner, self.n_beads, self.extras = potential, n_inner, n_beads, extras
        self.counts: Counter[str] = Counter()
        self._structure = Structure.from_ase(atoms, device=potential.device)
        potential.check_species(self._structure)
        self._periodic, self._cell = bool(self._structure.periodic.any()), b""
        self._wanted: dict[str, Wanted] = {}
        # one list for each bead: beads are farther from each other than a skin is thick
        self._neighbours = [NeighbourCache(potential.cutoff, skin) for _ in range(n_beads)]
        self._recent: OrderedDict[bytes, dict[str, Answer]] = OrderedDict()
        self._direct_requests: int | None = None  # since the last conservative one; None before the first
        self._lock = threading.Lock()  # i-PI has a thread for each of several systems

    def answer(self, component: str, cell: np.ndarray, positions: np.ndarray) -> Answer:
        """Energy, force, virial and extras of a component.

        Where there are inner steps, energy and virial of the direct component are zero: those of the run are the
        conservative ones, and all of the virial acts in the outer step. A virial that the potential does not have is
        not-a-number rather than zero, which would look like a pressure.

        Parameters
        ----------
        component : "conservative" or "direct"
        cell : (3, 3), Bohr, columns are lattice vectors
        positions : (n_atoms, 3), Bohr

        Raises
        ------
        UsageError
            for another component or another number of atoms.
        RunError
            if a force is not finite.
        """
        if component not in COMPONENTS:
            raise UsageError(f"forces: got {component!r}; choose one of {', '.join(COMPONENTS)}")
        if positions.shape != (self._structure.n_atoms, 3):
            raise UsageError(
                f"structure: i-PI sends {len(positions)} atoms, the driver's structure has {self._structure.n_atoms}; "
                "give both the same file"
            )
        with self._lock:
            key = positions.tobytes() + cell.tobytes()
            known = self._recent.get(key)
            if known is None or component not in known:
                known = self._answers(self._kind(component), cell, positions)
                self._keep(key, known)
            if component == "conservative":
                self._direct_requests = 0
            energy, force, virial, extras = known[component]
        return energy, force.copy(), virial.copy(), extras  # i-PI writes into what it gets

    def _kind(self, component: str) -> str:
        """Which evaluation to make for a request that finds no answer."""
        if self.n_inner is None:
            return "joint" if self.extras and component == "conservative" else component
        if component == "conservative" or self._direct_requests is None:
            return "joint"
        self._direct_requests += 1
        return "joint" if self._direct_requests > (self.n_inner - 1) * self.n_beads else "direct"

    def _keep(self, key: bytes, answers: dict[str, Answer]) -> None:
        self._recent[key] = answers
        while len(self._recent) > self.n_beads:
            self._recent.popitem(last=False)

    def _answers(self, kind: str, cell: np.ndarray, positions: np.ndarray) -> dict[str, Answer]:
        evaluation = self._evaluate(kind, cell, positions)
        answers = {}
        if evaluation.direct_force is not None:
            inner = self.n_inner is not None
            energy = 0.0 if inner else _hartree(evaluation.energy)
            virial = np.full((3, 3), 0.0 if inner else np.nan)
            answers["direct"] = energy, self._force(evaluation.direct_force), virial, ""
        if evaluation.conservative_force is not None:
            virial = np.full((3, 3), np.nan)
            if evaluation.virial is not None:
                virial = evaluation.virial[0].double().cpu().numpy().T * IPI_ELECTRONVOLT
            extras = ""
            if self.extras:
                extras = json.dumps({"direct_force": answers["direct"][1].ravel().tolist()})
            force = self._force(evaluation.conservative_force)
            answers["conservative"] = _hartree(evaluation.energy), force, virial, extras
        return answers

    def _evaluate(self, kind: str, cell: np.ndarray, positions: np.ndarray) -> Evaluation:
        wanted = self._wanted.get(kind)
        if wanted is None:
            wanted = self._wanted[kind] = self._wanted_for(kind)
        self._put_into(cell)
        structure = self._structure.at(torch.as_tensor(positions / IPI_ANGSTROM, device=self._structure.device))
        bead = self.counts.total() % self.n_beads  # they come in turn
        self.counts[kind] += 1
        return self.potential.evaluate(structure, self._neighbours[bead](structure), wanted)

    def _wanted_for(self, kind: str) -> Wanted:
        provides = self.potential.provides
        wanted = {
            "direct": Wanted.DIRECT if self.n_inner is not None else Wanted.DIRECT | (Wanted.ENERGY & provides),
            "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE,
            "joint": JOINT,
        }[kind]
        if kind != "direct" and bool(self._structure.periodic.all()):
            wanted |= Wanted.VIRIAL & provides
        self.potential.check_wanted(wanted)
        return wanted

    def _put_into(self, cell: np.ndarray) -> None:
        """Make i-PI's cell that of the structure, unless it is already, or nothing is periodic."""
        key = cell.tobytes()
        if self._periodic and key != self._cell:
            vectors = torch.as_tensor(np.ascontiguousarray(cell.T) / IPI_ANGSTROM, device=self._structure.device)
            self._structure, self._cell = replace(self._structure, cell=vectors[None]), key

    def _force(self, force: torch.Tensor) -> np.ndarray:
        array: np.ndarray = force.double().cpu().numpy() * (IPI_ELECTRONVOLT / IPI_ANGSTROM)
        if not np.isfinite(array).all():
            raise RunError("run: a force is not finite; shorten the timestep or n_inner, or relax the structure first")
        return array


def _hartree(energy: torch.Tensor | None) -> float:
    """Not-a-number for a potential without energy."""
    return math.nan if energy is None else float(energy[0]) * IPI_ELECTRONVOLT


@dataclass(frozen=True)
class DriverSettings:
    """What the drivers of one run have in common; drivers with equal settings share one `IpiForces`.

    Attributes
    ----------
    potential : what `mlcalc.load` takes, or a name from `offered`
    structure : a file that ASE reads: elements, masses and periodicity
    fast : another potential for the inner steps; none if empty
    n_inner, n_beads, extras : see `IpiForces`; n_inner 0 stands for none
    device, dtype : of the potential; an empty dtype is its own
    """

    potential: str
    structure: str = ""
    fast: str = ""
    n_inner: int = 0
    n_beads: int = 1
    extras: int = 0
    device: str = "cpu"
    dtype: str = ""

    def as_parameters(self) -> dict[str, str]:
        """For i-PI's <parameters>, whose values may not hold commas or brackets."""
        return {name: urllib.parse.quote(str(value), safe="/:.-_+ ") for name, value in asdict(self).items() if value}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> DriverSettings:
        """From i-PI's <parameters>.

        Raises
        ------
        UsageError
            for a parameter that does not exist, is missing, or is no number where one is needed.
        """
        known = {field.name: type(field.default) for field in fields(cls)}
        strangers = sorted(parameters.keys() - known.keys())
        missing = sorted({"potential", "structure"} - parameters.keys())
        if strangers or missing:
            raise UsageError(
                f"parameters: {'unknown' if strangers else 'missing'} {', '.join(strangers or missing)}; the driver "
                f"takes {', '.join(known)}"
            )
        values: dict[str, Any] = {}
        for name, value in parameters.items():
            try:
                values[name] = int(value) if known[name] is int else urllib.parse.unquote(str(value))
            except ValueError as error:
                raise UsageError(f"parameters: got {name} {value!r}; give a whole number") from error
        return cls(**values)


_offered: dict[str, Potential] = {}
_shared: dict[DriverSettings, IpiForces] = {}


@contextmanager
def offered(potentials: Mapping[str, Potential]) -> Iterator[Mapping[DriverSettings, IpiForces]]:
    """Potentials that a run's drivers find under these names instead of loading them.

    Gives what the drivers share, which is there as soon as i-PI has made them.
    """
    _offered.update(potentials)
    _shared.clear()
    try:
        yield _shared
    finally:
        _offered.clear()
        _shared.clear()


def shared_forces(settings: DriverSettings) -> IpiForces:
    """The forces of these settings, made when first asked for in a run.

    Raises
    ------
    UsageError
        for a file, potential, device or dtype that cannot be used.
    """
    if settings not in _shared:
        _shared[settings] = _make(settings)
    return _shared[settings]


def _make(settings: DriverSettings) -> IpiForces:
    if not Path(settings.structure).is_file():
        raise UsageError(
            f"structure: no file {settings.structure} in {Path.cwd()}; run where `mlcalc ipi input` has written it"
        )
    if settings.dtype not in ("", "float32", "float64"):
        raise UsageError(f"dtype: got {settings.dtype!r}; choose float32 or float64")
    dtype = getattr(torch, settings.dtype) if settings.dtype else None

    def get(name: str) -> Potential:
        return _offered[name] if name in _offered else load(name, device=settings.device, dtype=dtype)

    potential = get(settings.potential)
    if settings.fast:
        potential = TwoPotentials(get(settings.fast), potential)
    atoms = ase.io.read(settings.structure)
    assert isinstance(atoms, ase.Atoms)
    return IpiForces(
        potential,
        atoms,
        n_inner=settings.n_inner or None,
        n_beads=settings.n_beads,
        extras=bool(settings.extras),
    )
