"""The command line: its arguments, its exit statuses, and one line for each error; what it does is in commands.py.

Exit status: 0 done; 1 a run failed; 2 unusable arguments or files; 3 the audit's verdict fails --fail-on;
130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from mlcalc.errors import MlcalcError
from mlcalc.memory import keep_freed_memory

_EPILOG = """exit status: 0 done; 1 a run failed; 2 unusable arguments or files;
3 the audit's verdict fails --fail-on; 130 interrupted"""


class _Parser(argparse.ArgumentParser):
    """Errors in one line, as all errors of the command."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mlcalc: error: {message}; see `{self.prog} --help`\n")


def _number(
    least: float, most: float, unit: str, kind: Callable[[str], Any] = float, *, inclusive: bool = False
) -> Callable[[str], Any]:
    """An argparse type: a number above `least` and at most `most`; at `least` too if it is whole or `inclusive`."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        inside = least <= value <= most if kind is int or inclusive else least < value <= most
        if not inside:
            where = "from" if kind is int or inclusive else "above"
            word = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(
                f"got {text}; give a {word} {where} {least:g} to {most:g}{' ' + unit if unit else ''}"
            )
        return value

    return read


_TEMPERATURE = _number(0, 20_000, "K")
_TIMESTEP = _number(0, 20, "fs")
_DURATION = _number(0, 1e6, "ps")
_COUNT = _number(1, 1e12, "", int)
_STEPS = _number(0, 1e9, "", int)
_INNER = _number(1, 1000, "", int)
_SEED = _number(0, 2**31, "", int)


def parser() -> argparse.ArgumentParser:
    """The argument parser of the command."""
    from mlcalc.audit.settings import AuditSettings

    top = _Parser(
        prog="mlcalc",
        description="Audit, and run safely, interatomic potentials with direct and conservative forces.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print versions and exit")
    commands = top.add_subparsers(dest="command", metavar="command", parser_class=_Parser)
    _add_audit(commands, AuditSettings())
    _add_run(commands)
    _add_plot(commands)
    _add_convert(commands)
    _add_diagnose(commands)
    _add_train(commands)
    _add_distill(commands)
    _add_export(commands)
    _add_ipi(commands)
    _add_lammps(commands)
    card = _command(commands, "card", "print the model card of a checkpoint")
    card.add_argument("checkpoint", help="a .safetensors file")
    card.set_defaults(action="card")
    return top


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[:1].upper() + text[1:] + ".", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    one.add_argument("--traceback", action="store_true", help="show where an error came from")
    return one


def _add_potential(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--potential", "--slow", default="water", metavar="X", help="a name, a file or ase:… (default: water)"
    )
    one.add_argument("--fast", metavar="Y", help="another potential for the inner steps (default: X's direct forces)")
    one.add_argument("--structure", metavar="FILE", help="any file that ASE reads, last frame (default: water box)")
    one.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 … (default: cpu)")
    one.add_argument("--dtype", choices=("float32", "float64"), help="precision of the potential (default: its own)")
    one.add_argument("--threads", type=_INNER, metavar="N", help="CPU threads")


def _add_forces(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--forces", choices=("mts", "conservative", "direct"),
        help="(default: mts where the potential has both forces, else the one that it has)",
    )  # fmt: skip
    one.add_argument("--timestep-fs", type=_TIMESTEP, metavar="DT", help="OUTER step (default: 0.5 × inner steps)")


def _add_audit(commands: Any, default: Any) -> None:
    one = _command(commands, "audit", "find out which forces of a potential may be used for what")
    _add_potential(one)
    one.add_argument("--output", default="mlcalc-audit", metavar="DIR", help="where to write (default: mlcalc-audit)")
    one.add_argument("--json", metavar="FILE", help="the result (default: DIR/result.json)")
    one.add_argument("--report", metavar="FILE", help="the report (default: DIR/report.html)")
    one.add_argument("--temperature-K", type=_TEMPERATURE, default=default.temperature_K, metavar="T")
    one.add_argument("--inner-timestep-fs", type=_TIMESTEP, default=default.inner_timestep_fs, metavar="DT")
    one.add_argument("--n-inner", type=_INNER, default=default.n_inner, metavar="M", help="inner steps (default: 8)")
    one.add_argument(
        "--duration-ps", type=_DURATION, metavar="T", help=f"of each run (default: {default.duration_ps:g})"
    )
    one.add_argument("--seed", type=_SEED, default=default.seed, metavar="N")
    one.add_argument("--quick", action="store_true", help="a few frames of everything, to see that it works")
    one.add_argument(
        "--fail-on",
        choices=("unsafe", "warning", "never"),
        default="never",
        help="exit with 3 when the overall verdict is unsafe; warning: when it is anything but safe (default: never)",
    )
    one.set_defaults(action="audit")


