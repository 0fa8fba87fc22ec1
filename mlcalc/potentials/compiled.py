"""Networks compiled ahead of time: a .pt2 package, made by `mlcalc export`, whose arithmetic runs without Python.

A package is a zip file of torch's format PT2: one library of compiled code for each kind of evaluation, and in
extra/ our description (mlcalc.json) and the checkpoint that it was made from. Index work (which edges, which triples)
is done as ever, and whatever was not compiled (another kind of evaluation, derivatives of forces, a structure of a
single edge) is evaluated by the network itself.

A checkpoint is data, a package is a program: loading one runs what is in it. It fits one version of torch, and
processors that know the instructions of the one that it was compiled on.
"""

from __future__ import annotations

import base64
import json
import platform
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor

from mlcalc.errors import CheckpointError, UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.autodiff import Graph, Outputs
from mlcalc.potentials.checkpoint import load_checkpoint
from mlcalc.potentials.network import Network, Places
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

FORMAT = "mlcalc-compiled-1"
#: What can be compiled → what it computes
KINDS = {
    "direct": Wanted.ENERGY | Wanted.DIRECT,
    "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE,
    "joint": JOINT,
}
DESCRIPTION, CHECKPOINT = "mlcalc.json", "checkpoint.base64"
_EXTENSIONS = ("amx", "asimd", "avx", "bmi", "f16c", "fma", "sse", "sve")
_CPU = torch.device("cpu")
_FEWEST = 2  # entries in a list: torch's tracer takes for granted that no size is 0 or 1


@dataclass(frozen=True)
class Description:
    """What stands in a package beside the code.

    Attributes
    ----------
    name : of the potential
    kinds : the programs in it, keys of KINDS
    dtype : "float32" or "float64"
    torch_version : of the process that compiled it
    machine : kind of processor
    instructions : sets of instructions that the code may use, as the operating system calls them
    inputs : what `inputs_of` says, for the back-end for LAMMPS that has no Python
    device : kind of device that it runs on, "cpu" or "cuda"
    capability : of that GPU, such as "9.0"; empty for a CPU
    """

    name: str
    kinds: tuple[str, ...]
    dtype: str
    torch_version: str
    machine: str
    instructions: tuple[str, ...]
    inputs: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    capability: str = ""
    format: str = FORMAT

    @classmethod
    def here(
        cls,
        name: str,
        kinds: tuple[str, ...],
        dtype: torch.dtype,
        inputs: dict[str, Any] | None = None,
        device: torch.device = _CPU,
    ) -> Description:
        """Of a package made in this process."""
        precision = str(dtype).removeprefix("torch.")
        here = torch.__version__, platform.machine(), instructions()
        return cls(name, kinds, precision, *here, inputs or {}, device.type, capability(device))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def check(self, path: Path, device: torch.device) -> None:
        """Refuse to run in a process, or on a device, that the code was not compiled for.

        Raises
        ------
        CheckpointError
            naming what differs.
        UsageError
            for another kind of device.
        """
        if device.type != self.device:
            raise UsageError(
                f"device: got {device}; {path} was compiled for {self.device}: run it there, or export it again with "
                f"--device {device.type}"
            )
        lacking = sorted(set(self.instructions) - set(instructions()))
        for what, theirs, ours in (
            ("torch", self.torch_version, torch.__version__),
            ("processor", self.machine, platform.machine()),
            ("processor", f"one with {', '.join(lacking)}" if lacking else "", ""),
            ("a GPU of capability", self.capability, capability(device)),
        ):
            if theirs != ours:
                raise CheckpointError(
                    f"potential: {path} was compiled for {what} {theirs}, here is {ours or 'one without'}; "
                    "export it again here (mlcalc export)"
                )


def capability(device: torch.device) -> str:
    """Which code a GPU runs, such as "9.0"; empty for a CPU."""
    return "{}.{}".format(*torch.cuda.get_device_capability(device)) if device.type == "cuda" else ""


