"""What i-PI writes: the table of properties, and trajectories of positions, velocities or momenta in its xyz."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
from ase.cell import Cell
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from mlcalc.errors import UsageError
from mlcalc.record import Frames, Record, Series, latest
from mlcalc.units import ATOMIC_TIME_FS, BOHR, BOLTZMANN, ELECTRON_MASS, FEMTOSECOND, HARTREE, KILOCALORIE_PER_MOLE

Array = NDArray[np.float64]
_BOHR_PER_TIME = BOHR / (ATOMIC_TIME_FS * FEMTOSECOND)  # the atomic unit of velocity, Å/time
#: i-PI's names of units → ours; what is not named is in atomic units
_ENERGY = {
    "atomic_unit": HARTREE,
    "electronvolt": 1.0,
    "ase": 1.0,
    "j/mol": KILOCALORIE_PER_MOLE / 4184,
    "cal/mol": KILOCALORIE_PER_MOLE / 1000,
    "kelvin": BOLTZMANN,
}
_TIME_PS = {"atomic_unit": ATOMIC_TIME_FS / 1000, "second": 1e12}
_TEMPERATURE = {"atomic_unit": HARTREE / BOLTZMANN, "kelvin": 1.0, "ase": 1.0}
_LENGTH = {"atomic_unit": BOHR, "angstrom": 1.0, "meter": 1e10, "ase": 1.0}
_VOLUME = {"atomic_unit": BOHR**3, "angstrom3": 1.0}
_VELOCITY = {"atomic_unit": _BOHR_PER_TIME, "m/s": 1e-5 / FEMTOSECOND, "ase": 1.0}
_MOMENTUM = {"atomic_unit": ELECTRON_MASS * _BOHR_PER_TIME, "ase": 1.0}
_PREFIXES = {"": 1.0, "kilo": 1e3, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9, "pico": 1e-12, "femto": 1e-15}
#: Quantity of a trajectory → (what it is in a record, its units)
QUANTITIES = {
    **dict.fromkeys(("positions", "x_centroid"), ("positions", _LENGTH)),
    **dict.fromkeys(("velocities", "v_centroid"), ("velocities", _VELOCITY)),
    **dict.fromkeys(("momenta", "p_centroid"), ("momenta", _MOMENTUM)),
}
_ISOTOPES = {"D": 2.0141, "T": 3.016049}  # amu, i-PI's


def factor(table: dict[str, float], unit: str | None, what: str) -> float:
    """What one unit is in ours.

    Raises
    ------
    UsageError
        for a unit that is not in the table.
    """
    name = unit if unit and unit != "automatic" else "atomic_unit"
    for base, value in table.items():
        if name.endswith(base) and name.removesuffix(base) in _PREFIXES:
            return _PREFIXES[name.removesuffix(base)] * value
    raise UsageError(f"units: {what} in {name!r}; mlcalc reads {', '.join(table)}: let i-PI write one of these")


def read_properties(path: Path) -> Record:
    """The table of properties (by its name, usually *.out); of a restarted run the later lines stand.

    Raises
    ------
    UsageError
        for a file that is no such table.
    """
    text = path.read_text(errors="replace")
    whole = text[: text.rfind("\n") + 1]
    columns: dict[str, tuple[int, str | None]] = {}
    for line in re.findall(r"^#.*", whole, re.M):
        if found := re.match(r"#\s*(?:column|cols\.)\s+(\d+)(?:-\d+)?\s+-->\s+([\w()/;=,-]+)(?:\{(.*?)\})?", line):
            columns[found[2]] = int(found[1]) - 1, found[3]
    lines = [line for line in whole.splitlines() if line.strip() and not line.startswith("#")]
    if not columns or not lines:
        raise UsageError(f"properties: {path} has no table of i-PI; give the file of its <properties>")
    try:
        table = np.array([line.split() for line in lines], dtype=float)
    except ValueError as error:
        raise UsageError(
            f"properties: {path} has a line that is not as its header says ({error}); repair it"
        ) from error

    def column(name: str, units: dict[str, float]) -> Array | None:
        if name not in columns:
            return None
        place, unit = columns[name]
        return table[:, place] * factor(units, unit, f"{name} of {path}")

    potential, kinetic = column("potential", _ENERGY), column("kinetic_md", _ENERGY)
    conserved, name = column("conserved", _ENERGY), "conserved"
    if conserved is None and potential is not None and kinetic is not None:
        conserved, name = potential + kinetic, "potential + kinetic_md"
    steps = table[:, columns["step"][0]].astype(np.int64) if "step" in columns else None
    series = Series(
        time_ps=column("time", _TIME_PS),
        steps=steps,
        conserved_eV=conserved,
        conserved_name=name,
        conserved_for_sure=name == "conserved",
        kinetic_eV=kinetic,
        temperature_K=column("temperature", _TEMPERATURE),
        volume_A3=column("volume", _VOLUME),
    )
    torn = (f"{path.name} ends within a line, which is left out",) if whole != text else ()
    return Record(path.name, series=series if steps is None else series.picked(latest(steps)), remarks=torn)


def read_xyz(path: Path) -> Record:
    """A trajectory in i-PI's xyz: positions, velocities or momenta, as its comment lines say.

    Raises
    ------
    UsageError
        for a file that is no such trajectory, or holds another quantity.
    """
    try:
        with open(path, errors="replace") as file:
            blocks = list(_blocks(file))
    except (ValueError, IndexError) as error:
        raise UsageError(f"trajectory: {path} has a line that is no atom's ({error}); repair the file") from error
    whole = [block for block in blocks if block is not None]
    if not whole:
        raise UsageError(f"trajectory: {path} has no whole frame; give an xyz of i-PI")
    comments, symbols, values = zip(*whole, strict=True)
    if any(some != symbols[0] for some in symbols):
        raise UsageError(f"trajectory: {path} has other atoms in some frames; give one run of one system")
    torn = (f"{path.name} ends within a frame; the {len(whole)} whole ones are used",) if blocks[-1] is None else ()
    cells = np.array([_cell(comment, path) for comment in comments])
    return frames_of(path, symbols[0], np.array(values), cells, list(comments), torn)


def frames_of(
    path: Path, symbols: list[str], values: Array, cell: Array, comments: list[str], remarks: tuple[str, ...]
) -> Record:
    """Frames of a quantity that i-PI's comment names; values : (n_frames, n_atoms, 3) in the units that it says."""
    found = re.findall(r"(\w+)\{([^}]*)\}", comments[0])
    names = [(name, unit) for name, unit in found if name in QUANTITIES]
    if len(names) != 1:
        raise UsageError(
            f"trajectory: {path} holds {found[0][0] if found else 'no named quantity'}; give positions, velocities or "
            "momenta (with their unit in the comment, as i-PI 2 and later write it)"
        )
    (name, unit) = names[0]
    kind, units = QUANTITIES[name]
    masses = np.array([_ISOTOPES.get(symbol) or _mass(symbol, path) for symbol in symbols])
    values = values * factor(units, unit, f"{name} of {path}")
    steps = np.array([_step(comment, path) for comment in comments], dtype=np.int64)
    frames = Frames(
        numbers=np.array([1 if symbol in _ISOTOPES else atomic_numbers[symbol] for symbol in symbols], dtype=np.int64),
        masses=masses,
        cell=cell,
        periodic=np.array([True, True, True]),
        positions=values if kind == "positions" else None,
        velocities={"velocities": values, "momenta": values / masses[:, None]}.get(kind),
        steps=steps,
    )
    return Record(path.name, frames=frames.picked(latest(steps)), remarks=remarks)


