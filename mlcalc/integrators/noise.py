"""Random numbers as functions of a seed and of a count alone: a run that is continued needs no generator's state."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mlcalc.errors import UsageError
from mlcalc.integrators.phase import Phase

THERMOSTAT, BAROSTAT, START = range(3)  #: streams, each with numbers of its own


def generator(seed: int, count: int, stream: int = THERMOSTAT) -> np.random.Generator:
    """The random numbers of one moment of a run (Philox)."""
    # counted in the second word, so that each moment has 2⁶⁴ numbers of its own
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, count, stream, 0]))


def normal(like: Tensor, seed: int, count: int, stream: int = THERMOSTAT) -> Tensor:
    """Normal deviates of the shape, dtype and device of `like`."""
    return to_device(generator(seed, count, stream).standard_normal(like.shape), like)


def normal_of(phase: Phase, like: Tensor, seed: int, count: int, stream: int = THERMOSTAT) -> Tensor:
    """Normal deviates for the atoms of a phase, like (…, n_atoms, 3). In a batch each system has its own seed, and the
    numbers that it would have alone."""
    if phase.batch is None:
        return normal(like, seed, count, stream)
    made = np.empty(like.shape)
    for own_seed, (start, stop) in zip(phase.batch.seeds, phase.batch.bounds, strict=True):
        shape = (*like.shape[:-2], stop - start, 3)
        made[..., start:stop, :] = generator(own_seed, count, stream).standard_normal(shape)
    return to_device(made, like)


def generators(phase: Phase, seed: int, count: int) -> list[np.random.Generator]:
    """The random numbers of one moment, of each system."""
    return [generator(one, count) for one in ((seed,) if phase.batch is None else phase.batch.seeds)]


def to_device(values: np.ndarray, like: Tensor) -> Tensor:
    """An array in the dtype and on the device of `like`; a GPU takes it when it comes to it, and is not waited for."""
    made = torch.from_numpy(values).to(like.dtype)
    return made.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else made.to(like.device)


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises
    ------
    UsageError
        for one that is negative, too large, or not a whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UsageError(f"seed: got {seed}; give a whole number from 0 to {2**63 - 1}")
