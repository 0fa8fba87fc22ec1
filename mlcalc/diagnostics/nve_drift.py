"""Drift of the conserved energy, from its slope and from its random walk.

The slope of E(t), with an error that knows that the energy may walk at random (`random_walk`), is the drift by
definition. But a short run does not tell it: a system at equilibrium that walks with the diffusion constant D,
⟨ΔE²⟩ = D t, gains only k_B T for every k_B T by which it wanders.

What the walk itself foretells needs no long time. Velocity Verlet and r-RESPA move momenta by a function of positions
and positions by a function of momenta, so they preserve phase-space volume, with any force, a gradient or not. Then a
uniform density stays uniform, no energy may flow in it, and drift A and diffusion D of the energy are tied by the
density of states Ω(E) (M. Wilkinson, J. Phys. A 23, 3603 (1990); C. Jarzynski, Phys. Rev. A 46, 7498 (1992)):

    A = 1/(2Ω) d(ΩD)/dE = D / 2 k_B T + O(1/n_atoms),    1/k_B T = d ln Ω/dE

So forces that are no gradient, and kicks that come too seldom, heat, and never cool. It holds near equilibrium, for a
walk: a difference of forces that is itself nearly a gradient makes the energy wander a while and come back, and what
has not come back within a block counts as walk. The forecast is then too high.

In K/ps the drift is divided by 3 k_B: an energy of 3 k_B ΔT goes into an atom whose kinetic and potential parts share
it equally, as in a harmonic solid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from mlcalc.diagnostics import random_walk
from mlcalc.diagnostics.finding import Finding
from mlcalc.diagnostics.times import interval
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.units import BOLTZMANN

_FEWEST_FRAMES = 16
_SMOOTH = 0.5  # correlation of neighbouring innovations: the record sees few periods of a slow oscillation
# Standard errors; slope and forecast that are further apart have no common mean. Of walks that do drift as foretold 4
# to 10 in a hundred are 2 apart, about one is 3 apart (0.5 to 10 ps, 0.002 to 0.5 meV/atom/ps, noise of water).
_APART = 3.0


@dataclass(frozen=True)
class Drift:
    """What a record says.

    Attributes
    ----------
    per_atom : meV/atom/ps, the best estimate: the weighted mean of slope and forecast where both are known and agree,
        else the slope
    slope : meV/atom/ps, of the energy
    foretold : meV/atom/ps, by the energy's random walk, where the temperature is known
    """

    per_atom: Finding
    slope: Finding
    foretold: Finding | None

    @property
    def kelvin(self) -> Finding:
        """The best estimate in K/ps."""
        scale = 1 / (1000 * 3 * BOLTZMANN)
        best = self.per_atom
        return Finding("nve_heating", best.value * scale, best.standard_error * scale, "K/ps", best.note)


def measure(time_ps: ArrayLike, conserved_eV: ArrayLike, n_atoms: int, temperature_K: float | None = None) -> Drift:
    """Drift of the conserved energy.

    Parameters
    ----------
    time_ps : (n_frames,), ps, evenly spaced; conserved_eV : (n_frames,), eV, of the whole system
    temperature_K : of the run, for the forecast

    Raises
    ------
    UsageError
        for series of different lengths or with fewer than four frames, uneven spacing, or values that are not finite.
    TooShortToTell
        for fewer than 16 frames, or if the energy still moves smoothly: a slow oscillation of which the record sees a
        few periods. `.estimate` is the Drift all the same.
    """
    time, energy = np.asarray(time_ps, dtype=float), np.asarray(conserved_eV, dtype=float)
    if time.shape != energy.shape or time.ndim != 1 or len(time) < 4:
        raise UsageError(f"time_ps, conserved_eV: got shapes {time.shape}, {energy.shape}; give four or more frames")
    if not (np.isfinite(time).all() and np.isfinite(energy).all()):
        raise UsageError("conserved_eV: not finite; cut the record before the run exploded")
    interval(time)
    walk = random_walk.fit(time, energy)
    span = f"{len(time)} frames, {time[-1] - time[0]:.3g} ps"
    scale = 1000 / n_atoms
    slope = Finding("nve_drift", walk.slope * scale, walk.slope_error * scale, "meV/atom/ps", f"slope, {span}")
    foretold = None
    if temperature_K:
        rate = scale / (2 * BOLTZMANN * temperature_K)
        note = f"D/2kT of the energy's random walk, {span}"
        foretold = Finding("foretold_drift", rate * walk.diffusion, rate * walk.diffusion_error, "meV/atom/ps", note)
    drift = Drift(_best(slope, foretold), slope, foretold)
    if len(time) < _FEWEST_FRAMES or walk.smoothness > _SMOOTH:
        raise TooShortToTell(
            f"nve_drift: {span} do not tell a drift from a slow oscillation of the energy; run longer", drift
        )
    return drift


def _best(slope: Finding, foretold: Finding | None) -> Finding:
    if foretold is None or not 0 < foretold.standard_error < math.inf:
        return slope
    apart = math.hypot(slope.standard_error, foretold.standard_error)
    if abs(slope.value - foretold.value) > _APART * apart:
        return slope
    weight = (foretold.standard_error / apart) ** 2  # of the slope: the other's variance over the sum of both
    value = weight * slope.value + (1 - weight) * foretold.value
    error = slope.standard_error * foretold.standard_error / apart
    span = slope.note.partition(", ")[2]
    return replace(slope, value=value, standard_error=error, note=f"slope and random walk, {span}")
