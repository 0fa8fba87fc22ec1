"""NequIP and Allegro: equivariant networks of messages (S. Batzner et al., doi:10.1038/s41467-022-29939-5) and of local
environments (A. Musaelian et al., doi:10.1038/s41467-023-36329-y).

The layers are those of the packages `nequip` and `nequip-allegro`, eager, from edge vectors to energies by atom. Edges
come from our neighbour list, derivatives from `mlcalc.potentials.autodiff`: nothing leaves the device, batches are
allowed, and the derivatives can be differentiated again. Distances and energies are in float64 in the package, whatever
the dtype between them, and so they are here.

A checkpoint is a pickle and a package holds Python code: reading either can run anything. Read are only files that the
user names: "nequip:/path/to/model.ckpt" or "nequip:/path/to/model.nequip.zip". Name none that you would not run as a
program. Files of nequip-compile hold forces and no energies that could be differentiated; they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from mlcalc.errors import CheckpointError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential, Graph
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.potential import check_elements
from mlcalc.structure import Structure

_FAMILY = "nequip"
_CASTS = ("_output_dtype", "model_dtype")  # what modules of theirs call the dtype that they compute in


class NequIP(AutodiffPotential):
    """A model of the package `nequip` on edge vectors.

    Parameters
    ----------
    name : what reports call it
    network : nequip's GraphModel, taken over

    Attributes
    ----------
    numbers : atomic numbers of the elements it knows

    Raises
    ------
    CheckpointError
        if its types of atoms are not chemical symbols.
    """

    network: Any
    _place: Tensor

    def __init__(self, name: str, network: Any) -> None:
        facts, types = network.metadata, network.metadata["type_names"].split()
        if not set(types) <= set(chemical_symbols[1:]):
            raise CheckpointError(f"potential: {name} knows the types {', '.join(types)}, which are not all elements")
        provides = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL
        super().__init__(name, float(facts["r_max"]), provides, getattr(torch, facts["model_dtype"]))
        self.facts = dict(facts)
        network.model.do_derivatives = False  # they are taken here
        self.network = network
        places = [atomic_numbers[symbol] for symbol in types]
        self.numbers = tuple(sorted(places))
        table = torch.full((len(chemical_symbols),), -1, dtype=torch.int64)
        table[places] = torch.arange(len(places))
        self.register_buffer("_place", table, persistent=False)
        self.requires_grad_(False).eval()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NequIP:
        """What moves tensors to another dtype has to reach the casts between the package's layers, too."""
        super()._apply(fn, recurse)
        for module in self.network.modules():
            for key in _CASTS:
                if key in vars(module):
                    setattr(module, key, self.dtype)
        return self

    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        vectors = graph.vectors.double()
        found = self.network(
            {
                "pos": vectors.new_zeros(graph.n_atoms, 3),
                "edge_index": torch.stack([graph.centre, graph.neighbour]),
                "edge_vectors": vectors,
                "atom_types": self._place[graph.numbers],
            }
        )
        return found["atomic_energy"].squeeze(1), None

    def check_species(self, structure: Structure) -> None:
        check_elements(structure, self.name, self.numbers)

    def extra_repr(self) -> str:
        # the architecture is not among the weights
        return json.dumps({**self.facts, "network": str(self.network)}, sort_keys=True)


@undisturbed()
def load(name: str) -> NequIP:
    """The potential of "nequip:path"; in its own dtype, on the CPU. Reading the file can run code.

    Raises
    ------
    UsageError
        if the package is not installed.
    CheckpointError
        if the file is not there, is none of the package's, or its types of atoms are not elements.
    """
    foreign_module("nequip", _FAMILY)
    library = foreign_module("e3nn", _FAMILY)
    settings, fusion = dict(library.get_optimization_defaults()), torch.jit.set_fusion_strategy([("DYNAMIC", 10)])
    try:
        return _read(Path(name.removeprefix(f"{_FAMILY}:")).expanduser())
    finally:  # as the package changes for everybody what e3nn builds and how torch fuses
        library.set_optimization_defaults(**settings)
        torch.jit.set_fusion_strategy(fusion)


def _read(path: Path) -> NequIP:
    if not path.is_file():
        raise CheckpointError(f"potential: no file {path}; give the path of a NequIP model, as nequip:path")
    if path.suffix not in (".ckpt", ".zip"):
        raise CheckpointError(
            f"potential: {path} is neither a checkpoint (.ckpt) nor a package (.nequip.zip); a compiled model works "
            f"through NequIPCalculator.from_compiled_model in Python, without derivatives: mlcalc.AseCalculator(…)"
        )
    foreign_module("nequip.utils.global_state", _FAMILY).set_global_state()
    reader = foreign_module("nequip.model.saved_models.load_utils", _FAMILY)
    torch.set_default_dtype(torch.float64)  # as the package wants it, and sets it the first time only
    try:
        network = reader.load_saved_model(str(path))
    except Exception as error:  # whatever lies beneath
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"potential: {path} is no file that nequip can read ({reason})") from error
    return NequIP(path.name.partition(".")[0], network)