def _add_run(commands: Any) -> None:
    one = _command(commands, "run", "molecular dynamics, at constant energy, temperature or pressure")
    _add_potential(one)
    _add_forces(one)
    one.add_argument("--n-inner", type=_INNER, metavar="M", help="inner steps in an outer one (default: 8 with mts)")
    one.add_argument("--steps", type=_COUNT, required=True, metavar="N", help="outer steps, from the very start")
    _add_ensemble(one)
    one.add_argument(
        "--hydrogen-mass", type=_number(0, 100, "amu"), metavar="M",
        help="amu, e.g. 3; taken from the bonded heavy atoms (default: as it is)",
    )  # fmt: skip
    one.add_argument("--temperature-K", type=_TEMPERATURE, default=300.0, metavar="T", help="at the start; of the bath")
    one.add_argument("--seed", type=_SEED, default=0, metavar="N", help="of all randomness")
    one.add_argument("--stride", type=_COUNT, default=1, metavar="N", help="outer steps from frame to frame")
    one.add_argument(
        "--output", default="run.trajectory", metavar="FILE",
        help="ending in .trajectory, or .xyz .extxyz .traj .h5 .xtc: then FILE is written at the end, from a "
        "trajectory beside it (default: run.trajectory)",
    )  # fmt: skip
    one.add_argument("--restart", action="store_true", help="go on with this run where it was cut off, bit for bit")
    one.add_argument(
        "--max-energy-change-meV", type=_number(0, 1e9, "meV"), default=10.0, metavar="E",
        help="per atom; how far the conserved energy may move (default: 10)",
    )  # fmt: skip
    one.add_argument(
        "--on-drift", choices=("stop", "reduce", "continue"), default="stop",
        help="when it moves farther; reduce halves the inner steps (default: stop)",
    )  # fmt: skip
    one.set_defaults(action="run")


def _add_ensemble(one: argparse.ArgumentParser) -> None:
    time = _number(0, 1e6, "ps")
    one.add_argument(
        "--ensemble", choices=("nve", "nvt", "npt", "langevin"), default="nve",
        help="langevin is nvt with that thermostat (default: nve)",
    )  # fmt: skip
    one.add_argument(
        "--thermostat", choices=("langevin", "bussi", "nose-hoover", "gle", "sin-r"),
        help="of nvt and npt (default: langevin); sin-r: nvt, positions only: long outer steps, no physical dynamics",
    )  # fmt: skip
    friction = _number(0, 1e4, "1/ps")
    one.add_argument(
        "--friction-per-ps", type=friction, metavar="G", help="of langevin (default: 1) and sin-r (default: 100)"
    )
    one.add_argument(
        "--hydrogen-friction-per-ps", type=friction, metavar="G", help="of langevin, on hydrogen (default: the same)"
    )
    one.add_argument(
        "--thermostat-time-ps", type=time, metavar="T", help="of bussi, nose-hoover (default: 0.1), sin-r (0.01)"
    )
    one.add_argument(
        "--regulation", type=_number(1, 1e3, "", inclusive=True), metavar="L", help="of sin-r (default: 1)"
    )
    one.add_argument("--gle-file", metavar="FILE", help="matrices A and C of gle, as GLE4MD writes them")
    one.add_argument(
        "--barostat", choices=("isotropic", "full"), help="what of the cell moves in npt (default: isotropic)"
    )
    pressure = _number(-1e4, 1e4, "GPa", inclusive=True)
    one.add_argument("--pressure-GPa", type=pressure, metavar="P", help="of npt (default: 1e-4, 1 bar)")
    one.add_argument("--barostat-time-ps", type=time, metavar="T", help="of npt (default: 1)")


def _add_plot(commands: Any) -> None:
    one = _command(commands, "plot", "a picture of the energy and temperature of a run")
    one.add_argument("log", help="the .log file that `mlcalc run` wrote")
    one.add_argument("--output", metavar="FILE", help="(default: the log's name, ending in .png)")
    one.set_defaults(action="plot")


def _add_convert(commands: Any) -> None:
    one = _command(commands, "convert", "a trajectory in another format")
    one.add_argument("trajectory", help="a .trajectory file that `mlcalc run` wrote, whole or cut off")
    one.add_argument("output", help="ending in .xyz, .extxyz, .traj (ASE), .h5 or .xtc (mdtraj)")
    one.set_defaults(action="convert")


