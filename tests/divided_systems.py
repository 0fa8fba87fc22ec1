"""A system divided among processes, without processes: what each would be given, cut out of the whole."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.neighbours import Neighbours, neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure


def cut_out(neighbours: Neighbours, counted: Tensor, depth: int) -> tuple[Tensor, Neighbours]:
    """Atoms as far as `depth` edges from the counted ones, and the edges of those nearer: one end at most outermost."""
    hops = torch.where(counted, 0, depth + 1)
    for hop in range(depth):
        reached = neighbours.neighbour[hops[neighbours.centre] == hop]
        hops[reached] = hops[reached].clamp(max=hop + 1)
    keep = torch.minimum(hops[neighbours.centre], hops[neighbours.neighbour]) < depth
    atoms = torch.nonzero(hops <= depth).squeeze(1)
    place = torch.full_like(hops, -1)
    place[atoms] = torch.arange(len(atoms))
    return atoms, Neighbours(
        place[neighbours.centre[keep]], place[neighbours.neighbour[keep]], neighbours.shift[keep], neighbours.cutoff
    )


def sum_of_parts(
    potential: Potential, structure: Structure, wanted: Wanted, parts: Tensor, depth: int
) -> tuple[Evaluation, int]:
    """Contributions of all parts, each evaluated on what lies within `depth` edges; and the atoms of the largest piece.

    parts : (n_atoms,), which part an atom belongs to
    """
    whole = neighbour_list(structure, potential.cutoff)
    total: dict[str, Tensor] = {}
    largest = 0
    for part in range(int(parts.max()) + 1):
        atoms, piece = cut_out(whole, parts == part, depth)
        largest = max(largest, len(atoms))
        names = ("positions", "numbers", "masses", "system")
        sub = replace(structure, **{name: getattr(structure, name)[atoms] for name in names})
        found = potential.evaluate_part(sub, piece, wanted, parts[atoms] == part)
        for field in fields(found):
            value = getattr(found, field.name)
            if value is None:
                continue
            if field.name in ("energy", "virial"):
                total[field.name] = total.get(field.name, 0) + value
            else:
                zeros = torch.zeros(structure.n_atoms, *value.shape[1:], dtype=value.dtype)
                total[field.name] = total.get(field.name, zeros).index_add(0, atoms, value)
    return Evaluation(**total), largest
