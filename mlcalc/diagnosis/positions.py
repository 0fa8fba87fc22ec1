"""Volume, diffusion and radial distributions of a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlcalc.diagnosis import radial_distribution
from mlcalc.diagnosis.bench import Array, Bench, estimate, times
from mlcalc.diagnosis.result import NONE
from mlcalc.diagnostics import box_volume, mean_square_displacement, unwrapping
from mlcalc.record import Frames

_STILL = 1e-6  # of the volume: digits of a text file


def volume(bench: Bench) -> None:
    """Mean volume and density where the cell changes."""
    clock, values = _volumes(bench)
    if values is None or len(values) < 4 or not np.ptp(values) > _STILL * values.mean():
        return  # only runs at constant pressure have it
    mass = None if bench.frames is None else float(bench.frames.masses.sum())
    found, too_short = estimate(lambda: box_volume.measure(values, mass))
    bench.add("volume", "volume", found.volume)
    if found.density is not None:
        bench.add("volume", "  density", found.density)
    names = ("frame" if clock is None else "time, ps", "volume, Å³")
    bench.curve("volume", "cell", names, np.arange(len(values), dtype=float) if clock is None else clock, values)
    if too_short:
        bench.too_short("volume", too_short)


def _volumes(bench: Bench) -> tuple[Array | None, Array | None]:
    """(times, volumes) of the log, which may have more of them, else of the frames."""
    series, frames = bench.series, bench.frames
    if series is not None and series.volume_A3 is not None and np.isfinite(series.volume_A3).all():
        return series.time_ps, series.volume_A3
    if frames is None or not frames.periodic.all():
        return None, None
    return frames.time_ps, np.abs(np.linalg.det(frames.cell))


def diffusion(bench: Bench) -> None:
    """Of each element, and what it would be in an infinite cell."""
    frames = bench.having("positions")
    time, r = times(frames), np.asarray(frames.positions)
    if unwrapping.is_wrapped(r, frames.cell, frames.periodic):
        r = unwrapping.unwrap(r, frames.cell, frames.periodic)
    found, too_short = estimate(lambda: mean_square_displacement.measure(time, r, frames.masses, bench.labels))
    for one in found:
        reason = "" if one.diffusive else f"not linear: t^{one.exponent.value:.2f}"
        bench.add("diffusion", f"diffusion of {one.element}", one.coefficient, NONE, reason)
        names = ("time, ps", "mean-square displacement, Å²")
        bench.curve("diffusion", one.element, names, one.lag_ps, one.displacement, one.standard_error)
    diffusive = [one for one in found if one.diffusive]
    if diffusive and frames.periodic.all():
        _finite_size(bench, frames, diffusive)
    if too_short:
        bench.too_short("diffusion", too_short)


def _finite_size(bench: Bench, frames: Frames, found: Sequence[mean_square_displacement.Diffusion]) -> None:
    length = float(np.abs(np.linalg.det(frames.cell)).mean()) ** (1 / 3)
    if bench.temperature_K is None:
        bench.remark("no finite-size correction of diffusion without a temperature; give --temperature-K")
        return
    viscosity = bench.settings.viscosity_mPa_s
    shift = mean_square_displacement.finite_size_correction(
        bench.temperature_K, length, 1.0 if viscosity is None else viscosity
    )
    if viscosity is None:
        bench.remark(
            f"diffusion is that of a cell of {length:.4g} Å; in an infinite one it is {shift:.3g}/η Å²/ps higher, η "
            "the viscosity in mPa·s (--viscosity-mPa-s)"
        )
        return
    for one in found:
        shifted = replace(one.coefficient, value=one.coefficient.value + shift)
        bench.add("diffusion", f"  of {one.element} in an infinite cell", shifted)


def distances(bench: Bench) -> None:
    """g(r) of every pair of elements."""
    frames = bench.having("positions")
    r, r_max = np.asarray(frames.positions), bench.settings.r_max_A
    found, too_short = estimate(
        lambda: radial_distribution.measure(r, frames.cell, frames.periodic, bench.labels, r_max=r_max)
    )
    for one in found:
        bench.curve("radial distribution", one.pair, ("r, Å", "g(r)"), one.r, one.g, one.standard_error)
        if one.peak is not None and one.height is not None:
            bench.add("radial distribution", f"g(r) of {one.pair}, first peak", one.peak)
            bench.add("radial distribution", "  its height", one.height)
        else:
            bench.remark(f"g(r) of {one.pair} has no peak up to {one.r[-1]:.3g} Å")
    if too_short:
        bench.too_short("radial distribution", too_short)
