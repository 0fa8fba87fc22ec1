"""A small model for metatomic: energy of pairs and of densities, direct forces that are nobody's gradient.

Annotations are of the old kind here: TorchScript reads them.
"""
# ruff: noqa: UP006, UP035, UP045

from typing import Dict, List, Optional

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
)

KNOWN = [1, 8, 11, 14, 17]


class Tiny(torch.nn.Module):
    """In nm and kJ/mol, so that units must be converted; one full list to 0.4 nm, one half to 0.3 nm.

    Energy of an atom: tanh of a sum over its neighbours of smooth functions of distance and both elements, and half of
    a repulsion for each pair. Direct force: twice that repulsion of a pair along it, times a factor of its centre only.
    """

    def __init__(self, direct: str, variant: str, severed: bool):
        super().__init__()
        self.full = NeighborListOptions(cutoff=0.4, full_list=True, strict=True)
        self.half = NeighborListOptions(cutoff=0.3, full_list=False, strict=True)
        self.direct = direct
        self.severed = severed
        self.energy = "energy" + variant

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.full, self.half]

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels] = None
    ) -> Dict[str, TensorMap]:
        energies: List[torch.Tensor] = []
        forces: List[torch.Tensor] = []
        labels: List[torch.Tensor] = []
        for k in range(len(systems)):
            system = systems[k]
            n = len(system)
            charge = torch.sqrt(system.types.to(system.positions.dtype))
            full = system.get_neighbor_list(self.full)
            i, j = full.samples.column("first_atom").long(), full.samples.column("second_atom").long()
            length = torch.sqrt((full.values.reshape(-1, 3) ** 2).sum(dim=1))
            zeros = torch.zeros(n, dtype=length.dtype, device=length.device)
            bond = charge[i] * charge[j] * (1 - (length / 0.4) ** 2) ** 3 * torch.cos(20 * length)
            density = zeros.index_add(0, i, bond)
            half = system.get_neighbor_list(self.half)
            a, b = half.samples.column("first_atom").long(), half.samples.column("second_atom").long()
            vector = half.values.reshape(-1, 3)
            shorter = torch.sqrt((vector**2).sum(dim=1))
            repulsion = 50.0 * (1 - (shorter / 0.3) ** 2) ** 3
            pair = zeros.index_add(0, a, 0.5 * repulsion).index_add(0, b, 0.5 * repulsion)
            energies.append(100.0 * torch.tanh(0.05 * density) + pair)
            push = (repulsion / shorter**2).unsqueeze(1) * vector
            force = torch.zeros_like(system.positions).index_add(0, b, charge[b].unsqueeze(1) * push)
            forces.append(force.index_add(0, a, -charge[a].unsqueeze(1) * push))
            atoms = torch.arange(n, dtype=torch.int32, device=zeros.device)
            labels.append(torch.stack([torch.full_like(atoms, k), atoms], dim=1))
        device = energies[0].device
        samples = Labels(["system", "atom"], torch.cat(labels))
        one = torch.zeros(1, 1, dtype=torch.int32, device=device)
        result: Dict[str, TensorMap] = {}
        nothing = torch.jit.annotate(List[Labels], [])
        if self.energy in outputs:
            values = torch.cat(energies).reshape(-1, 1)
            if self.severed:
                values = values.detach()
            block = TensorBlock(values, samples, nothing, Labels(["energy"], one))
            if outputs[self.energy].sample_kind == "system":
                values = torch.stack([part.sum() for part in energies]).reshape(-1, 1)
                which = torch.arange(len(systems), dtype=torch.int32, device=device).reshape(-1, 1)
                block = TensorBlock(values, Labels(["system"], which), nothing, Labels(["energy"], one))
            result[self.energy] = TensorMap(Labels(["_"], one), [block])
        if self.direct in outputs:
            xyz = torch.arange(3, dtype=torch.int32, device=device).reshape(-1, 1)
            block = TensorBlock(
                torch.cat(forces).unsqueeze(2), samples, [Labels(["xyz"], xyz)], Labels([self.direct], one)
            )
            result[self.direct] = TensorMap(Labels(["_"], one), [block])
        return result


def export(
    path: str,
    dtype: str = "float64",
    direct: str = "non_conservative_force",
    by_atom: bool = True,
    variant: str = "",
    severed: bool = False,
):
    """Write the model to a file; without direct forces if their name is empty, without slopes if it is severed."""
    outputs = {f"energy{variant}": ModelOutput(unit="kJ/mol", sample_kind="atom" if by_atom else "system")}
    if direct:
        outputs[direct] = ModelOutput(unit="kJ/mol/nm", sample_kind="atom")
    able = ModelCapabilities(
        outputs=outputs,
        atomic_types=KNOWN,
        interaction_range=0.4,
        length_unit="nm",
        supported_devices=["cpu", "cuda"],
        dtype=dtype,
    )
    module = Tiny(direct, variant, severed).to({"float32": torch.float32, "float64": torch.float64}[dtype]).eval()
    AtomisticModel(module, ModelMetadata(), able).save(path)
