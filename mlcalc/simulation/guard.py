"""Watches the conserved energy of a run."""

from __future__ import annotations

import math
from collections import deque


class EnergyGuard:
    """How far the conserved energy has moved.

    At constant energy that is counted from the start: what has come in stays. A bath takes heat out again within its
    relaxation time, so there only what came in during that time counts. In both cases 10 meV/atom are a temperature
    some 39 K too high (3 k_B an atom, harmonic).

    Parameters
    ----------
    n_atoms : of the run
    window_ps : how far to look back, ps; infinite at constant energy
    """

    def __init__(self, n_atoms: int, window_ps: float = math.inf) -> None:
        self.n_atoms, self.window_ps = n_atoms, window_ps
        self._kept: deque[tuple[float, float]] = deque()

    def moved(self, time_ps: float, conserved_eV: float) -> float:
        """Take in one frame; returns meV/atom, not a number where the energy is none."""
        if not self._kept or math.isfinite(self.window_ps):
            self._kept.append((time_ps, conserved_eV))
        while len(self._kept) > 2 and self._kept[1][0] <= time_ps - self.window_ps:
            self._kept.popleft()
        return 1000 * abs(conserved_eV - self._kept[0][1]) / self.n_atoms

    def forget(self) -> None:
        """Count from the next frame on."""
        self._kept.clear()
