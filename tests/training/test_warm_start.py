"""Starting from another potential takes what has the same meaning, and refuses what has not."""

from __future__ import annotations

from dataclasses import replace

import ase
import numpy as np
import pytest
import torch

from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.painn import PaiNN
from mlcalc.potentials.pet import PET
from mlcalc.structure import Structure
from mlcalc.training.data import Frame
from mlcalc.training.run import TrainingSettings, build_network
from mlcalc.training.trainer import validate
from mlcalc.training.warm_start import warm_start

SIZES = {"channels": 8, "n_layers": 1, "n_radial": 6, "hidden": 16, "pair_channels": 4}


def painn(seed: int, **options: float) -> PaiNN:
    torch.manual_seed(seed)
    network = PaiNN(["Ne", "Ar"], 4.0, density_cutoff=3.0, **SIZES, **options).double()
    network.scale.fill_(0.3 + seed)
    return network


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Clusters of varying composition, labelled by a network of random parameters, 1.5 eV higher for each argon."""
    rng = np.random.default_rng(0)
    source, labelled = painn(1), []
    for n_argon in range(1, 6):
        atoms = ase.Atoms(f"Ar{n_argon}Ne{8 - n_argon}", positions=2.2 * np.argwhere(np.ones((2, 2, 2))))
        atoms.rattle(0.1, rng=rng)
        structure = Structure.from_ase(atoms)
        neighbours = neighbour_list(structure, 4.0)
        result = source.evaluate(structure, neighbours, Wanted.ENERGY | Wanted.CONSERVATIVE)
        assert result.energy is not None and result.conservative_force is not None
        labelled.append(Frame(structure, neighbours, result.energy[0] + 1.5 * n_argon, result.conservative_force, None))
    return labelled


def test_the_same_architecture_takes_everything_but_the_offsets(frames: list[Frame]) -> None:
    network = painn(2)
    taken = warm_start(network, painn(1), frames)
    assert set(taken) == {name.split(".")[0] for name in network.state_dict()}
    errors = validate(network, frames)
    assert errors.conservative < 1e-9  # meV/Å; the source made the labels
    assert errors.energy < 1e-6
    torch.testing.assert_close(network.energy_offsets, torch.tensor([0.0, 1.5], dtype=torch.float64))


def test_another_architecture_takes_what_stands_under_both_heads(frames: list[Frame]) -> None:
    torch.manual_seed(3)
    source, network = painn(1), PET(["Ne", "Ar"], 4.0, density_cutoff=3.0, width=8, n_heads=2, hidden=8).double()
    taken = warm_start(network, source, frames)
    assert taken == ["density_network", "energy_offsets", "pair_baseline", "scale", "three_body_baseline"]
    for key in ("scale", "density_network.first.0.weight", "pair_baseline.coefficients"):
        torch.testing.assert_close(network.state_dict()[key], source.state_dict()[key])


def test_other_elements_and_cutoffs_are_refused(frames: list[Frame]) -> None:
    network = PaiNN(["H", "O"], 4.0, density_cutoff=3.0, **SIZES)
    with pytest.raises(UsageError, match="Ne, Ar, but the data hold H, O"):
        warm_start(network, painn(1), frames)
    with pytest.raises(UsageError, match=r"three_body_cutoff: got 3 Å, but the initial potential has 2\.6"):
        warm_start(painn(2, three_body_cutoff=3.0), painn(1), frames)


def test_a_potential_without_parameters_is_refused(frames: list[Frame]) -> None:
    settings = replace(TrainingSettings(cutoff=4.0), initial="lennard_jones")
    with pytest.raises(UsageError, match="'lennard_jones' is no trained network"):
        build_network(settings, frames)
