"""Random numbers as functions of a seed and of a count alone: a run that is continued needs no generator's state."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mlcalc.errors import UsageError

THERMOSTAT, BAROSTAT, START = range(3)  #: streams, each with numbers of its own


def generator(seed: int, count: int, stream: int = THERMOSTAT) -> np.random.Generator:
    """The random numbers of one moment of a run (Philox)."""
    # counted in the second word, so that each moment has 2⁶⁴ numbers of its own
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, count, stream, 0]))


def normal(like: Tensor, seed: int, count: int, stream: int = THERMOSTAT) -> Tensor:
    """Normal deviates of the shape, dtype and device of `like`."""
    return torch.from_numpy(generator(seed, count, stream).standard_normal(like.shape)).to(like)


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises
    ------
    UsageError
        for one that is negative, too large, or not a whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UsageError(f"seed: got {seed}; give a whole number from 0 to {2**63 - 1}")
