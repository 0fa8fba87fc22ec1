"""Errors of forces by frequency: projected on the normal modes of the conservative Hessian, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcalc.diagnosis.hessian import hessian_of
from mlcalc.diagnostics import normal_modes
from mlcalc.evaluation import Wanted, required
from mlcalc.potentials.potential import Potential
from mlcalc.record import Frames
from mlcalc.training.data import Frame

Array = NDArray[np.float64]
#: cm⁻¹: unstable, hindered translation, soft and stiff libration, bend, stretch
EDGES = (-np.inf, 0.0, 150.0, 350.0, 700.0, 1300.0, 2500.0, np.inf)


def project(energy: Potential, models: Mapping[str, tuple[Potential, str]], frame: Frame) -> dict[str, Array]:
    """One frame: wavenumber of each mode, and by mode the reference's force and each model's error, eV/Å/√amu.

    Parameters
    ----------
    energy : its Hessian has the modes
    models : name → (potential, "direct" or "conservative")
    """
    hessian = hessian_of(energy)(_as_record(frame))
    reference = frame.force.numpy()
    vectors = [reference]
    for potential, forces in models.values():
        found = potential.evaluate(frame.structure, frame.neighbours, Wanted[forces.upper()])
        vectors.append(required(found, f"{forces}_force").double().numpy() - reference)
    wavenumber, by_mode = normal_modes.components(np.array(vectors), frame.structure.masses.double().numpy(), hessian)
    return {"wavenumber": wavenumber, **dict(zip(("reference", *models), by_mode, strict=True))}


def _as_record(frame: Frame) -> Frames:
    structure = frame.structure
    return Frames(
        numbers=structure.numbers.numpy(),
        masses=structure.masses.double().numpy(),
        cell=structure.cell.double().numpy(),
        periodic=structure.periodic[0].numpy(),
        positions=structure.positions.double().numpy()[None],
    )


def bands(frames: Sequence[Mapping[str, Array]]) -> list[dict[str, Any]]:
    """Each band of modes over all frames: shares of modes and of the squared force, and each model's relative error.

    Errors are by the jackknife over frames.
    """
    models = [name for name in frames[0] if name not in ("wavenumber", "reference")]
    rows = []
    total = sum((frame["reference"] ** 2).sum() for frame in frames)
    count = sum(len(frame["wavenumber"]) for frame in frames)
    for low, high in zip(EDGES[:-1], EDGES[1:], strict=True):
        inside = [(low <= frame["wavenumber"]) & (frame["wavenumber"] < high) for frame in frames]
        force = np.array([(f["reference"][i] ** 2).sum() for f, i in zip(frames, inside, strict=True)])
        row = {"low": low, "high": high, "modes": sum(i.sum() for i in inside) / count, "force": force.sum() / total}
        for model in models:
            miss = np.array([(f[model][i] ** 2).sum() for f, i in zip(frames, inside, strict=True)])
            row[model] = _ratio(miss, force)
        rows.append(row)
    return rows


def _ratio(miss: Array, force: Array) -> tuple[float, float]:
    """sqrt(Σ miss / Σ force) and its standard error"""
    n = len(miss)
    left_out = np.sqrt((miss.sum() - miss) / (force.sum() - force))
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    return float(np.sqrt(miss.sum() / force.sum())), float(error)
