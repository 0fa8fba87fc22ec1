"""Units: eV, Å, amu inside the package, and the only conversions in it.

The unit of time that follows is Å·sqrt(amu/eV) = 10.18 fs (the same as ASE's). Constants are CODATA 2018
(https://physics.nist.gov/cuu/Constants), exact where the 2019 SI makes them so.
"""

import math

_ELEMENTARY_CHARGE = 1.602176634e-19  # C, exact
_ATOMIC_MASS = 1.66053906660e-27  # kg
_BOLTZMANN = 1.380649e-23  # J/K, exact
_AVOGADRO = 6.02214076e23  # 1/mol, exact

#: Boltzmann constant, eV/K
BOLTZMANN = _BOLTZMANN / _ELEMENTARY_CHARGE
#: one femtosecond in internal time units, Å·sqrt(amu/eV)
FEMTOSECOND = 1e-15 / (1e-10 * math.sqrt(_ATOMIC_MASS / _ELEMENTARY_CHARGE))
#: one picosecond in internal time units
PICOSECOND = 1000.0 * FEMTOSECOND
#: one gigapascal in eV/Å³
GIGAPASCAL = 1e9 * 1e-30 / _ELEMENTARY_CHARGE
#: one amu/Å³ in g/cm³
DALTON_PER_CUBIC_ANGSTROM = _ATOMIC_MASS * 1e3 / 1e-24
#: one kcal/mol in eV
KILOCALORIE_PER_MOLE = 4184.0 / _AVOGADRO / _ELEMENTARY_CHARGE
#: Hartree's atomic units: of energy in eV, of length in Å, of mass in amu, of time in fs
HARTREE = 27.211386245988
BOHR = 0.529177210903
ELECTRON_MASS = 5.48579909065e-4
ATOMIC_TIME_FS = 0.024188843265857
#: 1/ps (the frequency, not 2π times it) as a wavenumber, cm⁻¹
WAVENUMBER_OF_TERAHERTZ = 1e12 / 29979245800.0
#: one millipascal-second in eV·ps/Å³
MILLIPASCAL_SECOND = 1e-3 * GIGAPASCAL * 1e-9 * 1e12
#: one Å in Bohr and one eV in Hartree as i-PI has them (ipi.utils.units). CODATA's differ in the eighth digit, but with
#: these a structure that i-PI read in Å comes to the potential as it was in the file
IPI_ANGSTROM, IPI_ELECTRONVOLT = 1.8897261, 0.036749326


def from_femtoseconds(time_fs: float) -> float:
    """Time in fs → internal units."""
    return time_fs * FEMTOSECOND


def to_picoseconds(time: float) -> float:
    """Internal time → ps."""
    return time / PICOSECOND


def temperature_from_kinetic(kinetic_energy: float, degrees_of_freedom: int) -> float:
    """T = 2 K / (k_B n_dof), K; kinetic energy in eV."""
    return 2.0 * kinetic_energy / (BOLTZMANN * degrees_of_freedom)