def _mass(symbol: str, path: Path) -> float:
    if symbol not in atomic_numbers:
        raise UsageError(f"trajectory: {path} has an atom {symbol!r}, which is no element; rename it in the file")
    return float(atomic_masses[atomic_numbers[symbol]])


def _step(comment: str, path: Path) -> int:
    found = re.search(r"Step:\s*(\d+)", comment)
    if found is None:
        raise UsageError(f"trajectory: {path} has a comment without Step; give a file as i-PI wrote it")
    return int(found[1])


def _cell(comment: str, path: Path) -> Array:
    """(3, 3), Å, from CELL(abcABC)"""
    found = re.search(r"CELL[({]abcABC[)}]:((?:\s+[-+.\deE]+){6})", comment)
    if found is None:
        raise UsageError(f"trajectory: {path} has a comment without CELL(abcABC); give a file as i-PI wrote it")
    parameters = [float(word) for word in found[1].split()]
    unit = re.search(r"cell\{([^}]*)\}", comment)
    length = factor(_LENGTH, unit and unit[1], f"cell of {path}")
    return np.asarray(Cell.fromcellpar([length * value for value in parameters[:3]] + parameters[3:]).array)


def _blocks(file: TextIO) -> Iterator[tuple[str, list[str], Array] | None]:
    """(comment, symbols, values) of each frame; None where the file ends within one."""
    while line := file.readline():
        if not line.strip():
            continue
        if not line.endswith("\n"):
            yield None
            return
        comment, lines = file.readline(), [file.readline() for _ in range(int(line))]
        if not lines or not lines[-1].endswith("\n"):
            yield None
            return
        symbols = [line.split(None, 1)[0] for line in lines]
        yield comment, symbols, np.loadtxt(lines, usecols=(1, 2, 3), ndmin=2, comments=None)
