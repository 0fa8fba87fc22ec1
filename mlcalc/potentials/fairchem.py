"""fairchem's eSCN networks: eSEN, with direct or conservative forces (X. Fu et al., arXiv 2502.12147), and UMA, which
mixes experts for several levels of theory (B. M. Wood et al., arXiv 2506.23971).

The layers are those of the package `fairchem-core`, backbone and heads; edges come from our neighbour list, cut to the
nearest ones where the checkpoint says so, derivatives from `mlcalc.potentials.autodiff`: nothing leaves the device,
batches are allowed, and the derivatives can be differentiated again. A checkpoint whose energy may be differentiated
gives conservative forces; one with a head for forces gives direct ones, from the same forward pass where it has both.
The energy of a checkpoint trained for direct forces alone is not differentiated.

The package turns every edge's frame by a random angle about the edge, which changes nothing but round-off, and the
state of torch's random numbers; here the angle is 0. Energies are shared evenly among atoms, beside the constants of
their elements, since experts are weighed by the composition of the whole system. Charges are 0 and molecules singlets.

A checkpoint is a pickle, and a pickle can run any code when it is read. Name none that you would not run as a program.
"""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcalc.errors import CheckpointError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential, Graph
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.potentials.potential import check_elements
from mlcalc.structure import Structure

_FAMILY = "fairchem"
_SINGLET = {"omol": 1}  # level of theory → spin multiplicity, where the package does not give 0 for "not said"
_TIES = 0.01  # Å², of squared distances: what lies so little beyond the nearest neighbours counts, as in the package


class Fairchem(AutodiffPotential):
    """A HydraModel of the package `fairchem-core`, with a backbone of the eSCN kind, for one level of theory.

    Parameters
    ----------
    name : what reports call it
    model : the HydraModel, its tasks set up, taken over
    task : which of its levels of theory

    Attributes
    ----------
    numbers : atomic numbers of the elements it knows
    n_nearest : int, how many edges an atom may have, ties apart
    offsets : (n_elements + 1,), eV, an atom's constant by its atomic number
    constant : eV, of every system

    Raises
    ------
    CheckpointError
        if its network is of another kind, or gives no energy at that level of theory.
    """

    model: Any
    offsets: Tensor
    constant: Tensor

    def __init__(self, name: str, model: Any, task: str) -> None:
        networks = foreign_module("fairchem.core.models.uma.escn_md", _FAMILY)
        backbone = model.backbone
        if not (isinstance(backbone, networks.eSCNMDBackbone) and backbone.use_quaternion_wigner):
            raise CheckpointError(
                f"potential: {name} is a {type(backbone).__name__}, which this adapter cannot drive; take "
                f"ase:fairchem.core:FAIRChemCalculator.from_model_checkpoint?name_or_path=FILE&task_name={task}"
            )
        tasks = {one.name: one for one in model.dataset_to_tasks[task]}
        energies = [one for one in tasks.values() if one.property == "energy"]
        if not energies:
            raise CheckpointError(f"potential: {name} gives no energy at the level {task}; choose another")
        derived = backbone.regress_config
        provides = Wanted.ENERGY
        if not derived.direct_forces:
            provides |= Wanted.CONSERVATIVE | Wanted.VIRIAL
        if any(isinstance(part, networks.Linear_Force_Head) for part in model.modules()):
            provides |= Wanted.DIRECT
        derived.forces = derived.stress = derived.hessian = False  # derivatives are taken here
        backbone.otf_graph = False
        backbone._get_rotmat_and_wigner = types.MethodType(_frames, backbone)
        dtype = next(backbone.parameters()).dtype
        super().__init__(name, float(backbone.cutoff), provides, dtype)
        self.task, self.n_nearest = task, int(backbone.max_neighbors)
        self.numbers = tuple(range(1, int(backbone.max_num_elements)))
        references = energies[0].element_references
        offsets = torch.zeros(backbone.max_num_elements) if references is None else references.element_references
        self.register_buffer("offsets", offsets.detach().to(dtype, copy=True))
        self.register_buffer("constant", energies[0].normalizer.mean.detach().to(dtype, copy=True))
        self.scales = {one.name: (one.property, float(one.normalizer.rmsd)) for one in tasks.values()}
        self.model = model
        self.requires_grad_(False).eval()

    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        found = self.model(self._data(graph))
        energies = direct = None
        for name, (kind, scale) in self.scales.items():
            value = found.get(name, {}).get(kind)
            if kind == "energy" and wanted & ~Wanted.DIRECT:
                energies = (value * scale / graph.structure.atoms_per_system)[graph.structure.system]
            if kind == "forces" and value is not None and wanted & Wanted.DIRECT:
                direct = value * scale
        return energies, direct

    def _data(self, graph: Graph) -> Any:
        """The package's own form of a graph: atoms at the origin, vectors as shifts by a cell of 1."""
        from fairchem.core.datasets.atomic_data import AtomicData

        keep = _nearest(graph, self.n_nearest)
        structure, centre = graph.structure, graph.centre[keep]
        ones = torch.ones_like(structure.atoms_per_system)
        return AtomicData(
            pos=graph.vectors.new_zeros(graph.n_atoms, 3),
            atomic_numbers=graph.numbers,
            cell=torch.eye(3).to(graph.vectors).repeat(structure.n_systems, 1, 1),
            pbc=structure.periodic,
            natoms=structure.atoms_per_system,
            edge_index=torch.stack([graph.neighbour[keep], centre]),
            cell_offsets=graph.vectors.index_select(0, keep),
            nedges=torch.bincount(structure.system[centre], minlength=structure.n_systems),
            charge=0 * ones,
            spin=_SINGLET.get(self.task, 0) * ones,
            fixed=torch.zeros_like(graph.numbers),
            tags=torch.zeros_like(graph.numbers),
            batch=structure.system,
            sid=[""] * structure.n_systems,
            dataset=[self.task] * structure.n_systems,
        )

    def total_energies(self, energies: Tensor, graph: Graph) -> Tensor:
        share = self.constant.double() / graph.structure.atoms_per_system
        return energies.double() + self.offsets.double()[graph.numbers] + share[graph.structure.system]

    def check_species(self, structure: Structure) -> None:
        """Also refuses isolated atoms, whose energies the package takes from a table."""
        check_elements(structure, self.name, self.numbers)
        alone = (structure.atoms_per_system == 1) & ~structure.periodic.any(dim=1)
        if bool(alone.any()):
            raise UsageError(f"structure: an isolated atom, of which {self.name!r} knows nothing; give it neighbours")

    def extra_repr(self) -> str:
        # the architecture is not among the weights
        return json.dumps({"task": self.task, "scales": self.scales, "cutoff": self.cutoff, "network": str(self.model)})


