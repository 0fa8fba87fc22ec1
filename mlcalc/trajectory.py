"""The record of a run: engine-neutral frames in one file that grows, readable after a crash at any moment.

File layout: one line of JSON (provenance, atoms, cell, layout), then one fixed-size record for each frame: 64-bit
little-endian floats (scalars, positions, momenta, then cell and state where the layout says so), then the CRC-32 of
their bytes. A frame that a crash tore is shorter than a record or fails its checksum, and every frame before it is
whole.
"""

from __future__ import annotations

import json
import platform
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

import mlcalc
from mlcalc.errors import RunError, UsageError
from mlcalc.structure import Structure

FORMAT = "mlcalc-trajectory-3"
_READABLE = ("mlcalc-trajectory-2", FORMAT)  # 2 knew neither cells nor states
_SCALARS = ("time_ps", "potential_energy", "kinetic_energy", "heat", "power")
_CHECKSUM = 4  # bytes
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """One outer step, where energy and momenta are synchronous.

    Attributes
    ----------
    time_ps : ps
    positions : (n_atoms, 3), Å; momenta : (n_atoms, 3), amu·Å/time
    potential_energy : eV, the conservative one; nan where the potential has none
    kinetic_energy : eV
    heat : eV, what thermostats and barostats have brought in so far
    power : eV/ps, Σ v·(f_direct − f_conservative); nan where both forces are not at hand
    cell : (3, 3), Å, where it moves
    state : (n_state,), what else the integrator must know to go on: a barostat's strain rate, a thermostat's variables
    """

    time_ps: float
    positions: Array
    momenta: Array
    potential_energy: float
    kinetic_energy: float
    heat: float
    power: float
    cell: Array | None = None
    state: Array | None = None

    @property
    def conserved(self) -> float:
        """eV, what the exact dynamics keeps: potential + kinetic − heat."""
        return self.potential_energy + self.kinetic_energy - self.heat


@dataclass(frozen=True)
class Trajectory:
    """All frames of a run; the first axis of positions, momenta and every series is the frame.

    Attributes
    ----------
    provenance : potential, integrator, seeds, versions
    numbers, masses : (n_atoms,); cell : (3, 3), Å, at the start; periodic : (3,)
    positions, momenta : (n_frames, n_atoms, 3); the others as in `Frame`, (n_frames,)
    cells : (n_frames, 3, 3), Å, where a barostat moves the cell, else None; state : (n_frames, n_state) or None
    """

    provenance: Mapping[str, Any]
    numbers: NDArray[np.int64]
    masses: Array
    cell: Array
    periodic: NDArray[np.bool_]
    time_ps: Array
    positions: Array
    momenta: Array
    potential_energy: Array
    kinetic_energy: Array
    heat: Array
    power: Array
    cells: Array | None = None
    state: Array | None = None

    @property
    def conserved(self) -> Array:
        """(n_frames,), eV, see `Frame.conserved`."""
        return self.potential_energy + self.kinetic_energy - self.heat

    def frame(self, k: int) -> Frame:
        """Frame number k; −1 is the last."""
        scalars = {name: float(getattr(self, name)[k]) for name in _SCALARS}
        cell, state = (None if values is None else values[k] for values in (self.cells, self.state))
        return Frame(positions=self.positions[k], momenta=self.momenta[k], cell=cell, state=state, **scalars)

    def cell_of(self, k: int) -> Array:
        """(3, 3), Å, of frame number k."""
        return self.cell if self.cells is None else self.cells[k]

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    @property
    def n_frames(self) -> int:
        return len(self.time_ps)


@dataclass(frozen=True)
class Layout:
    """What frames hold beyond positions and momenta.

    Attributes
    ----------
    n_state : numbers in `Frame.state`; moving_cell : whether there is a `Frame.cell`
    """

    n_state: int = 0
    moving_cell: bool = False

    def size(self, n_atoms: int) -> int:
        """Bytes of a frame, without its checksum."""
        return 8 * (len(_SCALARS) + 6 * n_atoms + 9 * self.moving_cell + self.n_state)

    def parts(self, frame: Frame) -> list[Array]:
        """The arrays of a frame in the order of the file.

        Raises
        ------
        UsageError
            for a frame that does not fit.
        """
        n_state = 0 if frame.state is None else len(frame.state)
        if (n_state, frame.cell is not None) != (self.n_state, self.moving_cell):
            raise UsageError(
                f"layout: got a frame with {n_state} numbers of state and {'a' if frame.cell is not None else 'no'} "
                f"moving cell for {self}; give the writer layout=engine.layout"
            )
        return [part for part in (frame.positions, frame.momenta, frame.cell, frame.state) if part is not None]

    def frame(self, values: Array, n_atoms: int) -> Frame:
        """A frame from the numbers of a file."""
        lengths = (len(_SCALARS), 3 * n_atoms, 3 * n_atoms, 9 * self.moving_cell, self.n_state)
        scalars, positions, momenta, cell, state = np.split(values, np.cumsum(lengths)[:-1])
        return Frame(
            positions=positions.reshape(-1, 3),
            momenta=momenta.reshape(-1, 3),
            cell=cell.reshape(3, 3) if self.moving_cell else None,
            state=state if self.n_state else None,
            **dict(zip(_SCALARS, map(float, scalars), strict=True)),
        )


_PLAIN = Layout()


def _layout_of(head: Mapping[str, Any]) -> Layout:
    return Layout(**head.get("layout", {}))


