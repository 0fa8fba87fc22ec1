"""`mlcalc tune`: its arguments, and what it does with them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mlcalc.cli.arguments import COUNT, DURATION, INNER, SEED, TEMPERATURE, TIMESTEP, add_command, add_potential


def add_tune(commands: Any) -> None:
    from mlcalc.tuning.settings import TuneSettings

    default = TuneSettings()
    one = add_command(commands, "tune", "find the longest inner step and the most of them that conserve energy")
    add_potential(one)
    one.add_argument("--temperature-K", type=TEMPERATURE, default=default.temperature_K, metavar="T")
    one.add_argument(
        "--timesteps-fs", type=TIMESTEP, nargs="+", default=default.timesteps_fs, metavar="DT",
        help="INNER steps to try (default: " + " ".join(f"{step:g}" for step in default.timesteps_fs) + ")",
    )  # fmt: skip
    one.add_argument(
        "--n-inner", type=INNER, nargs="+", default=default.n_inner, metavar="M",
        help="numbers of them to try (default: " + " ".join(str(m) for m in default.n_inner) + ")",
    )  # fmt: skip
    one.add_argument(
        "--replicas", type=COUNT, default=default.replicas, metavar="N",
        help=f"runs of each setting; errors go down with their square root (default: {default.replicas})",
    )  # fmt: skip
    for name, text in (
        ("scan", "of every run of the map"),
        ("confirm", "of the runs that settle what is safe"),
        ("equilibration", "before all"),
    ):
        value = getattr(default, f"{name}_ps")
        one.add_argument(f"--{name}-ps", type=DURATION, default=value, metavar="T", help=f"{text} (default: {value:g})")
    one.add_argument("--seed", type=SEED, default=default.seed, metavar="N")
    one.add_argument("--json", metavar="FILE", help="write the result there")
    one.add_argument("--plot", metavar="PNG", help="write the map there")
    one.set_defaults(action=tune)


def tune(arguments: argparse.Namespace) -> int:
    from dataclasses import fields

    from mlcalc.audit.progress import Reporter
    from mlcalc.cli.inputs import load_potential, read_structure, writable, write_found
    from mlcalc.tuning.figure import plot
    from mlcalc.tuning.run import tune
    from mlcalc.tuning.settings import TuneSettings
    from mlcalc.tuning.text import render_text

    json_path = writable(arguments.json, "json") if arguments.json else None
    plot_path = writable(arguments.plot, "plot") if arguments.plot else None
    given: dict[str, Any] = {field.name: getattr(arguments, field.name) for field in fields(TuneSettings)}
    given |= {name: tuple(given[name]) for name in ("timesteps_fs", "n_inner")}
    settings = TuneSettings(**given)
    atoms, name = read_structure(arguments.structure)
    potential = load_potential(arguments)
    with Reporter() as progress:
        found = tune(potential, atoms, settings, progress, structure_name=name)
    print(render_text(found, colour=sys.stdout.isatty()))
    write_found(found, json_path, plot_path, plot)
    return 0
