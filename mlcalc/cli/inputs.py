"""What the commands do with arguments that they share: read the structure, load the potential, try the output."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlcalc.errors import UsageError


def read_structure(path: str | None, index: str | int = -1, argument: str = "structure") -> tuple[Any, str]:
    """(the last frame of a file or all of them, index ":", or the bundled water box; its name)"""
    import ase.io

    import mlcalc

    if path is None:
        return mlcalc.water_box(), "bundled water box"
    if not Path(path).is_file():
        raise UsageError(f"{argument}: no file {path}; give the path of a file that ASE reads, such as extended XYZ")
    try:
        atoms = ase.io.read(path, index)
    except Exception as error:  # ASE's readers raise whatever their parsers meet
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UsageError(f"{argument}: ASE cannot read {path} ({reason[0]}); check the file and its ending") from error
    return atoms, Path(path).name


def load_potential(arguments: argparse.Namespace) -> Any:
    import torch

    import mlcalc
    from mlcalc.potentials.two_potentials import TwoPotentials

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else None
    try:
        device = torch.device(arguments.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device: {arguments.device!r} is not available ({str(error).splitlines()[0]}); use cpu, or install a "
            "torch that knows it"
        ) from error
    slow, fast = (
        name and mlcalc.load(name, device=arguments.device, dtype=dtype)
        for name in (arguments.potential, arguments.fast)
    )
    return TwoPotentials(fast, slow) if fast else slow


def usual_forces(potential: Any) -> str:
    from mlcalc.evaluation import Wanted

    conservative, direct = potential.provides & Wanted.CONSERVATIVE, potential.provides & Wanted.DIRECT
    return "mts" if conservative and direct else "conservative" if conservative else "direct"


def writable(path: str | Path, what: str, *, make_folder: bool = False) -> Path:
    """The path, once a file could be opened there: better now than after minutes of computing."""
    path = Path(path)
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        reason = error.strerror if path.parent.is_dir() or make_folder else f"there is no folder {path.parent}"
        raise UsageError(f"{what}: cannot write {path} ({reason}); give a writable path") from error
    return path


def write_found(found: Any, json_path: Path | None, plot_path: Path | None, plot: Callable[[Any, Path], None]) -> None:
    """Write what a command found where it was asked to, and say where."""
    if json_path:
        found.write_json(json_path)
    if plot_path:
        plot(found, plot_path)
    written = [f"{name:<8}{path}" for name, path in (("result", json_path), ("figure", plot_path)) if path]
    if written:
        print("", *written, sep="\n")


def whole_path(name: str) -> str:
    """A potential's file, with or without a family before it, by its whole path: it is read from another folder."""
    family, colon, path = name.rpartition(":")
    return f"{family}{colon}{Path(path).resolve()}" if path and Path(path).is_file() else name
