"""Exported models of metatomic: PET-MAD, UPET and whatever else its ecosystem trains (docs.metatensor.org/metatomic).

A file is a TorchScript program with its units, elements and outputs; it cannot reach beyond torch. It is given our
neighbour list, with edge vectors made from positions and cell in torch, so that nothing leaves the device and the
derivatives can be differentiated again. Where a model has an energy and a "non_conservative_force" (formerly
"…_forces"), one forward pass gives both forces. Of direct forces the mean over the atoms is taken off, as in
metatomic's own ASE calculator.

Models offer several levels of theory as variants: "metatomic:/path/to/model.pt?variant=NAME".
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcalc.errors import CheckpointError, RunError, UsageError
from mlcalc.evaluation import Evaluation, Wanted, remove_net_force
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.autodiff import sum_over
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.potential import Potential, check_elements
from mlcalc.structure import Structure, check_overlap

_FAMILY = "metatomic"
_DIRECT = ("non_conservative_force", "non_conservative_forces")
_UNITS = {Wanted.ENERGY: "eV", Wanted.DIRECT: "eV/Angstrom"}
_EDGES = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]


class Metatomic(Potential):
    """An exported model.

    Parameters
    ----------
    name : what reports call it
    model : metatomic's AtomisticModel, as loaded
    outputs : Wanted.ENERGY, Wanted.DIRECT → the model's name of what gives them
    fingerprint : hexadecimal SHA-256 of the file and of what was chosen in it

    Attributes
    ----------
    numbers : atomic numbers of the elements it knows
    """

    def __init__(self, name: str, model: Any, outputs: dict[Wanted, str], fingerprint: str) -> None:
        self.name = name
        self.model = model
        self._able = model.capabilities()
        self._lists = model.requested_neighbor_lists()
        self._factors = {flag: _factor(self._able.outputs[key].unit, _UNITS[flag]) for flag, key in outputs.items()}
        self._fingerprint = fingerprint
        self._outputs = outputs
        self._device = torch.device("cpu")
        self.numbers = tuple(self._able.atomic_types)
        self.cutoff = max((float(one.engine_cutoff("angstrom")) for one in self._lists), default=0.0)
        self.provides = Wanted(0)
        for flag in outputs:
            self.provides |= flag
        if Wanted.ENERGY in outputs:
            self.provides |= Wanted.CONSERVATIVE | Wanted.VIRIAL

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Metatomic:
        """Itself, elsewhere. Its dtype was fixed when it was exported.

        Raises
        ------
        UsageError
            if it does not run there, or not in that dtype.
        """
        if dtype not in (None, self.dtype):
            raise UsageError(f"dtype: got {dtype}; potential {self.name!r} was exported for {self.dtype}: leave it out")
        where = torch.device(device or self._device)
        if where.type not in self._able.supported_devices:
            raise UsageError(
                f"device: got {where}; potential {self.name!r} was exported for "
                f"{', '.join(self._able.supported_devices)}: choose one of these"
            )
        self.model.to(device=where)
        self._device = where
        return self

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        return self._run(structure.at(structure.positions.detach()), neighbours, wanted, attached=False)

    def differentiable(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        return self._run(structure, neighbours, wanted, attached=True)

    def _run(self, structure: Structure, neighbours: Neighbours, wanted: Wanted, *, attached: bool) -> Evaluation:
        self.check_wanted(wanted)
        slopes = bool(wanted & (Wanted.CONSERVATIVE | Wanted.VIRIAL))
        with torch.set_grad_enabled(attached or slopes):
            here = structure.to(dtype=self.dtype)
            if slopes and not here.positions.requires_grad:
                here = here.at(here.positions.detach().requires_grad_())
            strain = torch.eye(3, dtype=self.dtype, device=here.device).repeat(here.n_systems, 1, 1)
            strained = self._strained(here, strain.requires_grad_()) if wanted & Wanted.VIRIAL else here
            found = self._outputs_of(strained, neighbours, wanted)
            energy, direct = found.get(Wanted.ENERGY), found.get(Wanted.DIRECT)
            by = {Wanted.CONSERVATIVE: here.positions, Wanted.VIRIAL: strain}
            by = {flag: tensor for flag, tensor in by.items() if wanted & flag}
            slope = {} if energy is None or not by else self._slopes(energy, by, create_graph=attached)
            if direct is not None:
                direct = remove_net_force(direct, here.system, here.n_systems)

        def finish(value: Tensor | None) -> Tensor | None:
            return None if value is None else (value if attached else value.detach()).to(structure.dtype)

        virial = slope.get(Wanted.VIRIAL)
        virial = None if virial is None else 0.5 * (virial + virial.transpose(1, 2))
        return Evaluation(finish(energy), None, finish(slope.get(Wanted.CONSERVATIVE)), finish(direct), finish(virial))

    def _slopes(self, energy: Tensor, by: dict[Wanted, Tensor], *, create_graph: bool) -> dict[Wanted, Tensor]:
        """Minus the derivatives of the energy."""
        if not energy.requires_grad:
            raise RunError(
                f"potential {self.name!r}: its energy cannot be differentiated; choose a model that gives conservative "
                "forces, or use its direct ones alone"
            )
        inputs = list(by.values())
        found = torch.autograd.grad(energy.sum(), inputs, create_graph=create_graph, materialize_grads=True)
        return {flag: -one for flag, one in zip(by, found, strict=True)}

    def _strained(self, structure: Structure, strain: Tensor) -> Structure:
        """r → r·strain, cell → cell·strain, system by system; differentiable in strain, whose value is 1."""
        positions = torch.einsum("ix,ixy->iy", structure.positions, strain[structure.system])
        return Structure(
            positions,
            structure.numbers,
            structure.cell @ strain,
            structure.periodic,
            structure.masses,
            structure.system,
        )

    def _outputs_of(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> dict[Wanted, Tensor]:
        """Energies (n_systems,), eV, and direct forces (n_atoms, 3), eV/Å, of what is wanted."""
        from metatomic.torch import ModelEvaluationOptions, ModelOutput

        parts = {Wanted.ENERGY: ~Wanted.DIRECT, Wanted.DIRECT: Wanted.DIRECT}
        flags = [flag for flag in self._outputs if wanted & parts[flag]]
        # energies by atom where it has them, since its own sums over many atoms would be in float32; and in its units,
        # since its conversion writes into outputs where torch cannot let it
        kinds = {flag: self._able.outputs[self._outputs[flag]].sample_kind for flag in flags}
        asked = {self._outputs[flag]: ModelOutput(sample_kind=kind) for flag, kind in kinds.items()}
        options = ModelEvaluationOptions(length_unit="angstrom", outputs=asked)
        answer = self.model(self._systems(structure, neighbours), options, check_consistency=False)
        start = torch.cumsum(structure.atoms_per_system, 0) - structure.atoms_per_system
        found: dict[Wanted, Tensor] = {}
        for flag in flags:
            block = answer[self._outputs[flag]].block()
            values, system = block.values * self._factors[flag], block.samples.column("system").long()
            if flag == Wanted.ENERGY:
                found[flag] = sum_over(values.double().reshape(-1), system, structure.n_systems)
            else:
                atom = start[system] + block.samples.column("atom").long()
                found[flag] = sum_over(values.reshape(-1, 3), atom, structure.n_atoms)
        return found

    def _systems(self, structure: Structure, neighbours: Neighbours) -> list[Any]:
        """Each system as metatomic's, with the lists of neighbours that the model asks for."""
        from metatomic.torch import System

        vectors = neighbours.vectors(structure)
        squared = vectors.detach().square().sum(dim=1)
        check_overlap(structure, vectors.detach(), neighbours.centre, neighbours.neighbour)
        owner, start, systems = structure.system[neighbours.centre], 0, []
        for k, count in enumerate(structure.atoms_per_system.tolist()):
            atoms = slice(start, start + count)
            cell = structure.cell[k] * structure.periodic[k].unsqueeze(1)
            system = System(
                structure.numbers[atoms].to(torch.int32), structure.positions[atoms], cell, structure.periodic[k]
            )
            for request in self._lists:
                keep = (owner == k) & (squared < request.engine_cutoff("angstrom") ** 2)
                keep = keep if request.full_list else keep & _once(neighbours)
                system.add_neighbor_list(request, _block(neighbours, vectors, torch.nonzero(keep).squeeze(1), start))
            systems.append(system)
            start += count
        return systems

    def check_species(self, structure: Structure) -> None:
        check_elements(structure, self.name, self.numbers)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return {"float32": torch.float32, "float64": torch.float64}[self._able.dtype]

    @property
    def fingerprint(self) -> str:
        return self._fingerprint


