"""`mlcalc diagnose`: its arguments, and what it does with them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mlcalc.cli.arguments import COUNT, TEMPERATURE, add_command, number, symbols


def add_diagnose(commands: Any) -> None:
    one = add_command(
        commands, "diagnose", "what the files of a run tell: drift, temperatures, spectra, diffusion, g(r)"
    )
    one.add_argument(
        "files", nargs="+", metavar="FILE",
        help="a trajectory, a log or both, of mlcalc, ASE, i-PI or LAMMPS; i-PI: positions and velocities too",
    )  # fmt: skip
    one.add_argument("--elements", type=symbols, default=(), metavar="H,O", help="of LAMMPS's types 1, 2, …")
    one.add_argument("--units", choices=("metal", "real"), help="of LAMMPS, where its files do not say")
    one.add_argument("--run", type=COUNT, metavar="N", help="of a LAMMPS log with several (default: the last)")
    one.add_argument(
        "--interval-fs", type=number(0, 1e9, "fs"), metavar="DT",
        help="from frame to frame, where the files have no times (ASE, or a dump without its log)",
    )  # fmt: skip
    one.add_argument(
        "--skip-ps",
        type=number(0, 1e9, "ps", inclusive=True),
        default=0.0,
        metavar="T",
        help="to leave out at the start",
    )
    one.add_argument("--temperature-K", type=TEMPERATURE, metavar="T", help="that the run was meant to have")
    one.add_argument("--r-max-A", type=number(0, 1e3, "Å"), metavar="R", help="Å, end of g(r) (default: at most 10)")
    one.add_argument(
        "--viscosity-mPa-s", type=number(0, 1e12, "mPa·s"), metavar="E", help="for diffusion in an infinite cell"
    )
    one.add_argument("--potential", metavar="X", help="whose Hessian gives the normal modes of a crystal")
    one.add_argument("--device", default="cpu", help="of the potential: cpu, cuda … (default: cpu)")
    one.add_argument("--json", metavar="FILE", help="write findings and curves there")
    one.add_argument("--plot", metavar="PNG", help="write a figure there")
    one.set_defaults(action=diagnose, fast=None, dtype=None, threads=None)


def diagnose(arguments: argparse.Namespace) -> int:
    from mlcalc.cli.inputs import load_potential, writable, write_found
    from mlcalc.diagnosis.bench import DiagnosisSettings
    from mlcalc.diagnosis.figure import plot
    from mlcalc.diagnosis.hessian import hessian_of
    from mlcalc.diagnosis.read import ReadSettings, read_record
    from mlcalc.diagnosis.run import diagnose
    from mlcalc.diagnosis.text import render_text

    json_path = writable(arguments.json, "json") if arguments.json else None
    plot_path = writable(arguments.plot, "plot") if arguments.plot else None
    names = ("elements", "units", "run", "interval_fs", "skip_ps")
    record = read_record(arguments.files, ReadSettings(**{name: getattr(arguments, name) for name in names}))
    settings = DiagnosisSettings(arguments.temperature_K, arguments.r_max_A, arguments.viscosity_mPa_s)
    found = diagnose(record, settings, hessian=hessian_of(load_potential(arguments)) if arguments.potential else None)
    print(render_text(found, colour=sys.stdout.isatty()))
    write_found(found, json_path, plot_path, plot)
    return 0
