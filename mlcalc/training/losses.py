"""The terms of the training loss and how a stage weighs them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from mlcalc.evaluation import Evaluation, Wanted, required
from mlcalc.training.data import Frame

# By five instants Δ apart: (1, −2, 1) ∗ (1, 0, 1), which passes (2 − 2 cos ωΔ)² (2 cos ωΔ)² of the variance: nothing
# that is slow, nothing around ω = π/2Δ, most of what lies beyond
_FAST = (1.0, -2.0, 2.0, -2.0, 1.0)
N_INSTANTS = len(_FAST)
_BEND = 0.1  # eV/Å; beyond it the Huber loss grows linearly, so that a few wild forces do not rule the first epochs


@dataclass(frozen=True)
class Weights:
    """How much each term counts; a term with weight 0 is not computed.

    Attributes
    ----------
    direct : direct force against the label
    conservative : minus the energy's gradient against the label
    energy : total energy against the label, (ΔE)²/n_atoms
    virial : virial against the label, (ΔW)²/n_atoms, where the data has one
    alignment : direct force against the potential's own conservative force; both give way
    """

    direct: float = 0.0
    conservative: float = 0.0
    energy: float = 0.0
    virial: float = 0.0
    alignment: float = 0.0

    def wanted(self, frame: Frame) -> Wanted:
        """What an evaluation must hold for this loss."""
        wanted = Wanted(0)
        if self.direct or self.alignment:
            wanted |= Wanted.DIRECT
        if self.conservative or self.alignment:
            wanted |= Wanted.CONSERVATIVE
        if self.energy:
            wanted |= Wanted.ENERGY
        if self.virial and frame.virial is not None:
            wanted |= Wanted.VIRIAL
        return wanted


@dataclass(frozen=True)
class KickWeights:
    """How small the kicks of multiple time stepping shall be, the slow force minus the fast one, along a trajectory.

    Kicks suit what varies slowly.

    Attributes
    ----------
    alignment : the difference itself
    fast : what of it an outer step cannot follow (a filter over five instants), by atom over the mass: a kick's work
        is f²/2m
    """

    alignment: float
    fast: float


def force_loss(got: Tensor, target: Tensor) -> Tensor:
    """Huber loss of force components, in (eV/Å)²."""
    return huber_loss(got, target, delta=_BEND)


def loss(evaluation: Evaluation, frame: Frame, weights: Weights) -> Tensor:
    """The weighted sum of the terms, a scalar."""
    total = torch.zeros((), dtype=frame.force.dtype, device=frame.force.device)
    n_atoms = frame.structure.n_atoms
    if weights.direct:
        total = total + weights.direct * force_loss(required(evaluation, "direct_force"), frame.force)
    if weights.conservative:
        total = total + weights.conservative * force_loss(required(evaluation, "conservative_force"), frame.force)
    if weights.alignment:
        own = required(evaluation, "conservative_force")
        total = total + weights.alignment * force_loss(required(evaluation, "direct_force"), own)
    if weights.energy:
        miss = required(evaluation, "energy").squeeze(0) - frame.energy
        total = total + weights.energy * miss.square() / n_atoms
    if weights.virial and frame.virial is not None:
        miss = required(evaluation, "virial").squeeze(0) - frame.virial
        total = total + weights.virial * miss.square().mean() / n_atoms
    return total


def disagreement(difference: Tensor, masses: Tensor, weights: KickWeights) -> Tensor:
    """The loss of a frame that holds one system at five instants, a scalar.

    Parameters
    ----------
    difference : (n_atoms, 3), eV/Å, of the slow and the fast force on all five
    masses : (n_atoms,), of all five
    """
    filtered = torch.einsum("i,iak->ak", difference.new_tensor(_FAST), difference.unflatten(0, (N_INSTANTS, -1)))
    lightness = 1 / masses.chunk(N_INSTANTS)[0].unsqueeze(1)
    fast = (lightness / lightness.mean() * filtered.square()).mean()
    return 0.5 * (weights.alignment * difference.square().mean() + weights.fast * fast)