def _add_diagnose(commands: Any) -> None:
    one = _command(commands, "diagnose", "what the files of a run tell: drift, temperatures, spectra, diffusion, g(r)")
    one.add_argument(
        "files", nargs="+", metavar="FILE",
        help="a trajectory, a log or both, of mlcalc, ASE, i-PI or LAMMPS; i-PI: positions and velocities too",
    )  # fmt: skip
    one.add_argument("--elements", type=_symbols, default=(), metavar="H,O", help="of LAMMPS's types 1, 2, …")
    one.add_argument("--units", choices=("metal", "real"), help="of LAMMPS, where its files do not say")
    one.add_argument("--run", type=_COUNT, metavar="N", help="of a LAMMPS log with several (default: the last)")
    one.add_argument(
        "--interval-fs", type=_number(0, 1e9, "fs"), metavar="DT",
        help="from frame to frame, where the files have no times (ASE, or a dump without its log)",
    )  # fmt: skip
    one.add_argument(
        "--skip-ps",
        type=_number(0, 1e9, "ps", inclusive=True),
        default=0.0,
        metavar="T",
        help="to leave out at the start",
    )
    one.add_argument("--temperature-K", type=_TEMPERATURE, metavar="T", help="that the run was meant to have")
    one.add_argument("--r-max-A", type=_number(0, 1e3, "Å"), metavar="R", help="Å, end of g(r) (default: at most 10)")
    one.add_argument(
        "--viscosity-mPa-s", type=_number(0, 1e12, "mPa·s"), metavar="E", help="for diffusion in an infinite cell"
    )
    one.add_argument("--potential", metavar="X", help="whose Hessian gives the normal modes of a crystal")
    one.add_argument("--device", default="cpu", help="of the potential: cpu, cuda … (default: cpu)")
    one.add_argument("--json", metavar="FILE", help="write findings and curves there")
    one.add_argument("--plot", metavar="PNG", help="write a figure there")
    one.set_defaults(action="diagnose", fast=None, dtype=None, threads=None)


def _symbols(text: str) -> tuple[str, ...]:
    """An argparse type: H,O"""
    return tuple(word for word in text.replace(",", " ").split())


def _add_train(commands: Any) -> None:
    one = _command(commands, "train", "train a two-headed potential; call it again to resume")
    one.add_argument("--data", required=True, metavar="FILE", help="labelled frames, extended XYZ")
    one.add_argument("--units", required=True, metavar="U", help="of the labels: eV,Angstrom or Hartree,Bohr or …")
    one.add_argument("--energy-key", default="energy", metavar="KEY", help="(default: energy)")
    one.add_argument("--forces-key", default="forces", metavar="KEY", help="(default: forces)")
    one.add_argument("--stress-key", metavar="KEY", help="(default: no stress)")
    one.add_argument("--architecture", choices=("painn", "pet"), default="painn", help="(default: painn)")
    one.add_argument("--form", choices=("M", "C", "NC"), default="M", help="both forces, or one (default: M)")
    one.add_argument("--cutoff", type=_number(0, 100, "Å"), metavar="R", help="Å")
    short = _number(0, 100, "Å", inclusive=True)
    one.add_argument("--three-body-cutoff", type=short, metavar="R", help="Å, of the baseline; 0 for none")
    one.add_argument("--density-cutoff", type=short, metavar="R", help="Å, of the density network; 0 for none")
    one.add_argument("--initial", metavar="X", help="start from this potential's parameters, e.g. to fine-tune it")
    rate = _number(0, 1, "")
    one.add_argument("--learning-rate", type=rate, metavar="A", help="its peak in the first stage (default: 1e-3)")
    one.add_argument("--steps-direct", type=_STEPS, metavar="N", help="first stage: direct forces")
    one.add_argument("--steps-conservative", type=_STEPS, metavar="N", help="second stage: energy and its gradient")
    one.add_argument("--steps-joint", type=_STEPS, metavar="N", help="third stage: both forces agree better")
    weight = _number(0, 1e6, "", inclusive=True)
    one.add_argument(
        "--joint-alignment", type=weight, metavar="W", help="how much agreement counts there (default: 10)"
    )
    one.add_argument("--steps-align", type=_STEPS, metavar="N", help="last stage: they agree in its own dynamics")
    one.add_argument("--own-frames", type=_COUNT, metavar="N", help="of its own dynamics, for the last stage")
    one.add_argument("--validation-frames", type=_COUNT, metavar="N", help="left out of training")
    one.add_argument("--seed", type=_SEED, default=0, metavar="N")
    one.add_argument("--output", default="mlcalc-training", metavar="DIR", help="(default: mlcalc-training)")
    one.set_defaults(action="train")


