"""Keeps exploded systems of a batch from the others, until somebody looks."""

from __future__ import annotations

import torch
from torch import Tensor

_FAR = 10.0  # Å; no atom goes that far from one evaluation to the next, unless its system has exploded


class Fence:
    """Leaves atoms that have flown off, or have no finite position, where they were evaluated last.

    Thus an exploded system disturbs no other until it is found, and nobody has to wait for the device to find it at
    each step.

    Attributes
    ----------
    last : (n_atoms, 3), Å, what was evaluated last
    """

    def __init__(self, positions: Tensor) -> None:
        self.last = positions

    def __call__(self, positions: Tensor) -> Tensor:
        """Positions to evaluate, (n_atoms, 3), Å."""
        # not-a-number is not near
        near = (positions - self.last).abs().amax(dim=1, keepdim=True) < _FAR
        self.last = torch.where(near, positions, self.last)
        return self.last
