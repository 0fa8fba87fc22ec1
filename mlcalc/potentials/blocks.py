"""Large systems block by block, so that memory grows with the atoms and not with what their edges carry.

Edges are sorted by centre: those of a run of atoms stand side by side. What a layer computes along the edges of such a
block is made, summed into its atoms and forgotten; the backward pass makes it again, block by block (T. Chen et al.,
arXiv 1604.06174), or as much of it as the derivative needs.

The rows of atoms or edges stand in the last but one dimension of every tensor here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from mlcalc.potentials.autodiff import Graph

Rows = tuple[Tensor, ...]
Function = Callable[..., Rows]
Derivative = Callable[..., Rows]
#: Edges in a block by kind of device. A block has its price in calls: with the bundled water on a CPU, blocks of 5,000
#: edges took 1.2 times as long as all at once. On a GPU it shall be work enough for all of its processors
EDGES_PER_BLOCK = {"cpu": 2**16, "cuda": 2**18}
_EDGES_OF_AN_ATOM = 8  # an atom without edges is work too: as much as some edges


@dataclass(frozen=True)
class Block:
    """A run of atoms and all edges that have their centre among them."""

    first_atom: int
    n_atoms: int
    first_edge: int
    n_edges: int

    def edges(self, rows: Tensor, dim: int = 0) -> Tensor:
        return rows.narrow(dim, self.first_edge, self.n_edges)

    def atoms(self, rows: Tensor, dim: int = 0) -> Tensor:
        return rows.narrow(dim, self.first_atom, self.n_atoms)


def blocks_of(centre: Tensor, n_atoms: int, edges_per_block: int) -> tuple[Block, ...]:
    """Blocks of at most about so many edges, or of a single atom with more.

    Parameters
    ----------
    centre : (n_edges,), int64, ascending
    """
    ends = torch.bincount(centre, minlength=n_atoms).cumsum(0).cpu()
    work = ends + _EDGES_OF_AN_ATOM * torch.arange(1, n_atoms + 1)
    blocks: list[Block] = []
    atom = edge = 0
    while atom < n_atoms:
        done = edge + _EDGES_OF_AN_ATOM * atom
        last = max(atom + 1, int(torch.searchsorted(work, done + edges_per_block, right=True)))
        end = int(ends[last - 1])
        blocks.append(Block(atom, last - atom, edge, end - edge))
        atom, edge = last, end
    return tuple(blocks)


def by_blocks(
    function: Function,
    graph: Graph,
    edges: Sequence[Tensor],
    neighbours: Sequence[Tensor] = (),
    *,
    derivative: Derivative | None = None,
    to_edges: bool = False,
) -> Rows:
    """function(centre, n_atoms, *rows), at once or in the graph's blocks, where there are no second derivatives.

    Parameters
    ----------
    function : of the edges' centres, how many atoms these are of, and rows of edges and neighbours; gives rows of
        these atoms, and may read nothing else that a derivative is wanted by
    edges : (…, n_edges, n)
    neighbours : (…, n_atoms, n), handed to the function for the neighbour of each edge, (…, n_edges, n)
    derivative : of a scalar: (centre, its derivatives by what the function gives, *rows) → those by the rows; where it
        is not given, the function is called again to be differentiated
    to_edges : the function gives rows of the edges instead
    """
    if graph.blocks is None:
        ends = (rows.index_select(-2, graph.neighbour) for rows in neighbours)
        return function(graph.centre, graph.n_atoms, *edges, *ends)
    return _Blockwise.apply(_Plan(function, derivative, graph, len(edges), to_edges), *edges, *neighbours)


def in_pieces(function: Callable[[Tensor], Tensor], graph: Graph, edges: Tensor) -> Tensor:
    """function(edges), a row an edge, at once or, where there are blocks, for as many at a time as the largest has."""
    if graph.blocks is None:
        return function(edges)
    most = max(block.n_edges for block in graph.blocks)
    return torch.cat([function(piece) for piece in edges.split(max(1, most))])


@dataclass(frozen=True)
class _Plan:
    function: Function
    derivative: Derivative | None
    graph: Graph
    n_edges: int
    to_edges: bool

    def centre(self, block: Block) -> Tensor:
        return block.edges(self.graph.centre) - block.first_atom

    def rows(self, block: Block, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the function sees of a block."""
        ends = block.edges(self.graph.neighbour)
        rows = [block.edges(tensor, -2) for tensor in tensors[: self.n_edges]]
        return rows + [tensor.index_select(-2, ends) for tensor in tensors[self.n_edges :]]

    def slopes(self, block: Block, slopes: Sequence[Tensor], rows: list[Tensor]) -> Rows:
        """Derivatives by a block's rows, from those by what came of all."""
        slopes = [block.edges(slope, -2) if self.to_edges else block.atoms(slope, -2) for slope in slopes]
        if self.derivative is not None:
            return self.derivative(self.centre(block), slopes, *rows)
        rows = [row.detach().requires_grad_() for row in rows]
        with torch.enable_grad():
            found = self.function(self.centre(block), block.n_atoms, *rows)
        return torch.autograd.grad(found, rows, slopes)

    def put(self, block: Block, totals: Sequence[Tensor], parts: Rows) -> None:
        """Derivatives by a block's rows where the rows came from."""
        ends = block.edges(self.graph.neighbour)
        for k, (total, part) in enumerate(zip(totals, parts, strict=True)):
            if k < self.n_edges:
                block.edges(total, -2).copy_(part)
                continue
            # plane by plane: along an inner dimension a CPU adds several times slower
            for plane, more in zip(_planes(total), _planes(part), strict=True):
                plane.index_add_(0, ends, more)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> Rows:
        ctx.plan = plan
        ctx.save_for_backward(*tensors)
        blocks = plan.graph.blocks or ()
        found = [plan.function(plan.centre(block), block.n_atoms, *plan.rows(block, tensors)) for block in blocks]
        return tuple(torch.cat(parts, dim=-2) for parts in zip(*found, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        plan, tensors = ctx.plan, ctx.saved_tensors
        totals = [torch.zeros_like(tensor) for tensor in tensors]
        for block in plan.graph.blocks:
            plan.put(block, totals, plan.slopes(block, slopes, plan.rows(block, tensors)))
        return (None, *totals)


def _planes(rows: Tensor) -> Tensor:
    """(…, n, m) → (k, n, m)"""
    return rows.flatten(0, -3) if rows.dim() > 2 else rows.unsqueeze(0)
