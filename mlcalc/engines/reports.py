"""What a batch tells of itself: a few numbers of each system at once, and frames when they have come to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcalc.engines.dynamics import State
from mlcalc.trajectory import Frame

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Report:
    """The systems that go on, at one outer step; arrays are (n_systems,), in the order of `systems`.

    Attributes
    ----------
    systems : their numbers
    time_ps : ps; temperature_K : K; the others as in `Frame`
    """

    systems: tuple[int, ...]
    time_ps: Array
    temperature_K: Array
    potential_energy: Array
    kinetic_energy: Array
    heat: Array
    power: Array

    @property
    def conserved(self) -> Array:
        """eV, see `Frame.conserved`."""
        return self.potential_energy + self.kinetic_energy - self.heat


@dataclass(frozen=True)
class Ending:
    """Why a system left the batch.

    Attributes
    ----------
    time_ps : ps, when that was found; reason : in one line; exploded : or else dropped on purpose
    """

    time_ps: float
    reason: str
    exploded: bool


class HostCopy:
    """Copies of tensors; those on a GPU travel while it computes on, and nobody waits until they are asked for.

    Nothing may change the tensors in place before.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._event: torch.cuda.Event | None = None
        if any(tensor.is_cuda for tensor in tensors):
            # only from pinned memory can the device be left alone with it
            self._host = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in tensors]
            for there, here in zip(tensors, self._host, strict=True):
                here.copy_(there, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = [tensor.detach().cpu() for tensor in tensors]

    def arrays(self) -> list[NDArray[Any]]:
        """What the tensors held when this was made."""
        if self._event is not None:
            self._event.synchronize()
        return [tensor.numpy() for tensor in self._host]


class FramesUnderway:
    """The frames of a report, on their way from the device."""

    def __init__(self, report: Report, state: State) -> None:
        phase = state.phase
        self.report, self.batch = report, phase.batch
        self.copy = HostCopy([phase.positions, phase.momenta, *([] if phase.own is None else [phase.own])])

    def hand_to(self, on_frame: Callable[[int, Frame], None]) -> None:
        """Wait for them, and give one after the other."""
        assert self.batch is not None
        positions, momenta, *own = self.copy.arrays()
        report = self.report
        for place, (system, bounds) in enumerate(zip(report.systems, self.batch.bounds, strict=True)):
            atoms = slice(*bounds)
            frame = Frame(
                time_ps=float(report.time_ps[place]),
                positions=positions[atoms].copy(),
                momenta=momenta[atoms].copy(),
                potential_energy=float(report.potential_energy[place]),
                kinetic_energy=float(report.kinetic_energy[place]),
                heat=float(report.heat[place]),
                power=float(report.power[place]),
                state=_variables(own[0], place, atoms) if own else None,
            )
            on_frame(system, frame)


def _variables(own: Array, place: int, atoms: slice) -> Array:
    """Of a system, in the order in which a `NativeEngine` records them."""
    return own[:, atoms].flatten() if own.ndim == 3 else own[:, place].copy()
