"""LAMMPS with pair_style mlcalc: driven from this process, or as a program of its own."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
from ase.data import atomic_masses, atomic_numbers
from ase.io.lammpsdata import write_lammps_data

from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential

ROOT = Path(__file__).parent.parent
#: the program in the environment of this Python
PROGRAMS = Path(sys.executable).parent
#: LAMMPS's own constant of metal units, m v² in eV (src/update.cpp); CODATA's is 6e-8 larger
MVV2E = 1.0364269e-4
#: what a LAMMPS picosecond is in ASE's unit of time, with that constant
PICOSECOND = MVV2E**-0.5

pytest.importorskip("mlcalc_lammps", reason="missing: mlcalc-lammps (pip install ./lammps_plugin)")


def set_up(atoms: ase.Atoms, path: Path, species: Sequence[str], units: str = "metal") -> str:
    """Commands that read the atoms, with one type for each of the species; the data file goes to `path`.

    The cell must be as LAMMPS wants it: the first vector along x, the second in the xy plane.
    """
    boundary = np.where(atoms.pbc, "p", "f")
    with path.open("w") as file:
        write_lammps_data(file, atoms, specorder=list(species), units=units, force_skew=True)
    # ASE's writer changes masses by 3e-10
    masses = [f"mass {k} {atomic_masses[atomic_numbers[symbol]]}" for k, symbol in enumerate(species, 1)]
    start = [f"units {units}", "atom_style atomic", f"boundary {' '.join(boundary)}", f"read_data {path}", *masses]
    return "\n".join([*start, "neighbor 1.0 bin", ""])


@contextmanager
def driven(*commands: str) -> Iterator[Any]:
    """LAMMPS in this process, with these commands done."""
    mpi = next(path for path in importlib.metadata.files("mpich") or () if path.name == "libmpi.so.12")
    ctypes.CDLL(str(mpi.locate()), ctypes.RTLD_GLOBAL)
    import lammps

    lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    try:
        for text in commands:
            lmp.commands_string(text)
        yield lmp
    finally:
        lmp.close()


def by_tag(lmp: Any, values: np.ndarray) -> np.ndarray:
    """Values of the atoms in the order of their IDs."""
    n_atoms = lmp.get_natoms()
    return values[:n_atoms][np.argsort(lmp.numpy.extract_atom("id")[:n_atoms])].copy()


def forces(lmp: Any) -> np.ndarray:
    return by_tag(lmp, lmp.numpy.extract_atom("f"))


def pressures(lmp: Any) -> np.ndarray:
    """In the order of ASE's stress, bar."""
    return np.array([lmp.get_thermo(key) for key in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")])


def launched(text: str, folder: Path, ranks: int = 1) -> str:
    """What the program lmp says to an input, whatever its end; Python finds modules in the folder."""
    path = folder / f"in.{ranks}"
    path.write_text(text)
    command = [PROGRAMS / "mpirun", "-np", str(ranks), PROGRAMS / "lmp", "-in", path, "-log", "none", "-nocite"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    done = subprocess.run(
        command if ranks > 1 else command[3:], cwd=folder, capture_output=True, text=True, timeout=300, env=environment
    )
    return done.stdout + done.stderr


@pytest.fixture
def counted(monkeypatch):
    """How often a potential of ours was evaluated, by what was wanted; independent of what the plugin counts."""
    counts: dict[str, int] = {"joint": 0, "direct": 0, "conservative": 0}
    evaluate = AutodiffPotential.evaluate

    def counting(self: Any, structure: Any, neighbours: Any, wanted: Wanted) -> Any:
        kinds = wanted & (Wanted.CONSERVATIVE | Wanted.DIRECT)
        kind = {Wanted.DIRECT: "direct", Wanted.CONSERVATIVE: "conservative"}.get(kinds, "joint")
        counts[kind] += 1
        return evaluate(self, structure, neighbours, wanted)

    monkeypatch.setattr(AutodiffPotential, "evaluate", counting)
    return counts
