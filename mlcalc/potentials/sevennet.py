"""SevenNet: an equivariant message-passing network for most elements (Y. Park et al., doi:10.1021/acs.jctc.4c00190).

The layers are those of the package `sevenn`, from the embedding of edges to the energies by atom; on a CPU their
convolutions are computed in another order (`sevennet_convolution.py`). Edges come from our neighbour list, derivatives
from `mlcalc.potentials.autodiff`: nothing leaves the device, batches are allowed, and the derivatives can be
differentiated again.

A checkpoint of SevenNet is a pickle, and a pickle can run any code when it is read. Read are only the files inside the
installed package, by their names, and a file that the user names: "sevennet:/path/to/checkpoint.pth". Name none that
you would not run as a program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlcalc.errors import CheckpointError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential, Graph
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.potential import check_elements
from mlcalc.potentials.sevennet_convolution import Convolution, Stretch, stretches
from mlcalc.structure import Structure

#: name → the file in the package. Left out: weights that it would download, or that ask for a level of theory (modal)
BUNDLED = {
    "7net-0": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "7net-0_22may2024": "SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
    "7net-l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
}
_FAMILY = "sevennet"
_LAST = "rescale_atomic_energy"  # what follows sums over atoms and differentiates
_ONE_HOT = "onehot_idx_to_onehot"  # gives float32 always; here its output is made in the network's dtype


class SevenNet(AutodiffPotential):
    """A network of the package `sevenn` on edge vectors.

    Parameters
    ----------
    name : what reports call it
    network : sevenn's AtomGraphSequential, for one level of theory
    settings : what the network was built from, JSON types

    Attributes
    ----------
    numbers : atomic numbers of the elements it knows
    """

    _place: Tensor

    def __init__(self, name: str, network: Any, settings: Mapping[str, Any]) -> None:
        provides = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL
        super().__init__(name, float(network.cutoff), provides, torch.float32)
        steps = dict(network.named_children())
        last = list(steps).index(_LAST)
        self.steps = nn.ModuleDict({key: steps[key] for key in list(steps)[: last + 1] if key != _ONE_HOT})
        convolutions = {key: Convolution(step) for key, step in self.steps.items() if Convolution.fits(step)}
        self._quick = nn.ModuleDict(convolutions)  # no parameters of its own, so that the state is the package's
        places: dict[int, int] = dict(network.type_map)
        self.numbers = tuple(sorted(places))
        self.settings = {**settings, "type_map": sorted(places.items())}
        self.interaction_depth = int(settings["num_convolution_layer"])
        table = torch.full((len(chemical_symbols),), -1, dtype=torch.int64)
        for number, place in places.items():
            table[number] = place
        self.register_buffer("_place", table, persistent=False)
        self.requires_grad_(False).eval()

    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        import sevenn._keys as key

        place = self._place[graph.numbers]
        kind = nn.functional.one_hot(place, len(self.numbers)).to(self.dtype)
        data = {
            key.ATOM_TYPE: place,
            key.NODE_FEATURE: kind,
            key.NODE_ATTR: kind,
            key.EDGE_IDX: torch.stack([graph.centre, graph.neighbour]),
            key.EDGE_VEC: graph.vectors,
        }
        edges: list[Stretch] = []
        for name, step in self.steps.items():
            # on a GPU, where this has not been measured yet, the package's own
            if name not in self._quick or graph.vectors.device.type != "cpu":
                data = step(data)
                continue
            if not edges:
                by_edge = data[key.EDGE_EMBEDDING], data[key.EDGE_ATTR]
                edges = stretches(graph.centre, graph.neighbour, *by_edge, graph.n_atoms)
            data[key.NODE_FEATURE] = self._quick[name](step, data[key.NODE_FEATURE], edges)
        return data[key.ATOMIC_ENERGY].squeeze(1), None

    def check_species(self, structure: Structure) -> None:
        check_elements(structure, self.name, self.numbers)

    def extra_repr(self) -> str:
        return json.dumps(self.settings, sort_keys=True, default=str)


@undisturbed()
def load(name: str) -> SevenNet:
    """The potential of a name in BUNDLED, or of "sevennet:path"; float32 on the CPU. Reading the file can run code.

    Raises
    ------
    UsageError
        if the package is not installed.
    CheckpointError
        if the file is not there, cannot be read, or asks for a level of theory.
    """
    package = foreign_module("sevenn", _FAMILY)
    path = Path(name.removeprefix(f"{_FAMILY}:"))
    if name in BUNDLED:
        path = Path(package.__file__).parent / "pretrained_potentials" / BUNDLED[name]
    if not path.is_file():
        raise CheckpointError(f"potential: no file {path}; give a checkpoint's path, or one of {', '.join(BUNDLED)}")
    network, settings = _read(path)
    return SevenNet(name if name in BUNDLED else path.stem, network, settings)


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    """The network of a checkpoint, and what it was built from."""
    key, built_from = foreign_module("sevenn._keys", _FAMILY), foreign_module("sevenn._const", _FAMILY)
    checkpoints = foreign_module("sevenn.checkpoint", _FAMILY)
    try:
        checkpoint = checkpoints.SevenNetCheckpoint(path)
        config = checkpoint.config
        levels = config.get(key.MODAL_MAP)
        network = None if levels else checkpoint.build_model().float()
    except Exception as error:  # whatever lies beneath
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"potential: {path} is no checkpoint that sevenn can read ({reason})") from error
    if levels:
        raise CheckpointError(
            f"potential: {path} asks for a level of theory (modal: {', '.join(levels)}), which this adapter "
            f"cannot choose; take ase:sevenn.calculator:SevenNetCalculator?model={path}&modal={next(iter(levels))}"
        )
    return network, {one: config.get(one) for one in built_from.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG}
