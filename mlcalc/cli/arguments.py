"""What the commands' arguments share: errors in one line, numbers in their ranges, a potential and its forces."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

EPILOG = """exit status: 0 done; 1 a run failed; 2 unusable arguments or files;
3 the audit's verdict fails --fail-on; 130 interrupted"""


class Parser(argparse.ArgumentParser):
    """Errors in one line, as all errors of the command."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mlcalc: error: {message}; see `{self.prog} --help`\n")


def number(
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


def symbols(text: str) -> tuple[str, ...]:
    """An argparse type: H,O"""
    return tuple(word for word in text.replace(",", " ").split())


TEMPERATURE = number(0, 20_000, "K")
TIMESTEP = number(0, 20, "fs")
DURATION = number(0, 1e6, "ps")
COUNT = number(1, 1e12, "", int)
STEPS = number(0, 1e9, "", int)
INNER = number(1, 1000, "", int)
SEED = number(0, 2**31, "", int)


def add_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[:1].upper() + text[1:] + ".", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    one.add_argument("--traceback", action="store_true", help="show where an error came from")
    return one


def add_potential(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--potential", "--slow", default="water", metavar="X", help="a name, a file or ase:… (default: water)"
    )
    one.add_argument("--fast", metavar="Y", help="another potential for the inner steps (default: X's direct forces)")
    one.add_argument("--structure", metavar="FILE", help="any file that ASE reads, last frame (default: water box)")
    one.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 … (default: cpu)")
    one.add_argument("--dtype", choices=("float32", "float64"), help="precision of the potential (default: its own)")
    one.add_argument("--threads", type=INNER, metavar="N", help="CPU threads")


def add_forces(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--forces", choices=("mts", "conservative", "direct"),
        help="(default: mts where the potential has both forces, else the one that it has)",
    )  # fmt: skip
    one.add_argument("--timestep-fs", type=TIMESTEP, metavar="DT", help="OUTER step (default: 0.5 × inner steps)")
