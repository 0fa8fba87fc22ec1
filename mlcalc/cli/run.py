"""`mlcalc run`, and what is made of its files: `plot` and `convert`."""

from __future__ import annotations

import argparse
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from mlcalc.cli.arguments import COUNT, INNER, SEED, TEMPERATURE, add_command, add_forces, add_potential, number
from mlcalc.errors import UsageError


def add_run(commands: Any) -> None:
    one = add_command(commands, "run", "molecular dynamics, at constant energy, temperature or pressure")
    add_potential(one)
    add_forces(one)
    one.add_argument("--n-inner", type=INNER, metavar="M", help="inner steps in an outer one (default: 8 with mts)")
    one.add_argument("--steps", type=COUNT, required=True, metavar="N", help="outer steps, from the very start")
    one.add_argument(
        "--compile", action="store_true",
        help="for this machine; takes minutes once for a potential of ours, then about half the time of a step",
    )  # fmt: skip
    one.add_argument("--cuda-graphs", action="store_true", help="replay evaluations; for small systems on a GPU")
    _add_ensemble(one)
    one.add_argument(
        "--hydrogen-mass", type=number(0, 100, "amu"), metavar="M",
        help="amu, e.g. 3; taken from the bonded heavy atoms (default: as it is)",
    )  # fmt: skip
    one.add_argument("--temperature-K", type=TEMPERATURE, default=300.0, metavar="T", help="at the start; of the bath")
    one.add_argument("--seed", type=SEED, default=0, metavar="N", help="of all randomness")
    one.add_argument("--stride", type=COUNT, default=1, metavar="N", help="outer steps from frame to frame")
    one.add_argument(
        "--output", default="run.trajectory", metavar="FILE",
        help="ending in .trajectory, or .xyz .extxyz .traj .h5 .xtc: then FILE is written at the end, from a "
        "trajectory beside it (default: run.trajectory)",
    )  # fmt: skip
    one.add_argument(
        "--replicas", type=COUNT, default=1, metavar="N",
        help="so many at once, with seeds from --seed on; files are FILE-0 … (default: 1)",
    )  # fmt: skip
    one.add_argument("--all-frames", action="store_true", help="every frame of --structure is a system, all at once")
    one.add_argument("--restart", action="store_true", help="go on with this run where it was cut off, bit for bit")
    one.add_argument(
        "--max-energy-change-meV", type=number(0, 1e9, "meV"), default=10.0, metavar="E",
        help="per atom; how far the conserved energy may move (default: 10)",
    )  # fmt: skip
    one.add_argument(
        "--on-drift", choices=("stop", "reduce", "continue"), default="stop",
        help="when it moves farther; reduce halves the inner steps (default: stop)",
    )  # fmt: skip
    one.set_defaults(action=run)


