"""Structures from trajectories and files, with their times where these are known."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io

from mlcalc.diagnosis.read import ReadSettings, read_record
from mlcalc.errors import UsageError
from mlcalc.trajectory import Trajectory


def frames_of(trajectory: Trajectory) -> list[ase.Atoms]:
    """The frames of a trajectory.

    Raises
    ------
    UsageError
        if it has none.
    """
    if not trajectory.n_frames:
        raise UsageError("trajectory: it has no whole frame; let the run go on")
    fixed = {"pbc": trajectory.periodic, "masses": trajectory.masses}
    return [
        ase.Atoms(trajectory.numbers, trajectory.positions[k], cell=trajectory.cell_of(k), **fixed)
        for k in range(trajectory.n_frames)
    ]


def read_structures(
    path: str | Path, settings: ReadSettings | None = None
) -> tuple[list[ase.Atoms], list[float] | None]:
    """All structures of a file and their times, ps: a trajectory of any program, or whatever ASE reads.

    Raises
    ------
    UsageError
        for a file that nothing reads, or that has no positions.
    """
    try:
        frames = read_record([path], settings).frames
    except UsageError:
        images = _unlike_each_other(Path(path))
        if not images:
            raise
        return images, None
    if frames is None or frames.positions is None:
        raise UsageError(f"structure: {path} has no positions; give a trajectory")
    fixed = {"pbc": frames.periodic, "masses": frames.masses}
    atoms = [
        ase.Atoms(frames.numbers, frames.positions[k], cell=frames.cell[k], **fixed) for k in range(frames.n_frames)
    ]
    return atoms, None if frames.time_ps is None else frames.time_ps.tolist()


def _unlike_each_other(path: Path) -> list[ase.Atoms]:
    """Structures of different atoms in one file; none if ASE cannot read it."""
    if not path.is_file():
        return []
    try:
        return list(ase.io.iread(path, index=":"))
    except Exception:  # ASE's readers raise whatever their parsers meet; what read_record says of the file is better
        return []
