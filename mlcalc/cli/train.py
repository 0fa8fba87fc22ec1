"""`mlcalc train` and `mlcalc distill`: their arguments, and what they do with them."""

from __future__ import annotations

import argparse
from typing import Any

from mlcalc.cli.arguments import COUNT, INNER, SEED, STEPS, TEMPERATURE, TIMESTEP, add_command, number


def add_train(commands: Any) -> None:
    one = add_command(commands, "train", "train a two-headed potential; call it again to resume")
    one.add_argument("--data", required=True, metavar="FILE", help="labelled frames, extended XYZ")
    one.add_argument("--units", required=True, metavar="U", help="of the labels: eV,Angstrom or Hartree,Bohr or …")
    one.add_argument("--energy-key", default="energy", metavar="KEY", help="(default: energy)")
    one.add_argument("--forces-key", default="forces", metavar="KEY", help="(default: forces)")
    one.add_argument("--stress-key", metavar="KEY", help="(default: no stress)")
    one.add_argument("--architecture", choices=("painn", "pet"), default="painn", help="(default: painn)")
    one.add_argument("--form", choices=("M", "C", "NC"), default="M", help="both forces, or one (default: M)")
    one.add_argument("--cutoff", type=number(0, 100, "Å"), metavar="R", help="Å")
    short = number(0, 100, "Å", inclusive=True)
    one.add_argument("--three-body-cutoff", type=short, metavar="R", help="Å, of the baseline; 0 for none")
    one.add_argument("--density-cutoff", type=short, metavar="R", help="Å, of the density network; 0 for none")
    one.add_argument("--initial", metavar="X", help="start from this potential's parameters, e.g. to fine-tune it")
    rate = number(0, 1, "")
    one.add_argument("--learning-rate", type=rate, metavar="A", help="its peak in the first stage (default: 1e-3)")
    one.add_argument("--steps-direct", type=STEPS, metavar="N", help="first stage: direct forces")
    one.add_argument("--steps-conservative", type=STEPS, metavar="N", help="second stage: energy and its gradient")
    one.add_argument("--steps-joint", type=STEPS, metavar="N", help="third stage: both forces agree better")
    weight = number(0, 1e6, "", inclusive=True)
    one.add_argument(
        "--joint-alignment", type=weight, metavar="W", help="how much agreement counts there (default: 10)"
    )
    one.add_argument("--steps-align", type=STEPS, metavar="N", help="last stage: they agree in its own dynamics")
    one.add_argument("--own-frames", type=COUNT, metavar="N", help="of its own dynamics, for the last stage")
    one.add_argument("--validation-frames", type=COUNT, metavar="N", help="left out of training")
    one.add_argument("--seed", type=SEED, default=0, metavar="N")
    one.add_argument("--output", default="mlcalc-training", metavar="DIR", help="(default: mlcalc-training)")
    one.set_defaults(action=train)


def train(arguments: argparse.Namespace) -> int:
    from mlcalc.audit.progress import Reporter
    from mlcalc.potentials.checkpoint import read_card
    from mlcalc.training.data import DataKeys
    from mlcalc.training.run import TrainingSettings, summary, train

    keys = DataKeys(
        units=arguments.units, energy=arguments.energy_key, forces=arguments.forces_key, stress=arguments.stress_key
    )
    given = {
        "architecture": arguments.architecture,
        "form": arguments.form,
        "cutoff": arguments.cutoff,
        "three_body_cutoff": arguments.three_body_cutoff,
        "density_cutoff": arguments.density_cutoff,
        "joint_alignment": arguments.joint_alignment,
        "initial": arguments.initial,
        "learning_rate": arguments.learning_rate,
        "steps_direct": arguments.steps_direct,
        "steps_conservative": arguments.steps_conservative,
        "steps_joint": arguments.steps_joint,
        "steps_alignment": arguments.steps_align,
        "n_own_frames": arguments.own_frames,
        "n_validation": arguments.validation_frames,
        "seed": arguments.seed,
    }
    settings = TrainingSettings(**{name: value for name, value in given.items() if value is not None})
    with Reporter() as progress:

        def show(stage: str, done: int, total: int, loss: float) -> None:
            progress(stage, done, total)

        path = train(arguments.data, keys, arguments.output, settings, progress=show)
    print(summary(read_card(path)))
    print(f"\npotential  {path}\ncard       {path.parent / 'card.json'}")
    return 0


