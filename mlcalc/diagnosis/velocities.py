"""Temperatures, spectra and normal modes of a record."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlcalc.diagnosis.bench import Bench, estimate, times
from mlcalc.diagnosis.result import ATTENTION, GOOD, NONE
from mlcalc.diagnostics import equipartition, normal_modes, rigid_bonds, velocity_spectrum
from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import UsageError
from mlcalc.record import Frames

Array = NDArray[np.float64]
_SAME = 0.02  # temperatures of log and velocities
_SIGNIFICANT = 3.0  # standard errors from the wanted temperature


def temperature(bench: Bench) -> None:
    """Of all atoms, of each element, and whether elements differ."""
    frames, labels = bench.moving()
    v = np.asarray(frames.velocities)
    _refuse_rigid(frames)
    found, too_short = estimate(lambda: equipartition.measure(v, frames.masses, labels))
    _compare_with_log(bench, found.temperature.value)
    bench.temperature_K = bench.temperature_K or found.temperature.value
    bench.add("temperature", "temperature", found.temperature, *_on_target(bench, found.temperature))
    timed = frames.time_ps is not None
    clock = frames.time_ps if frames.time_ps is not None else np.arange(frames.n_frames, dtype=float)
    names = ("time, ps" if timed else "frame", "temperature, K")
    for k, (element, one) in enumerate(zip(dict.fromkeys(labels), found.elements, strict=True)):
        if len(found.elements) > 1:
            bench.add("temperature", f"  of {element}", one)
        bench.curve("temperature", element, names, clock, found.series[:, k])
    if found.worst is not None:
        pair = found.worst.name.removeprefix("temperature_").replace("-", " − ")
        verdict = (GOOD, "equal") if found.equal else (ATTENTION, f"unequal by {found.worst.note}")
        bench.add("temperature", f"  {pair}", found.worst, *verdict)
    if too_short:
        bench.too_short("temperature", too_short)


def _refuse_rigid(frames: Frames) -> None:
    if frames.positions is None:
        return
    rigid = rigid_bonds.find(frames.positions, frames.cell, frames.periodic)
    if rigid:
        i, j = rigid[0]
        raise UsageError(
            f"the distance of atoms {i} and {j} (and of {len(rigid) - 1} other pairs) is fixed, and the files do not "
            "say which degrees of freedom are left; run without constraints"
        )


def _on_target(bench: Bench, found: Finding) -> tuple[str, str]:
    wanted = bench.settings.temperature_K
    if wanted is None:
        return NONE, ""
    off = found.value - wanted
    sigmas = abs(off) / found.standard_error if found.standard_error else 0.0
    return (GOOD, "as wanted") if sigmas < _SIGNIFICANT else (ATTENTION, f"off by {sigmas:.1f} σ")


def _compare_with_log(bench: Bench, from_velocities: float) -> None:
    series, frames = bench.series, bench.frames
    if series is None or series.temperature_K is None or frames is None:
        return
    logged = series.temperature_K
    if frames.steps is not None and series.steps is not None:
        common = np.isin(series.steps, frames.steps)
        logged = logged[common] if common.any() else logged
    mean = float(logged.mean())
    if abs(from_velocities - mean) > (_SAME + 1.5 / frames.n_atoms) * mean:
        bench.remark(
            f"velocities give {from_velocities:.4g} K, the log says {mean:.4g} K: constraints, other masses, or beads "
            "of a path integral (give centroid velocities); temperatures by element are then wrong"
        )


def spectrum(bench: Bench) -> None:
    """Density of states of each element."""
    frames, labels = bench.moving()
    time, v = times(frames), np.asarray(frames.velocities)
    found, too_short = estimate(lambda: velocity_spectrum.measure(time, v, frames.masses, labels))
    for one in found:
        folded = (ATTENTION, "frames too far apart") if one.is_folded else (NONE, "")
        bench.add("velocity spectrum", f"spectrum of {one.element}, highest peak", one.peak, *folded)
        names = ("wavenumber, cm⁻¹", "density of states, 1/cm⁻¹")
        bench.curve("velocity spectrum", one.element, names, one.wavenumber, one.density, one.standard_error)
        names = ("time, ps", "velocity autocorrelation")
        bench.curve("autocorrelation", one.element, names, one.lag_ps, one.correlation, one.correlation_error)
    if too_short:
        bench.too_short("velocity spectrum", too_short)


def modes(bench: Bench, hessian: Callable[[Frames], Array] | None) -> None:
    """Temperature of normal modes."""
    if hessian is None:
        raise UsageError("no Hessian; name the potential of a crystal's run with --potential")
    bench.having("positions")
    frames = bench.having("velocities")
    matrix = hessian(frames)
    found, too_short = estimate(lambda: normal_modes.measure(np.asarray(frames.velocities), frames.masses, matrix))
    bench.add("normal modes", "temperature of normal modes", found.mean)
    verdict = (GOOD, "equal") if found.equal else (ATTENTION, "unequal")
    bench.add("normal modes", f"  farthest off, {found.worst.name}", found.worst, *verdict)
    names = ("wavenumber, cm⁻¹", "temperature, K")
    bench.curve("normal modes", "modes", names, found.wavenumber, found.temperature, found.standard_error)
    if too_short:
        bench.too_short("normal modes", too_short)
