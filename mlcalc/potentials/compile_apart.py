"""Several kinds of evaluation compiled at once, a process each: compiling one is mostly the work of one thread."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from mlcalc.errors import RunError


def export_apart(
    checkpoint: Path,
    paths: Mapping[str, Path],
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[str, int, int], None],
) -> None:
    """A package for each kind of evaluation, by as many runs of `mlcalc export`.

    Parameters
    ----------
    paths : kind → where its package shall be, ending in .pt2
    dtype, device, progress : see `mlcalc.potentials.compiling.export`

    Raises
    ------
    RunError
        with what the first that failed said.
    """
    how = ["--dtype", str(dtype).removeprefix("torch."), "--device", str(device)]
    folder = str(Path(__file__).parents[2])  # that of the package, wherever it was found
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])}
    with ExitStack() as stack:
        runs = {}
        for kind, path in paths.items():
            said = stack.enter_context(tempfile.TemporaryFile())
            command = [sys.executable, "-m", "mlcalc", "export", str(checkpoint), str(path), "--wanted", kind, *how]
            run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)
            stack.callback(run.wait)
            stack.callback(run.terminate)  # nothing, once it has ended
            runs[kind] = run, said
        for done, (kind, (run, said)) in enumerate(runs.items()):
            progress(kind, done, len(runs))
            if run.wait():
                said.seek(0)
                last = said.read().decode(errors="replace").strip().splitlines()[-1:]
                reason = "".join(last).removeprefix("mlcalc: error: ") or f"exit status {run.returncode}"
                raise RunError(reason)


def at_once() -> bool:
    """Whether there are processors for more than one."""
    return (os.cpu_count() or 1) > 1


def programs_of(path: Path, kind: str, folder: Path) -> list[str]:
    """The files of a kind's program in a package, taken out into a folder."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if f"/data/aotinductor/{kind}/" in name]
        found = []
        for name in names:
            file = folder / Path(name).name
            file.write_bytes(archive.read(name))
            found.append(str(file))
        return found
