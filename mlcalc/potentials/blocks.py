"""Large systems block by block, so that memory grows with the atoms and not with what their edges carry.

Edges are sorted by centre: those of a run of atoms stand side by side. What a layer computes along edges is made for one
such block, summed into its atoms and forgotten; the backward pass makes it again, block by block (T. Chen et al., arXiv
1604.06174). A block that fits into the processor's cache is also quicker than a whole system that does not.

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

#: Edges in a block by kind of device, measured with the bundled water: on a CPU what its caches hold, on a GPU what
#: keeps it busy
EDGES_PER_BLOCK = {"cpu": 4096, "cuda": 2**18}
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
    function: Callable[..., tuple[Tensor, ...]],
    graph: Graph,
    *,
    edges: Sequence[Tensor] = (),
    neighbours: Sequence[Tensor] = (),
    atoms: Sequence[Tensor] = (),
    to_edges: bool = False,
) -> tuple[Tensor, ...]:
    """function(centre, n_atoms, *rows), at once or in the graph's blocks, where there are no second derivatives.

    Parameters
    ----------
    function : of the edges' centres, how many atoms these are of, and rows of edges, neighbours, atoms in this order;
        gives rows of these atoms, and may read nothing else that a derivative is wanted by
    edges : (…, n_edges, n)
    neighbours : (…, n_atoms, n), handed to the function for the neighbour of each edge, (…, n_edges, n)
    atoms : (…, n_atoms, n)
    to_edges : the function gives rows of the edges instead
    """
    if graph.blocks is None:
        ends = (rows.index_select(-2, graph.neighbour) for rows in neighbours)
        return function(graph.centre, graph.n_atoms, *edges, *ends, *atoms)
    plan = _Plan(function, graph, len(edges), len(neighbours), to_edges)
    return _Blockwise.apply(plan, *edges, *neighbours, *atoms)


def in_pieces(function: Callable[[Tensor], Tensor], graph: Graph, edges: Tensor) -> Tensor:
    """function(edges), a row an edge, at once or, where there are blocks, for as many at a time as the largest has."""
    if graph.blocks is None:
        return function(edges)
    most = max(block.n_edges for block in graph.blocks)
    return torch.cat([function(piece) for piece in edges.split(max(1, most))])


@dataclass(frozen=True)
class _Plan:
    function: Callable[..., tuple[Tensor, ...]]
    graph: Graph
    n_edges: int
    n_neighbours: int
    to_edges: bool

    @property
    def blocks(self) -> tuple[Block, ...]:
        assert self.graph.blocks is not None
        return self.graph.blocks

    def rows(self, block: Block, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the function sees of a block."""
        first, last = self.n_edges, self.n_edges + self.n_neighbours
        ends = block.edges(self.graph.neighbour)
        return [
            *(block.edges(tensor, -2) for tensor in tensors[:first]),
            *(tensor.index_select(-2, ends) for tensor in tensors[first:last]),
            *(block.atoms(tensor, -2) for tensor in tensors[last:]),
        ]

    def call(self, block: Block, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.function(block.edges(self.graph.centre) - block.first_atom, block.n_atoms, *rows)

    def results(self, block: Block, rows: Tensor) -> Tensor:
        """A block's part of what came of all."""
        return block.edges(rows, -2) if self.to_edges else block.atoms(rows, -2)

    def put(self, block: Block, totals: Sequence[Tensor | None], parts: Sequence[Tensor]) -> None:
        """Derivatives by a block's rows where the rows came from."""
        ends, left = block.edges(self.graph.neighbour), iter(parts)
        for k, total in enumerate(totals):
            if total is None:
                continue
            if k < self.n_edges:
                block.edges(total, -2).copy_(next(left))
            elif k >= self.n_edges + self.n_neighbours:
                block.atoms(total, -2).copy_(next(left))
            else:
                # plane by plane: along an inner dimension a CPU adds several times slower
                for plane, more in zip(_planes(total), _planes(next(left)), strict=True):
                    plane.index_add_(0, ends, more)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.plan = plan
        ctx.save_for_backward(*tensors)
        found = [plan.call(block, plan.rows(block, tensors)) for block in plan.blocks]
        return tuple(torch.cat(parts, dim=-2) for parts in zip(*found, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        plan, tensors, needed = ctx.plan, ctx.saved_tensors, ctx.needs_input_grad[1:]
        totals = [torch.zeros_like(tensor) if need else None for tensor, need in zip(tensors, needed, strict=True)]
        for block in plan.blocks:
            rows = [row.detach() for row in plan.rows(block, tensors)]
            variables = [row.requires_grad_() for row, need in zip(rows, needed, strict=True) if need]
            with torch.enable_grad():
                found = plan.call(block, rows)
            parts = torch.autograd.grad(found, variables, [plan.results(block, slope) for slope in slopes])
            plan.put(block, totals, parts)
        return (None, *totals)


def _planes(rows: Tensor) -> Tensor:
    """(…, n, m) → (k, n, m)"""
    return rows.view(-1, *rows.shape[-2:]) if rows.dim() > 2 else rows.unsqueeze(0)
