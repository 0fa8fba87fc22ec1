"""The command line: arguments in, library calls, results and one-line errors out.

Exit status: 0 done; 1 a run failed; 2 unusable arguments or files; 3 the audit's verdict fails --fail-on;
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mlcalc.errors import MlcalcError, UsageError
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
    _add_train(commands)
    _add_distill(commands)
    card = _command(commands, "card", "print the model card of a checkpoint")
    card.add_argument("checkpoint", help="a .safetensors file")
    card.set_defaults(action=_card)
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
    one.set_defaults(action=_audit)


def _add_run(commands: Any) -> None:
    one = _command(commands, "run", "molecular dynamics, at constant energy or in a bath")
    _add_potential(one)
    one.add_argument(
        "--forces", choices=("mts", "conservative", "direct"),
        help="(default: mts where the potential has both forces, else the one that it has)",
    )  # fmt: skip
    one.add_argument("--timestep-fs", type=_TIMESTEP, metavar="DT", help="OUTER step (default: 0.5 × inner steps)")
    one.add_argument("--n-inner", type=_INNER, metavar="M", help="inner steps in an outer one (default: 8 with mts)")
    one.add_argument("--steps", type=_COUNT, required=True, metavar="N", help="outer steps, from the very start")
    one.add_argument("--ensemble", choices=("nve", "langevin"), default="nve", help="langevin is NVT (default: nve)")
    one.add_argument("--temperature-K", type=_TEMPERATURE, default=300.0, metavar="T", help="at the start; of the bath")
    one.add_argument("--friction-per-ps", type=_number(0, 1e4, "1/ps"), default=1.0, metavar="G", help="(default: 1)")
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
    one.set_defaults(action=_run)


def _add_plot(commands: Any) -> None:
    one = _command(commands, "plot", "a picture of the energy and temperature of a run")
    one.add_argument("log", help="the .log file that `mlcalc run` wrote")
    one.add_argument("--output", metavar="FILE", help="(default: the log's name, ending in .png)")
    one.set_defaults(action=_plot)


def _add_convert(commands: Any) -> None:
    one = _command(commands, "convert", "a trajectory in another format")
    one.add_argument("trajectory", help="a .trajectory file that `mlcalc run` wrote, whole or cut off")
    one.add_argument("output", help="ending in .xyz, .extxyz, .traj (ASE), .h5 or .xtc (mdtraj)")
    one.set_defaults(action=_convert)


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
    one.set_defaults(action=_train)


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
    one.set_defaults(action=_distill, fast=None)


def _read_structure(path: str | None) -> tuple[Any, str]:
    """(the last frame of a file, or the bundled water box; its name)"""
    import ase.io

    import mlcalc

    if path is None:
        return mlcalc.water_box(), "bundled water box"
    if not Path(path).is_file():
        raise UsageError(f"structure: no file {path}; give the path of a file that ASE reads, such as extended XYZ")
    try:
        atoms = ase.io.read(path)
    except Exception as error:  # ASE's readers raise whatever their parsers meet
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UsageError(f"structure: ASE cannot read {path} ({reason[0]}); check the file and its ending") from error
    return atoms, Path(path).name


def _load(arguments: argparse.Namespace) -> Any:
    import torch

    import mlcalc
    from mlcalc.potentials.two_potentials import TwoPotentials

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else None
    try:
        device = torch.device(arguments.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device: {arguments.device!r} is not available ({str(error).splitlines()[0]}); use cpu, or install a "
            "torch that knows it"
        ) from error
    slow, fast = (
        name and mlcalc.load(name, device=arguments.device, dtype=dtype)
        for name in (arguments.potential, arguments.fast)
    )
    return TwoPotentials(fast, slow) if fast else slow


def _writable(path: Path, what: str) -> Path:
    """The path, once a file could be opened there: better now than after minutes of computing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise UsageError(f"{what}: cannot write {path} ({error.strerror}); give a writable path") from error
    return path


def _audit(arguments: argparse.Namespace) -> int:
    from mlcalc.audit.progress import Reporter
    from mlcalc.audit.report import write_report
    from mlcalc.audit.result import SAFE, UNSAFE
    from mlcalc.audit.run import audit
    from mlcalc.audit.settings import AuditSettings
    from mlcalc.audit.text import render_text

    folder = Path(arguments.output)
    json_path = _writable(Path(arguments.json or folder / "result.json"), "json")
    report_path = _writable(Path(arguments.report or folder / "report.html"), "report")
    make = AuditSettings.quick if arguments.quick else AuditSettings
    chosen = {name: getattr(arguments, name) for name in ("temperature_K", "inner_timestep_fs", "n_inner", "seed")}
    if arguments.duration_ps is not None:
        chosen["duration_ps"] = arguments.duration_ps
    settings = make(**chosen)
    atoms, name = _read_structure(arguments.structure)
    potential = _load(arguments)
    with Reporter() as progress:
        result = audit(potential, atoms, settings, progress, structure_name=name)
    result.write_json(json_path)
    write_report(result, report_path)
    print(render_text(result, colour=sys.stdout.isatty()))
    print(f"\nreport  {report_path}\nresult  {json_path}")
    status = result.overall.status
    failed = {"unsafe": status == UNSAFE, "warning": status != SAFE, "never": False}[arguments.fail_on]
    return 3 if failed else 0


