"""Each physical quantity once: symbol, shape, unit and sign.

Names in the package mean what stands here; adapters translate outward (ASE's stress, LAMMPS's units).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One physical quantity as it is meant everywhere inside the package."""

    name: str
    shape: str
    unit: str
    meaning: str


QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity("positions", "(n_atoms, 3)", "Å", "Cartesian"),
        Quantity("cell", "(n_systems, 3, 3)", "Å", "rows are lattice vectors"),
        Quantity("masses", "(n_atoms,)", "amu", "positive"),
        Quantity("momenta", "(n_atoms, 3)", "amu·Å/time, time = Å·sqrt(amu/eV)", "mass times velocity"),
        Quantity("energy", "(n_systems,)", "eV", "potential energy, the conservative one"),
        Quantity("energies", "(n_atoms,)", "eV", "the potential's own share of the energy by atom"),
        Quantity("conservative_force", "(n_atoms, 3)", "eV/Å", "minus the gradient of energy"),
        Quantity("direct_force", "(n_atoms, 3)", "eV/Å", "a head of its own; the gradient of nothing"),
        Quantity("virial", "(n_systems, 3, 3)", "eV", "-dE/dstrain; stress = -virial/volume"),
        Quantity("edge_vectors", "(n_edges, 3)", "Å", "r_ij = r_j - r_i + S·cell"),
    )
}
