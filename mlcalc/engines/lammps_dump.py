"""LAMMPS's dump files in text form (dump custom, dump atom): frames, sorted by the atoms' id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from mlcalc.engines.lammps_log import LammpsUnits, units_of
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
_WRAPPED = (("x", "y", "z"), ("xs", "ys", "zs"))


@dataclass(frozen=True)
class _Layout:
    """Which columns are read, and what they are."""

    names: list[str]
    positions: bool
    scaled: bool
    images: bool
    velocities: bool

    @classmethod
    def of(cls, columns: Sequence[str]) -> _Layout:
        has = set(columns)
        where, scaled = next(((names, scaled) for names, scaled in _POSITIONS if has >= set(names)), ((), False))
        velocities = _VELOCITIES if has >= set(_VELOCITIES) else ()
        images = _IMAGES if where in _WRAPPED and has >= set(_IMAGES) else ()
        return cls(["id", *where, *velocities, *images], bool(where), scaled, bool(images), bool(velocities))


@dataclass(frozen=True)
class _Block:
    """One frame: its head, and the columns of its layout by id, (n_atoms, n_names)."""

    step: int
    time: float | None
    units: str | None
    origin: Array
    cell: Array
    periodic: tuple[bool, bool, bool]
    columns: list[str]
    table: Array


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
    try:
        with open(path, errors="replace") as file:
            found = list(_blocks(file, path))
    except (ValueError, IndexError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"dump: {path} has a frame that is not as announced ({error}); repair the file") from error
    blocks = [block for block in found if block is not None]
    if not blocks:
        raise UsageError(f"dump: {path} has no whole frame; give a dump custom of LAMMPS")
    frames = _frames(blocks, units, elements, path)
    torn = (f"{path.name} ends within a frame; the {len(blocks)} whole ones are used",)
    return Record(path.name, frames=frames, remarks=torn if found[-1] is None else ())


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
            block = _block(file, units, time, path)
            yield block
            if block is None:
                return
        elif line.strip():
            raise UsageError(f"dump: {path} has {line.strip()[:40]!r} where a frame should begin; repair the file")


def _block(file: TextIO, units: str | None, time: float | None, path: Path) -> _Block | None:
    head = [file.readline() for _ in range(8)]  # step, item, number of atoms, item, three bounds, item
    if not head[-1].endswith("\n"):
        return None
    lines = [file.readline() for _ in range(int(head[2]))]
    if not lines or not lines[-1].endswith("\n"):
        return None
    origin, cell, periodic = _box(head[3].split()[3:], [[float(word) for word in line.split()] for line in head[4:7]])
    columns = head[7].split()[2:]
    if "id" not in columns:
        raise UsageError(f"dump: {path} has no column id, so atoms cannot be told apart; dump id type x y z vx vy vz")
    places = [columns.index(name) for name in _Layout.of(columns).names]
    table = np.loadtxt(lines, usecols=places, ndmin=2, comments=None)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return _Block(int(head[0]), time, units, origin, cell, periodic, columns, table)


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
        if block.columns != first.columns or not np.array_equal(block.table[:, 0], first.table[:, 0]):
            raise UsageError(
                f"dump: step {block.step} of {path} has other atoms or columns than step {first.step}; dump one group "
                "of atoms that neither come nor go"
            )
    layout = _Layout.of(first.columns)
    times = [block.time for block in blocks if block.time is not None]
    system = units_of(units or first.units, path) if layout.velocities or times else None
    steps = np.array([block.step for block in blocks], dtype=np.int64)
    numbers, masses = _species(path, first, elements)
    frames = Frames(
        numbers=numbers,
        masses=masses,
        cell=np.array([block.cell for block in blocks]),
        periodic=np.array(first.periodic),
        positions=np.array([_positions(block, layout) for block in blocks]) if layout.positions else None,
        velocities=_velocities(blocks, layout, system) if layout.velocities and system else None,
        time_ps=np.array(times) * system.time_ps if system and len(times) == len(blocks) else None,
        steps=steps,
    )
    return frames.picked(latest(steps))


def _positions(block: _Block, layout: _Layout) -> Array:
    """Å from the box's origin, (n_atoms, 3)"""
    values = block.table[:, 1:4]
    positions = values @ block.cell if layout.scaled else values - block.origin
    return np.asarray(positions + block.table[:, -3:] @ block.cell if layout.images else positions)


def _velocities(blocks: Sequence[_Block], layout: _Layout, units: LammpsUnits) -> Array:
    """Å/time, (n_frames, n_atoms, 3)"""
    first = layout.names.index(_VELOCITIES[0])
    return np.array([block.table[:, first : first + 3] for block in blocks]) / (units.time_ps * PICOSECOND)


def _species(path: Path, block: _Block, elements: Sequence[str]) -> tuple[NDArray[np.int64], Array]:
    """Atomic numbers and masses by id, of the first frame: from `element` and `mass`, or from the types."""
    with open(path, errors="replace") as file:
        while not file.readline().startswith("ITEM: ATOMS"):
            pass
        words = np.array([file.readline().split() for _ in block.table])
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