def _run(arguments: argparse.Namespace) -> int:
    from mlcalc.audit.progress import Reporter
    from mlcalc.simulation.formats import OWN, check_ending, export
    from mlcalc.simulation.run import SimulationSettings, simulate
    from mlcalc.trajectory import read_trajectory

    output = Path(arguments.output)
    check_ending(output)
    path = _writable(output.with_suffix(OWN), "output")
    atoms, _ = _read_structure(arguments.structure)
    potential = _load(arguments)
    forces = arguments.forces or _usual_forces(potential)
    n_inner = arguments.n_inner or (8 if forces == "mts" else 1)
    if forces != "mts" and n_inner != 1:
        raise UsageError(f"n-inner: got {n_inner} with {forces} forces; it goes with --forces mts only")
    names = ("steps", "stride", "ensemble", "temperature_K", "friction_per_ps", "seed", "on_drift")
    settings = SimulationSettings(
        **{name: getattr(arguments, name) for name in (*names, "max_energy_change_meV")},
        forces=forces,
        timestep_fs=arguments.timestep_fs or 0.5 * n_inner,
        n_inner=n_inner,
    )
    with Reporter() as progress:
        outcome = simulate(
            potential,
            atoms,
            settings,
            path,
            restart=arguments.restart,
            progress=lambda done, total, note: progress("dynamics", done, total, note),
        )
    for remark in outcome.remarks:
        print(f"note: {remark}")
    if output != path:
        export(read_trajectory(path), output)
    print(f"{outcome.n_frames} frames over {outcome.time_ps:g} ps in {output}\nlog {path.with_suffix('.log')}")
    return 0


def _usual_forces(potential: Any) -> str:
    from mlcalc.evaluation import Wanted

    conservative, direct = potential.provides & Wanted.CONSERVATIVE, potential.provides & Wanted.DIRECT
    return "mts" if conservative and direct else "conservative" if conservative else "direct"


def _plot(arguments: argparse.Namespace) -> int:
    from mlcalc.simulation.log import read_log
    from mlcalc.simulation.plot import plot_log

    path = _writable(Path(arguments.output or Path(arguments.log).with_suffix(".png")), "output")
    plot_log(read_log(arguments.log), path)
    print(path)
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from mlcalc.simulation.formats import export
    from mlcalc.trajectory import read_trajectory

    export(read_trajectory(arguments.trajectory), _writable(Path(arguments.output), "output"))
    print(arguments.output)
    return 0


def _train(arguments: argparse.Namespace) -> int:
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


def _distill(arguments: argparse.Namespace) -> int:
    from mlcalc.audit.progress import Reporter
    from mlcalc.distillation.run import DistillSettings, distill, summary

    temperatures = tuple(arguments.temperature_K)
    given = {
        "inner_timestep_fs": arguments.inner_timestep_fs,
        "cutoff": arguments.cutoff,
        "n_frames": arguments.frames,
        "n_rounds": arguments.rounds,
        "steps_round": arguments.steps_round,
        "steps_last": arguments.steps_last,
    }
    settings = DistillSettings(
        temperatures_K=temperatures if len(temperatures) > 1 else (temperatures[0], 1.5 * temperatures[0]),
        seed=arguments.seed,
        **{name: value for name, value in given.items() if value is not None},
    )
    path = _writable(Path(arguments.output), "out")
    atoms, _ = _read_structure(arguments.structure)
    with Reporter() as progress:
        made = distill(_load(arguments), atoms, path, settings, progress=progress)
    print(summary(made))
    return 0


def _card(arguments: argparse.Namespace) -> int:
    from mlcalc.potentials.checkpoint import read_card

    print(json.dumps(read_card(arguments.checkpoint), indent=2, ensure_ascii=False))
    return 0


def _versions() -> str:
    from importlib import metadata

    import mlcalc

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "(not installed)"

    return f"mlcalc {mlcalc.__version__}, torch {version('torch')}, ase {version('ase')}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's) and return its exit status."""
    arguments = parser().parse_args(argv)
    if arguments.version:
        print(_versions())
        return 0
    if arguments.command is None:
        parser().print_help()
        return 2
    keep_freed_memory()
    try:
        return int(arguments.action(arguments))
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