def _add_distill(commands: Any) -> None:
    one = _command(commands, "distill", "make a fast potential for the inner steps of a slow one; call again to resume")
    one.add_argument("--teacher", dest="potential", required=True, metavar="X", help="a name, a file or ase:…")
    one.add_argument("--structure", metavar="FILE", help="the system that it is for (default: water box)")
    one.add_argument(
        "--temperature-K", "--temperature", type=_TEMPERATURE, nargs="+", default=[300.0], metavar="T",
        help="one or more; frames are taken at 1.5 times the first as well (default: 300)",
    )  # fmt: skip
    one.add_argument("--inner-timestep-fs", type=_TIMESTEP, metavar="DT", help="(default: 0.5 with hydrogen, else 1)")
    one.add_argument("--cutoff", type=_number(0, 100, "Å"), metavar="R", help="Å, of the student (default: 4.5)")
    one.add_argument("--frames", type=_COUNT, metavar="N", help="labelled in each round (default: 80)")
    one.add_argument("--rounds", type=_COUNT, metavar="N", help="at most (default: 5)")
    one.add_argument("--steps-round", type=_COUNT, metavar="N", help="of training, each round (default: 1500)")
    one.add_argument("--steps-last", type=_COUNT, metavar="N", help="of the last training (default: 5000)")
    one.add_argument("--seed", type=_SEED, default=0, metavar="N")
    one.add_argument("--device", default="cpu", help="of the teacher: cpu, cuda … (default: cpu)")
    one.add_argument("--dtype", choices=("float32", "float64"), help="of the teacher (default: its own)")
    one.add_argument("--threads", type=_INNER, metavar="N", help="CPU threads")
    one.add_argument("--out", "--output", dest="output", required=True, metavar="FILE", help="ending in .safetensors")
    one.set_defaults(action="distill", fast=None)


def _add_export(commands: Any) -> None:
    one = _command(commands, "export", "compile a potential of ours for this machine; takes minutes")
    one.add_argument("checkpoint", help="a .safetensors file, or the name of a bundled potential")
    one.add_argument("output", help="ending in .pt2; holds code, so give it to none who does not trust you")
    one.add_argument(
        "--wanted", nargs="+", choices=("direct", "conservative", "joint"), metavar="KIND",
        help="evaluations to compile: direct, conservative, joint; others run as before (default: all that there are)",
    )  # fmt: skip
    one.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="(default: float32)")
    one.set_defaults(action="export")


def _add_ipi(commands: Any) -> None:
    text = "run in i-PI: write its input, run it, or be its driver"
    group = commands.add_parser("ipi", help=text, description=text[:1].upper() + text[1:] + ".")
    group.set_defaults(action="ipi", parser=group, traceback=False)
    parts = group.add_subparsers(dest="part", metavar="part", parser_class=_Parser)
    _add_ipi_input(parts)
    one = _command(parts, "run", "run an i-PI input, or its RESTART, in this process")
    one.add_argument("input", help="an .xml that `mlcalc ipi input` wrote, or RESTART; outputs appear beside it")
    one.add_argument("--threads", type=_INNER, metavar="N", help="CPU threads")
    one.set_defaults(action="ipi_run")
    one = _command(parts, "driver", "be the driver of all sockets of an i-PI input")
    one.add_argument("input", help="the .xml that i-PI runs; its structure lies beside it")
    one.add_argument("--host", metavar="H", help="where i-PI runs, for TCP (default: the input's address)")
    one.add_argument("--wait-s", type=_number(0, 1e6, "s", inclusive=True), default=60.0, metavar="T", help="for i-PI")
    one.add_argument("--threads", type=_INNER, metavar="N", help="CPU threads")
    one.set_defaults(action="ipi_driver")


