"""LAMMPS's dump files in text form (dump custom, dump atom): frames, sorted by the atoms' id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from mlcalc.engines.lammps_log import units_of
from mlcalc.errors import UsageError
from mlcalc.record import Frames, Record, latest
from mlcalc.units import PICOSECOND

Array = NDArray[np.float64]
#: Names of positions, best first; the second entry: are they in units of the box
_POSITIONS = (
    (("xu", "yu", "zu"), False),
    (("x", "y", "z"), False),
    (("xsu", "ysu", "zsu"), True),
    (("xs", "ys", "zs"), True),
)
_VELOCITIES = ("vx", "vy", "vz")
_IMAGES = ("ix", "iy", "iz")


@dataclass(frozen=True)
class _Block:
    """One frame as it stands in the file."""

    step: int
    time: float | None
    units: str | None
    origin: Array
    cell: Array
    periodic: tuple[bool, bool, bool]
    columns: list[str]
    lines: list[str]


def read_dump(path: Path, *, units: str | None = None, elements: Sequence[str] = ()) -> Record:
    """All whole frames of a dump; of a run that was restarted the later lines stand.

    Parameters
    ----------
    units : "metal" or "real", where the dump does not say (dump_modify units yes)
    elements : symbols of the types 1, 2, …, where the dump has no column `element`

    Raises
    ------
    UsageError
        for a file that is no such dump, misses columns, or has atoms that come and go.
    """
    blocks, torn = [], False
    with open(path, errors="replace") as file:
        for block in _blocks(file, path):
            torn |= block is None
            blocks += [] if block is None else [block]
    if not blocks:
        raise UsageError(f"dump: {path} has no whole frame; give a dump custom of LAMMPS")
    frames = _frames(blocks, units, elements, path)
    remarks = (f"{path.name} ends within a frame; the {frames.n_frames} whole ones are used",) if torn else ()
    return Record(path.name, frames=frames, remarks=remarks)


def _blocks(file: TextIO, path: Path) -> Iterator[_Block | None]:
    """Frame after frame; None where the file ends within one."""
    units: str | None = None
    time: float | None = None
    while line := file.readline():
        if not line.endswith("\n"):
            yield None
        elif line.startswith("ITEM: UNITS"):
            units = file.readline().strip()
        elif line.startswith("ITEM: TIME") and "STEP" not in line:
            text = file.readline()
            time = float(text) if text.endswith("\n") else None
        elif line.startswith("ITEM: TIMESTEP"):
            block = _block(file, units, time)
            yield block
            if block is None:
                return
        elif line.strip():
            raise UsageError(f"dump: {path} has {line.strip()[:40]!r} where a frame should begin; repair the file")


def _block(file: TextIO, units: str | None, time: float | None) -> _Block | None:
    head = [file.readline() for _ in range(8)]  # step, item, number of atoms, item, three bounds, item
    if not head[-1].endswith("\n"):
        return None
    n_atoms = int(head[2])
    lines = [file.readline() for _ in range(n_atoms)]
    if not lines or not lines[-1].endswith("\n"):
        return None
    origin, cell, periodic = _box(head[3].split()[3:], [[float(word) for word in line.split()] for line in head[4:7]])
    return _Block(int(head[0]), time, units, origin, cell, periodic, head[7].split()[2:], lines)


def _box(words: Sequence[str], bounds: Sequence[Sequence[float]]) -> tuple[Array, Array, tuple[bool, bool, bool]]:
    """(origin, rows of lattice vectors, periodic) from the bounds of the three forms of BOX BOUNDS."""
    flags = [word for word in words if len(word) == 2 and set(word) <= set("pfsm")]
    periodic = tuple(flag == "pp" for flag in flags)
    assert len(periodic) == 3
    values = np.array(bounds)
    if words[:2] == ["abc", "origin"]:  # general triclinic: lattice vectors, then the origin's coordinate
        return values[:, 3], values[:, :3], periodic
    if values.shape[1] == 2:
        return values[:, 0], np.diag(values[:, 1] - values[:, 0]), periodic
    (xy, xz, yz), low, high = values[:, 2], values[:, 0].copy(), values[:, 1].copy()
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    (lx, ly, lz) = high - low
    return low, np.array([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]]), periodic


def _frames(blocks: list[_Block], units: str | None, elements: Sequence[str], path: Path) -> Frames:
    first = blocks[0]
    for block in blocks:
        if len(block.lines) != len(first.lines) or block.columns != first.columns:
            raise UsageError(
                f"dump: step {block.step} of {path} has other atoms or columns than step {first.step}; dump one group "
                "of atoms that neither come nor go"
            )
    has = set(first.columns)
    if "id" not in has:
        raise UsageError(f"dump: {path} has no column id, so atoms cannot be told apart; dump id type x y z vx vy vz")
    where = next(((names, scaled) for names, scaled in _POSITIONS if has >= set(names)), None)
    velocities = has >= set(_VELOCITIES)
    images = where is not None and where[0] in (("x", "y", "z"), ("xs", "ys", "zs")) and has >= set(_IMAGES)
    names = ["id", *(where[0] if where else ()), *(_VELOCITIES if velocities else ()), *(_IMAGES if images else ())]
    tables = np.array([_sorted_table(block, names, path) for block in blocks])
    if (tables[:, :, 0] != tables[0, :, 0]).any():
        raise UsageError(f"dump: {path} has other atoms in some frames; dump a group that stays the same")
    steps = np.array([block.step for block in blocks], dtype=np.int64)
    numbers, masses = _species(first, elements, path)
    times = [block.time for block in blocks if block.time is not None]
    system = units_of(units or first.units, path) if velocities or times else None
    frames = Frames(
        numbers=numbers,
        masses=masses,
        cell=np.array([block.cell for block in blocks]),
        periodic=np.array(first.periodic),
        positions=_positions(tables[:, :, 1:], blocks, where[1], images, 3 * velocities) if where else None,
        velocities=_columns(tables, names, _VELOCITIES) / (system.time_ps * PICOSECOND)
        if velocities and system
        else None,
        time_ps=np.array(times) * system.time_ps if system and len(times) == len(blocks) else None,
        steps=steps,
    )
    return frames.picked(latest(steps))


def _sorted_table(block: _Block, names: Sequence[str], path: Path) -> Array:
    """The named columns by id, (n_atoms, n_names)."""
    try:
        table = np.loadtxt(block.lines, usecols=[block.columns.index(name) for name in names], ndmin=2, comments=None)
    except ValueError as error:
        raise UsageError(f"dump: step {block.step} of {path} has a line that is not as announced ({error})") from error
    return table[np.argsort(table[:, 0], kind="stable")]


def _columns(tables: Array, names: Sequence[str], wanted: Sequence[str]) -> Array:
    return tables[:, :, [names.index(name) for name in wanted]]


def _positions(values: Array, blocks: Sequence[_Block], scaled: bool, images: bool, skip: int) -> Array:
    """Å from the box's origin; values : what follows the id."""
    cell = np.array([block.cell for block in blocks])
    positions = values[:, :, :3] @ cell if scaled else values[:, :, :3] - np.array([b.origin for b in blocks])[:, None]
    return positions + values[:, :, 3 + skip : 6 + skip] @ cell if images else positions


def _species(block: _Block, elements: Sequence[str], path: Path) -> tuple[NDArray[np.int64], Array]:
    """Atomic numbers and masses by id: from the columns `element` and `mass`, or from the types."""
    words = np.array([line.split() for line in block.lines])
    words = words[np.argsort(words[:, block.columns.index("id")].astype(np.int64), kind="stable")]
    columns = {name: words[:, k] for k, name in enumerate(block.columns)}
    if "element" in columns and not elements:
        symbols = list(columns["element"])
    elif "type" in columns and elements:
        types = columns["type"].astype(int)
        if types.max() > len(elements):
            raise UsageError(f"elements: got {','.join(elements)}, but {path} has {types.max()} types; name them all")
        symbols = [elements[kind - 1] for kind in types]
    else:
        raise UsageError(f"elements: {path} has types, not elements; say which they are, as in --elements H,O")
    unknown = sorted({symbol for symbol in symbols if symbol not in atomic_numbers})
    if unknown:
        raise UsageError(f"elements: {unknown[0]!r} is no element; give symbols such as H,O in the order of the types")
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)
    return numbers, columns["mass"].astype(float) if "mass" in columns else atomic_masses[numbers]
