"""Writes complete i-PI inputs, with comments, for a structure and a potential of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase
import ase.io

from mlcalc.engines.ipi import DriverSettings
from mlcalc.engines.ipi_settings import IpiInput
from mlcalc.engines.ipi_xml import simulation_xml
from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure, check_atoms

_MARGIN = 10.0  # Å around atoms without periodicity; i-PI needs a cell, the potential does not see it


def write_input(
    path: str | Path, settings: IpiInput, atoms: ase.Atoms, potential: Potential, driver: DriverSettings
) -> Path:
    """Write i-PI's input, and beside it the structure, turned so that i-PI can read its cell.

    Parameters
    ----------
    path : of the input, ending in .xml; the structure has the same name, ending in .xyz
    potential : for checks only
    driver : how the drivers find that potential; its structure, n_inner, n_beads and extras are filled in here

    Returns
    -------
    the structure's path

    Raises
    ------
    UsageError
        if the potential lacks elements, forces or a virial that the run needs.
    """
    path = Path(path)
    if path.suffix != ".xml":
        raise UsageError(f"output: got {path.name}; give a name that ends in .xml")
    check_atoms(atoms)
    _check_potential(settings, atoms, potential)
    structure = path.with_suffix(".xyz")
    ase.io.write(structure, _upright(atoms), format="extxyz", columns=["symbols", "positions", "masses"])
    driver = replace(
        driver,
        structure=structure.name,
        n_inner=settings.n_inner if settings.forces == "mts" else 0,
        n_beads=settings.beads,
        extras=int(settings.direct_force_extra),
    )
    path.write_text(simulation_xml(settings, driver, path), encoding="utf-8")
    return structure


def _check_potential(settings: IpiInput, atoms: ase.Atoms, potential: Potential) -> None:
    potential.check_species(Structure.from_ase(atoms, device=potential.device))
    needs = Wanted.DIRECT if settings.forces == "direct" else Wanted.ENERGY | Wanted.CONSERVATIVE
    if settings.forces == "mts" or settings.direct_force_extra:
        needs |= Wanted.DIRECT
    if settings.ensemble == "npt":
        needs |= Wanted.VIRIAL
        if not atoms.pbc.all():
            raise UsageError("structure: ensemble 'npt' needs a cell that is periodic in all three directions")
    potential.check_wanted(needs)


def _upright(atoms: ase.Atoms) -> ase.Atoms:
    """The same structure with its first lattice vector along x, the second in the xy plane, as i-PI's cells must be."""
    turned = ase.Atoms(
        atoms.numbers, atoms.positions, cell=atoms.cell.complete(), pbc=atoms.pbc, masses=atoms.get_masses()
    )
    if not atoms.pbc.any():
        turned.center(vacuum=_MARGIN)
        return turned
    if atoms.cell.complete().handedness < 0:
        raise UsageError("structure: its cell is left-handed; exchange two lattice vectors")
    cell, rotation = turned.cell.standard_form()
    turned.positions = atoms.positions @ rotation.T
    turned.cell = cell
    return turned