def _factor(unit: str, ours: str) -> float:
    """What turns a model's numbers into ours; it may leave its unit out if it is ours."""
    from metatomic.torch import unit_conversion_factor

    return float(unit_conversion_factor(unit, ours)) if unit else 1.0


def _once(neighbours: Neighbours) -> Tensor:
    """(n_edges,), bool: one of the two directions of each edge."""
    here = torch.arange(neighbours.n_edges, device=neighbours.centre.device)
    return here < neighbours.reverse


def _block(neighbours: Neighbours, vectors: Tensor, chosen: Tensor, start: int) -> Any:
    """Edges as metatomic wants them: indices within the system and shifts, vectors (n_edges, 3, 1)."""
    from metatensor.torch import Labels, TensorBlock

    ends = torch.stack([neighbours.centre[chosen], neighbours.neighbour[chosen]], dim=1) - start
    labels = torch.cat([ends, neighbours.shift[chosen]], dim=1).to(torch.int32)
    axes = torch.arange(3, dtype=torch.int32, device=vectors.device).reshape(3, 1)
    return TensorBlock(
        values=vectors.index_select(0, chosen).unsqueeze(2),
        samples=Labels(_EDGES, labels, assume_unique=True),
        components=[Labels(["xyz"], axes)],
        properties=Labels(["distance"], axes[:1]),
    )


