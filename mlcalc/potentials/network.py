"""What the trained architectures share: species, forms, energy offsets, hyper-parameters."""

from __future__ import annotations

import abc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn

from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.autodiff import AutodiffPotential, Graph, sum_over
from mlcalc.potentials.blocks import Block
from mlcalc.potentials.density_network import DensityNetwork, DensityPlaces
from mlcalc.potentials.pair_baseline import PairBaseline
from mlcalc.potentials.potential import check_elements
from mlcalc.potentials.three_body_baseline import ThreeBodyBaseline, TriplePlaces
from mlcalc.structure import Structure

#: The forms of Bigi, Langer, Ceriotti (arXiv 2412.11569): conservative, non-conservative, and both heads on one trunk
FORMS = {
    "C": Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.VIRIAL,
    "NC": Wanted.ENERGY | Wanted.DIRECT,
    "M": Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.DIRECT | Wanted.VIRIAL,
}


@dataclass(frozen=True)
class Places:
    """All that depends on distances but is no arithmetic: which atoms, edges and triples the parts of a network read.

    With these at hand an evaluation is arithmetic on tensors of known sizes, which can be compiled.

    Attributes
    ----------
    species : (n_atoms,), int64, by place in the network's list
    triples, density : of the potentials under both heads; None without them
    own : what the architecture itself needs; a dataclass of tensors, or None
    """

    species: Tensor
    triples: TriplePlaces | None
    density: DensityPlaces | None
    own: Any


