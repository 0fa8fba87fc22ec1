"""`mlcalc ipi input`, `run` and `driver`: their arguments, and what they do with them."""

from __future__ import annotations

import argparse
from typing import Any

from mlcalc.cli.arguments import (
    COUNT,
    INNER,
    SEED,
    TEMPERATURE,
    TIMESTEP,
    Parser,
    add_command,
    add_forces,
    add_potential,
    number,
)
from mlcalc.errors import UsageError


def add_ipi(commands: Any) -> None:
    text = "run in i-PI: write its input, run it, or be its driver"
    group = commands.add_parser("ipi", help=text, description=text[:1].upper() + text[1:] + ".")
    group.set_defaults(action=ipi, parser=group, traceback=False)
    parts = group.add_subparsers(dest="part", metavar="part", parser_class=Parser)
    _add_ipi_input(parts)
    one = add_command(parts, "run", "run an i-PI input, or its RESTART, in this process")
    one.add_argument("input", help="an .xml that `mlcalc ipi input` wrote, or RESTART; outputs appear beside it")
    one.add_argument("--threads", type=INNER, metavar="N", help="CPU threads")
    one.set_defaults(action=ipi_run)
    one = add_command(parts, "driver", "be the driver of all sockets of an i-PI input")
    one.add_argument("input", help="the .xml that i-PI runs; its structure lies beside it")
    one.add_argument("--host", metavar="H", help="where i-PI runs, for TCP (default: the input's address)")
    one.add_argument("--wait-s", type=number(0, 1e6, "s", inclusive=True), default=60.0, metavar="T", help="for i-PI")
    one.add_argument("--threads", type=INNER, metavar="N", help="CPU threads")
    one.set_defaults(action=ipi_driver)


def _add_ipi_input(parts: Any) -> None:
    one = add_command(parts, "input", "write a complete i-PI input for a structure and a potential")
    add_potential(one)
    add_forces(one)
    inner = one.add_mutually_exclusive_group()
    inner.add_argument("--n-inner", type=INNER, metavar="M", help="inner steps in an outer one (default: 8 with mts)")
    inner.add_argument("--inner-timestep-fs", type=TIMESTEP, metavar="DT", help="the same, by their length")
    one.add_argument("--steps", type=COUNT, default=1000, metavar="N", help="outer steps (default: 1000)")
    one.add_argument("--stride", type=COUNT, default=10, metavar="N", help="from output to output (default: 10)")
    one.add_argument("--beads", type=INNER, default=1, metavar="P", help="of path integrals (default: 1, classical)")
    one.add_argument("--ensemble", choices=("nve", "nvt", "npt"), default="nve", help="(default: nve)")
    one.add_argument("--thermostat", choices=("langevin", "svr", "gle"), default="langevin", help="(default: langevin)")
    one.add_argument("--temperature-K", type=TEMPERATURE, default=300.0, metavar="T", help="(default: 300)")
    tau = number(0, 1e9, "fs")
    one.add_argument("--tau-fs", type=tau, metavar="T", help="of the thermostat (default: 1000 langevin, 100 svr)")
    one.add_argument("--gle-A", metavar="FILE", help="drift matrix of the GLE, 1/ps, rows of numbers")
    one.add_argument("--gle-C", metavar="FILE", help="its covariance, K (default: it keeps the temperature)")
    one.add_argument("--barostat", choices=("isotropic", "flexible"), default="isotropic", help="(default: isotropic)")
    one.add_argument("--barostat-tau-fs", type=tau, default=1000.0, metavar="T", help="(default: 1000)")
    one.add_argument("--pressure-GPa", type=number(-1e3, 1e3, "GPa"), default=1e-4, metavar="P", help="(default: 1e-4)")
    one.add_argument("--seed", type=SEED, default=0, metavar="N", help="of all randomness")
    one.add_argument("--socket", choices=("none", "unix", "tcp"), default="none", help="(default: none, in-process)")
    one.add_argument(
        "--address", metavar="A", help="unix: a name (default: mlcalc); tcp: the host (default: 127.0.0.1)"
    )
    one.add_argument("--port", type=number(1025, 65534, "", int), default=31415, metavar="N", help="tcp; mts: next too")
    one.add_argument("--direct-force-extra", action="store_true", help="write the direct force as well")
    one.add_argument("--output", default="input.xml", metavar="FILE", help="ending in .xml (default: input.xml)")
    one.set_defaults(action=ipi_input)


def ipi(arguments: argparse.Namespace) -> int:
    arguments.parser.print_help()
    return 2


def ipi_input(arguments: argparse.Namespace) -> int:
    from mlcalc.cli.inputs import load_potential, read_structure, usual_forces, whole_path, writable
    from mlcalc.engines.ipi import DriverSettings
    from mlcalc.engines.ipi_input import write_input
    from mlcalc.engines.ipi_settings import IpiInput, inner_steps, read_matrix

    path = writable(arguments.output, "output")
    atoms, _ = read_structure(arguments.structure)
    potential = load_potential(arguments)
    forces = arguments.forces or usual_forces(potential)
    if arguments.inner_timestep_fs:
        if not arguments.timestep_fs:
            raise UsageError("inner-timestep-fs: it needs --timestep-fs, the outer step, to be a part of")
        n_inner = inner_steps(arguments.timestep_fs, arguments.inner_timestep_fs)
    else:
        n_inner = arguments.n_inner or (8 if forces == "mts" else 1)
    names = (
        "steps", "stride", "beads", "ensemble", "thermostat", "temperature_K", "tau_fs", "barostat", "barostat_tau_fs",
        "pressure_GPa", "seed", "socket", "address", "port", "direct_force_extra",
    )  # fmt: skip
    settings = IpiInput(
        **{name: getattr(arguments, name) for name in names},
        forces=forces,
        timestep_fs=arguments.timestep_fs or 0.5 * n_inner,
        n_inner=n_inner,
        gle_A=read_matrix("gle-A", arguments.gle_A),
        gle_C=read_matrix("gle-C", arguments.gle_C),
    )
    driver = DriverSettings(
        potential=whole_path(arguments.potential),
        fast=whole_path(arguments.fast or ""),
        device=arguments.device,
        dtype=arguments.dtype or "",
    )
    structure = write_input(path, settings, atoms, potential, driver)
    run = f"mlcalc ipi run {path}"
    if settings.socket != "none":
        run = f"i-pi {path.name} & mlcalc ipi driver {path.name}   (in the folder of {path})"
    print(f"input      {path}\nstructure  {structure}\nrun        {run}")
    return 0


def ipi_run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    import torch

    from mlcalc.engines.ipi_run import run_input

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    outcome = run_input(arguments.input)
    print(f"{outcome.steps} of {outcome.total} steps; evaluations: {_counted(outcome.counts)}")
    if outcome.steps < outcome.total:
        print(f"go on with: mlcalc ipi run {Path(arguments.input).with_name('RESTART')}")
    return 0


def ipi_driver(arguments: argparse.Namespace) -> int:
    import torch

    from mlcalc.engines.ipi_run import serve_input

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    answered, counts = serve_input(arguments.input, host=arguments.host, wait_s=arguments.wait_s)
    print(f"{answered} requests answered; evaluations: {_counted(counts)}")
    return 0


def _counted(counts: Any) -> str:
    return ", ".join(f"{counts[kind]} {kind}" for kind in ("joint", "conservative", "direct") if counts[kind]) or "none"
