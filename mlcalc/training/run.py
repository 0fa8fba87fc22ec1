"""From an extended-XYZ file to a checkpoint with its card: the whole schedule in one call.

0. least squares: a pair and a three-body potential under both heads, energy offsets, force scale.
1. direct: only the direct force is fitted; no differentiation of the energy, the cheapest steps.
2. conservative: energy and its gradient are fitted too, and both forces a little to one another (Bigi, Langer,
   Ceriotti, arXiv 2412.11569, section 5: pre-train direct, fine-tune conservative).
3. joint: the same at a lower rate with more weight on the agreement of the two forces; the trunk can still adapt to it.
4. alignment: the same, while both forces also agree on frames of the potential's own dynamics, which need no labels.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols

from mlcalc.errors import UsageError
from mlcalc.potentials import load
from mlcalc.potentials.checkpoint import ARCHITECTURES, save_checkpoint
from mlcalc.potentials.network import FORMS, Network
from mlcalc.potentials.painn import PaiNN
from mlcalc.potentials.pet import PET
from mlcalc.training.baseline import fit_baseline
from mlcalc.training.data import DataKeys, Frame, read_frames, split
from mlcalc.training.losses import KickWeights, Weights
from mlcalc.training.own_frames import kept_own_frames
from mlcalc.training.plots import plot_curves, plot_parity
from mlcalc.training.trainer import Stage, Trainer, agreement, validate
from mlcalc.training.warm_start import warm_start

Progress = Callable[[str, int, int, float], None]

# One optimiser step moves the total energy of 200 atoms by some eV, all atoms alike. Weighed more, that jitter drowns
# the forces; the energy needs little weight, since the forces fix all of it but its offset.
_ENERGY_WEIGHT = 0.01

# A kick every 4 fs turns force at 4900 cm⁻¹ into work on O-H stretches, so what little there is of it must count. The
# trunk must be free in this: the energy's own roughness, which no direct head can follow, is what goes first.
_KICK_WEIGHTS = KickWeights(alignment=2.0, fast=250.0)

# of the three-body baseline: its coefficients grow with the cube, the work of their fit with the sixth power
_MOST_SPECIES = 4


@dataclass(frozen=True)
class TrainingSettings:
    """What to train and for how long; for 64 water molecules the defaults take some three hours on two CPU cores.

    Attributes
    ----------
    architecture : "painn" or "pet"; form : "C", "NC" or "M"
    cutoff : Å
    three_body_cutoff : Å, of the three-body baseline; best a little beyond the first neighbours. 0 for none, as it must
        be for more than four species, whose baseline would have too many coefficients
    density_cutoff : Å, of the density network, which both forces share; 0 for none
    steps_* : optimiser steps of each stage, one frame each; 0 leaves a stage out. The joint and the alignment stage
        need both forces: forms C and NC have none
    n_validation : frames left out of training
    n_own_frames : frames of the potential's own dynamics in the alignment stage, five instants each
    learning_rate : of the first stage, its peak; later stages have fixed fractions of it
    joint_alignment : weight of the agreement of the two forces in the joint stage, where each force's own label weighs
        1; more agreement costs accuracy
    initial : name or file of a potential to start from (see `warm_start`), e.g. for fine-tuning; None to start afresh
    sizes : further arguments of the architecture, e.g. (("channels", 64),)
    """

    architecture: str = "painn"
    form: str = "M"
    cutoff: float = 4.5
    three_body_cutoff: float = 2.6
    density_cutoff: float = 3.2
    steps_direct: int = 4000
    steps_conservative: int = 3000
    steps_joint: int = 8000
    steps_alignment: int = 3500
    n_validation: int = 20
    n_own_frames: int = 400
    seed: int = 0
    learning_rate: float = 1e-3
    joint_alignment: float = 10.0
    initial: str | None = None
    sizes: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise UsageError(f"architecture: got {self.architecture!r}; choose one of {', '.join(ARCHITECTURES)}")
        if self.form not in FORMS:
            raise UsageError(f"form: got {self.form!r}; choose one of {', '.join(FORMS)}")
        for name in ("steps_direct", "steps_conservative", "steps_joint", "steps_alignment"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}: got {getattr(self, name)}; give a number of steps, 0 or more")
        if not 0 <= self.joint_alignment < math.inf:
            raise UsageError(f"joint_alignment: got {self.joint_alignment}; give a weight, 0 or more")
        if not 0 < self.learning_rate <= 1:
            raise UsageError(f"learning_rate: got {self.learning_rate}; give a number above 0 to 1, such as 1e-3")


def build_network(settings: TrainingSettings, training: Sequence[Frame]) -> Network:
    """A network for the species of the data: fresh on a fitted baseline, or with what the initial potential has."""
    numbers = sorted({int(number) for frame in training for number in frame.structure.numbers.unique()})
    symbols = [chemical_symbols[number] for number in numbers]
    if settings.three_body_cutoff and len(symbols) > _MOST_SPECIES:
        raise UsageError(
            f"three_body_cutoff: got {settings.three_body_cutoff} for {len(symbols)} species; the three-body baseline "
            f"is made for {_MOST_SPECIES} at most, give 0 to do without it"
        )
    kinds: dict[str, Any] = {"painn": PaiNN, "pet": PET}
    kind = kinds[settings.architecture]
    torch_state = torch.get_rng_state()
    torch.manual_seed(settings.seed)
    try:
        network: Network = kind(
            symbols,
            settings.cutoff,
            settings.form,
            three_body_cutoff=settings.three_body_cutoff,
            density_cutoff=settings.density_cutoff,
            **dict(settings.sizes),
        )
    finally:
        torch.set_rng_state(torch_state)
    if settings.initial is None:
        fit_baseline(network, training)
    else:
        warm_start(network, initial_network(settings.initial), training)
    return network


def initial_network(name: str) -> Network:
    """A potential to start from, by its name or file.

    Raises
    ------
    UsageError
        if it is none of our networks.
    """
    potential = load(name)
    if not isinstance(potential, Network):
        raise UsageError(f"initial: {name!r} is no trained network of mlcalc; give one of its checkpoints, or water")
    return potential


def data_stages(settings: TrainingSettings, *, virial: bool) -> list[Stage]:
    """The stages that learn from the data, as the form allows."""
    stages = []
    if settings.form != "C" and settings.steps_direct:
        # the non-conservative form has no later stage in which its energy could be learnt
        energy = _ENERGY_WEIGHT if settings.form == "NC" else 0.0
        weights = Weights(direct=1.0, energy=energy)
        stages.append(Stage("direct", settings.steps_direct, settings.learning_rate, weights, final_fraction=0.2))
    if settings.form != "NC":
        stages += [stage for stage in _conservative_stages(settings, virial=virial) if stage.n_steps]
    if not stages:
        raise UsageError("steps: every stage has 0 steps; give steps_direct or steps_conservative above 0")
    return stages


def _conservative_stages(settings: TrainingSettings, *, virial: bool) -> list[Stage]:
    both = settings.form == "M"
    weights = _conservative_weights(both=both, virial=virial)
    # a trunk that the direct stage has shaped is lost again at a higher rate
    rate = settings.learning_rate * (0.4 if both and settings.steps_direct else 1.0)
    if not both:
        return [Stage("conservative", settings.steps_conservative, rate, weights, final_fraction=0.01)]
    return [
        Stage("conservative", settings.steps_conservative, rate, weights, final_fraction=0.5),
        Stage(
            "joint",
            settings.steps_joint,
            0.6 * rate,
            replace(weights, alignment=settings.joint_alignment),
            final_fraction=0.01,
        ),
    ]


def _conservative_weights(*, both: bool, virial: bool) -> Weights:
    return Weights(
        conservative=1.0,
        energy=_ENERGY_WEIGHT,
        virial=0.05 if virial else 0.0,
        direct=1.0 if both else 0.0,
        alignment=1.0 if both else 0.0,
    )


def align(
    network: Network,
    training: Sequence[Frame],
    validation: Sequence[Frame],
    settings: TrainingSettings,
    folder: Path,
    *,
    virial: bool,
    progress: Progress | None,
) -> tuple[Network, dict[str, Any]]:
    """The last stage: both forces of the network agree on its own trajectories, while they hold on to the data.

    Returns the network and what the model card says of this stage.
    """

    def count(done: int, total: int) -> None:
        if progress is not None:
            progress("own frames", done, total, float("nan"))

    own = kept_own_frames(
        folder / "own-frames.safetensors",
        network,
        [frame.structure for frame in training],
        n_frames=settings.n_own_frames,
        seed=settings.seed,
        progress=count,
    )
    held_out = max(1, len(own) // 10)
    stage = Stage(
        "alignment",
        settings.steps_alignment,
        0.2 * settings.learning_rate,
        _conservative_weights(both=True, virial=virial),
        final_fraction=0.01,
        kick_weights=_KICK_WEIGHTS,
    )
    trainer = Trainer(
        network,
        training,
        validation,
        [stage],
        folder,
        instants=own[:-held_out],
        seed=settings.seed,
        rotate=settings.architecture == "pet",
    )
    network = trainer.run(progress)
    return network, {
        "stage": asdict(stage),
        "seconds": trainer.seconds[0],
        "frames": len(own) - held_out,
        "frames_held_out": held_out,
        "alignment_on_frames_held_out": agreement(network, own[-held_out:]),
    }


def train(
    data: str | Path,
    keys: DataKeys,
    folder: str | Path,
    settings: TrainingSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Path:
    """Train a potential; resumes where an earlier call with the same arguments was cut off.

    Writes into `folder`: potential.safetensors, log.csv and curves.png (learning curves), parity.png, card.json, and
    the state that resumption needs.

    Returns
    -------
    the path of potential.safetensors

    Raises
    ------
    UsageError
        for unusable data or settings, or a folder that holds another run.
    """
    settings = settings or TrainingSettings()
    folder = Path(folder)
    frames = read_frames(data, keys, settings.cutoff)
    training, validation = split(frames, settings.n_validation, settings.seed)
    network = build_network(settings, training)
    virial = keys.stress is not None
    stages = data_stages(settings, virial=virial)
    trainer = Trainer(
        network, training, validation, stages, folder, seed=settings.seed, rotate=settings.architecture == "pet"
    )
    network = trainer.run(progress)
    logs, own_dynamics = [folder / "log.csv"], None
    if settings.form == "M" and settings.steps_alignment:
        network, own_dynamics = align(
            network, training, validation, settings, folder / "alignment", virial=virial, progress=progress
        )
        logs.append(folder / "alignment" / "log.csv")
    card = _card(Path(data), keys, settings, trainer, network, training, validation) | {"own_dynamics": own_dynamics}
    save_checkpoint(folder / "potential.safetensors", network, card)
    (folder / "card.json").write_text(json.dumps(card, indent=2))
    plot_curves(logs, folder / "curves.png")
    plot_parity(network, validation, folder / "parity.png")
    return folder / "potential.safetensors"


def relative_time(stages: Sequence[Stage], seconds: Sequence[float]) -> dict[str, float]:
    """Each stage's time over that of conservative training for the same total number of steps.

    The cost of a from-scratch conservative step is that of the conservative stage: the same loss on the same network.
    """
    conservative = [
        s / max(1, stage.n_steps) for stage, s in zip(stages, seconds, strict=True) if stage.name == "conservative"
    ]
    if not conservative:
        return {}
    from_scratch = conservative[0] * sum(stage.n_steps for stage in stages)
    ratios = {stage.name: s / from_scratch for stage, s in zip(stages, seconds, strict=True)}
    return {**ratios, "total": sum(seconds) / from_scratch}


def summary(card: Mapping[str, Any]) -> str:
    """What a user wants to know of a finished training, in a few lines of at most 80 columns."""
    ratios, errors = card["time_over_conservative_from_scratch"], card["validation_errors"]
    lines = [f"{'stage':<14}{'steps':>7}   time over conservative training from scratch"] if ratios else []
    for stage in card["stages"] if ratios else ():
        lines.append(f"{stage['name']:<14}{stage['n_steps']:>7}   {ratios[stage['name']]:.2f}")
    lines.append("on frames left out of training, root mean square:")
    lines += [
        f"  {name:<20}{errors[key]:8.3g} {unit}"
        for key, name, unit in (
            ("direct", "direct force", "meV/Å"),
            ("conservative", "conservative force", "meV/Å"),
            ("alignment", "their difference", "meV/Å"),
            ("energy", "energy", "meV/atom"),
        )
        if key in errors
    ]
    own = card.get("own_dynamics")
    if own:
        lines.append(f"  {'difference in own MD':<20}{own['alignment_on_frames_held_out']:8.3g} meV/Å")
    return "\n".join(lines)


def _card(
    data: Path,
    keys: DataKeys,
    settings: TrainingSettings,
    trainer: Trainer,
    network: Network,
    training: Sequence[Frame],
    validation: Sequence[Frame],
) -> dict[str, Any]:
    return {
        "data": {
            "file": data.name,
            **asdict(keys),
            "training_frames": len(training),
            "validation_frames": len(validation),
        },
        "settings": asdict(settings),
        "stages": [asdict(stage) for stage in trainer.stages],
        "seconds": trainer.seconds,
        "time_over_conservative_from_scratch": relative_time(trainer.stages, trainer.seconds),
        "validation_errors": {k: v for k, v in asdict(validate(network, validation)).items() if math.isfinite(v)},
        "validation_units": "meV/Å (forces), meV/atom (energy)",
        "species": list(network.species),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