def _add_ensemble(one: argparse.ArgumentParser) -> None:
    time = number(0, 1e6, "ps")
    one.add_argument(
        "--ensemble", choices=("nve", "nvt", "npt", "langevin"), default="nve",
        help="langevin is nvt with that thermostat (default: nve)",
    )  # fmt: skip
    one.add_argument(
        "--thermostat", choices=("langevin", "bussi", "nose-hoover", "gle", "sin-r"),
        help="of nvt and npt (default: langevin); sin-r: nvt, positions only: long outer steps, no physical dynamics",
    )  # fmt: skip
    friction = number(0, 1e4, "1/ps")
    one.add_argument(
        "--friction-per-ps", type=friction, metavar="G", help="of langevin (default: 1) and sin-r (default: 100)"
    )
    one.add_argument(
        "--hydrogen-friction-per-ps", type=friction, metavar="G", help="of langevin, on hydrogen (default: the same)"
    )
    one.add_argument(
        "--thermostat-time-ps", type=time, metavar="T", help="of bussi, nose-hoover (default: 0.1), sin-r (0.01)"
    )
    one.add_argument("--regulation", type=number(1, 1e3, "", inclusive=True), metavar="L", help="of sin-r (default: 1)")
    one.add_argument("--gle-file", metavar="FILE", help="matrices A and C of gle, as GLE4MD writes them")
    one.add_argument(
        "--barostat", choices=("isotropic", "full"), help="what of the cell moves in npt (default: isotropic)"
    )
    pressure = number(-1e4, 1e4, "GPa", inclusive=True)
    one.add_argument("--pressure-GPa", type=pressure, metavar="P", help="of npt (default: 1e-4, 1 bar)")
    one.add_argument("--barostat-time-ps", type=time, metavar="T", help="of npt (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    from mlcalc.audit.progress import Reporter
    from mlcalc.cli.inputs import load_potential, read_structure, usual_forces, writable
    from mlcalc.cli.quickening import quickened
    from mlcalc.masses import repartition_hydrogen_mass
    from mlcalc.simulation.ensembles import EnsembleOptions
    from mlcalc.simulation.formats import OWN, check_ending, export
    from mlcalc.simulation.run import SimulationSettings, simulate
    from mlcalc.trajectory import read_trajectory

    output = Path(arguments.output)
    check_ending(output)
    ensemble = EnsembleOptions(**{f.name: getattr(arguments, f.name) for f in fields(EnsembleOptions)}).make()
    path = writable(output.with_suffix(OWN), "output")
    atoms, _ = read_structure(arguments.structure, ":" if arguments.all_frames else -1)
    if arguments.hydrogen_mass:
        heavier = partial(repartition_hydrogen_mass, hydrogen_mass=arguments.hydrogen_mass)
        atoms = [heavier(frame) for frame in atoms] if isinstance(atoms, list) else heavier(atoms)
    potential = load_potential(arguments)
    forces = arguments.forces or usual_forces(potential)
    n_inner = arguments.n_inner or (8 if forces == "mts" else 1)
    if forces != "mts" and n_inner != 1:
        raise UsageError(f"n-inner: got {n_inner} with {forces} forces; it goes with --forces mts only")
    potential = quickened(potential, forces, arguments)
    names = ("steps", "stride", "temperature_K", "seed", "on_drift", "max_energy_change_meV")
    settings = SimulationSettings(
        **{name: getattr(arguments, name) for name in names},
        ensemble=ensemble,
        friction_per_ps=arguments.friction_per_ps or 1.0,
        forces=forces,
        timestep_fs=arguments.timestep_fs or 0.5 * n_inner,
        n_inner=n_inner,
    )
    if arguments.replicas > 1 or arguments.all_frames:
        return _run_batch(potential, atoms, settings, output, arguments)
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


def _run_batch(potential: Any, atoms: Any, settings: Any, output: Path, arguments: argparse.Namespace) -> int:
    from mlcalc.audit.progress import Reporter
    from mlcalc.simulation.batch import simulate_batch
    from mlcalc.simulation.formats import OWN, export
    from mlcalc.trajectory import read_trajectory

    frames = atoms if isinstance(atoms, list) else [atoms]
    systems = [frame for _ in range(arguments.replicas) for frame in frames]
    with Reporter() as progress:
        outcomes = simulate_batch(
            potential,
            systems,
            settings,
            output.with_suffix(OWN),
            restart=arguments.restart,
            progress=lambda done, total, note: progress("dynamics", done, total, note),
        )
    thermostat = settings.held.thermostat
    if thermostat is not None and thermostat.caveat:
        print(f"note: {thermostat.caveat}")
    for one in outcomes:
        if one.remark:
            print(f"note: {one.remark}")
        written = one.path.with_suffix(output.suffix)
        if written != one.path and one.n_frames:
            export(read_trajectory(one.path), written)
    names = f"{outcomes[0].path.with_suffix(output.suffix)} … {outcomes[-1].path.with_suffix(output.suffix).name}"
    ended = sum(bool(one.remark) for one in outcomes)
    print(f"{len(outcomes)} systems, {ended} of them ended early; frames in {names}, a log beside each")
    return 1 if ended == len(outcomes) else 0


def add_plot(commands: Any) -> None:
    one = add_command(commands, "plot", "a picture of the energy and temperature of a run")
    one.add_argument("log", help="the .log file that `mlcalc run` wrote")
    one.add_argument("--output", metavar="FILE", help="(default: the log's name, ending in .png)")
    one.set_defaults(action=plot)


def plot(arguments: argparse.Namespace) -> int:
    from mlcalc.cli.inputs import writable
    from mlcalc.simulation.log import read_log
    from mlcalc.simulation.plot import plot_log

    path = writable(arguments.output or Path(arguments.log).with_suffix(".png"), "output")
    plot_log(read_log(arguments.log), path)
    print(path)
    return 0


def add_convert(commands: Any) -> None:
    one = add_command(commands, "convert", "a trajectory in another format")
    one.add_argument("trajectory", help="a .trajectory file that `mlcalc run` wrote, whole or cut off")
    one.add_argument("output", help="ending in .xyz, .extxyz, .traj (ASE), .h5 or .xtc (mdtraj)")
    one.set_defaults(action=convert)


def convert(arguments: argparse.Namespace) -> int:
    from mlcalc.cli.inputs import writable
    from mlcalc.simulation.formats import export
    from mlcalc.trajectory import read_trajectory

    export(read_trajectory(arguments.trajectory), writable(arguments.output, "output"))
    print(arguments.output)
    return 0
