"""Small i-PI runs for tests: argon atoms with two Lennard-Jones potentials, and potentials that count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase
import ase.build
import numpy as np
import pytest

from mlcalc.engines.ipi import DriverSettings
from mlcalc.engines.ipi_input import write_input
from mlcalc.engines.ipi_settings import IpiInput
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.potential import Potential
from mlcalc.potentials.two_potentials import TwoPotentials

pytest.importorskip("ipi", reason="missing: ipi (pip install 'mlcalc[ipi]')")


def argon() -> ase.Atoms:
    """32 atoms of a rattled crystal."""
    atoms = ase.build.bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 2)
    atoms.rattle(0.05, seed=1)
    return atoms


def two_argons() -> TwoPotentials:
    """A shorter-ranged Lennard-Jones inside, argon's outside; a few ms an evaluation, and there is a virial."""
    return TwoPotentials(LennardJones(cutoff=4.5), LennardJones(cutoff=5.0))


def prepared(folder: Path, potential: Potential, atoms: ase.Atoms, **settings: Any) -> Path:
    """The input of a run of this potential under the name "mine"."""
    path = folder / "input.xml"
    write_input(path, IpiInput(**{"stride": 1, **settings}), atoms, potential, DriverSettings("mine"))
    return path


def outputs(folder: Path) -> np.ndarray:
    """(n_frames, 6 or 8): step, time, conserved, temperature, kinetic, potential energy; pressure, volume in NPT."""
    return np.loadtxt(folder / "simulation.out")
