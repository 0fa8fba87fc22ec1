"""Compiled packages made when they are first wanted, and kept in a folder for the next time.

    ~/.cache/mlcalc/NAME-KEY/KIND.pt2

The folder is that of the environment variable MLCALC_CACHE, or mlcalc/ in XDG_CACHE_HOME or ~/.cache. KEY stands for all
that a program depends on: parameters, precision, device, processor, version of torch, and our own arithmetic. Each kind of
evaluation has a file of its own, which appears when it is whole: what was cut off goes on with the next kind.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from mlcalc.errors import CheckpointError, UsageError
from mlcalc.potentials import checked_device, checkpoint_of
from mlcalc.potentials.checkpoint import load_checkpoint
from mlcalc.potentials.compiled import KINDS, CompiledPotential, Description, load_compiled
from mlcalc.potentials.compiling import export
from mlcalc.potentials.network import Network


def load_cached(
    name: str | os.PathLike[str],
    kinds: Sequence[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    progress: Callable[[str, int, int], None] = lambda kind, done, total: None,
) -> CompiledPotential:
    """A potential of ours, compiled; by the programs in the cache, or made now, which takes minutes for each kind.

    Parameters
    ----------
    name : of a bundled potential, or the path of a .safetensors checkpoint
    kinds : "direct", "conservative", "joint", what shall run compiled; None for all that the network has
    progress : called with a kind that is made, how many are there, how many there shall be

    Raises
    ------
    UsageError
        for another potential, without a C++ compiler, or if the cache's folder cannot be written.
    CheckpointError
        if the checkpoint cannot be read.
    RunError
        if torch cannot compile it.
    """
    checkpoint, where = checkpoint_of(name), checked_device(device)
    network = load_checkpoint(checkpoint).to(device=where, dtype=dtype)
    if kinds is None:
        kinds = [kind for kind, computes in KINDS.items() if not computes & ~network.provides]
    folder, programs = cache_folder() / f"{network.name}-{_key(network)}", {}
    for done, kind in enumerate(kinds):
        path, found = folder / f"{kind}.pt2", None
        with suppress(CheckpointError):  # missing or damaged
            found = load_compiled(path, device=where, dtype=dtype)
        if found is None:
            progress(kind, done, len(kinds))
            _make(checkpoint, path, kind, network)
            found = load_compiled(path, device=where, dtype=dtype)
        programs |= found.programs
    progress("", len(kinds), len(kinds))
    return CompiledPotential(network, programs)


def cache_folder() -> Path:
    """Where packages are kept."""
    own = os.environ.get("MLCALC_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlcalc"


def _make(checkpoint: Path, path: Path, kind: str, network: Network) -> None:
    part = path.with_name(f"{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise UsageError(
            f"cache: cannot write to {path.parent} ({error.strerror}); name a folder in the environment variable "
            "MLCALC_CACHE"
        ) from error
    try:
        export(checkpoint, part, [kind], dtype=network.dtype, device=network.device)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _key(network: Network) -> str:
    """Changes with whatever a program depends on."""
    here = Description.here(network.name, (), network.dtype, device=network.device)
    digest = hashlib.sha256(here.to_json().encode() + network.fingerprint.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
