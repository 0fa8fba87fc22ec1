"""Potentials by name or by checkpoint file. One file per potential; the file's name is its key."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from mlcalc.potentials.potential import Potential

#: Potentials that need no weights: files of this folder with a POTENTIAL that takes keyword arguments
ANALYTIC = ("harmonic", "lennard_jones")
#: Other people's networks: a file of this folder, which is also the extra that installs their package (setup.cfg) and
#: stands before the path of a file of theirs ("sevennet:/path") or their own name of it ("torchani:ANI2x") → the
#: weights that come with the package. The file has a load(name), which returns a Potential in its own dtype on the CPU
FAMILIES = {
    "chgnet": ("chgnet", "chgnet-0.2.0", "chgnet-r2scan"),
    "fairchem": (),
    "mace": (),
    "mattersim": (),
    "metatomic": (),
    "nequip": (),
    "orb": (),
    "sevennet": ("7net-0", "7net-0_22may2024", "7net-l3i5"),
    "torchani": (),
}
#: Entry-point group in which other packages offer theirs: name = "package.module:make", called as
#: make(device=…, dtype=…, **parameters), returning a Potential
ENTRY_POINTS = "mlcalc.potentials"

_SUFFIX, _COMPILED = ".safetensors", ".pt2"


def load(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    **parameters: Any,
) -> Potential:
    """A potential by its name or by the path of its checkpoint.

    Parameters
    ----------
    name : "water" (the default of the bundled ones), "water-painn", "water-pet", "harmonic", "lennard_jones", the name
        of a potential that another package offers, the path of a .safetensors checkpoint, that of a .pt2 package of
        `mlcalc export` (it runs code: see `mlcalc.potentials.compiled`), a name in FAMILIES, a file of such a family as
        "sevennet:path" or "chgnet:path" (which can run code: see `mlcalc.potentials.sevennet`), or an ASE calculator as
        "ase:package.module:factory?key=value&key=value" (see `mlcalc.potentials.ase_calculator`)
    device : where it shall compute
    dtype : torch.float32 or torch.float64; None keeps the potential's own (float32 for networks)
    parameters : what the potential's constructor takes, e.g. `load("lennard_jones", sigma=3.4)`; checkpoints take none

    Raises
    ------
    UsageError
        if there is no such potential (the message lists the names), device, or parameter, or its package is missing.
    CheckpointError
        if the file is missing, truncated, foreign, or changed since it was written.
    """
    import torch

    from mlcalc.errors import UsageError
    from mlcalc.potentials import pretrained

    if dtype not in (None, torch.float32, torch.float64):
        raise UsageError(f"dtype: got {dtype}; choose torch.float32 or torch.float64")
    where = checked_device(device)
    key = os.fspath(name)
    if key.startswith("ase:"):
        from mlcalc.potentials.ase_calculator import from_specification

        if parameters:
            raise UsageError(f"{next(iter(parameters))}: write it into {key!r}, as ?{next(iter(parameters))}=…")
        return from_specification(key)
    offered = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    family = next((one for one, known in FAMILIES.items() if key in known or key.startswith(f"{one}:")), None)
    if family is not None:
        if parameters:
            raise UsageError(f"{next(iter(parameters))}: potential {key!r} takes no parameters; leave it out")
        return importlib.import_module(f"mlcalc.potentials.{family}").load(key).to(device=where, dtype=dtype)
    if key in pretrained.NAMES or key.endswith((_SUFFIX, _COMPILED)) or os.sep in key:
        if parameters:
            raise UsageError(f"{next(iter(parameters))}: the checkpoint {key!r} takes no parameters; leave it out")
        if key.endswith(_COMPILED):
            from mlcalc.potentials.compiled import load_compiled

            return load_compiled(key, device=where, dtype=dtype)
        from mlcalc.potentials.checkpoint import load_checkpoint

        path = pretrained.path_of(key) if key in pretrained.NAMES else key
        return load_checkpoint(path).to(device=where, dtype=dtype)
    if key in ANALYTIC:
        factory = importlib.import_module(f"mlcalc.potentials.{key}").POTENTIAL
        return _construct(key, factory, parameters).to(device=where, dtype=dtype)
    if key in offered:
        return _construct(key, offered[key].load(), {"device": where, "dtype": dtype, **parameters})
    raise UsageError(
        f"potential: got {key!r}; choose one of {', '.join(names())}, or give the path of a .safetensors checkpoint, "
        f"or of another family's model as {', '.join(f'{family}:path' for family in FAMILIES)}"
    )


def checkpoint_of(name: str | os.PathLike[str]) -> Path:
    """The file of a potential of ours, by its name or path.

    Raises
    ------
    UsageError
        for any other potential.
    """
    from mlcalc.errors import UsageError
    from mlcalc.potentials import pretrained

    key = os.fspath(name)
    if key not in pretrained.NAMES and not key.endswith(_SUFFIX):
        raise UsageError(
            f"potential: got {key!r}; only our own networks can be compiled: choose one of "
            f"{', '.join(pretrained.NAMES)}, or give the path of a .safetensors checkpoint"
        )
    return pretrained.path_of(key) if key in pretrained.NAMES else Path(key)


def names() -> list[str]:
    """The names that `load` knows, those of other installed packages included."""
    from mlcalc.potentials.pretrained import NAMES

    others = [point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS)]
    return sorted({*NAMES, *ANALYTIC, *others}.union(*FAMILIES.values()))


def _construct(name: str, factory: Any, parameters: dict[str, Any]) -> Any:
    from mlcalc.errors import UsageError

    try:
        return factory(**parameters)
    except TypeError as error:
        raise UsageError(f"potential {name!r}: {error}; leave out what it does not take") from error


def checked_device(device: torch.device | str) -> torch.device:
    """The device, once a tensor could be made there.

    Raises
    ------
    UsageError
        if there is no such device.
    """
    import torch

    from mlcalc.errors import UsageError

    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device: got {device!r} ({reason}); choose cpu, or cuda where a GPU is at hand") from error
    return where