def header(structure: Structure, provenance: Mapping[str, Any], layout: Layout = _PLAIN) -> dict[str, Any]:
    """What a file says before its frames: atoms, cell, and how the run was made.

    Raises
    ------
    UsageError
        for a batch of several systems: each has a file of its own.
    """
    if structure.n_systems != 1:
        raise UsageError(f"structure: got a batch of {structure.n_systems} systems; a trajectory holds one")
    import torch

    versions = {"mlcalc": mlcalc.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return {
        "format": FORMAT,
        "provenance": {**provenance, "versions": {**versions, "python": platform.python_version()}},
        "numbers": structure.numbers.tolist(),
        "masses": structure.masses.tolist(),
        "cell": structure.cell[0].tolist(),
        "periodic": structure.periodic[0].tolist(),
        "layout": asdict(layout),
    }


def assemble(head: Mapping[str, Any], frames: Sequence[Frame]) -> Trajectory:
    """A Trajectory from a header and frames."""
    n_atoms, layout = len(head["numbers"]), _layout_of(head)

    def stack(name: str, *shape: int) -> Array:
        return np.array([getattr(frame, name) for frame in frames], dtype=float).reshape(len(frames), *shape)

    return Trajectory(
        provenance=head["provenance"],
        numbers=np.array(head["numbers"], dtype=np.int64),
        masses=np.array(head["masses"], dtype=float),
        cell=np.array(head["cell"], dtype=float),
        periodic=np.array(head["periodic"], dtype=bool),
        positions=stack("positions", n_atoms, 3),
        momenta=stack("momenta", n_atoms, 3),
        cells=stack("cell", 3, 3) if layout.moving_cell else None,
        state=stack("state", layout.n_state) if layout.n_state else None,
        **{name: stack(name) for name in _SCALARS},
    )


class TrajectoryWriter:
    """Appends frames to a new file; each is handed to the system before `append` returns.

    Parameters
    ----------
    path : of the file to make
    structure : the atoms, masses and cell of the run
    provenance : how the run was made, as JSON types; versions are added
    layout : what the frames hold, `NativeEngine.layout`; plain frames if not given

    Raises
    ------
    UsageError
        if the file exists already (a run is never overwritten) or cannot be made.
    RunError
        from `append`, if the disk is full; the frames so far stay readable.
    """

    def __init__(
        self, path: str | Path, structure: Structure, provenance: Mapping[str, Any], layout: Layout = _PLAIN
    ) -> None:
        self.path, self.layout = Path(path), layout
        self.n_frames = 0
        head = json.dumps(header(structure, provenance, layout)) + "\n"
        try:
            self._file: BinaryIO = open(self.path, "xb", buffering=0)  # noqa: SIM115 (closed by close)
        except FileExistsError as error:
            raise UsageError(f"trajectory: {self.path} exists; remove it or give another name") from error
        except OSError as error:
            raise UsageError(f"trajectory: cannot write {self.path} ({error.strerror}); give another place") from error
        self._write(head.encode())

    @classmethod
    def reopen(cls, path: str | Path, n_frames: int | None = None) -> TrajectoryWriter:
        """Go on writing after the last whole frame of a file, or after its first `n_frames`; the rest is cut off."""
        record = read_trajectory(path)
        writer = cls.__new__(cls)
        writer.path, writer.n_frames = Path(path), record.n_frames if n_frames is None else n_frames
        writer._file = open(path, "r+b", buffering=0)  # noqa: SIM115 (closed by close)
        head = writer._file.readline()
        writer.layout = _layout_of(json.loads(head))
        size = writer.layout.size(record.n_atoms) + _CHECKSUM
        writer._file.truncate(len(head) + writer.n_frames * size)
        writer._file.seek(0, 2)
        return writer

    def append(self, frame: Frame) -> None:
        """Write one frame."""
        scalars = np.array([getattr(frame, name) for name in _SCALARS], dtype="<f8")
        payload = scalars.tobytes() + b"".join(map(_bytes, self.layout.parts(frame)))
        self._write(payload + struct.pack("<I", zlib.crc32(payload)))
        self.n_frames += 1

    def _write(self, data: bytes) -> None:
        try:
            if self._file.write(data) != len(data):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise RunError(
                f"trajectory: {self.path} could not be written ({error.strerror}) after {self.n_frames} frames, which "
                "are whole; free some space and continue from the last"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bytes(values: Array) -> bytes:
    return np.ascontiguousarray(values, dtype="<f8").tobytes()


def read_trajectory(path: str | Path) -> Trajectory:
    """Every whole frame of a file; a torn last frame is left out.

    Raises
    ------
    UsageError
        for a missing or foreign file.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"trajectory: no file {path}; give the path of a trajectory that mlcalc wrote")
    data = path.read_bytes()
    line, _, body = data.partition(b"\n")
    try:
        head = json.loads(line)
        if head["format"] not in _READABLE:
            raise ValueError(f"format {head['format']!r}")
        layout = _layout_of(head)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"trajectory: {path} is not an {FORMAT} file ({error}); use the program that wrote it"
        ) from None
    n_atoms = len(head["numbers"])
    size = layout.size(n_atoms)
    frames: list[Frame] = []
    for start in range(0, len(body) - size - _CHECKSUM + 1, size + _CHECKSUM):
        payload = body[start : start + size]
        if struct.unpack("<I", body[start + size : start + size + _CHECKSUM])[0] != zlib.crc32(payload):
            break
        frames.append(layout.frame(np.frombuffer(payload, dtype="<f8"), n_atoms))
    return assemble(head, frames)
