"""A ready-to-run input and data file for LAMMPS with pair_style mlcalc (lammps_plugin/)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
from ase.data import chemical_symbols
from ase.io.lammpsdata import write_lammps_data

from mlcalc.errors import UsageError
from mlcalc.evaluation import JOINT, Wanted
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure, check_atoms

ENSEMBLES = ("nve", "langevin", "nvt", "npt", "minimize")
#: Å, between the atoms and the end of a box in a direction that is not periodic
_VACUUM = 10.0


@dataclass(frozen=True)
class LammpsInput:
    """What shall be run.

    Attributes
    ----------
    potential, fast : names, as for `mlcalc.load`; fast is another potential for the inner steps, or None
    device, dtype, threads : as in `mlcalc run`; None is the potential's own, or LAMMPS's
    ensemble : one of ENSEMBLES
    temperature_K : at the start, and of the bath
    pressure_GPa : of npt
    friction_per_ps : of langevin; nvt and npt take 0.1 ps for the thermostat, 1 ps for the barostat
    timestep_fs : of an outer step; None is 0.5 fs an inner step
    n_inner : inner steps in an outer one; None is 8 where the potential has both forces, else 1
    steps, stride : outer steps, and from frame to frame; of a minimization, at most
    seed : of velocities and friction
    """

    potential: str
    fast: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    threads: int | None = None
    ensemble: str = "nve"
    temperature_K: float = 300.0
    pressure_GPa: float = 1e-4
    friction_per_ps: float = 1.0
    timestep_fs: float | None = None
    n_inner: int | None = None
    steps: int = 1000
    stride: int = 10
    seed: int = 1


def write_lammps_input(atoms: ase.Atoms, potential: Potential, settings: LammpsInput, path: Path) -> Path:
    """Write the input to `path` and the atoms beside it (ending .data); returns the path of the latter.

    LAMMPS wants the first lattice vector along x and the second in the xy plane: the atoms are turned with their cell.
    Velocities that the atoms have are kept.

    Parameters
    ----------
    potential : the one that `settings` name, loaded: its elements and forces are checked

    Raises
    ------
    UsageError
        for an ensemble, a number of inner steps or a cell that cannot be used, or an element the potential lacks.
    """
    if settings.ensemble not in ENSEMBLES:
        raise UsageError(f"ensemble: got {settings.ensemble!r}; choose one of {', '.join(ENSEMBLES)}")
    check_atoms(atoms)
    boxed = _in_a_box(atoms)
    potential.check_species(Structure.from_ase(boxed, device=potential.device))
    n_inner = _inner_steps(potential, settings)
    species = [chemical_symbols[number] for number in sorted(set(boxed.numbers))]
    data = path.with_suffix(".data")
    moving = bool(np.any(boxed.get_momenta()))
    sections = (
        _start(boxed, species, data.name),
        _style(potential, settings, species),
        _what_is_written(settings, species, path.stem),
        _descent(settings) if settings.ensemble == "minimize" else _dynamics(boxed, settings, n_inner, moving),
    )
    with data.open("w", encoding="utf-8") as file:
        write_lammps_data(file, boxed, specorder=species, velocities=moving, units="metal", atom_style="atomic")
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return data


def _in_a_box(atoms: ase.Atoms) -> ase.Atoms:
    """With a lattice vector, upright and long enough, also where the atoms are not periodic."""
    boxed = atoms.copy()
    boxed.calc = None
    boxed.set_constraint()
    free = np.flatnonzero(~np.asarray(atoms.pbc))
    if not free.size:
        return boxed
    boxed.center(vacuum=_VACUUM, axis=tuple(free))
    vectors = boxed.cell.array / np.linalg.norm(boxed.cell.array, axis=1, keepdims=True)
    overlap = np.abs(vectors @ vectors.T - np.eye(3))[free]
    if overlap.max() > 1e-6:
        raise UsageError(
            "structure: a lattice vector that is not periodic is not at right angles to the others, as LAMMPS demands; "
            "turn it with atoms.set_cell"
        )
    return boxed


def _inner_steps(potential: Potential, settings: LammpsInput) -> int:
    both = (potential.provides & JOINT) == JOINT
    n_inner = settings.n_inner or (8 if both and settings.ensemble != "minimize" else 1)
    if n_inner > 1 and not both:
        raise UsageError(
            f"n-inner: got {n_inner}, but potential {potential.name!r} lacks one of the two forces; give --n-inner 1, "
            "or another potential for the inner steps with --fast"
        )
    if settings.ensemble == "minimize" and (n_inner > 1 or not potential.provides & Wanted.CONSERVATIVE):
        raise UsageError(
            f"ensemble: minimize needs conservative forces alone, got potential {potential.name!r} with n-inner "
            f"{n_inner}; give --n-inner 1 and a potential with conservative forces"
        )
    if settings.ensemble == "npt":
        potential.check_wanted(Wanted.VIRIAL)
    return n_inner


def _start(atoms: ase.Atoms, species: list[str], data: str) -> str:
    boundary = " ".join(np.where(atoms.pbc, "p", "m"))  # m: the box grows with the atoms, and is never flat
    lines = [f"# {atoms.get_chemical_formula()}, written by `mlcalc lammps input`", "units metal", "atom_style atomic"]
    lines += [f"boundary {boundary}", f"read_data {data}"]
    for kind, symbol in enumerate(species, 1):
        masses = set(atoms.get_masses()[atoms.symbols == symbol].tolist())
        if len(masses) > 1:
            raise UsageError(
                f"structure: atoms of {symbol} have the masses {', '.join(f'{mass:g}' for mass in sorted(masses))}; "
                "here an element has one: make them the same, or write an input with more types by hand"
            )
        lines.append(f"mass {kind} {masses.pop()!r}")
    return "\n".join([*lines, "neighbor 1.0 bin", "neigh_modify every 1 delay 0 check yes"])


def _style(potential: Potential, settings: LammpsInput, species: list[str]) -> str:
    words = ["pair_style mlcalc", _name(settings.potential)]
    for keyword in ("fast", "device", "dtype", "threads"):
        value = getattr(settings, keyword)
        if value is not None:
            words += [keyword, _name(value) if keyword == "fast" else str(value)]
    if not potential.provides & Wanted.CONSERVATIVE:
        words.append("forces direct")
    return f"{' '.join(words)}\npair_coeff * * {' '.join(species)}"


def _name(potential: str) -> str:
    """A file by its whole path, so that the input can be run anywhere; quoted for LAMMPS where that has spaces."""
    word = str(Path(potential).resolve()) if Path(potential).is_file() else potential
    return f'"{word}"' if " " in word else word


def _what_is_written(settings: LammpsInput, species: list[str], stem: str) -> str:
    return f"""thermo_style custom step time temp pe ke etotal econserve press vol
