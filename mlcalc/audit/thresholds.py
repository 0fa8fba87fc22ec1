"""Every threshold of the audit, with its reason; nothing else in the package decides what is safe.

The report and result.json list these values, so that a verdict can be read without the code.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlcalc.units import BOLTZMANN


@dataclass(frozen=True)
class Threshold:
    """One limit: name, value, unit, and why it is what it is."""

    name: str
    value: float
    unit: str
    reason: str


DRIFT_TOLERANCE = Threshold(
    "drift_tolerance",
    0.05,
    "meV/atom/ps",
    "A run that drifts less, two standard errors included, conserves energy; a rung of the step ladder that drifts "
    "more, two standard errors taken off, is unstable. It is the drift that GROMACS accepts by default from its pair "
    "lists (verlet-buffer-tolerance, 0.005 kJ/mol/ps per atom = 0.052 meV/atom/ps).",
)
DRIFT_LIMIT = Threshold(
    "drift_limit",
    1.0,
    "meV/atom/ps",
    "A run that drifts more is unsafe: at this rate a Langevin thermostat with a time of 1 ps holds a temperature that "
    "is 3.9 K too high, 1.3 % of 300 K.",
)
SIGNIFICANCE = Threshold(
    "significance",
    2.0,
    "standard errors",
    "How far an estimate must stand from a limit to be on one side of it: about 95 % confidence.",
)
SHORTEST_RUN = Threshold(
    "shortest_run",
    0.5,
    "ps",
    "Nothing is called safe after a shorter run: it sees a few periods only of the slow vibrations of a liquid (some "
    "0.2 ps each), and heating may still be starting up.",
)
SHORTEST_THERMOSTAT_TIME = Threshold(
    "shortest_thermostat_time",
    0.1,
    "ps",
    "Langevin dynamics with a shorter time than this is overdamped for vibrations and diffusion; a force that needs "
    "a stronger thermostat is not to be run.",
)
TEMPERATURE_ERROR = Threshold(
    "temperature_error",
    0.01,
    "of the temperature",
    "How far the heating of a non-conservative force may shift the temperature under a thermostat.",
)
EXPLOSION = Threshold(
    "explosion",
    5.0,
    "times the temperature",
    "A run that gets this hot has left the state it was started in; it is stopped and called unsafe.",
)
RELAXED_FORCE = Threshold(
    "relaxed_force",
    0.05,
    "eV/Å",
    "A geometry is usually called relaxed below this force (the default fmax of ASE's optimisers). When the two forces "
    "differ by more, a geometry relaxed with one is not relaxed for the other.",
)
RELAXED_FORCE_FRACTION = Threshold(
    "relaxed_force_fraction",
    0.2,
    "of relaxed_force",
    "Below this fraction the difference of the two forces cannot matter to a relaxation.",
)
ASYMMETRY_OVER_FLOOR = Threshold(
    "asymmetry_over_floor",
    10.0,
    "times the noise floor",
    "A force is a gradient when the asymmetry of its Jacobian is no more than round-off could make; the floor itself "
    "is known within a factor of a few.",
)
THRESHOLDS = (
    DRIFT_TOLERANCE,
    DRIFT_LIMIT,
    SIGNIFICANCE,
    SHORTEST_RUN,
    SHORTEST_THERMOSTAT_TIME,
    TEMPERATURE_ERROR,
    EXPLOSION,
    RELAXED_FORCE,
    RELAXED_FORCE_FRACTION,
    ASYMMETRY_OVER_FLOOR,
)


def thermostat_time_ps(heating_meV_per_atom_ps: float, temperature_K: float) -> float:
    """Longest Langevin time τ, ps, that keeps the temperature within `TEMPERATURE_ERROR` despite a heating power P.

    In the steady state the thermostat takes out what the force puts in: P = 2 (K − K₀)/τ by atom, with K − K₀ =
    (3/2) k_B ΔT, so τ = 3 k_B ΔT / P.
    """
    if heating_meV_per_atom_ps <= 0:
        return float("inf")
    return 3 * 1000 * BOLTZMANN * TEMPERATURE_ERROR.value * temperature_K / heating_meV_per_atom_ps
