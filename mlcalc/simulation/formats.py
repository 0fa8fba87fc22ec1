"""Trajectories in the formats of other programs, by the ending of the file's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase.data import chemical_symbols

from mlcalc.errors import UsageError
from mlcalc.trajectory import Trajectory


def to_atoms(trajectory: Trajectory) -> list[ase.Atoms]:
    """Every frame with momenta; `info` has time_ps, potential_energy and conserved_energy (eV).

    The energy stands in `info` and in no calculator: a calculator would have to have forces too.
    """
    frames = []
    for k in range(trajectory.n_frames):
        atoms = ase.Atoms(
            numbers=trajectory.numbers,
            positions=trajectory.positions[k],
            momenta=trajectory.momenta[k],
            masses=trajectory.masses,
            cell=trajectory.cell_of(k),
            pbc=trajectory.periodic,
        )
        atoms.info = {
            "time_ps": float(trajectory.time_ps[k]),
            "potential_energy": float(trajectory.potential_energy[k]),
            "conserved_energy": float(trajectory.conserved[k]),
        }
        frames.append(atoms)
    return frames


def _extended_xyz(trajectory: Trajectory, path: Path) -> None:
    ase.io.write(path, to_atoms(trajectory), format="extxyz")


def _ase(trajectory: Trajectory, path: Path) -> None:
    ase.io.write(path, to_atoms(trajectory), format="traj")


def _mdtraj(trajectory: Trajectory, path: Path) -> None:
    """HDF5 or XTC: positions, cell and time in single precision, no momenta."""
    try:
        import mdtraj
    except ImportError as error:
        raise UsageError(f"output: {path.suffix} needs mdtraj; pip install 'mlcalc[formats]'") from error
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for number in trajectory.numbers:
        symbol = chemical_symbols[number]
        # atoms of an unknown molecule: a residue each, for bonds are not ours to guess
        residue = topology.add_residue(symbol, chain)
        topology.add_atom(symbol, mdtraj.element.get_by_symbol(symbol), residue)
    cell: dict[str, Any] = {}
    if trajectory.periodic.any():
        cells = [ase.cell.Cell(trajectory.cell_of(k)).cellpar() for k in range(trajectory.n_frames)]
        parameters = np.array(cells).reshape(-1, 6)
        cell["unitcell_lengths"], cell["unitcell_angles"] = parameters[:, :3] / 10, parameters[:, 3:]
    mdtraj.Trajectory(trajectory.positions / 10, topology, time=trajectory.time_ps, **cell).save(str(path))


#: Ending → what writes it
WRITERS: dict[str, Callable[[Trajectory, Path], None]] = {
    ".xyz": _extended_xyz,
    ".extxyz": _extended_xyz,
    ".traj": _ase,
    ".h5": _mdtraj,
    ".xtc": _mdtraj,
}
#: Of our own format
OWN = ".trajectory"


def check_ending(path: str | Path) -> None:
    """Refuse an ending that nothing writes, before a run and not after it.

    Raises
    ------
    UsageError
        with the endings that are known; or if mdtraj is needed and missing.
    """
    ending = Path(path).suffix
    if ending not in (OWN, *WRITERS):
        raise UsageError(f"output: got {path}; let the name end in {', '.join((OWN, *WRITERS))}")
    if WRITERS.get(ending) is _mdtraj:
        try:
            import mdtraj  # noqa: F401
        except ImportError as error:
            raise UsageError(f"output: {ending} needs mdtraj; pip install 'mlcalc[formats]'") from error


def export(trajectory: Trajectory, path: str | Path) -> None:
    """Write all frames in the format that the ending names; an existing file is replaced.

    Raises
    ------
    UsageError
        for an ending that is unknown, or our own: such a file is a copy.
    """
    check_ending(path)
    if Path(path).suffix == OWN:
        raise UsageError(f"output: got {path}; copy the file, or let the name end in {', '.join(WRITERS)}")
    WRITERS[Path(path).suffix](trajectory, Path(path))
