"""What the command line does: arguments in, library calls, results printed and files written, exit status out."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from mlcalc.errors import UsageError


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


def audit(arguments: argparse.Namespace) -> int:
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


def run(arguments: argparse.Namespace) -> int:
    from mlcalc.audit.progress import Reporter
    from mlcalc.masses import repartition_hydrogen_mass
    from mlcalc.simulation.ensembles import EnsembleOptions
    from mlcalc.simulation.formats import OWN, check_ending, export
    from mlcalc.simulation.run import SimulationSettings, simulate
    from mlcalc.trajectory import read_trajectory

    output = Path(arguments.output)
    check_ending(output)
    ensemble = EnsembleOptions(**{f.name: getattr(arguments, f.name) for f in fields(EnsembleOptions)}).make()
    path = _writable(output.with_suffix(OWN), "output")
    atoms, _ = _read_structure(arguments.structure)
    if arguments.hydrogen_mass:
        atoms = repartition_hydrogen_mass(atoms, arguments.hydrogen_mass)
    potential = _load(arguments)
    forces = arguments.forces or _usual_forces(potential)
    n_inner = arguments.n_inner or (8 if forces == "mts" else 1)
    if forces != "mts" and n_inner != 1:
        raise UsageError(f"n-inner: got {n_inner} with {forces} forces; it goes with --forces mts only")
    names = ("steps", "stride", "temperature_K", "seed", "on_drift", "max_energy_change_meV")
    settings = SimulationSettings(
        **{name: getattr(arguments, name) for name in names},
        ensemble=ensemble,
        friction_per_ps=arguments.friction_per_ps or 1.0,
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


def ipi(arguments: argparse.Namespace) -> int:
    arguments.parser.print_help()
    return 2


def ipi_input(arguments: argparse.Namespace) -> int:
    from mlcalc.engines.ipi import DriverSettings
    from mlcalc.engines.ipi_input import write_input
    from mlcalc.engines.ipi_settings import IpiInput, inner_steps, read_matrix

    path = _writable(Path(arguments.output), "output")
    atoms, _ = _read_structure(arguments.structure)
    potential = _load(arguments)
    forces = arguments.forces or _usual_forces(potential)
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
        potential=_whole_path(arguments.potential),
        fast=_whole_path(arguments.fast or ""),
        device=arguments.device,
        dtype=arguments.dtype or "",
    )
    structure = write_input(path, settings, atoms, potential, driver)
    run = f"mlcalc ipi run {path}"
    if settings.socket != "none":
        run = f"i-pi {path.name} & mlcalc ipi driver {path.name}   (in the folder of {path})"
    print(f"input      {path}\nstructure  {structure}\nrun        {run}")
    return 0


def _whole_path(name: str) -> str:
    """A potential's file, with or without a family before it, by its whole path: it is read from another folder."""
    family, colon, path = name.rpartition(":")
    return f"{family}{colon}{Path(path).resolve()}" if path and Path(path).is_file() else name


def ipi_run(arguments: argparse.Namespace) -> int:
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


def plot(arguments: argparse.Namespace) -> int:
    from mlcalc.simulation.log import read_log
    from mlcalc.simulation.plot import plot_log

    path = _writable(Path(arguments.output or Path(arguments.log).with_suffix(".png")), "output")
    plot_log(read_log(arguments.log), path)
    print(path)
    return 0


def convert(arguments: argparse.Namespace) -> int:
    from mlcalc.simulation.formats import export
    from mlcalc.trajectory import read_trajectory

    export(read_trajectory(arguments.trajectory), _writable(Path(arguments.output), "output"))
    print(arguments.output)
    return 0


def diagnose(arguments: argparse.Namespace) -> int:
    from mlcalc.diagnosis.bench import DiagnosisSettings
    from mlcalc.diagnosis.figure import plot
    from mlcalc.diagnosis.hessian import hessian_of
    from mlcalc.diagnosis.read import ReadSettings, read_record
    from mlcalc.diagnosis.run import diagnose
    from mlcalc.diagnosis.text import render_text

    json_path = _writable(Path(arguments.json), "json") if arguments.json else None
    plot_path = _writable(Path(arguments.plot), "plot") if arguments.plot else None
    names = ("elements", "units", "run", "interval_fs", "skip_ps")
    record = read_record(arguments.files, ReadSettings(**{name: getattr(arguments, name) for name in names}))
    settings = DiagnosisSettings(arguments.temperature_K, arguments.r_max_A, arguments.viscosity_mPa_s)
    found = diagnose(record, settings, hessian=hessian_of(_load(arguments)) if arguments.potential else None)
    print(render_text(found, colour=sys.stdout.isatty()))
    if json_path:
        found.write_json(json_path)
    if plot_path:
        plot(found, plot_path)
    written = [f"{name:<8}{path}" for name, path in (("result", json_path), ("figure", plot_path)) if path]
    print(*([""] + written if written else []), sep="\n", end="\n" if written else "")
    return 0


def train(arguments: argparse.Namespace) -> int:
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


def distill(arguments: argparse.Namespace) -> int:
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


def export(arguments: argparse.Namespace) -> int:
    import torch

    from mlcalc.audit.progress import Reporter
    from mlcalc.potentials import compiling, pretrained

    named = arguments.checkpoint in pretrained.NAMES
    checkpoint = pretrained.path_of(arguments.checkpoint) if named else arguments.checkpoint
    path, dtype = _writable(Path(arguments.output), "output"), getattr(torch, arguments.dtype)
    with Reporter() as progress:

        def show(kind: str, done: int, total: int) -> None:
            progress("compiling", done, total, kind)

        kinds = compiling.export(checkpoint, path, arguments.wanted, dtype=dtype, progress=show)
    print(f"{path}: {', '.join(kinds)}, compiled for torch {torch.__version__} and processors like this one")
    return 0


def lammps_input(arguments: argparse.Namespace) -> int:
    from mlcalc.engines.lammps_input import LammpsInput, write_lammps_input

    path = _writable(Path(arguments.output), "output")
    atoms, _ = _read_structure(arguments.structure)
    settings = LammpsInput(**{one.name: getattr(arguments, one.name) for one in fields(LammpsInput)})
    data = write_lammps_input(atoms, _load(arguments), settings, path)
    print(f"input  {path}\ndata   {data}\nrun it with `lmp -in {path.name}`, after pip install ./lammps_plugin")
    return 0


def card(arguments: argparse.Namespace) -> int:
    from mlcalc.potentials.checkpoint import read_card

    print(json.dumps(read_card(arguments.checkpoint), indent=2, ensure_ascii=False))
    return 0


def versions() -> str:
    from importlib import metadata

    import mlcalc

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "(not installed)"

    return f"mlcalc {mlcalc.__version__}, torch {version('torch')}, ase {version('ase')}"
