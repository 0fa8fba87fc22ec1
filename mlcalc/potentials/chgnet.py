"""CHGNet: a message-passing network with angles, for crystals (B. Deng et al., doi:10.1038/s42256-023-00716-3).

The layers are those of the package `chgnet`. Its graph is made here, from our neighbour list: atoms are joined by edges
below one cutoff, edges below a shorter one by angles. Both directions of an edge share their features, each angle is
there once for either of its edges. Derivatives come from `mlcalc.potentials.autodiff`: nothing leaves the device,
batches are allowed, and the derivatives can be differentiated again.

The energy of an atom is the network's plus a constant of its element. Weights 0.2.0 jump where the last angle of a
system (of a batch) disappears: without angles their bonds miss a bias, in the package as here.

A file of weights is a pickle, and a pickle can run any code when it is read. Read are only the files inside the
installed package, by their names, and a file that the user names: "chgnet:/path/to/file". Name none that you would not
run as a program.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcalc.errors import CheckpointError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential, Graph
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.potential import check_elements
from mlcalc.potentials.three_body_baseline import edge_pairs
from mlcalc.structure import Structure

#: name → what the package calls its weights
BUNDLED = {"chgnet": "0.3.0", "chgnet-0.2.0": "0.2.0", "chgnet-r2scan": "r2scan"}
#: Po, At, Rn, Fr, Ra have weights, but no structure in the Materials Project trajectories that the weights come from
_NOT_IN_THE_DATA = (84, 85, 86, 87, 88)
_FAMILY = "chgnet"


class CHGNet(AutodiffPotential):
    """A network of the package `chgnet` on edge vectors.

    Parameters
    ----------
    name : what reports call it
    network : chgnet's CHGNet with energies by atom, taken over
    untrained : atomic numbers of elements that were not in its data

    Attributes
    ----------
    numbers : atomic numbers of the elements it knows
    angle_cutoff : Å, edges below it make angles
    offsets : (n_elements,), eV, an atom's constant by its atomic number less one
    """

    needs_reverse = True
    network: Any
    offsets: Tensor

    def __init__(self, name: str, network: Any, untrained: Sequence[int] = ()) -> None:
        converter, composition = network.graph_converter, network.composition_model
        provides = Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL
        super().__init__(name, float(converter.atom_graph_cutoff), provides, torch.float32)
        self.angle_cutoff = float(converter.bond_graph_cutoff)
        self.settings = {**network.model_args, "cutoffs": [self.cutoff, self.angle_cutoff]}
        self.interaction_depth = len(network.atom_conv_layers)  # angles at an atom bring in no more than its atoms do
        network.graph_converter = network.composition_model = None
        self.network = network
        n_elements = network.atom_embedding.embedding.num_embeddings
        offsets = torch.zeros(n_elements) if composition is None else composition.fc.weight.detach()[0].clone()
        self.register_buffer("offsets", offsets)
        # an element whose constant is 0 to round-off was in no structure that the constants were fitted to
        unfitted = [] if composition is None else (torch.nonzero(offsets.abs() < 1e-6).squeeze(1) + 1).tolist()
        self.numbers = tuple(n for n in range(1, n_elements + 1) if n not in (*untrained, *unfitted))
        self.requires_grad_(False).eval()

    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        from chgnet.model.model import BatchedGraph

        assert graph.reverse is not None
        distance = torch.linalg.vector_norm(graph.vectors, dim=1)
        here = torch.arange(len(distance), device=distance.device)
        one_way = here < graph.reverse
        bond = (one_way.cumsum(0) - 1)[torch.minimum(here, graph.reverse)]  # (n_edges,), both ways the same
        length = distance[one_way]
        edges, first, second = edge_pairs(distance.detach(), graph.centre, self.angle_cutoff)
        left, right = edges[torch.cat([first, second])], edges[torch.cat([second, first])]
        direction = graph.vectors / distance.unsqueeze(1)
        radial = self.network.bond_basis_expansion
        found = self.network._compute(
            BatchedGraph(
                atomic_numbers=graph.numbers,
                bond_bases_ag=radial.rbf_expansion_ag(length),
                bond_bases_bg=radial.rbf_expansion_bg(length),
                angle_bases=self.network.angle_basis_expansion(
                    direction.index_select(0, left), direction.index_select(0, right)
                ),
                batched_atom_graph=torch.stack([graph.centre, graph.neighbour], dim=1),
                batched_bond_graph=torch.stack([graph.centre[left], bond[left], bond[right]], dim=1),
                atom_owners=torch.zeros_like(graph.numbers),  # energies by atom are summed later
                directed2undirected=bond,
                atom_positions=(),
                strains=(),
                volumes=(),
            ),
            return_site_energies=True,
        )
        return found["site_energies"][0], None

    def total_energies(self, energies: Tensor, graph: Graph) -> Tensor:
        return energies.double() + self.offsets.double()[graph.numbers - 1]

    def check_species(self, structure: Structure) -> None:
        """Also refuses what is not periodic: the network was made for crystals, as its package insists."""
        check_elements(structure, self.name, self.numbers)
        if not bool(structure.periodic.all()):
            raise UsageError(
                f"structure: it is not periodic along every lattice vector, as potential {self.name!r} demands; "
                f"put it into a cell with empty space around it, atoms.center(vacuum={self.cutoff:g}), and set "
                "atoms.pbc = True"
            )

    def extra_repr(self) -> str:
        return json.dumps(self.settings, sort_keys=True, default=str)


@undisturbed()
def load(name: str) -> CHGNet:
    """The potential of a name in BUNDLED, or of "chgnet:path"; float32 on the CPU. Reading the file can run code.

    Raises
    ------
    UsageError
        if the package is not installed.
    CheckpointError
        if the file is not there, cannot be read, or gives no energies by atom.
    """
    package = foreign_module("chgnet.model.model", _FAMILY)
    path = Path(name.removeprefix(f"{_FAMILY}:"))
    if name not in BUNDLED and not path.is_file():
        raise CheckpointError(f"potential: no file {path}; give a file of weights, or one of {', '.join(BUNDLED)}")
    try:
        if name in BUNDLED:
            network = package.CHGNet.load(model_name=BUNDLED[name], use_device="cpu", verbose=False).float()
        else:
            network = package.CHGNet.from_file(str(path)).float()
    except Exception as error:  # whatever lies beneath
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"potential: {name} is no file that chgnet can read ({reason})") from error
    linear = network.composition_model is None or isinstance(network.composition_model, package.AtomRef)
    if not (network.mlp_first and linear):
        raise CheckpointError(
            f"potential: {name} has no energies by atom (its network sums before its last layers, or its energies of "
            "composition are not linear); take mlcalc.AseCalculator(CHGNetCalculator.from_file(path))"
        )
    return CHGNet(name, network, _NOT_IN_THE_DATA) if name in BUNDLED else CHGNet(path.stem, network)
