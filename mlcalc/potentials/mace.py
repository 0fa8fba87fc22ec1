"""MACE: equivariant messages of many-body order (I. Batatia et al., arXiv 2206.07697).

The layers are those of the package `mace-torch`, its `forward` included: atoms are put at the origin and each edge's
vector is given as its shift, so that edges come from our neighbour list and derivatives from
`mlcalc.potentials.autodiff`. Nothing leaves the device, batches are allowed, and the derivatives can be differentiated
again. The energy of isolated atoms, some thousand eV in models of total energies, is added in float64 afterwards.

Its derivatives are taken backwards only: nested transforms of torch.func are wrong, without a word, through the
scripted spherical harmonics of e3nn 0.4.4, on which the package insists.

A file of MACE is a pickle, and a pickle can run any code when it is read. Read are only files that the user names:
"mace:/path/to/file.model", or "mace:/path/to/file.model?head=NAME" for one trained at several levels of theory. Name
none that you would not run as a program.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlcalc.errors import CheckpointError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential, Graph
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.potential import check_elements
from mlcalc.structure import Structure

_FAMILY = "mace"
_CALCULATOR = "ase:mace.calculators:MACECalculator?model_paths="  # for what this adapter does not read


class MACE(AutodiffPotential):
    """A network of the package `mace-torch` on edge vectors.

    Parameters
    ----------
    name : what reports call it
    network : a MACE or ScaleShiftMACE, taken over
    head : which of its levels of theory, by its place

    Attributes
    ----------
    numbers : atomic numbers of the elements it knows
    offsets : (n_elements,), eV, the energies of isolated atoms, in the order of `numbers`
    """

    network: Any
    offsets: Tensor
    _place: Tensor

    def __init__(self, name: str, network: Any, head: int = 0) -> None:
        provides = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL
        isolated = network.atomic_energies_fn.atomic_energies
        super().__init__(name, float(network.r_max), provides, network.r_max.dtype)
        self.head = head
        self.numbers = tuple(network.atomic_numbers.tolist())
        self.register_buffer("offsets", torch.atleast_2d(isolated)[head].to(self.dtype, copy=True))
        isolated.zero_()
        self.interaction_depth = int(network.num_interactions)
        self.network = network
        table = torch.full((len(chemical_symbols),), -1, dtype=torch.int64)
        table[list(self.numbers)] = torch.arange(len(self.numbers))
        self.register_buffer("_place", table, persistent=False)
        self.requires_grad_(False).eval()

    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        place, origin = self._place[graph.numbers], torch.zeros_like(graph.numbers[:1])
        data = {
            "positions": graph.vectors.new_zeros(graph.n_atoms, 3),
            "shifts": graph.vectors,
            "edge_index": torch.stack([graph.centre, graph.neighbour]),
            "node_attrs": nn.functional.one_hot(place, len(self.numbers)).to(self.dtype),
            "cell": graph.vectors.new_zeros(3, 3),
            "batch": torch.zeros_like(graph.numbers),  # energies by atom are summed later
            "ptr": torch.cat([origin, origin + graph.n_atoms]),
            "head": origin + self.head,
        }
        return self.network(data, compute_force=False)["node_energy"], None

    def total_energies(self, energies: Tensor, graph: Graph) -> Tensor:
        return energies.double() + self.offsets.double()[self._place[graph.numbers]]

    def check_species(self, structure: Structure) -> None:
        check_elements(structure, self.name, self.numbers)

    def extra_repr(self) -> str:
        # the architecture is not among the weights
        return json.dumps({"head": self.head, "network": str(self.network)})


@undisturbed()
def load(name: str) -> MACE:
    """The potential of "mace:path" or "mace:path?head=NAME"; in its own dtype, on the CPU. Reading it can run code.

    Raises
    ------
    UsageError
        if the package is not installed, or a level of theory has to be named.
    CheckpointError
        if the file is not there, cannot be read, or is a model of another kind.
    """
    foreign_module(_FAMILY, _FAMILY)  # before e3nn, which otherwise refuses its own files
    modules = foreign_module("mace.modules", _FAMILY)
    file, _, wish = name.removeprefix(f"{_FAMILY}:").partition("?head=")
    path = Path(file).expanduser()
    if not path.is_file():
        raise CheckpointError(f"potential: no file {path}; give the path of a MACE model, as mace:path")
    try:
        network = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever lies beneath
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"potential: {path} is no file that mace-torch can read ({reason})") from error
    embeds = "joint_embedding" in dict(getattr(network, "named_children", dict)())
    if type(network) not in (modules.MACE, modules.ScaleShiftMACE) or embeds:
        raise CheckpointError(
            f"potential: {path} holds a {type(network).__name__}{' with further inputs' * embeds}, which this adapter "
            f"cannot drive; take {_CALCULATOR}{path}, with &model_type=… where mace-torch asks for it"
        )
    return MACE(path.stem, network, _head(path, getattr(network, "heads", None) or ["Default"], wish))


def _head(path: Path, heads: list[str], wish: str) -> int:
    """The place of the level of theory asked for; without a wish the only one, or the one called "default"."""
    defaults = [k for k, head in enumerate(heads) if head.lower() == "default" or len(heads) == 1]
    found = [heads.index(wish)] if wish in heads else [] if wish else defaults
    if not found:
        raise UsageError(
            f"potential: {path} has the heads {', '.join(heads)}, and {wish or 'none of them'} was asked for; "
            f"choose one as mace:{path}?head={heads[-1]}"
        )
    return found[0]
