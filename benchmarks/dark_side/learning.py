"""A direct head trained on forces alone, kept as it was early, later and late."""

from __future__ import annotations

from pathlib import Path

import torch

from mlcalc.potentials.checkpoint import save_checkpoint
from mlcalc.potentials.network import Network
from mlcalc.training.baseline import force_rms
from mlcalc.training.data import DataKeys, Frame, read_frames, split
from mlcalc.training.losses import Weights
from mlcalc.training.run import TrainingSettings, build_network
from mlcalc.training.trainer import Stage, Trainer

KEYS = DataKeys("eV,Angstrom")
#: As in the training of the bundled potentials, so that the frames left out are the same
N_VALIDATION, SEED = 20, 0
SETTINGS = TrainingSettings(
    form="NC",
    three_body_cutoff=0,
    density_cutoff=0,
    n_validation=N_VALIDATION,
    seed=SEED,
    sizes=(("channels", 32), ("pair_channels", 32)),
)
STEPS = 1500
KEPT = (50, 150, 500, STEPS)
_NAME = "direct-{:05d}.safetensors"
LATEST = _NAME.format(STEPS)


def frames(data: Path, cutoff: float) -> tuple[list[Frame], list[Frame]]:
    """(training, left out)"""
    return split(read_frames(data, KEYS, cutoff), N_VALIDATION, SEED)


def network_without_baseline(training: list[Frame]) -> Network:
    """As published direct models are: no potential stands under the head, which has to learn every force itself."""
    network = build_network(SETTINGS, training)
    network.pair_baseline.coefficients.zero_()
    network.scale.fill_(force_rms(training))
    return network


def learn(data: Path, folder: Path) -> None:
    """Train on forces alone, with checkpoints of the averaged weights after the steps `KEPT`; resumes."""
    training, left_out = frames(data, SETTINGS.cutoff)
    weights = Weights(direct=1.0)
    stage = Stage("direct", STEPS, SETTINGS.learning_rate, weights, final_fraction=0.01)
    trainer = Trainer(network_without_baseline(training), training, left_out, [stage], folder, seed=SEED)

    def keep(name: str, done: int, total: int, value: float) -> None:
        if done in KEPT:
            card = {"data": {"file": data.name}, "trained_on": "forces alone", "steps": done, "of": total}
            save_checkpoint(folder / _NAME.format(done), trainer.trained(), card)

    with torch.enable_grad():
        trainer.run(keep)
