"""ORB: graph networks with or without a head for direct forces (M. Neumann et al., arXiv 2410.22570; B. Rhodes et al.,
arXiv 2504.06231).

The layers are those of the package `orb-models`, the edges those of our neighbour list, cut to the nearest ones of each
atom where the checkpoint says so (then the energy jumps when two atoms change places there, in the package as here).
Nothing leaves the device, batches are allowed, and the derivatives can be differentiated again. Three kinds of
checkpoint:

- conservative: force and virial are derivatives of the energy.
- conservative with a head for forces: both, from one forward pass.
- direct: energy and direct force. The gradient of that energy was not trained, so it is not offered as a force.

Energies are those of a mean over all atoms: each atom is given the same share, beside the constant of its element.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlcalc.errors import CheckpointError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential, Graph
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.potential import check_elements
from mlcalc.structure import Structure

_FAMILY = "orb"
_KINDS = 118  # atomic numbers from 0


class Orb(AutodiffPotential):
    """A regressor of the package `orb-models` on edge vectors.

    Parameters
    ----------
    name : what reports call it
    network : a ConservativeForcefieldRegressor or DirectForcefieldRegressor, taken over

    Attributes
    ----------
    numbers : atomic numbers of the elements it knows: those with an energy of their own
    n_nearest : int, how many edges an atom may have
    offsets : (118,), eV, an atom's constant by its atomic number

    Raises
    ------
    CheckpointError
        if it has no energy, or asks for charge and spin.
    """

    network: Any
    offsets: Tensor

    def __init__(self, name: str, network: Any) -> None:
        heads, setup = dict(network.heads), network.system_config
        if "energy" not in heads or network.model.conditioner is not None:
            lacks = "asks for charge and spin" if "energy" in heads else f"gives no energy, only {', '.join(heads)}"
            raise CheckpointError(f"potential: {name} {lacks}, which is not supported; choose another checkpoint")
        self._is_conservative = hasattr(network, "grad_forces_name")  # as the package's calculator tells them apart
        provides = Wanted.ENERGY
        if self._is_conservative:
            provides |= Wanted.CONSERVATIVE | Wanted.VIRIAL
        if "forces" in heads:
            provides |= Wanted.DIRECT
        constants = heads["energy"].reference.linear.weight
        super().__init__(name, float(setup.radius), provides, constants.dtype)
        self.n_nearest = int(setup.max_num_neighbors)
        self.register_buffer("offsets", constants.detach().flatten().clone())
        constants.data.zero_()
        self.numbers = tuple(n for n in torch.nonzero(self.offsets).squeeze(1).tolist() if n)
        self.network = network
        self.requires_grad_(False).eval()

    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        batch = self._batch(graph)
        heads = self.network.heads
        features = self.network.model(batch)["node_features"]
        repulsion = self.network.pair_repulsion_fn(batch) if self.network.pair_repulsion else {}
        energies = direct = None
        if wanted & ~Wanted.DIRECT:
            energy = heads["energy"].predict(features, batch) + repulsion.get("energy", 0.0)
            energies = (energy / batch.n_node)[graph.structure.system]
        if wanted & Wanted.DIRECT:
            direct = heads["forces"].predict(features, batch)
            if not self._is_conservative:
                direct = direct + repulsion.get("forces", 0.0)
        return energies, direct

    def _batch(self, graph: Graph) -> Any:
        """The package's own form of a graph."""
        from orb_models.forcefield.base import AtomGraphs

        keep = _nearest(graph, self.n_nearest)
        structure = graph.structure
        cell = structure.cell * structure.periodic.unsqueeze(2)  # all zero means a molecule to the package
        return AtomGraphs(
            senders=graph.centre[keep],
            receivers=graph.neighbour[keep],
            n_node=structure.atoms_per_system,
            n_edge=torch.bincount(structure.system[graph.centre[keep]], minlength=structure.n_systems),
            node_features={
                "positions": structure.positions.to(self.dtype),
                "atomic_numbers": graph.numbers,
                "atomic_numbers_embedding": nn.functional.one_hot(graph.numbers, _KINDS).to(self.dtype),
            },
            edge_features={"vectors": graph.vectors.index_select(0, keep)},
            system_features={"cell": cell.to(self.dtype)},
            node_targets=None,
            edge_targets=None,
            system_targets=None,
            system_id=None,
            fix_atoms=None,
            tags=None,
            radius=self.cutoff,
            max_num_neighbors=torch.tensor([self.n_nearest]),
        )

    def total_energies(self, energies: Tensor, graph: Graph) -> Tensor:
        return energies.double() + self.offsets.double()[graph.numbers]

    def check_species(self, structure: Structure) -> None:
        """Also refuses what is periodic along some lattice vectors only, as the package does."""
        check_elements(structure, self.name, self.numbers)
        some = structure.periodic.any(dim=1) & ~structure.periodic.all(dim=1)
        if bool(some.any()):
            raise UsageError(
                f"structure: it is periodic along some lattice vectors only, which {self.name!r} does not know; put "
                f"empty space around it, atoms.center(vacuum={self.cutoff:g}, axis=…), and set atoms.pbc = True"
            )

    def extra_repr(self) -> str:
        # the architecture is not among the weights
        return json.dumps({"nearest": self.n_nearest, "cutoff": self.cutoff, "network": str(self.network)})


def _nearest(graph: Graph, most: int) -> Tensor:
    """(n_kept,), int64: the edges but for those beyond the `most` nearest neighbours of their centre."""
    everything = torch.arange(len(graph.centre), device=graph.centre.device)
    counts = torch.bincount(graph.centre, minlength=graph.n_atoms)
    if not len(everything) or int(counts.max()) <= most:
        return everything
    by_distance = torch.argsort(graph.vectors.detach().square().sum(dim=1), stable=True)
    order = by_distance[torch.argsort(graph.centre[by_distance], stable=True)]  # by centre, then by distance
    rank = everything - (counts.cumsum(0) - counts)[graph.centre[order]]
    return order[rank < most].sort().values


@undisturbed()
def load(name: str) -> Orb:
    """The potential of "orb:NAME" or "orb:NAME?weights=FILE"; float32 on the CPU.

    NAME is the package's for one of its checkpoints, for example "orb-v3-conservative-inf-omat". Without FILE the
    package downloads the weights, or takes them from its cache. They are read as tensors only.

    Raises
    ------
    UsageError
        if the package is not installed, or knows no such name.
    CheckpointError
        if the file is not there or is no checkpoint of that name, or asks for what this adapter cannot give.
    """
    known = foreign_module("orb_models.forcefield.pretrained", _FAMILY).ORB_PRETRAINED_MODELS
    key, _, file = name.removeprefix(f"{_FAMILY}:").partition("?weights=")
    if key not in known:
        raise UsageError(f"potential: got {name!r}; choose one of {', '.join(f'orb:{one}' for one in known)}")
    path = Path(file).expanduser()
    if file and not path.is_file():
        raise CheckpointError(f"potential: no file {path}; give the weights of {key}, or leave them out")
    options = {"device": "cpu", "precision": "float32-highest", "compile": False}
    try:
        network = known[key](**options, **({"weights_path": str(path)} if file else {}))
    except Exception as error:  # whatever lies beneath
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "" if file else f"; download the weights elsewhere and give them as orb:{key}?weights=FILE"
        raise CheckpointError(f"potential: orb-models cannot load {key} ({reason}){remedy}") from error
    return Orb(key, network)