def instructions() -> tuple[str, ...]:
    """Sets of instructions of this processor that a compiler may use."""
    known = {torch.backends.cpu.get_cpu_capability()}
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        lines = (line for line in listing.read_text().splitlines() if line.startswith(("flags", "Features")))
        flags = next(lines, "").partition(":")[2].split()
        known |= {flag for flag in flags if flag.startswith(_EXTENSIONS)}
    return tuple(sorted(known))


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of a dataclass, in the order of its fields, tuples and dataclasses in it included."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in _parts(value).values() for tensor in tensors_in(part)]


def tensor_names(value: Any, prefix: str = "") -> list[str]:
    """What `tensors_in` finds, by the names of fields and places in tuples: "triples.first", "density.atoms.0"."""
    if isinstance(value, Tensor):
        return [prefix.removesuffix(".")]
    return [name for key, part in _parts(value).items() for name in tensor_names(part, f"{prefix}{key}.")]


def inputs_of(network: Network, graph: Graph, places: Places) -> dict[str, Any]:
    """What somebody without the network must know to make a program's tensors and to read its energies.

    Returns
    -------
    tensors : their names, in order
    species, symbols : atomic numbers and their symbols, by place in the network's list
    energy_offsets : eV, added to the energy of each atom of a species
    cutoff, three_body_cutoff … : Å, of the edges and of the network's parts; 0 for a part that is not there
    """
    cutoffs = {name: value for name, value in network.hyperparameters.items() if name.endswith("cutoff")}
    return {
        "tensors": tensor_names(graph) + tensor_names(places),
        "species": [atomic_numbers[symbol] for symbol in network.species],
        "symbols": list(network.species),
        "energy_offsets": network.energy_offsets.tolist(),
        **cutoffs,
    }


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same dataclass with other tensors, in the order of `tensors_in`."""
    if isinstance(value, Tensor):
        return next(tensors)
    parts = {key: with_tensors(part, tensors) for key, part in _parts(value).items()}
    if isinstance(value, tuple):
        return tuple(parts.values())
    return replace(value, **parts) if parts else value


def _parts(value: Any) -> dict[str, Any]:
    if isinstance(value, Structure):  # no network of ours reads it, and sizes of 1 cannot be compiled
        return {}
    if isinstance(value, tuple):
        return {str(k): part for k, part in enumerate(value)}
    return {one.name: getattr(value, one.name) for one in fields(value)} if is_dataclass(value) else {}


def output_names(kind: str) -> tuple[str, ...]:
    """Fields of `Outputs` that a program returns, in order."""
    wanted = KINDS[kind]
    slope = ("slope",) if wanted & Wanted.CONSERVATIVE else ()
    return ("energies", *slope, *(("direct",) if wanted & Wanted.DIRECT else ()))


def kind_of(wanted: Wanted, kinds: Iterable[str]) -> str | None:
    """The kind that computes what is wanted and nothing dear beyond it; the virial comes from the slope."""
    forces = wanted & (Wanted.CONSERVATIVE | Wanted.DIRECT)
    if wanted & Wanted.VIRIAL:
        forces |= Wanted.CONSERVATIVE
    forces = forces or Wanted.DIRECT
    return next((kind for kind in kinds if KINDS[kind] & ~Wanted.ENERGY == forces), None)


def network_outputs(network: Network, graph: Graph, places: Places, wanted: Wanted) -> Outputs:
    """What a program computes, by the network itself. `wanted` is one of KINDS."""
    derivative = bool(wanted & Wanted.CONSERVATIVE)
    with torch.set_grad_enabled(derivative):
        vectors = graph.vectors.detach().requires_grad_(derivative)
        energies, direct = network.arithmetic(replace(graph, vectors=vectors), places, wanted)
        assert energies is not None
        slope = torch.autograd.grad(energies.sum(), vectors)[0] if derivative else None
    return Outputs(*(None if value is None else value.detach() for value in (energies, slope, direct)))


def only(outputs: Outputs, wanted: Wanted) -> Outputs:
    """Without the energies and direct forces that nobody asked for."""
    return replace(
        outputs,
        energies=outputs.energies if wanted & ~Wanted.DIRECT else None,
        direct=outputs.direct if wanted & Wanted.DIRECT else None,
    )


class CompiledPotential(Potential):
    """A network whose evaluations run compiled.

    Parameters
    ----------
    network : the same, not compiled
    programs : key of KINDS → what maps the tensors of (Graph, Places) to `output_names`
    """

    def __init__(self, network: Network, programs: dict[str, Any]) -> None:
        self.network, self.programs = network, programs
        self.name, self.cutoff, self.provides = network.name, network.cutoff, network.provides
        self.interaction_depth = network.interaction_depth

    @property
    def direct_depth(self) -> int:
        return self.network.direct_depth

    def evaluate_part(
        self, structure: Structure, neighbours: Neighbours, wanted: Wanted, counted: Tensor
    ) -> Evaluation:
        """By the network itself: the compiled derivative is that of all energies."""
        return self.network.evaluate_part(structure, neighbours, wanted, counted)

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        self.check_wanted(wanted)
        kind = kind_of(wanted, self.programs)
        if kind is None:
            return self.network.evaluate(structure, neighbours, wanted)
        with torch.no_grad():
            graph = self.network.graph(structure.at(structure.positions.detach()), neighbours, attached=False)
            outputs = self.outputs(kind, graph, self.network.places(graph))
            return self.network.assemble(structure, graph, wanted, only(outputs, wanted))

    def outputs(self, kind: str, graph: Graph, places: Places) -> Outputs:
        """By the program of that kind, or by the network where there is none or a list is too short for it."""
        tensors = tensors_in((graph, places))
        if kind not in self.programs or min(len(tensor) for tensor in tensors) < _FEWEST:
            return network_outputs(self.network, graph, places, KINDS[kind])
        found = dict(zip(output_names(kind), self.programs[kind].run(tensors), strict=True))
        return Outputs(found["energies"], found.get("slope"), found.get("direct"))

    def differentiable(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        return self.network.differentiable(structure, neighbours, wanted)

    def check_species(self, structure: Structure) -> None:
        self.network.check_species(structure)

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    @property
    def fingerprint(self) -> str:
        return self.network.fingerprint


def load_compiled(path: str | Path, *, device: torch.device, dtype: torch.dtype | None) -> CompiledPotential:
    """The potential of a package. This runs code from the file: load none that you would not run as a program.

    Raises
    ------
    CheckpointError
        if the file is missing, truncated or foreign, or was compiled for another torch or processor.
    UsageError
        for a device or dtype other than the package's.
    """
    path = Path(path)
    description, checkpoint = _read(path)
    description.check(path, device)
    own = getattr(torch, description.dtype)
    if dtype not in (None, own):
        raise UsageError(
            f"dtype: got {dtype}; {path} was compiled for {own}: leave it out, or export again with --dtype"
        )
    from torch._C._aoti import AOTIModelPackageLoader

    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / Path(f"{description.name}.safetensors").name
        whole.write_bytes(checkpoint)
        network = load_checkpoint(whole).to(device=device, dtype=own)
    index, on_gpu = -1, device.type == "cuda"
    if on_gpu:
        index = torch.cuda.current_device() if device.index is None else device.index
    try:
        # on a GPU without locks and events between threads, which CUDA graphs cannot capture
        # (https://github.com/pytorch/pytorch/pull/148601)
        programs = {kind: AOTIModelPackageLoader(str(path), kind, on_gpu, 1, index) for kind in description.kinds}
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"potential: the code in {path} cannot be loaded ({reason}); export it again") from error
    return CompiledPotential(network, programs)


def _read(path: Path) -> tuple[Description, bytes]:
    if not path.is_file():
        raise CheckpointError(f"potential: no file {path}; make it with mlcalc export")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged:
                raise zipfile.BadZipFile(f"{damaged} is damaged")
            names = [name for name in archive.namelist() if "/extra/" in name]
            extra = {name.partition("/extra/")[2]: archive.read(name) for name in names}
        described = json.loads(extra.get(DESCRIPTION, b"{}"))
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"potential: {path} is no whole package ({error}); copy it or export it again") from error
    if described.get("format") != FORMAT:
        raise CheckpointError(
            f"potential: {path} is no package that this version reads (format {described.get('format')!r}, not "
            f"{FORMAT!r}); make one with mlcalc export"
        )
    lists = {key: tuple(described[key]) for key in ("kinds", "instructions")}
    return Description(**described | lists), base64.b64decode(extra[CHECKPOINT])
