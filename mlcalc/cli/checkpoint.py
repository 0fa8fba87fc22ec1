"""`mlcalc card` and `mlcalc export`: what a checkpoint says, and the same potential compiled."""

from __future__ import annotations

import argparse
from typing import Any

from mlcalc.cli.arguments import add_command


def add_card(commands: Any) -> None:
    one = add_command(commands, "card", "print the model card of a checkpoint")
    one.add_argument("checkpoint", help="a .safetensors file")
    one.set_defaults(action=card)


def card(arguments: argparse.Namespace) -> int:
    import json

    from mlcalc.potentials.checkpoint import read_card

    print(json.dumps(read_card(arguments.checkpoint), indent=2, ensure_ascii=False))
    return 0


def add_export(commands: Any) -> None:
    one = add_command(commands, "export", "compile a potential of ours for this machine; takes minutes")
    one.add_argument("checkpoint", help="a .safetensors file, or the name of a bundled potential")
    one.add_argument("output", help="ending in .pt2; holds code, so give it to none who does not trust you")
    one.add_argument(
        "--wanted", nargs="+", choices=("direct", "conservative", "joint"), metavar="KIND",
        help="evaluations to compile: direct, conservative, joint; others run as before (default: all that there are)",
    )  # fmt: skip
    one.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="(default: float32)")
    one.add_argument("--device", default="cpu", help="that it will run on: cpu, cuda … (default: cpu)")
    one.set_defaults(action=export)


def export(arguments: argparse.Namespace) -> int:
    import torch

    from mlcalc.audit.progress import Reporter
    from mlcalc.cli.inputs import writable
    from mlcalc.potentials import checkpoint_of, compiling

    checkpoint = checkpoint_of(arguments.checkpoint)
    path, dtype = writable(arguments.output, "output"), getattr(torch, arguments.dtype)
    with Reporter() as progress:

        def show(kind: str, done: int, total: int) -> None:
            progress("compiling", done, total, kind)

        kinds = compiling.export(
            checkpoint, path, arguments.wanted, dtype=dtype, device=arguments.device, progress=show
        )
    what = "processors" if arguments.device == "cpu" else "GPUs"
    print(f"{path}: {', '.join(kinds)}, compiled for torch {torch.__version__} and {what} like this one")
    return 0
