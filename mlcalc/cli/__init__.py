"""The command line: its exit statuses, and one line for each error. Each command is a file, with its arguments.

Exit status: 0 done; 1 a run failed; 2 unusable arguments or files; 3 the audit's verdict fails --fail-on;
130 interrupted.

What a command needs it imports when it runs, so that help and mistakes are told at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from mlcalc.cli.arguments import EPILOG, Parser
from mlcalc.cli.asymmetry import add_asymmetry
from mlcalc.cli.audit import add_audit
from mlcalc.cli.checkpoint import add_card, add_export
from mlcalc.cli.diagnose import add_diagnose
from mlcalc.cli.ipi import add_ipi
from mlcalc.cli.lammps import add_lammps
from mlcalc.cli.run import add_convert, add_plot, add_run
from mlcalc.cli.train import add_distill, add_train
from mlcalc.cli.tune import add_tune
from mlcalc.errors import MlcalcError
from mlcalc.memory import keep_freed_memory

#: Adds each command, in the order of the help
_COMMANDS = (
    add_audit, add_asymmetry, add_tune, add_run, add_plot, add_convert, add_diagnose, add_train, add_distill,
    add_export, add_ipi, add_lammps, add_card,
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The argument parser of the command."""
    top = Parser(
        prog="mlcalc",
        description="Audit, and run safely, interatomic potentials with direct and conservative forces.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print versions and exit")
    commands = top.add_subparsers(dest="command", metavar="command", parser_class=Parser)
    for add in _COMMANDS:
        add(commands)
    return top


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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _explain(error: Exception) -> str:
    """One line with a remedy."""
    if isinstance(error, MlcalcError):
        return _one_line(error)
    if isinstance(error, OSError):
        return f"{_one_line(error)}; free some space or give another path"
    return f"{type(error).__name__}: {_one_line(error)}; run again with --traceback and report it"


def _versions() -> str:
    from importlib import metadata

    import mlcalc

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "(not installed)"

    return f"mlcalc {mlcalc.__version__}, torch {version('torch')}, ase {version('ase')}"
