"""Starting from another potential: fine-tuning, or a second architecture on the first one's foundations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from ase.data import atomic_numbers

from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted, required
from mlcalc.potentials.network import Network
from mlcalc.training.baseline import fit_energy_offsets
from mlcalc.training.data import Frame


def warm_start(network: Network, source: Network, frames: Sequence[Frame]) -> list[str]:
    """Take over what `source` has in parts of the same name and shape; energy offsets are fitted to the frames anew.

    A part is taken whole or not at all. Between architectures these are what stands under both heads: baselines and
    density network, with the unit of the heads' outputs.

    Parameters
    ----------
    network : changed in place
    source : of the same species in the same order, and the same cutoffs, on which the meaning of its parameters hangs
    frames : labelled, at least one

    Returns
    -------
    names of the parts taken, each a submodule or a tensor of the network

    Raises
    ------
    UsageError
        if species or cutoffs differ.
    """
    if network.species != source.species:
        raise UsageError(
            f"initial: it knows {', '.join(source.species)}, but the data hold {', '.join(network.species)}; "
            "give a potential of the same elements, or train from the start"
        )
    for name in ("cutoff", "three_body_cutoff", "density_cutoff"):
        given, needed = (which.hyperparameters[name] for which in (network, source))
        if given != needed:
            raise UsageError(f"{name}: got {given:g} Å, but the initial potential has {needed:g}; give the same")
    mine, theirs = network.state_dict(), source.state_dict()
    parts: dict[str, set[str]] = {}
    for state in (mine, theirs):
        for key in state:
            parts.setdefault(key.split(".")[0], set()).add(key)

    def fits(keys: set[str]) -> bool:
        return all(key in mine and key in theirs and mine[key].shape == theirs[key].shape for key in keys)

    taken = {part: keys for part, keys in parts.items() if fits(keys)}
    with torch.no_grad():
        for key in set().union(*taken.values()):
            mine[key].copy_(theirs[key])
    network.energy_offsets.zero_()
    numbers = [atomic_numbers[symbol] for symbol in network.species]
    network.energy_offsets.copy_(fit_energy_offsets([_unexplained(network, frame) for frame in frames], numbers))
    return sorted(taken)


def _unexplained(network: Network, frame: Frame) -> Frame:
    """The frame with the network's energy taken off its label."""
    energy = required(network.evaluate(frame.structure, frame.neighbours, Wanted.ENERGY), "energy").sum()
    return replace(frame, energy=frame.energy - energy)
