"""Drift of the conserved energy and power of the non-conservative force, of a record."""

from __future__ import annotations

import numpy as np

from mlcalc.audit import thresholds
from mlcalc.diagnosis.bench import NO_TIMES, Bench, estimate
from mlcalc.diagnosis.result import ATTENTION, GOOD, NONE
from mlcalc.diagnostics import nonconservative_power, nve_drift
from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import UsageError
from mlcalc.record import Series

_EXCHANGES = 0.3  # spread of a total energy, in that of the kinetic energy, above which a bath is at work


def drift(bench: Bench) -> None:
    """Slope of the conserved energy: what the program calls conserved, else the total energy if no bath is at work."""
    series = bench.series
    if series is None or series.conserved_eV is None:
        raise UsageError("no file has a conserved energy; give the log of the run as well")
    if series.time_ps is None:
        raise UsageError(NO_TIMES)
    if not series.conserved_for_sure:
        if _exchanges(series):
            raise UsageError(
                f"{series.conserved_name} moves as the kinetic energy does, so a bath is at work and it is not "
                "conserved; let the program write its conserved quantity (LAMMPS: econserve, i-PI: conserved)"
            )
        bench.remark(f"{series.conserved_name} is taken for conserved: right at constant energy only")
    n_atoms = bench.n_atoms
    if n_atoms is None:
        raise UsageError("the log does not say how many atoms there are; give the trajectory as well")
    time, energy = series.time_ps, series.conserved_eV
    found, too_short = estimate(lambda: nve_drift.measure(time, energy, n_atoms))
    names = ("time, ps", f"{series.conserved_name} − start, meV/atom")
    bench.curve("drift", series.conserved_name, names, time, 1000 * (energy - energy[0]) / n_atoms)
    bench.add("drift", f"drift of {series.conserved_name}", found.per_atom, *_judged(found.per_atom))
    bench.add("drift", "  as heating", found.kelvin)
    if too_short:
        bench.too_short("drift", too_short)


def _exchanges(series: Series) -> bool:
    """Whether a total energy moves up and down as much as it would in a bath."""
    if series.kinetic_eV is None or series.conserved_eV is None or len(series.kinetic_eV) < 8:
        return False
    place = np.arange(len(series.kinetic_eV))
    straight = np.polyval(np.polyfit(place, series.conserved_eV, 1), place)
    return float(np.std(series.conserved_eV - straight)) > _EXCHANGES * float(np.std(series.kinetic_eV))


def _judged(found: Finding) -> tuple[str, str]:
    """By the audit's tolerance, with two standard errors to each side."""
    margin = thresholds.SIGNIFICANCE.value * found.standard_error
    if abs(found.value) + margin < thresholds.DRIFT_TOLERANCE.value:
        return GOOD, "conserved"
    if abs(found.value) - margin > thresholds.DRIFT_TOLERANCE.value:
        return ATTENTION, "drifts"
    return NONE, "cannot tell yet"


def power(bench: Bench) -> None:
    """Mean power of f_direct − f_conservative, where a record of ours has both."""
    series = bench.series
    if series is None or series.power_eV_per_ps is None or series.time_ps is None:
        return  # only records of mlcalc can have it
    time, watts, n_atoms = series.time_ps, series.power_eV_per_ps, bench.n_atoms or 1
    found, too_short = estimate(lambda: nonconservative_power.measure(time, watts, n_atoms))
    bench.add("non-conservative power", "non-conservative power", found.per_atom)
    if too_short:
        bench.too_short("non-conservative power", too_short)