thermo_modify format float %.10g
thermo {settings.stride}
dump frames all custom {settings.stride} {stem}.lammpstrj id type element xu yu zu vx vy vz
dump_modify frames sort id element {" ".join(species)} units yes time yes format float %.10g"""


def _dynamics(atoms: ase.Atoms, settings: LammpsInput, n_inner: int, moving: bool) -> str:
    kelvin, seed = f"{settings.temperature_K:g}", settings.seed
    if settings.ensemble == "npt" and not atoms.pbc.all():
        raise UsageError("ensemble: npt needs a cell that is periodic in all directions; choose nvt, or give it one")
    bath, bar = f"{kelvin} {kelvin} 0.1", f"{1e4 * settings.pressure_GPa:g}"
    damping = f"{1 / settings.friction_per_ps:g}"
    fixes = {
        "nve": "fix motion all nve",
        "langevin": f"fix motion all nve\nfix bath all langevin {kelvin} {kelvin} {damping} {seed} tally yes",
        "nvt": f"fix motion all nvt temp {bath}",
        "npt": f"fix motion all npt temp {bath} iso {bar} {bar} 1.0",
    }
    lines = [] if moving else [f"velocity all create {kelvin} {seed} dist gaussian mom yes rot no"]
    lines.append(fixes[settings.ensemble])
    if n_inner > 1:
        lines.append(
            "# direct forces in the inner steps, conservative corrections in the outer ones; the cutoffs have no use"
        )
        lines.append(f"run_style respa 2 {n_inner} inner 1 1.0 1.5 outer 2")
    timestep = settings.timestep_fs or 0.5 * n_inner
    return "\n".join([*lines, f"timestep {timestep / 1000:g}", f"run {settings.steps}"])


def _descent(settings: LammpsInput) -> str:
    return f"min_style cg\nminimize 0 1e-3 {settings.steps} {10 * settings.steps}"
