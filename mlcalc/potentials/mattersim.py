"""MatterSim: M3GNet, pairs and triples of edges, trained far from equilibrium (H. Yang et al., arXiv 2405.04967).

The layers are those of the package `mattersim`; edges come from our neighbour list, triples from the edges, derivatives
from `mlcalc.potentials.autodiff`: nothing leaves the device, batches are allowed, and the derivatives can be
differentiated again. Energies of elements are added in float64. Angles within 4e-4 of a straight line have no
derivative, in the package as here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlcalc.errors import CheckpointError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential, Graph
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.potential import check_elements
from mlcalc.structure import Structure

_FAMILY = "mattersim"
#: The package's names of its own weights
NAMES = ("MatterSim-v1.0.0-1M", "MatterSim-v1.0.0-5M")
_STRAIGHT = 1 - 1e-7  # the greatest |cosine| that the package knows


class MatterSim(AutodiffPotential):
    """A network of the package `mattersim` on edge vectors.

    Parameters
    ----------
    name : what reports call it
    network : mattersim's M3Gnet, taken over

    Attributes
    ----------
    numbers : atomic numbers of the elements it knows
    offsets : (n_elements + 1,), eV, an atom's constant by its atomic number
    """

    network: Any
    offsets: Tensor

    def __init__(self, name: str, network: Any) -> None:
        provides = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL
        self.settings = dict(network.model_args)
        super().__init__(name, float(self.settings["cutoff"]), provides, torch.float32)
        self.register_buffer("offsets", network.normalizer.shift.detach().clone())
        network.normalizer.shift.data.zero_()
        self.numbers = tuple(range(1, int(network.max_z) + 1))
        self.interaction_depth = len(network.graph_conv)
        self.network = network
        self.requires_grad_(False).eval()

    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        network, vectors, n_edges = self.network, graph.vectors, len(graph.centre)
        length = torch.linalg.vector_norm(vectors, dim=1)
        first, second = _triples(graph, length.detach() <= self.settings["threebody_cutoff"])
        cosine = (vectors[first] * vectors[second]).sum(dim=1) / (length[first] * length[second])
        angular = network.sbf(length[second], torch.acos(cosine.clamp(-_STRAIGHT, _STRAIGHT)))
        kind = nn.functional.one_hot(graph.numbers, int(network.max_z) + 1).to(self.dtype)
        atoms, radial = network.atom_embedding(kind), network.rbf(length)
        edges = network.edge_encoder(radial)
        for layer in network.graph_conv:
            atoms, edges = layer(
                atoms,
                edges,
                radial,
                torch.stack([graph.centre, graph.neighbour]),
                angular,
                torch.stack([first, second], dim=1),
                length.unsqueeze(1),
                None,  # numbers of edges and of triples, which the last three say as well
                first,
                None,
                total_num_atoms=graph.n_atoms,
                total_num_bonds=n_edges,
                three_body_edge_map=first,
            )
        return network.normalizer(network.final(atoms).squeeze(1), graph.numbers), None

    def total_energies(self, energies: Tensor, graph: Graph) -> Tensor:
        return energies.double() + self.offsets.double()[graph.numbers]

    def check_species(self, structure: Structure) -> None:
        check_elements(structure, self.name, self.numbers)

    def extra_repr(self) -> str:
        # the architecture is not among the weights
        return json.dumps(self.settings, sort_keys=True)


def _triples(graph: Graph, short: Tensor) -> tuple[Tensor, Tensor]:
    """(n_triples,) twice: every ordered pair of different short edges of a centre, by their places."""
    chosen = torch.nonzero(short).squeeze(1)
    count = torch.bincount(graph.centre[chosen], minlength=graph.n_atoms)
    partners = count[graph.centre[chosen]]  # of each edge, itself included
    first = torch.repeat_interleave(torch.arange(len(chosen), device=chosen.device), partners)
    begin = (count.cumsum(0) - count)[graph.centre[chosen]]  # where the edges of its centre begin
    within = torch.arange(len(first), device=chosen.device) - (partners.cumsum(0) - partners)[first]
    second = begin[first] + within
    keep = first != second
    return chosen[first[keep]], chosen[second[keep]]


@undisturbed()
def load(name: str) -> MatterSim:
    """The potential of "mattersim:path", or of "mattersim:NAME" with a name in NAMES; float32 on the CPU.

    The package downloads the weights of a name, or takes them from its folder. They are read as tensors only.

    Raises
    ------
    UsageError
        if the package is not installed.
    CheckpointError
        if the file is not there or is no checkpoint of this family, or the weights cannot be downloaded.
    """
    package = foreign_module("mattersim.forcefield.m3gnet.m3gnet", _FAMILY)
    key = name.removeprefix(f"{_FAMILY}:")
    path = _downloaded(key) if key in NAMES else Path(key).expanduser()
    if not path.is_file():
        raise CheckpointError(f"potential: no file {path}; give a checkpoint's path, or one of {', '.join(NAMES)}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        network = package.M3Gnet(**{**checkpoint["model_args"], "device": "cpu"})
        network.load_state_dict(checkpoint["model"])
    except Exception as error:  # whatever lies beneath
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"potential: {path} is no file of MatterSim's weights ({reason})") from error
    return MatterSim(path.stem, network.float())


def _downloaded(key: str) -> Path:
    """Where the package keeps the weights of a name."""
    folder = Path("~/.local/mattersim/pretrained_models").expanduser()
    path = folder / f"{key.replace('MatterSim', 'mattersim')}.pth"
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            foreign_module("mattersim.utils.download_utils", _FAMILY).download_checkpoint(path.name, str(folder))
        except Exception as error:  # whatever lies beneath
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CheckpointError(
                f"potential: mattersim cannot download {key} ({reason}); download {path.name} elsewhere and give it "
                f"as {_FAMILY}:FILE"
            ) from error
    return path