@undisturbed()
def load(name: str) -> Metatomic:
    """The potential of "metatomic:path" or "metatomic:path?variant=NAME"; in its own dtype, on the CPU.

    Raises
    ------
    UsageError
        if the package is not installed, or the file has no such variant.
    CheckpointError
        if the file is not there, cannot be read, or the model asks for more than atoms and cell.
    """
    package = foreign_module("metatomic.torch", _FAMILY)
    file, _, variant = name.removeprefix(f"{_FAMILY}:").partition("?variant=")
    path = Path(file).expanduser()
    if not path.is_file():
        raise CheckpointError(f"potential: no file {path}; give the path of an exported model, as metatomic:path")
    try:
        model = package.load_atomistic_model(path)
        inputs = ", ".join(model.requested_inputs(use_new_names=True))
    except Exception as error:  # whatever lies beneath
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"potential: {path} is no model that metatomic can read ({reason})") from error
    if inputs:
        raise CheckpointError(
            f"potential: {path} asks for more than atoms and cell ({inputs}); take "
            f"ase:metatomic_ase:MetatomicCalculator?model={path}"
        )
    digest = hashlib.sha256(path.read_bytes() + variant.encode()).hexdigest()
    return Metatomic(path.stem, model, _chosen(package, path, model.capabilities().outputs, variant or None), digest)


def _chosen(package: Any, path: Path, offered: Any, variant: str | None) -> dict[Wanted, str]:
    """Which outputs give the energy and the direct force, of those that are there."""
    found = {}
    for flag, keys in {Wanted.ENERGY: ("energy",), Wanted.DIRECT: _DIRECT}.items():
        for key in keys:
            if flag not in found and any(one.split("/")[0] == key for one in offered):
                try:
                    found[flag] = package.pick_output(key, offered, variant)
                except ValueError as error:
                    reason = " ".join(str(error).split())
                    raise UsageError(
                        f"potential: {reason}; name one that gives all of them as metatomic:{path}?variant=NAME"
                    ) from error
    if not found:
        raise CheckpointError(f"potential: {path} gives neither energy nor forces, only {', '.join(offered)}")
    return found