def _add_ipi_input(parts: Any) -> None:
    one = _command(parts, "input", "write a complete i-PI input for a structure and a potential")
    _add_potential(one)
    _add_forces(one)
    inner = one.add_mutually_exclusive_group()
    inner.add_argument("--n-inner", type=_INNER, metavar="M", help="inner steps in an outer one (default: 8 with mts)")
    inner.add_argument("--inner-timestep-fs", type=_TIMESTEP, metavar="DT", help="the same, by their length")
    one.add_argument("--steps", type=_COUNT, default=1000, metavar="N", help="outer steps (default: 1000)")
    one.add_argument("--stride", type=_COUNT, default=10, metavar="N", help="from output to output (default: 10)")
    one.add_argument("--beads", type=_INNER, default=1, metavar="P", help="of path integrals (default: 1, classical)")
    one.add_argument("--ensemble", choices=("nve", "nvt", "npt"), default="nve", help="(default: nve)")
    one.add_argument("--thermostat", choices=("langevin", "svr", "gle"), default="langevin", help="(default: langevin)")
    one.add_argument("--temperature-K", type=_TEMPERATURE, default=300.0, metavar="T", help="(default: 300)")
    tau = _number(0, 1e9, "fs")
    one.add_argument("--tau-fs", type=tau, metavar="T", help="of the thermostat (default: 1000 langevin, 100 svr)")
    one.add_argument("--gle-A", metavar="FILE", help="drift matrix of the GLE, 1/ps, rows of numbers")
    one.add_argument("--gle-C", metavar="FILE", help="its covariance, K (default: it keeps the temperature)")
    one.add_argument("--barostat", choices=("isotropic", "flexible"), default="isotropic", help="(default: isotropic)")
    one.add_argument("--barostat-tau-fs", type=tau, default=1000.0, metavar="T", help="(default: 1000)")
    one.add_argument(
        "--pressure-GPa", type=_number(-1e3, 1e3, "GPa"), default=1e-4, metavar="P", help="(default: 1e-4)"
    )
    one.add_argument("--seed", type=_SEED, default=0, metavar="N", help="of all randomness")
    one.add_argument("--socket", choices=("none", "unix", "tcp"), default="none", help="(default: none, in-process)")
    one.add_argument(
        "--address", metavar="A", help="unix: a name (default: mlcalc); tcp: the host (default: 127.0.0.1)"
    )
    one.add_argument(
        "--port", type=_number(1025, 65534, "", int), default=31415, metavar="N", help="tcp; mts: next too"
    )
    one.add_argument("--direct-force-extra", action="store_true", help="write the direct force as well")
    one.add_argument("--output", default="input.xml", metavar="FILE", help="ending in .xml (default: input.xml)")
    one.set_defaults(action="ipi_input")


def _add_lammps(commands: Any) -> None:
    text = "write an input for LAMMPS with pair_style mlcalc"
    group = commands.add_parser("lammps", help=text, description=text[:1].upper() + text[1:] + ".")
    parts = group.add_subparsers(dest="part", metavar="command", parser_class=_Parser, required=True)
    one = _command(parts, "input", "write an input and a data file that are ready to run")
    _add_potential(one)
    one.add_argument("--ensemble", choices=("nve", "langevin", "nvt", "npt", "minimize"), default="nve")
    one.add_argument("--temperature-K", type=_TEMPERATURE, default=300.0, metavar="T", help="at the start; of the bath")
    one.add_argument(
        "--pressure-GPa", type=_number(-1e3, 1e3, "GPa"), default=1e-4, metavar="P", help="(default: 1 bar)"
    )
    one.add_argument("--friction-per-ps", type=_number(0, 1e4, "1/ps"), default=1.0, metavar="G", help="(default: 1)")
    one.add_argument("--timestep-fs", type=_TIMESTEP, metavar="DT", help="OUTER step (default: 0.5 × inner steps)")
    one.add_argument("--n-inner", type=_INNER, metavar="M", help="inner steps (default: 8 where both forces are there)")
    one.add_argument("--steps", type=_COUNT, default=1000, metavar="N", help="outer steps (default: 1000)")
    one.add_argument("--stride", type=_COUNT, default=10, metavar="N", help="outer steps from frame to frame")
    one.add_argument("--seed", type=_number(1, 2**31, "", int), default=1, metavar="N", help="of all randomness")
    one.add_argument("--output", default="mlcalc.in", metavar="FILE", help="beside it: FILE's stem with .data")
    one.set_defaults(action="lammps_input")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's) and return its exit status."""
    arguments = parser().parse_args(argv)
    if arguments.version:
        from mlcalc.commands import versions

        print(versions())
        return 0
    if arguments.command is None:
        parser().print_help()
        return 2
    keep_freed_memory()
    try:
        from mlcalc import commands

        return int(getattr(commands, arguments.action)(arguments))
    except KeyboardInterrupt:
        print("mlcalc: interrupted; frames written so far are kept, --restart goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # whoever read our output has gone; keep Python from complaining about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.traceback:
            traceback.print_exc()
        print(f"mlcalc: error: {_explain(error)}", file=sys.stderr)
        return error.exit_status if isinstance(error, MlcalcError) else 1


def _explain(error: Exception) -> str:
    """One line with a remedy."""
    if isinstance(error, MlcalcError):
        return _one_line(error)
    if isinstance(error, OSError):
        return f"{_one_line(error)}; free some space or give another path"
    return f"{type(error).__name__}: {_one_line(error)}; run again with --traceback and report it"
