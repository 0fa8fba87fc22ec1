"""Hydrogen mass repartitioning: slower vibrations, the same statistics of positions.

Mass moves from each heavy atom to the hydrogens bonded to it. What positions a canonical ensemble visits does not
depend on masses; how fast they move does. O–H vibrations slow down by √(μ/μ') (to 0.63 in water with 3 amu), and both
the inner and the outer step may be longer for it. A molecule's mass is kept, so it moves as a whole nearly as before;
its librations and vibrations are slower.

K. A. Feenstra, B. Hess, H. J. C. Berendsen, J. Comput. Chem. 20, 786 (1999),
doi:10.1002/(SICI)1096-987X(199906)20:8<786::AID-JCC5>3.0.CO;2-B; C. W. Hopkins, S. Le Grand, R. C. Walker,
A. E. Roitberg, J. Chem. Theory Comput. 11, 1864 (2015), doi:10.1021/ct5010406.
"""

from __future__ import annotations

from dataclasses import replace
from typing import overload

import ase
import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from torch import Tensor

from mlcalc.errors import UsageError
from mlcalc.neighbours import neighbour_list
from mlcalc.structure import Structure

_REACH = 1.3  # times the sum of covalent radii: a bond; 1.26 Å for O–H, whose hydrogen bonds begin at 1.5 Å


@overload
def repartition_hydrogen_mass(atoms: ase.Atoms, hydrogen_mass: float = 3.0) -> ase.Atoms: ...
@overload
def repartition_hydrogen_mass(atoms: Structure, hydrogen_mass: float = 3.0) -> Structure: ...
def repartition_hydrogen_mass(atoms: ase.Atoms | Structure, hydrogen_mass: float = 3.0) -> ase.Atoms | Structure:
    """The same atoms with other masses: hydrogens (any isotope) of `hydrogen_mass`, taken from the nearest heavy atom.

    Parameters
    ----------
    atoms : one or more systems; it is not changed
    hydrogen_mass : amu, at least what each hydrogen has already

    Returns
    -------
    atoms of the type that was given; the sum of masses is what it was

    Raises
    ------
    UsageError
        for a mass below a hydrogen's own, a hydrogen without a heavy atom within 1.3 times the sum of their covalent
        radii, or a heavy atom that would be left lighter than its hydrogens.
    """
    if isinstance(atoms, ase.Atoms):
        made = atoms.copy()
        made.calc = atoms.calc
        made.set_masses(_repartitioned(Structure.from_ase(atoms), hydrogen_mass).numpy())
        return made
    return replace(atoms, masses=_repartitioned(atoms, hydrogen_mass))


def _repartitioned(structure: Structure, hydrogen_mass: float) -> Tensor:
    hydrogens = torch.nonzero(structure.numbers == 1)[:, 0]
    if not 0 < hydrogen_mass <= 100:
        raise UsageError(f"hydrogen_mass: got {hydrogen_mass}; give a mass above 0 to 100 amu, such as 3")
    masses = structure.masses.clone()
    if len(hydrogens) == 0:
        return masses
    gained = hydrogen_mass - masses[hydrogens]
    if bool((gained < 0).any()):
        worst = int(hydrogens[gained.argmin()])
        raise UsageError(
            f"hydrogen_mass: got {hydrogen_mass}, but atom {worst} has {float(masses[worst]):.4g} amu already; give as "
            "much or more"
        )
    owners = _owners(structure)[hydrogens]
    if bool((owners < 0).any()):
        alone = int(hydrogens[int((owners < 0).nonzero()[0])])
        raise UsageError(
            f"hydrogen_mass: hydrogen {alone} has no heavy atom within {_REACH} times the sum of covalent radii to "
            "take mass from; relax the structure, or leave masses as they are"
        )
    masses[hydrogens] = hydrogen_mass
    masses.index_add_(0, owners, -gained)
    _check_heavier(structure, masses, owners, hydrogen_mass)
    return masses


def _owners(structure: Structure) -> Tensor:
    """(n_atoms,), int64: the nearest heavy atom that each hydrogen is bonded to; −1 where there is none."""
    radii = torch.as_tensor(covalent_radii, dtype=structure.dtype, device=structure.device)
    heavy = structure.numbers > 1
    if not bool(heavy.any()):
        return torch.full_like(structure.numbers, -1)
    reach = _REACH * (radii[1] + radii[structure.numbers[heavy]])
    edges = neighbour_list(structure, float(reach.max()))
    distance = edges.vectors(structure).norm(dim=1)
    bonded = (structure.numbers[edges.centre] == 1) & heavy[edges.neighbour]
    bonded &= distance <= _REACH * (radii[1] + radii[structure.numbers[edges.neighbour]])
    edge = torch.nonzero(bonded)[:, 0][distance[bonded].argsort(descending=True)]
    owners = np.full(structure.n_atoms, -1)
    owners[edges.centre[edge].cpu().numpy()] = edges.neighbour[edge].cpu().numpy()  # the last one stays: the nearest
    return torch.from_numpy(owners).to(structure.device)


def _check_heavier(structure: Structure, masses: Tensor, owners: Tensor, hydrogen_mass: float) -> None:
    lightest = int(owners[masses[owners].argmin()])
    if float(masses[lightest]) < hydrogen_mass:
        symbol = chemical_symbols[int(structure.numbers[lightest])]
        raise UsageError(
            f"hydrogen_mass: got {hydrogen_mass}, which leaves atom {lightest} ({symbol}) {float(masses[lightest]):.3g}"
            " amu, less than its hydrogens; give a smaller mass"
        )
