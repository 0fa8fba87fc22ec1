"""The Python end of LAMMPS's pair_style mlcalc (lammps_plugin/): a potential on the atoms and edges that LAMMPS has.

The interpreter is embedded in LAMMPS. Arrays are its memory, seen through numpy: nothing is copied on a CPU.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_masses
from torch import Tensor

from mlcalc.errors import UsageError
from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.neighbours import Neighbours
from mlcalc.potentials import load
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.potential import Potential
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure

#: What LAMMPS wants to have filled, in the order of its arrays
_RESULTS = ("energy", "energies", "conservative_force", "direct_force", "virial", "virials")
_BY_ATOM = {"energies": Wanted.ENERGY, "virials": Wanted.VIRIAL}


class Evaluator:
    """A potential, loaded once, and the graph that it is evaluated on.

    Parameters
    ----------
    potential, fast : names, as for `mlcalc.load`; fast is for the inner steps, "" for none
    device : "cpu", "cuda" …
    dtype : "float32", "float64", or "" for the potential's own
    threads : of torch on the CPU; 0 leaves them as they are

    Raises
    ------
    UsageError
        as `mlcalc.load`.
    """

    def __init__(
        self, potential: str, *, fast: str = "", device: str = "cpu", dtype: str = "", threads: int = 0
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        slow = _load_once(potential, device, dtype)
        self.potential: Potential = TwoPotentials(_load_once(fast, device, dtype), slow) if fast else slow

    def check(self, numbers: np.ndarray, periodic: np.ndarray) -> None:
        """Refuse elements and boxes that the potential does not know.

        Parameters
        ----------
        numbers : (n,), int64, atomic numbers
        periodic : (1, 3), bool
        """
        if periodic.any() and isinstance(self.potential, Harmonic):
            raise UsageError(
                "potential 'harmonic' is tied to places, and LAMMPS wraps atoms into a periodic box; write "
                "boundary f f f"
            )
        atoms = replace(_structure(numbers), periodic=torch.from_numpy(periodic))
        self.potential.check_species(atoms.to(device=self.potential.device))

    def set_graph(
        self,
        numbers: np.ndarray,
        n_counted: int,
        edges: tuple[np.ndarray, np.ndarray, np.ndarray],
        places: tuple[np.ndarray, np.ndarray, np.ndarray],
        results: tuple[np.ndarray, ...],
    ) -> None:
        """Take the atoms and edges of all evaluations until the next call.

        Parameters
        ----------
        numbers : (n_atoms,), int64
        n_counted : how many atoms, the first ones, belong to this process; the others are seen by them
        edges : centre, neighbour (n_edges,) and shift (n_edges, 3), int64, as in `Neighbours`
        places : positions (n_atoms, 3) and cell (1, 3, 3), Å, and periodic (1, 3), bool; read at each evaluation
        results : energy (1,), energies (n_atoms,), conservative and direct force (n_atoms, 3), virial (1, 3, 3) and
            virials (n_atoms, 3, 3); written by each evaluation
        """
        device = self.potential.device
        centre, neighbour, shift = (torch.from_numpy(array).to(device) for array in edges)
        self._neighbours = Neighbours(centre, neighbour, shift, self.potential.cutoff)
        positions, cell, periodic = map(torch.from_numpy, places)
        self._atoms = replace(_structure(numbers), positions=positions, cell=cell, periodic=periodic)
        self._results = dict(zip(_RESULTS, map(torch.from_numpy, results), strict=True))
        here = torch.arange(len(numbers), device=device) < n_counted
        self._counted = None if n_counted == len(numbers) else here

    def evaluate(self, wanted: Wanted, by_atom: bool) -> None:
        """Write what the counted atoms contribute into the arrays given to `set_graph`.

        Parameters
        ----------
        by_atom : whether energies and virials by atom shall be there

        Raises
        ------
        UsageError
            if something was wanted that the potential does not give.
        """
        device = self.potential.device
        structure = self._atoms if device.type == "cpu" else self._atoms.to(device=device)
        if self._counted is None:
            evaluation = self.potential.evaluate(structure, self._neighbours, wanted)
        else:
            evaluation = self.potential.evaluate_part(structure, self._neighbours, wanted, self._counted)
        self._write(evaluation, wanted, by_atom)

    def _write(self, evaluation: Evaluation, wanted: Wanted, by_atom: bool) -> None:
        for name, array in self._results.items():
            value: Tensor | None = getattr(evaluation, name)
            if name in _BY_ATOM and not (by_atom and wanted & _BY_ATOM[name]):
                continue
            if value is not None:
                array.copy_(value)
            elif name in _BY_ATOM:
                raise UsageError(
                    f"potential {self.potential.name!r} gives no {name} by atom; leave out computes such as pe/atom "
                    "and stress/atom"
                )


def _load_once(name: str, device: str, dtype: str) -> Potential:
    """Pair styles that name the same potential share it, unless its file was written anew."""
    file = Path(name)
    return _load(name, device, dtype, file.stat().st_mtime_ns if file.is_file() else 0)


@functools.lru_cache(maxsize=4)
def _load(name: str, device: str, dtype: str, written: int) -> Potential:
    return load(name, device=device, dtype=getattr(torch, dtype) if dtype else None)


def _structure(numbers: np.ndarray) -> Structure:
    """Atoms without places or a cell."""
    n_atoms = len(numbers)
    return Structure(
        positions=torch.zeros(n_atoms, 3, dtype=torch.float64),
        numbers=torch.from_numpy(numbers),
        cell=torch.zeros(1, 3, 3, dtype=torch.float64),
        periodic=torch.zeros(1, 3, dtype=torch.bool),
        masses=torch.from_numpy(atomic_masses[numbers]),
        system=torch.zeros(n_atoms, dtype=torch.int64),
    )


def one_line(error: BaseException) -> str:
    """An exception as the text of a LAMMPS error."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, (UsageError, RuntimeError)) else f"{type(error).__name__}: {text}"
