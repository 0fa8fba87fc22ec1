"""Structures: what they hold, and what they refuse."""

from __future__ import annotations

import ase
import ase.build
import numpy as np
import pytest
import torch

from mlcalc.errors import UsageError
from mlcalc.neighbours import neighbour_list
from mlcalc.structure import Structure, check_overlap


def test_from_ase_and_back_keeps_everything(make_water):
    atoms = make_water()
    atoms.set_masses([15.995, 2.014, 2.014] * 4)
    atoms.pbc = (True, False, True)
    (back,) = Structure.from_ase(atoms).to_ase()
    np.testing.assert_array_equal(back.positions, atoms.positions)
    np.testing.assert_array_equal(back.numbers, atoms.numbers)
    np.testing.assert_array_equal(back.cell.array, atoms.cell.array)
    np.testing.assert_array_equal(back.pbc, atoms.pbc)
    np.testing.assert_array_equal(back.get_masses(), atoms.get_masses())


def test_batch_of_different_sizes(make_water):
    systems = [make_water(4), ase.build.molecule("H2O"), make_water(8)]
    batch = Structure.from_ase(systems)
    assert batch.n_systems == 3
    assert batch.atoms_per_system.tolist() == [12, 3, 24]
    for one, back in zip(systems, batch.to_ase(), strict=True):
        np.testing.assert_array_equal(back.positions, one.positions)
        np.testing.assert_array_equal(back.cell.array, one.cell.array)


def test_replicated_is_a_batch_of_copies(make_water):
    one = Structure.from_ase(make_water())
    three = one.replicated(3)
    assert (three.n_systems, three.n_atoms) == (3, 36)
    assert three.system.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    torch.testing.assert_close(three.positions[24:], one.positions, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_explicit(make_water, dtype):
    structure = Structure.from_ase(make_water(), dtype=dtype)
    assert structure.dtype == structure.cell.dtype == structure.masses.dtype == dtype
    assert structure.to(dtype=torch.float64).dtype == torch.float64
    assert structure.numbers.dtype == torch.int64
    assert torch.get_default_dtype() == torch.float32


def _broken(what: str) -> ase.Atoms:
    atoms = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], cell=[5, 5, 5], pbc=True)
    if what == "empty":
        return ase.Atoms()
    if what == "nan position":
        atoms.positions[1, 2] = np.nan
    elif what == "infinite position":
        atoms.positions[0, 0] = np.inf
    elif what == "nan cell":
        atoms.cell[0, 0] = np.nan
    elif what == "flat cell":
        atoms.cell = np.array([[5.0, 0, 0], [0, 5, 0], [5, 5, 0]])
    elif what == "no cell":
        atoms.cell = np.zeros((3, 3))
    elif what == "zero mass":
        atoms.set_masses([16, 0])
    elif what == "negative mass":
        atoms.set_masses([16, -1])
    return atoms


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("empty", "no atoms"),
        ("nan position", "atom 1"),
        ("infinite position", "atom 0"),
        ("nan cell", "cell is not finite"),
        ("flat cell", "no volume"),
        ("no cell", "lattice vector of length 0"),
        ("zero mass", "mass"),
        ("negative mass", "mass"),
    ],
)
def test_bad_structures_are_refused_in_one_line(what, says):
    with pytest.raises(UsageError, match=says) as caught:
        Structure.from_ase(_broken(what))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        Structure.from_ase([ase.build.molecule("H2O"), _broken(what)])


def test_nothing_at_all_is_refused():
    with pytest.raises(UsageError, match="no atoms"):
        Structure.from_ase([])


def test_a_cell_with_no_periodicity_may_be_absent():
    assert Structure.from_ase(ase.build.molecule("H2O")).n_atoms == 3


def test_atoms_on_top_of_each_other_are_named():
    atoms = ase.Atoms("OHH", [[0, 0, 0], [0, 0, 0.97], [5.0, 0, 0.97 + 0.05]], cell=[5, 5, 5], pbc=True)
    structure = Structure.from_ase(atoms)
    edges = neighbour_list(structure, 2.0)
    with pytest.raises(UsageError, match="atoms 1 and 2 are 0.050 Å apart"):
        check_overlap(structure, edges.vectors(structure), edges.centre, edges.neighbour)


def test_some_systems_of_a_batch() -> None:
    """In the order asked for, each as it was."""
    systems = [ase.Atoms(f"Ar{n}", np.arange(3.0 * n).reshape(n, 3), cell=[n, n, n], pbc=n == 2) for n in (1, 3, 2)]
    picked = Structure.from_ase(systems).select([2, 0])
    assert picked.system.tolist() == [0, 0, 1]
    for one, other in zip(picked.to_ase(), (systems[2], systems[0]), strict=True):
        assert one == other
    with pytest.raises(UsageError, match="systems"):
        Structure.from_ase(systems).select([])
