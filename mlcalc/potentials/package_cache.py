"""Compiled packages made when they are first wanted, and kept in a folder for the next time.

    ~/.cache/mlcalc/NAME-KEY/KIND.pt2

The folder is that of the environment variable MLCALC_CACHE, or mlcalc/ in XDG_CACHE_HOME or ~/.cache. KEY stands for
all that a program depends on: parameters, precision, device, processor, version of torch, and our own arithmetic. Each
kind of evaluation has a file of its own, which appears when it is whole: what was cut off goes on with the next kind.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mlcalc.errors import CheckpointError, UsageError
from mlcalc.potentials import checked_device, checkpoint_of
from mlcalc.potentials.checkpoint import load_checkpoint
from mlcalc.potentials.compile_apart import at_once, export_apart
from mlcalc.potentials.compiled import CompiledPotential, Description, load_compiled
from mlcalc.potentials.compiling import check_tools, chosen_kinds, export
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
    kinds : of "direct", "conservative", "joint" those that shall run compiled; None for all that the network has
    progress : called before and after compiling, with a kind of evaluation, how many are done, how many there are

    Raises
    ------
    UsageError
        for another potential, evaluations that it does not have, without a compiler, or if the cache's folder cannot
        be written.
    CheckpointError
        if the checkpoint cannot be read.
    RunError
        if torch cannot compile it.
    """
    checkpoint, where = checkpoint_of(name), checked_device(device)
    network = load_checkpoint(checkpoint).to(device=where, dtype=dtype)
    kinds = chosen_kinds(network, kinds)
    folder = cache_folder() / f"{network.name}-{_key(network)}"
    programs: dict[str, Any] = {}
    missing = []
    for kind in kinds:
        try:
            programs |= load_compiled(folder / f"{kind}.pt2", device=where, dtype=dtype).programs
        except CheckpointError:  # or damaged
            missing.append(kind)
    if missing:
        _make(checkpoint, folder, missing, network, progress)
    for kind in missing:
        programs |= load_compiled(folder / f"{kind}.pt2", device=where, dtype=dtype).programs
    return CompiledPotential(network, programs)


def cache_folder() -> Path:
    """Where packages are kept."""
    own = os.environ.get("MLCALC_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlcalc"


def _make(
    checkpoint: Path, folder: Path, kinds: Sequence[str], network: Network, progress: Callable[[str, int, int], None]
) -> None:
    parts = {kind: folder / f"{os.getpid()}-{kind}.pt2" for kind in kinds}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts[kinds[0]].touch()
    except OSError as error:
        raise UsageError(
            f"cache: cannot write to {folder} ({error.strerror}); name another in the environment variable MLCALC_CACHE"
        ) from error
    try:
        check_tools(network.device.type)
        if len(kinds) > 1 and at_once():
            export_apart(checkpoint, parts, network.dtype, network.device, progress)
        else:
            for done, kind in enumerate(kinds):
                progress(kind, done, len(kinds))
                export(checkpoint, parts[kind], [kind], dtype=network.dtype, device=network.device)
    finally:
        for kind, part in parts.items():
            _keep(part, folder / f"{kind}.pt2")
    progress("", len(kinds), len(kinds))


def _keep(part: Path, path: Path) -> None:
    """A package under its own name if it is whole; what was cut off is thrown away."""
    if part.is_file() and zipfile.is_zipfile(part):
        part.replace(path)
    part.unlink(missing_ok=True)


def _key(network: Network) -> str:
    """Changes with whatever a program depends on."""
    here = Description.here(network.name, (), network.dtype, device=network.device)
    digest = hashlib.sha256(here.to_json().encode() + network.fingerprint.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
