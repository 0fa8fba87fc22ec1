"""ANI: networks of symmetry functions for organic molecules (X. Gao et al., doi:10.1021/acs.jcim.0c00451).

The layers are those of the package `torchani`, pair potentials (repulsion, dispersion) included; neighbours are ours,
each pair given once. Derivatives come from `mlcalc.potentials.autodiff`: nothing leaves the device, batches are
allowed, and the derivatives can be differentiated again. Energies of isolated atoms, some thousand eV, are added in
float64.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from ase.data import chemical_symbols
from ase.units import Hartree
from torch import Tensor

from mlcalc.errors import CheckpointError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential, Graph
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.potential import check_elements
from mlcalc.structure import Structure

_FAMILY = "torchani"
#: What the package calls its models; the one with charges, ANImbis, has a term that is not a sum over neighbours
NAMES = ("ANI1x", "ANI1ccx", "ANI2x", "ANI2xr", "ANI2dr")


class TorchANI(AutodiffPotential):
    """A model of the package `torchani` on edge vectors.

    Parameters
    ----------
    name : what reports call it
    model : torchani's ANI, taken over

    Attributes
    ----------
    numbers : atomic numbers of the elements it knows
    offsets : (n_elements,), eV, the energies of isolated atoms, in the model's order

    Raises
    ------
    CheckpointError
        if a part of it has no cutoff.
    """

    needs_reverse = True
    interaction_depth = 2  # 1, where no dispersion term counts the neighbours of neighbours
    network: Any
    offsets: Tensor
    _place: Tensor

    def __init__(self, name: str, model: Any) -> None:
        if not math.isfinite(model.cutoff):
            raise CheckpointError(f"potential: {name} has a term without a cutoff, which is not supported")
        provides = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL
        super().__init__(name, float(model.cutoff), provides, next(model.parameters()).dtype)
        model.set_enabled("energy_shifter", False)
        self.network = model
        self.register_buffer("offsets", Hartree * model.energy_shifter.self_energies.detach().to(self.dtype))
        places = model.atomic_numbers.tolist()
        self.numbers = tuple(sorted(places))
        table = torch.full((len(chemical_symbols),), -1, dtype=torch.int64)
        table[places] = torch.arange(len(places))
        self.register_buffer("_place", table, persistent=False)
        self.requires_grad_(False).eval()

    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        from torchani.neighbors import Neighbors

        assert graph.reverse is not None
        here = torch.arange(len(graph.centre), device=graph.centre.device)
        once = torch.nonzero(here < graph.reverse).squeeze(1)
        vectors = -graph.vectors.index_select(0, once)  # theirs is r_i − r_j
        pairs = torch.stack([graph.centre[once], graph.neighbour[once]])
        found = self.network.compute_from_neighbors(
            self._place[graph.numbers].unsqueeze(0),
            vectors.new_zeros(1, graph.n_atoms, 3),  # only its shape matters
            Neighbors(pairs, torch.linalg.vector_norm(vectors, dim=1), vectors),
            atomic=True,
        )
        return Hartree * found.energies.squeeze(0), None

    def total_energies(self, energies: Tensor, graph: Graph) -> Tensor:
        return energies.double() + self.offsets.double()[self._place[graph.numbers]]

    def check_species(self, structure: Structure) -> None:
        check_elements(structure, self.name, self.numbers)

    def extra_repr(self) -> str:
        # cutoffs and the order of elements are not among the weights
        return json.dumps({"cutoff": self.cutoff, "network": str(self.network)})


@undisturbed()
def load(name: str) -> TorchANI:
    """The potential of "torchani:NAME" with a name in NAMES; float32 on the CPU.

    The package downloads the weights, or takes them from its cache. They are read as tensors only.

    Raises
    ------
    UsageError
        if the package is not installed, or there is no such name.
    CheckpointError
        if the weights can be neither found nor downloaded.
    """
    package = foreign_module("torchani.models", _FAMILY)
    key = name.removeprefix(f"{_FAMILY}:")
    if key not in NAMES:
        raise UsageError(f"potential: got {name!r}; choose one of {', '.join(f'{_FAMILY}:{one}' for one in NAMES)}")
    try:
        model = getattr(package, key)(strategy="pyaev", dtype=torch.float32)
    except Exception as error:  # whatever lies beneath
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"potential: torchani cannot load {key} ({reason}); let it download the weights once, where there is a "
            f"network: python -c 'import torchani; torchani.models.{key}()'"
        ) from error
    return TorchANI(key, model)
