"""A force as a function of position, with its graphs kept for any number of products with its Jacobian J = ∂F/∂r.

Jᵀu is one reverse pass through the graph of the force. That pass is linear in u, so its own graph, once made, gives Jv
as the derivative of (Jᵀu)·v by u: one reverse pass again. With both graphs at hand a pair (Jv, Jᵀv) costs two reverse
passes. A conservative force is itself a derivative, so everything there is one order higher. torch.func is not used:
nested transforms are silently wrong through scripted models.

In a batch J is block-diagonal: one product is a product for each system.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import Wanted, required
from mlcalc.memory import free_bytes
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

_OF_FREE = 0.6  # of the free memory; reverse passes take a third more than the graphs hold


class GraphTooLarge(RunError):
    """The graphs of a force need more memory than there is."""


class _Graphs:
    """Adds up what graphs keep while they are made, and stops before memory is full.

    Every tensor that a graph keeps passes through torch's saved-tensor hooks; several may share one storage.
    """

    def __init__(self, limit: float, n_atoms: int) -> None:
        self.limit, self.n_atoms = limit, n_atoms
        self.held: dict[int, int] = {}
        self.n_bytes = 0

    def counting(self) -> torch.autograd.graph.saved_tensors_hooks:
        return torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.held:
            self.held[storage.data_ptr()] = storage.nbytes()
            self.n_bytes += storage.nbytes()
            if self.n_bytes > self.limit:
                raise GraphTooLarge(
                    f"structure: derivatives of the forces on {self.n_atoms} atoms need more than the "
                    f"{self.limit / 2**30:.3g} GiB that they may take; use a device with more memory, float32, or "
                    "differences of forces"
                )
        return tensor.detach()


@dataclass(frozen=True)
class Field:
    """A force at one structure, which may be a batch of several systems."""

    positions: Tensor
    force: Tensor
    _graphs: _Graphs

    @classmethod
    def at(cls, potential: Potential, structure: Structure, forces: str, memory_bytes: float | None = None) -> Field:
        """The force of a structure.

        Parameters
        ----------
        forces : "direct" or "conservative"
        memory_bytes : that the graphs may hold; 0.6 of what is free unless given

        Raises
        ------
        UsageError
            for forces that the potential does not have.
        GraphTooLarge
            if they would hold more; `forward` may raise it too.
        """
        flags = {"direct": Wanted.DIRECT, "conservative": Wanted.CONSERVATIVE}
        if forces not in flags:
            raise UsageError(f"forces: got {forces!r}; choose one of {', '.join(flags)}")
        if memory_bytes is None:
            memory_bytes = _OF_FREE * free_bytes(potential.device)
        structure = structure.to(device=potential.device, dtype=torch.float64)
        neighbours = neighbour_list(structure, potential.cutoff)
        positions = structure.positions.detach().clone().requires_grad_()
        graphs = _Graphs(memory_bytes, structure.n_atoms)
        with graphs.counting():
            result = potential.differentiable(structure.at(positions), neighbours, flags[forces])
        return cls(positions, required(result, f"{forces}_force"), graphs)

    @property
    def bytes_per_atom(self) -> float:
        """What the graphs made so far hold, by atom."""
        return self._graphs.n_bytes / len(self.positions)

    def transposed(self, vector: Tensor) -> Tensor:
        """Jᵀu, (n_atoms, 3) → (n_atoms, 3), eV/Å² times its unit"""
        (product,) = torch.autograd.grad(self.force, self.positions, vector, retain_graph=True)
        return product

    def forward(self, vector: Tensor) -> Tensor:
        """Jv, (n_atoms, 3) → (n_atoms, 3)"""
        dummy, linear = self._linear
        (product,) = torch.autograd.grad(linear, dummy, vector, retain_graph=True)
        return product

    @cached_property
    def _linear(self) -> tuple[Tensor, Tensor]:
        """u = 0 and Jᵀu with its graph."""
        dummy = torch.zeros_like(self.force, requires_grad=True)
        with self._graphs.counting():
            (linear,) = torch.autograd.grad(self.force, self.positions, dummy, create_graph=True)
        return dummy, linear

    def squares(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """|Jv − Jᵀv|²/4 and (|Jv|² + |Jᵀv|²)/2 by atom, (n_atoms,) each."""
        forward, backward = self.forward(vector), self.transposed(vector)
        odd = (forward - backward).square().sum(dim=1) / 4
        return odd, (forward.square() + backward.square()).sum(dim=1) / 2


def relative_round_off(potential: Potential, n_atoms: int) -> float:
    """What a precision may be taken to be good for in a sum over atoms."""
    return float(torch.finfo(potential.dtype).eps) * n_atoms**0.5