class Network(AutodiffPotential):
    """A neural network with an energy head, a direct-force head, or both, on one trunk.

    Parameters
    ----------
    species : symbols the network is made for
    cutoff : Å
    form : "C", "NC" or "M"
    three_body_cutoff : Å, of the three-body baseline; 0 for none
    density_cutoff : Å, of the density network; 0 for none

    Attributes
    ----------
    energy_offsets : (n_species,), eV, added to every atom of a species
    scale : (), eV, the unit of the energy head's output (and, per Å, the direct head's)
    pair_baseline, three_body_baseline, density_network : potentials under both heads
    hyperparameters : everything the constructor needs, as JSON types
    """

    architecture: ClassVar[str]
    energy_offsets: Tensor
    scale: Tensor
    _species_of: Tensor

    def __init__(
        self,
        species: Sequence[str],
        cutoff: float,
        form: str,
        three_body_cutoff: float,
        density_cutoff: float,
        sizes: Mapping[str, float],
    ) -> None:
        if form not in FORMS:
            raise UsageError(f"form: got {form!r}; choose one of {', '.join(FORMS)}")
        unknown = [symbol for symbol in species if symbol not in chemical_symbols[1:]]
        if unknown or not species:
            raise UsageError(f"species: got {list(species)!r}; give chemical symbols such as H, O")
        if not cutoff > 0:
            raise UsageError(f"cutoff: got {cutoff}; give a distance in Å above 0")
        for name, value in (("three_body_cutoff", three_body_cutoff), ("density_cutoff", density_cutoff)):
            if not 0 <= value <= cutoff:
                raise UsageError(f"{name}: got {value}; give a distance in Å from 0 to {cutoff:g}")
        super().__init__(self.architecture, cutoff, FORMS[form], torch.float32)
        self.species = tuple(species)
        self.form = form
        self.hyperparameters = {
            "species": list(species),
            "cutoff": cutoff,
            "form": form,
            "three_body_cutoff": three_body_cutoff,
            "density_cutoff": density_cutoff,
            **sizes,
        }
        table = torch.full((len(chemical_symbols),), -1, dtype=torch.int64)
        for k, symbol in enumerate(species):
            table[chemical_symbols.index(symbol)] = k
        self.register_buffer("_species_of", table, persistent=False)
        self.register_buffer("energy_offsets", torch.zeros(len(species), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.pair_baseline = PairBaseline(len(species), cutoff)
        self.three_body_baseline = ThreeBodyBaseline(len(species), three_body_cutoff)
        self.density_network = DensityNetwork(len(species), density_cutoff) if density_cutoff else None

    @abc.abstractmethod
    def own_places(self, graph: Graph, distance: Tensor) -> Any:
        """What `raw_outputs` needs to know about the edges, whose lengths are (n_edges,), Å."""

    @abc.abstractmethod
    def raw_outputs(self, graph: Graph, places: Places, *, energy: bool, direct: bool) -> tuple[Any, Any]:
        """Energies by atom (n_atoms,) and direct forces (n_atoms, 3), in units of `scale`; None where not asked."""

    def places(self, graph: Graph) -> Places:
        """The index work of one evaluation."""
        species = self.species_index(graph.numbers)
        distance = torch.linalg.vector_norm(graph.vectors.detach(), dim=1)
        own = self.own_places(graph, distance)
        if graph.blocks is not None:  # what stands under both heads finds its places block by block
            return Places(species, None, None, own)
        return self._shared_places(graph, species, distance, own)

    def _shared_places(self, graph: Graph, species: Tensor, distance: Tensor, own: Any = None) -> Places:
        """With those of what stands under both heads."""
        triples = density = None
        if self.three_body_baseline.cutoff:
            ends = torch.stack([species[graph.centre], species[graph.neighbour]])
            triples = self.three_body_baseline.places(distance, graph.centre, ends)
        if self.density_network is not None:
            density = self.density_network.places(graph.vectors, graph.centre, graph.neighbour, species)
        return Places(species, triples, density, own)

    def energies_and_direct(self, graph: Graph, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        return self.arithmetic(graph, self.places(graph), wanted)

    def arithmetic(self, graph: Graph, places: Places, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        """`energies_and_direct` once the index work is done: no size in it depends on a value."""
        energy = bool(wanted & ~Wanted.DIRECT)
        energies, direct = self.raw_outputs(graph, places, energy=energy, direct=bool(wanted & Wanted.DIRECT))
        scale = self.scale.to(self.dtype)
        shared_energies, shared_force = self._shared(graph, places)
        return (
            None if energies is None else energies * scale + shared_energies,
            None if direct is None else direct * scale + shared_force,
        )

    def _shared(self, graph: Graph, places: Places) -> tuple[Tensor, Tensor]:
        """Energies by atom and forces of what stands under both heads."""
        # Edges that are no function of anything need one derivative of the energy, and it is known: a tape would find
        # it again at thrice the cost.
        known = graph.vectors.is_leaf
        vectors = graph.vectors.detach() if known else graph.vectors
        fixed = replace(graph, vectors=vectors, attached=graph.attached or not known)
        if graph.blocks is None:
            by_edge, by_atom, gradient = self._shared_terms(fixed, places)
        else:
            parts = [self._shared_of_block(fixed, places.species, block) for block in graph.blocks]
            by_edge, by_atom, gradient = (torch.cat(column) for column in zip(*parts, strict=True))
        force = sum_over(gradient, graph.centre, graph.n_atoms) - sum_over(gradient, graph.neighbour, graph.n_atoms)
        if known:
            by_edge = by_edge + (gradient * (graph.vectors - vectors)).sum(dim=1)
        return by_atom + sum_over(by_edge, graph.centre, graph.n_atoms), force

    def _shared_terms(self, graph: Graph, places: Places) -> tuple[Tensor, Tensor, Tensor]:
        """Energies by edge and by atom, eV, and their sum's gradient by the edge vectors, eV/Å."""
        species, vectors = places.species, graph.vectors
        ends = torch.stack([species[graph.centre], species[graph.neighbour]])
        by_edge, gradient = self.baseline(vectors, ends, places.triples)
        by_atom = torch.zeros(graph.n_atoms, dtype=vectors.dtype, device=vectors.device)
        if self.density_network is not None:
            assert places.density is not None
            by_atom, slope = self.density_network.energies_and_gradient(
                vectors, species, places.density, attached=graph.attached
            )
            scale = self.scale.to(self.dtype)
            by_atom, gradient = scale * by_atom, gradient + scale * slope
        return by_edge, by_atom, gradient

    def _shared_of_block(self, graph: Graph, species: Tensor, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """`_shared_terms` of a block's atoms and edges."""
        # of neighbours only the species counts: one atom of each, without edges of its own, stands for all of them
        every = torch.arange(len(self.species), device=species.device)
        of_block = torch.cat([block.atoms(species), every])
        part = replace(
            graph,
            centre=block.edges(graph.centre) - block.first_atom,
            neighbour=block.n_atoms + species.index_select(0, block.edges(graph.neighbour)),
            vectors=block.edges(graph.vectors),
            n_atoms=len(of_block),
            blocks=None,
        )
        places = self._shared_places(part, of_block, torch.linalg.vector_norm(part.vectors, dim=1))
        by_edge, by_atom, gradient = self._shared_terms(part, places)
        return by_edge, by_atom[: block.n_atoms], gradient

    def baseline(self, vectors: Tensor, ends: Tensor, triples: TriplePlaces | None) -> tuple[Tensor, Tensor]:
        """The pair and the three-body potential, by edge: energy (n_edges,), eV, and its gradient (n_edges, 3), eV/Å.

        Parameters
        ----------
        vectors : (n_edges, 3), Å
        ends : (2, n_edges), int64, species of centre and neighbour, by their place in `species`
        triples : the places of the three-body potential
        """
        distance = torch.linalg.vector_norm(vectors, dim=1)
        energies, slopes = self.pair_baseline(distance, *ends)
        energies, gradient = 0.5 * energies, (0.5 * slopes / distance).unsqueeze(1) * vectors
        if triples is not None:
            more, more_gradient = self.three_body_baseline(vectors, distance, triples)
            energies, gradient = energies + more, gradient + more_gradient
        return energies, gradient

    def species_index(self, numbers: Tensor) -> Tensor:
        """Atomic numbers → places in `species`, −1 where the network does not know the element."""
        return self._species_of[numbers]

    def total_energies(self, energies: Tensor, graph: Graph) -> Tensor:
        return energies.double() + self.energy_offsets[self.species_index(graph.numbers)].double()

    def check_species(self, structure: Structure) -> None:
        check_elements(structure, self.name, [atomic_numbers[symbol] for symbol in self.species])

    def extra_repr(self) -> str:
        return json.dumps(self.hyperparameters, sort_keys=True)

    def _apply(self, fn: Any, recurse: bool = True) -> Network:
        """Move or cast, but keep the energy offsets in float64: they may be −1e4 eV an atom."""
        offsets = self.energy_offsets
        super()._apply(fn, recurse)
        self.energy_offsets = offsets.to(device=fn(offsets).device)
        return self


def perceptron(n_in: int, n_hidden: int, n_out: int) -> nn.Sequential:
    """Linear, SiLU, Linear."""
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_out))
