"""Making a compiled package (see compiled.py) of one of our networks, by torch's AOTInductor.

The network's arithmetic, derivatives by the edges included, is traced with numbers of atoms, edges, pairs and triples
as symbols, and compiled to a library for each kind of evaluation: one package serves structures of all sizes.
"""

from __future__ import annotations

import base64
import importlib.util
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from mlcalc.errors import RunError, UsageError
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials import checked_device
from mlcalc.potentials.autodiff import Graph
from mlcalc.potentials.checkpoint import load_checkpoint
from mlcalc.potentials.compile_apart import at_once, export_apart, programs_of
from mlcalc.potentials.compiled import (
    CHECKPOINT,
    DESCRIPTION,
    KINDS,
    Description,
    inputs_of,
    network_outputs,
    tensors_in,
    with_tensors,
)
from mlcalc.potentials.foreign import undisturbed
from mlcalc.potentials.network import Network, Places
from mlcalc.structure import Structure


def export(
    checkpoint: str | Path,
    path: str | Path,
    kinds: Sequence[str] | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[str, int, int], None] = lambda kind, done, total: None,
) -> tuple[str, ...]:
    """Compile a checkpoint's network for this processor, or for this GPU, and write the package.

    Several kinds of evaluation are compiled at once, in a process each, where there is more than one processor.

    Parameters
    ----------
    checkpoint : a .safetensors file of ours
    path : ending in .pt2
    kinds : keys of KINDS; None for all that the network has
    dtype : torch.float32 (the default) or torch.float64
    device : on which the package will run
    progress : called with a kind of evaluation, how many are done, how many there are

    Returns
    -------
    the kinds that were compiled

    Raises
    ------
    UsageError
        for a path with another ending, an evaluation that the network does not have, or without a C++ compiler.
    CheckpointError
        if the checkpoint cannot be read.
    RunError
        if torch cannot compile it.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise UsageError(f"output: got {path}; compiled packages end in .pt2")
    network = load_checkpoint(checkpoint).to(device=checked_device(device), dtype=dtype)
    chosen = chosen_kinds(network, kinds)
    check_tools(network.device.type)
    inputs = example(network)
    from torch.export.pt2_archive._package import package_pt2

    description = Description.here(network.name, chosen, network.dtype, inputs_of(network, *inputs), network.device)
    extra = {
        DESCRIPTION: description.to_json(),
        CHECKPOINT: base64.b64encode(Path(checkpoint).read_bytes()).decode(),
    }
    files: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if len(chosen) > 1 and at_once():
            parts = {kind: Path(folder) / f"{kind}.pt2" for kind in chosen}
            export_apart(Path(checkpoint), parts, network.dtype, network.device, progress)
            files = {kind: programs_of(part, kind, Path(folder)) for kind, part in parts.items()}
        else:
            for done, kind in enumerate(chosen):
                progress(kind, done, len(chosen))
                files[kind] = _compiled(network, kind, *inputs)
        package_pt2(str(path), aoti_files=files, extra_files=extra)
    progress("", len(chosen), len(chosen))
    return chosen


def chosen_kinds(network: Network, kinds: Sequence[str] | None) -> tuple[str, ...]:
    """The kinds, or all that the network has.

    Raises
    ------
    UsageError
        for one that there is not, or not in this network.
    """
    for kind in kinds or ():
        if kind not in KINDS:
            raise UsageError(f"wanted: got {kind!r}; choose from {', '.join(KINDS)}")
        network.check_wanted(KINDS[kind])
    return tuple(kinds or (kind for kind, computes in KINDS.items() if not computes & ~network.provides))


def check_tools(device_type: str = "cpu") -> None:
    """Refuse to begin without a compiler, or with a torch that cannot write packages.

    Raises
    ------
    UsageError
        with what to do.
    """
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch.export.pt2_archive._package import package_pt2  # noqa: F401
    except ImportError as error:
        raise UsageError(f"export: torch {torch.__version__} has no PT2 packages; upgrade to 2.13 or later") from error
    try:
        get_cpp_compiler()
    except Exception as error:  # torch has an error of its own for each system
        raise UsageError(
            "export: there is no C++ compiler; install one (g++ on Linux, for instance with apt-get install g++), or "
            "name it in the environment variable CXX"
        ) from error
    if device_type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UsageError("export: there is no Triton, which compiles for GPUs; pip install triton")


def _compiled(network: Network, kind: str, graph: Graph, places: Places) -> Any:
    """The files of one program."""
    tensors = tuple(tensors_in((graph, places)))
    try:
        with undisturbed():
            # with torch.export in between every list would have a size of its own, and compiling takes longer
            module = trace(network, kind, graph, places)
            # with more threads the loops would add up in changing order, and no run would repeat itself to the bits
            options = {"aot_inductor.package": True, "cpp.threads": 1}
            return torch._inductor.aot_compile(module, tensors, options=options)
    except Exception as error:  # compilers fail in many ways
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(
            f"export: torch {torch.__version__} cannot compile the {kind} evaluation ({reason}); "
            "run the checkpoint itself, or export with another version of torch"
        ) from error


def trace(network: Network, kind: str, graph: Graph, places: Places) -> torch.fx.GraphModule:
    """What is compiled, as a module of the tensors in (graph, places), whose first sizes are symbols."""
    program, tensors = _program(network, kind, graph, places), tensors_in((graph, places))
    return make_fx(program, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*tensors)


def _program(network: Network, kind: str, graph: Graph, places: Places) -> Callable[..., tuple[Tensor, ...]]:
    """What is compiled: the tensors of graph and places → those of `Outputs` that there are."""

    def program(*tensors: Tensor) -> tuple[Tensor, ...]:
        g, p = with_tensors((graph, places), iter(tensors))
        found = network_outputs(network, replace(g, n_atoms=g.numbers.shape[0]), p, KINDS[kind])
        return tuple(value for value in (found.energies, found.slope, found.direct) if value is not None)

    return program


def example(network: Network) -> tuple[Graph, Places]:
    """A cluster to trace with, of whose sizes none are equal by accident: the tracer takes equal sizes for the same."""
    made = [_cluster(network, seed) for seed in range(8)]
    sizes = [[size for tensor in tensors_in(one) for size in tensor.shape] for one in made]
    for mine, one in zip(sizes, made, strict=True):
        pairs = [pair for pair in itertools.combinations(range(len(mine)), 2) if mine[pair[0]] == mine[pair[1]]]
        if min(mine) > 1 and all(other[i] == other[j] for other in sizes for i, j in pairs):
            return one
    raise RunError(f"export: no example structure was found for {network.name}; please report this checkpoint")


def _cluster(network: Network, seed: int) -> tuple[Graph, Places]:
    """Atoms of all elements, each with neighbours within the shortest of the network's cutoffs."""
    draw = np.random.default_rng(seed)
    parameters: Mapping[str, Any] = network.hyperparameters
    spacing = 0.6 * min(value for name, value in parameters.items() if name.endswith("cutoff") and value)
    grid = np.stack(np.meshgrid(*map(np.arange, (4, 3, 3 + seed % 3)), indexing="ij"), -1).reshape(-1, 3)
    symbols = [network.species[k % len(network.species)] for k in draw.permutation(len(grid) + seed)[: len(grid)]]
    atoms = ase.Atoms(symbols, spacing * (grid + draw.uniform(-0.1, 0.1, grid.shape)))
    structure = Structure.from_ase(atoms, device=network.device)
    graph = network.graph(structure, neighbour_list(structure, network.cutoff), attached=False)
    return graph, network.places(graph)