def _frames(backbone: Any, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Wigner matrices of the frames of edges, and their inverses, without the random turn about the edge."""
    from fairchem.core.models.uma.common.quaternion.wigner_d_hybrid import axis_angle_wigner_hybrid

    found: tuple[Tensor, Tensor] = axis_angle_wigner_hybrid(
        vectors,
        backbone.lmax,
        gamma=vectors.new_zeros(len(vectors)),
        coeffs=backbone.wigner_data.coeffs,
        U_blocks=backbone.wigner_data.U_blocks,
        custom_kernels=backbone.wigner_data.custom_kernels,
        compact_l2=backbone.backend.supports_fused_edgewise,
    )
    return found


def _nearest(graph: Graph, most: int) -> Tensor:
    """(n_kept,), int64: the edges but for those beyond the `most` nearest neighbours of their centre, ties included."""
    count = torch.bincount(graph.centre, minlength=graph.n_atoms)
    everything = torch.arange(len(graph.centre), device=graph.centre.device)
    if not len(everything) or most <= 0 or int(count.max()) <= most:
        return everything
    squared = graph.vectors.detach().square().sum(dim=1)
    by_distance = torch.argsort(squared, stable=True)
    order = by_distance[torch.argsort(graph.centre[by_distance], stable=True)]  # by centre, then by distance
    crowded = torch.nonzero(count > most).squeeze(1)
    limit = torch.full((graph.n_atoms,), torch.inf, dtype=squared.dtype, device=squared.device)
    limit[crowded] = squared[order[(count.cumsum(0) - count)[crowded] + most]] + _TIES
    return everything[squared <= limit[graph.centre]]


@undisturbed()
def load(name: str) -> Fairchem:
    """The potential of "fairchem:NAME?task=LEVEL" or "fairchem:path?task=LEVEL"; float32 on the CPU. Runs its code.

    NAME is the package's for one of its checkpoints, for example "uma-s-1p1"; the package downloads it, or takes it
    from its cache. LEVEL is a level of theory, such as "omat" or "omol"; it may be left out where there is one only.

    Raises
    ------
    UsageError
        if the package is not installed, or there is no such level of theory.
    CheckpointError
        if the file is not there, cannot be read, or asks for what this adapter cannot give.
    """
    utilities = foreign_module("fairchem.core.units.mlip_unit.utils", _FAMILY)
    key, _, task = name.removeprefix(f"{_FAMILY}:").partition("?task=")
    path = _path(key)
    setup = {"activation_checkpointing": False, "always_use_pbc": False, "use_quaternion_wigner": True}
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        overrides = {"backbone": {**setup, "execution_mode": "general"}}
        averaged, checkpoint = utilities.load_inference_model(
            str(path), use_ema=True, overrides=overrides, preloaded_checkpoint=checkpoint
        )
        model = averaged.module
        model.setup_tasks(checkpoint.tasks_config)
        levels = list(model.dataset_to_tasks)
    except Exception as error:  # whatever lies beneath
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"potential: {path} is no checkpoint that fairchem can read ({reason})") from error
    if task not in levels and (task or len(levels) > 1):
        raise UsageError(
            f"potential: {key} has the levels of theory {', '.join(levels)}, and {task or 'none of them'} was asked "
            f"for; choose one as {_FAMILY}:{key}?task={levels[0]}"
        )
    return Fairchem(path.stem, model.float(), task or levels[0])


def _path(key: str) -> Path:
    """Where the checkpoint of a name or path is, downloaded if need be."""
    package = foreign_module("fairchem.core.calculate.pretrained_mlip", _FAMILY)
    if key not in package.available_models:
        path = Path(key).expanduser()
        if not path.is_file():
            known = ", ".join(package.available_models)
            raise CheckpointError(f"potential: no file {path}; give a checkpoint's path, or one of {known}")
        return path
    try:
        return Path(package.pretrained_checkpoint_path_from_name(key))
    except Exception as error:  # whatever lies beneath
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"potential: fairchem cannot download {key} ({reason}); accept its licence on huggingface.co and log in "
            f"there, or download it elsewhere and give it as {_FAMILY}:FILE"
        ) from error
