"""`mlcalc asymmetry`: its arguments, and what it does with them."""

from __future__ import annotations

import argparse
from typing import Any

from mlcalc.cli.arguments import COUNT, SEED, STEPS, add_command, add_potential, number, symbols


def add_asymmetry(commands: Any) -> None:
    one = add_command(
        commands, "asymmetry", "λ, whether forces can be a gradient: of a structure or of a whole trajectory"
    )
    add_potential(one)
    one.add_argument("--forces", choices=("direct", "conservative"), help="(default: direct where there are any)")
    one.add_argument(
        "--every", type=COUNT, default=1, metavar="N", help="take each N-th frame of the file (default: 1)"
    )
    one.add_argument(
        "--relative-error", type=number(0, 1, ""), default=0.05, metavar="E",
        help="of each frame's λ, at which to stop (default: 0.05)",
    )  # fmt: skip
    one.add_argument("--max-pairs", type=COUNT, default=64, metavar="N", help="of products, a frame (default: 64)")
    one.add_argument(
        "--centres", type=STEPS, default=0, metavar="N",
        help="atoms whose couplings give λ_ij against distance; 16 tell (default: 0, none)",
    )  # fmt: skip
    one.add_argument(
        "--by-differences", action="store_true", help="of forces; takes little memory (default: derivatives, if any)"
    )
    one.add_argument(
        "--memory-GiB", type=number(0, 1e6, "GiB"), metavar="G", help="for them (default: half of the free)"
    )
    one.add_argument("--elements", type=symbols, default=(), metavar="H,O", help="of LAMMPS's types 1, 2, …")
    one.add_argument("--units", choices=("metal", "real"), help="of LAMMPS, where its files do not say")
    one.add_argument("--seed", type=SEED, default=0, metavar="N")
    one.add_argument("--json", metavar="FILE", help="write all numbers there")
    one.add_argument("--plot", metavar="PNG", help="write a figure there")
    one.set_defaults(action=asymmetry)


def asymmetry(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from mlcalc.asymmetry.figure import plot
    from mlcalc.asymmetry.frames import read_structures
    from mlcalc.asymmetry.run import measure_asymmetry
    from mlcalc.asymmetry.settings import AsymmetrySettings
    from mlcalc.asymmetry.text import render_text
    from mlcalc.audit.progress import Reporter
    from mlcalc.cli.inputs import load_potential, read_structure, writable, write_found
    from mlcalc.diagnosis.read import ReadSettings

    json_path = writable(arguments.json, "json") if arguments.json else None
    plot_path = writable(arguments.plot, "plot") if arguments.plot else None
    names = ("forces", "relative_error", "max_pairs", "centres", "by_differences", "memory_GiB", "seed")
    settings = AsymmetrySettings(
        **{name: getattr(arguments, name) for name in names}, min_pairs=min(8, arguments.max_pairs)
    )
    if arguments.structure is None:
        atoms, name = read_structure(None)
        frames, times = [atoms], None
    else:
        name = Path(arguments.structure).name
        frames, times = read_structures(arguments.structure, ReadSettings(arguments.elements, arguments.units))
    every = slice(None, None, arguments.every)
    with Reporter() as progress:
        found = measure_asymmetry(
            load_potential(arguments),
            frames[every],
            settings,
            times_ps=times[every] if times else None,
            progress=progress,
        )
    print(render_text(found, name=name))
    write_found(found, json_path, plot_path, plot)
    return 0
