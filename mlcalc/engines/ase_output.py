"""What ASE writes: trajectories (.traj, extended XYZ, whatever else it reads) and the log of its dynamics."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase.io.formats import UnknownFileTypeError

from mlcalc.engines.ipi_output import QUANTITIES, frames_of
from mlcalc.errors import UsageError
from mlcalc.record import Frames, Record, Series


def read_trajectory(path: Path) -> Record:
    """All whole frames of a file that ASE reads; momenta where there are any, energies where they were stored.

    `info` of frames that mlcalc wrote has time_ps and conserved_energy; ASE itself stores no times.

    Raises
    ------
    UsageError
        for a file that ASE does not read, or whose atoms come and go.
    """
    images, problem = [], ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what ASE guessed from the name
            for atoms in ase.io.iread(path, index=":"):
                images.append(atoms)
    except UnknownFileTypeError:
        problem = "nothing in it or its name tells its format"
    except Exception as error:  # ASE's readers raise whatever their parsers meet
        problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if not any(map(len, images)):
        raise UsageError(f"trajectory: neither mlcalc nor ASE can read {path} ({problem or 'no frames'}); check it")
    torn = [f"{path.name} ends within a frame; the {len(images)} whole ones are used"] if problem else []
    try:
        return _from_ipi(path, images, torn) if "ipi_comment" in images[0].info else _from_ase(path, images, torn)
    except UsageError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"trajectory: {path} has frames unlike its first ({error}); repair the file") from error


def _from_ase(path: Path, images: list[ase.Atoms], remarks: list[str]) -> Record:
    first = images[0]
    if any(not np.array_equal(atoms.numbers, first.numbers) for atoms in images):
        raise UsageError(f"trajectory: {path} has other atoms in some frames; give the frames of one run")
    moving = all(atoms.has("momenta") for atoms in images)
    unnamed = {"velo", "vel", "velocities", "velocity"} & set(first.arrays)
    if unnamed and not moving:
        remarks = [
            *remarks,
            f"{path.name} has {unnamed.pop()} in units that it does not say; mlcalc reads momenta only",
        ]
    frames = Frames(
        numbers=first.numbers.astype(np.int64),
        masses=first.get_masses(),
        cell=np.array([atoms.cell.array for atoms in images]),
        periodic=np.asarray(first.pbc),
        positions=np.array([atoms.positions for atoms in images]),
        velocities=np.array([atoms.get_velocities() for atoms in images]) if moving else None,
        time_ps=_info(images, "time_ps"),
    )
    return Record(path.name, frames, _energies(images, frames), tuple(remarks))


def _from_ipi(path: Path, images: list[ase.Atoms], remarks: list[str]) -> Record:
    """i-PI's format "ase": extended XYZ with one quantity, its name in the comment."""
    name = next((name for name in QUANTITIES if name != "positions" and name in images[0].arrays), "positions")
    return frames_of(
        path,
        list(images[0].symbols),
        np.array([atoms.arrays[name] for atoms in images]),
        np.array([atoms.cell.array for atoms in images]),
        [str(atoms.info["ipi_comment"]) for atoms in images],
        tuple(remarks),
    )


def _info(images: list[ase.Atoms], key: str) -> Any:
    """(n_frames,) of what every frame's `info` has, or None"""
    values = [atoms.info.get(key) for atoms in images]
    return None if any(value is None for value in values) else np.array(values, dtype=float)


def _energies(images: list[ase.Atoms], frames: Frames) -> Series | None:
    conserved = _info(images, "conserved_energy")
    if conserved is not None:
        return Series(time_ps=frames.time_ps, conserved_eV=conserved, conserved_name="conserved_energy")
    potential = [atoms.calc.results.get("energy") if atoms.calc is not None else None for atoms in images]
    if frames.velocities is None or any(value is None for value in potential):
        return None
    kinetic = np.array([atoms.get_kinetic_energy() for atoms in images])
    return Series(
        time_ps=frames.time_ps,
        conserved_eV=np.array(potential, dtype=float) + kinetic,
        conserved_name="Epot + Ekin",
        conserved_for_sure=False,
        kinetic_eV=kinetic,
    )


def read_log(path: Path) -> Record:
    """The log of ASE's dynamics (MDLogger): time in ps, energies in eV.

    Raises
    ------
    UsageError
        for energies by atom, or a file that is no such log.
    """
    text = path.read_text(errors="replace")
    whole = text[: text.rfind("\n") + 1].splitlines()
    columns = whole[0].split() if whole else []
    if "Etot[eV]" not in columns or "Time[ps]" not in columns:
        raise UsageError(f"log: {path} must have Time[ps] and Etot[eV] in its first line; log energies of all atoms")
    try:
        rows = [line.split()[: len(columns)] for line in whole if not line.startswith("Time[ps]")]
        table = dict(zip(columns, np.array(rows, dtype=float).T, strict=True))
    except ValueError as error:
        raise UsageError(f"log: {path} has a line that is not as its first line says ({error}); repair it") from error
    series = Series(
        time_ps=table["Time[ps]"],
        conserved_eV=table["Etot[eV]"],
        conserved_name="Etot",
        conserved_for_sure=False,
        kinetic_eV=table.get("Ekin[eV]"),
        temperature_K=table.get("T[K]"),
    )
    torn = (f"{path.name} ends within a line, which is left out",) if not text.endswith("\n") else ()
    return Record(path.name, series=series, remarks=torn)
