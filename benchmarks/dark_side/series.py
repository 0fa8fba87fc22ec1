"""What is kept of a run, in one small file: raw series, and what `mlcalc diagnose` finds in its frames.

The page is made of these files alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from mlcalc.diagnosis.bench import DiagnosisSettings, estimate
from mlcalc.diagnosis.read import ReadSettings, read_record
from mlcalc.diagnosis.run import diagnose
from mlcalc.diagnostics import equipartition, mean_square_displacement
from mlcalc.diagnostics.finding import Finding
from mlcalc.record import Frames, Record
from mlcalc.trajectory import Trajectory, read_trajectory

Array = NDArray[np.float64]
_FEWEST = 64  # frames, to be diagnosed
#: Blocks of a mean-square displacement: slopes of atoms that leave their cages, and of atoms still within them
_BLOCKS = {"diffusion": 8, "early diffusion": 32}
_RAW = ("drift", "temperature")  # kept as raw series, of which the page makes its numbers


@dataclass(frozen=True)
class Curve:
    """A function with its standard error, (n,) each."""

    x: Array
    y: Array
    error: Array


@dataclass(frozen=True)
class Kept:
    """One run.

    Attributes
    ----------
    name : of the run; about : how it was made, and for how long it was left to settle (settled_ps)
    n_atoms : of the system
    time_ps : ps; conserved_eV : from the first frame; kinetic_eV; power_eV_per_ps : Σ v·(f_direct − f_conservative)
    temperature_K : element → (n_frames,)
    curves : (diagnostic, label) → curve; findings : label → number, of frames after settled_ps
    """

    name: str
    about: dict[str, Any]
    n_atoms: int
    time_ps: Array
    conserved_eV: Array
    kinetic_eV: Array
    power_eV_per_ps: Array
    temperature_K: dict[str, Array]
    curves: dict[tuple[str, str], Curve]
    findings: dict[str, Finding]

    @property
    def length_ps(self) -> float:
        return float(self.time_ps[-1])

    @property
    def settled(self) -> NDArray[np.bool_]:
        """(n_frames,), which frames are later than what it was left to settle."""
        return np.asarray(self.time_ps >= self.about["settled_ps"] - 1e-9)


def summarise(trajectory: Path, settled_ps: float, compared_ps: float = math.inf) -> Kept:
    """Read a trajectory and diagnose it.

    Parameters
    ----------
    settled_ps : ps from the start that are left out
    compared_ps : ps after which frames are left out of the diagnosis, that runs which are compared be equally long: the
        slope of a mean-square displacement depends on where it is taken
    """
    whole = read_trajectory(trajectory)
    enough = _frames_after(whole, settled_ps) >= _FEWEST
    curves, findings = _diagnosed(trajectory, settled_ps, compared_ps) if enough else ({}, {})
    keys = ("potential", "fingerprint", "integrator", "forces", "timestep_fs", "n_inner", "thermostat", "versions")
    about = {key: whole.provenance.get(key) for key in keys} | {"settled_ps": settled_ps}
    return Kept(
        trajectory.stem,
        about,
        whole.n_atoms,
        whole.time_ps,
        whole.conserved - whole.conserved[0],
        whole.kinetic_energy,
        whole.power,
        _temperatures(whole),
        curves,
        findings,
    )


def _frames_after(whole: Trajectory, settled_ps: float) -> int:
    return int((whole.time_ps >= settled_ps).sum())


def _temperatures(whole: Trajectory) -> dict[str, Array]:
    labels = [chemical_symbols[number] for number in whole.numbers]
    found, _ = estimate(lambda: equipartition.measure(whole.momenta / whole.masses[:, None], whole.masses, labels))
    return {label: found.series[:, k] for k, label in enumerate(dict.fromkeys(labels))}


def _diagnosed(
    trajectory: Path, settled_ps: float, compared_ps: float
) -> tuple[dict[tuple[str, str], Curve], dict[str, Finding]]:
    record = read_record([trajectory], ReadSettings(skip_ps=settled_ps))
    assert record.frames is not None and record.frames.time_ps is not None
    early = record.frames.time_ps <= compared_ps + 1e-9
    frames = record.frames.picked(early)
    found = diagnose(Record(record.name, frames), DiagnosisSettings())
    curves = {
        (curve.diagnostic, curve.label): Curve(curve.x, curve.y, curve.error)
        for curve in found.curves
        if curve.diagnostic not in _RAW
    }
    findings = {row.label.strip(): row.finding for row in found.rows if row.diagnostic not in _RAW}
    for name, blocks in _BLOCKS.items():
        enough = frames.n_frames >= 4 * blocks
        for one in _diffusion(frames, blocks) if enough else ():
            curves[name, one.element] = Curve(one.lag_ps, one.displacement, one.standard_error)
            findings[f"{name} of {one.element}"] = one.coefficient
    return curves, findings


def _diffusion(frames: Frames, blocks: int) -> tuple[mean_square_displacement.Diffusion, ...]:
    labels = [chemical_symbols[number] for number in frames.numbers]
    assert frames.time_ps is not None and frames.positions is not None
    time, r = frames.time_ps, frames.positions
    measured = estimate(lambda: mean_square_displacement.measure(time, r, frames.masses, labels, blocks=blocks))
    found: tuple[mean_square_displacement.Diffusion, ...] = measured[0]
    return found


def write(kept: Kept, folder: Path) -> None:
    """One compressed file; single precision, which is finer than any error here."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"time_ps": kept.time_ps, "conserved_eV": kept.conserved_eV, "kinetic_eV": kept.kinetic_eV}
    arrays["power_eV_per_ps"] = kept.power_eV_per_ps
    arrays |= {f"temperature_K/{label}": values for label, values in kept.temperature_K.items()}
    for (diagnostic, label), curve in kept.curves.items():
        for part in ("x", "y", "error"):
            arrays[f"curve/{diagnostic}/{label}/{part}"] = getattr(curve, part)
    about = {"name": kept.name, "about": kept.about, "n_atoms": kept.n_atoms}
    about["findings"] = {label: vars(finding) for label, finding in kept.findings.items()}
    single = {key: np.asarray(values, dtype=np.float32) for key, values in arrays.items()}
    np.savez_compressed(folder / f"{kept.name}.npz", about=np.array(json.dumps(about)), **single)


def read(path: Path) -> Kept:
    """What `write` wrote."""
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
        arrays = {key: file[key].astype(float) for key in file.files if key != "about"}
    named = {tuple(key.split("/")[1:3]) for key in arrays if key.startswith("curve/")}
    curves = {
        (diagnostic, label): Curve(*(arrays[f"curve/{diagnostic}/{label}/{part}"] for part in ("x", "y", "error")))
        for diagnostic, label in sorted(named)
    }
    return Kept(
        about["name"],
        about["about"],
        about["n_atoms"],
        arrays["time_ps"],
        arrays["conserved_eV"],
        arrays["kinetic_eV"],
        arrays["power_eV_per_ps"],
        {key.split("/")[1]: values for key, values in arrays.items() if key.startswith("temperature_K/")},
        curves,
        {label: Finding(**finding) for label, finding in about["findings"].items()},
    )


def read_all(folder: Path) -> dict[str, Kept]:
    """Every run of a folder, by name."""
    return {path.stem: read(path) for path in sorted(folder.glob("*.npz"))}