def add_distill(commands: Any) -> None:
    one = add_command(
        commands, "distill", "make a fast potential for the inner steps of a slow one; call again to resume"
    )
    one.add_argument("--teacher", dest="potential", required=True, metavar="X", help="a name, a file or ase:…")
    one.add_argument("--structure", metavar="FILE", help="the system that it is for (default: water box)")
    one.add_argument(
        "--temperature-K", "--temperature", type=TEMPERATURE, nargs="+", default=[300.0], metavar="T",
        help="one or more; frames are taken at 1.5 times the first as well (default: 300)",
    )  # fmt: skip
    one.add_argument("--inner-timestep-fs", type=TIMESTEP, metavar="DT", help="(default: 0.5 with hydrogen, else 1)")
    one.add_argument("--cutoff", type=number(0, 100, "Å"), metavar="R", help="Å, of the student (default: 4.5)")
    one.add_argument("--initial", metavar="X", help="a potential of ours to start from, of the same elements")
    one.add_argument(
        "--configurations", metavar="FILE", help="more frames of the same atoms, labelled in the first round"
    )
    one.add_argument("--frames", type=COUNT, metavar="N", help="labelled in each round (default: 80)")
    one.add_argument("--rounds", type=COUNT, metavar="N", help="at most (default: 5)")
    one.add_argument("--steps-round", type=COUNT, metavar="N", help="of training, each round (default: 1500)")
    one.add_argument("--steps-last", type=COUNT, metavar="N", help="of the last training (default: 5000)")
    one.add_argument(
        "--groups", type=COUNT, metavar="N",
        help="of five labelled instants, for a stage against what is too fast for kicks (default: none)",
    )  # fmt: skip
    one.add_argument("--steps-kicks", type=COUNT, metavar="N", help="of that stage (default: 1500)")
    one.add_argument("--seed", type=SEED, default=0, metavar="N")
    one.add_argument("--device", default="cpu", help="of the teacher: cpu, cuda … (default: cpu)")
    one.add_argument("--dtype", choices=("float32", "float64"), help="of the teacher (default: its own)")
    one.add_argument("--threads", type=INNER, metavar="N", help="CPU threads")
    one.add_argument("--out", "--output", dest="output", required=True, metavar="FILE", help="ending in .safetensors")
    one.set_defaults(action=distill, fast=None)


def distill(arguments: argparse.Namespace) -> int:
    from mlcalc.audit.progress import Reporter
    from mlcalc.cli.inputs import load_potential, read_structure, writable
    from mlcalc.distillation.run import distill
    from mlcalc.distillation.settings import DistillSettings
    from mlcalc.distillation.text import summary
    from mlcalc.errors import UsageError

    if arguments.initial and arguments.cutoff:
        raise UsageError(
            f"cutoff: got {arguments.cutoff:g} Å with --initial {arguments.initial}, whose cutoff the student keeps; "
            "leave it out"
        )
    temperatures = tuple(arguments.temperature_K)
    given = {
        "inner_timestep_fs": arguments.inner_timestep_fs,
        "cutoff": arguments.cutoff,
        "initial": arguments.initial,
        "n_frames": arguments.frames,
        "n_rounds": arguments.rounds,
        "steps_round": arguments.steps_round,
        "steps_last": arguments.steps_last,
        "n_groups": arguments.groups,
        "steps_kicks": arguments.steps_kicks,
    }
    settings = DistillSettings(
        temperatures_K=temperatures if len(temperatures) > 1 else (temperatures[0], 1.5 * temperatures[0]),
        seed=arguments.seed,
        **{name: value for name, value in given.items() if value is not None},
    )
    path = writable(arguments.output, "out")
    atoms, _ = read_structure(arguments.structure)
    more = arguments.configurations
    configurations = read_structure(more, ":", "configurations")[0] if more else ()
    with Reporter() as progress:
        made = distill(
            load_potential(arguments), atoms, path, settings, configurations=configurations, progress=progress
        )
    print(summary(made))
    return 0
