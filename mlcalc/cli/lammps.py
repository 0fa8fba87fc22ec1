"""`mlcalc lammps input`: its arguments, and what it does with them."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from mlcalc.cli.arguments import COUNT, INNER, TEMPERATURE, TIMESTEP, Parser, add_command, add_potential, number


def add_lammps(commands: Any) -> None:
    text = "write an input for LAMMPS with pair_style mlcalc"
    group = commands.add_parser("lammps", help=text, description=text[:1].upper() + text[1:] + ".")
    parts = group.add_subparsers(dest="part", metavar="command", parser_class=Parser, required=True)
    one = add_command(parts, "input", "write an input and a data file that are ready to run")
    add_potential(one)
    one.add_argument("--ensemble", choices=("nve", "langevin", "nvt", "npt", "minimize"), default="nve")
    one.add_argument("--temperature-K", type=TEMPERATURE, default=300.0, metavar="T", help="at the start; of the bath")
    one.add_argument(
        "--pressure-GPa", type=number(-1e3, 1e3, "GPa"), default=1e-4, metavar="P", help="(default: 1 bar)"
    )
    one.add_argument("--friction-per-ps", type=number(0, 1e4, "1/ps"), default=1.0, metavar="G", help="(default: 1)")
    one.add_argument("--timestep-fs", type=TIMESTEP, metavar="DT", help="OUTER step (default: 0.5 × inner steps)")
    one.add_argument("--n-inner", type=INNER, metavar="M", help="inner steps (default: 8 where both forces are there)")
    one.add_argument("--steps", type=COUNT, default=1000, metavar="N", help="outer steps (default: 1000)")
    one.add_argument("--stride", type=COUNT, default=10, metavar="N", help="outer steps from frame to frame")
    one.add_argument("--seed", type=number(1, 2**31, "", int), default=1, metavar="N", help="of all randomness")
    one.add_argument("--output", default="mlcalc.in", metavar="FILE", help="beside it: FILE's stem with .data")
    one.set_defaults(action=lammps_input)


def lammps_input(arguments: argparse.Namespace) -> int:
    from mlcalc.cli.inputs import load_potential, read_structure, writable
    from mlcalc.engines.lammps_input import LammpsInput, write_lammps_input

    path = writable(arguments.output, "output")
    atoms, _ = read_structure(arguments.structure)
    settings = LammpsInput(**{one.name: getattr(arguments, one.name) for one in fields(LammpsInput)})
    data = write_lammps_input(atoms, load_potential(arguments), settings, path)
    print(f"input  {path}\ndata   {data}\nrun it with `lmp -in {path.name}`, after pip install ./lammps_plugin")
    return 0
