"""Frames of one run have one distance in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mlcalc.errors import UsageError


def interval(time_ps: ArrayLike) -> float:
    """ps from frame to frame; time_ps : (n_frames,)

    Raises
    ------
    UsageError
        for fewer than two frames, or uneven spacing.
    """
    steps = np.diff(np.asarray(time_ps, dtype=float))
    if not len(steps):
        raise UsageError("time_ps: got fewer than two frames; give a longer record")
    if not (steps.min() > 0 and np.allclose(steps, steps.mean(), rtol=0.01, atol=0)):
        raise UsageError(
            f"time_ps: frames are {steps.min():.3g} to {steps.max():.3g} ps apart; give evenly spaced frames of one run"
        )
    return float(steps.mean())
