"""The audit: every experiment in turn, then the verdict."""

from __future__ import annotations

import datetime
import platform
import time
from importlib import metadata

import ase
import torch
from ase.formula import Formula

import mlcalc
from mlcalc.audit.costs import measure_costs
from mlcalc.audit.experiments import (
    Bench,
    Progress,
    asymmetries,
    available,
    constant_energy_run,
    equilibrate,
    force_difference,
    heating_power,
    step_ladder,
)
from mlcalc.audit.result import AuditResult, Provenance, Subject
from mlcalc.audit.settings import AuditSettings
from mlcalc.audit.thresholds import THRESHOLDS
from mlcalc.audit.verdict import Evidence, judge, overall
from mlcalc.errors import UsageError
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure
from mlcalc.trajectory import Trajectory


def audit(
    potential: Potential,
    structure: ase.Atoms | Structure,
    settings: AuditSettings | None = None,
    progress: Progress | None = None,
    *,
    structure_name: str = "",
) -> AuditResult:
    """Find out which forces of a potential may be used for what, on this structure.

    After equilibration, three constant-energy runs start from the same positions and momenta: conservative, direct,
    and multiple time stepping. A run that explodes is a result. A potential with only one kind of force gets one run.

    Parameters
    ----------
    structure : one system; `structure_name` is what the report calls it
    progress : called with (stage, done, total)

    Raises
    ------
    UsageError
        for a structure that the potential cannot evaluate, or settings out of range.
    RunError
        if the structure flies apart before the runs begin.
    """
    started = time.perf_counter()
    settings = settings or AuditSettings()
    given = _prepared(potential, structure)
    start = Bench(potential, given, torch.zeros_like(given.positions), settings, progress or (lambda *_: None))
    bench = equilibrate(start)
    costs = measure_costs(bench)
    asymmetry = asymmetries(bench)
    runs, records = [], {}
    for forces in ("conservative", "mts", "direct") if bench.hybrid else available(potential):
        run, records[forces] = constant_energy_run(bench, forces)
        runs.append(run)
    difference = force_difference(bench, records["conservative"]) if bench.hybrid else None
    evidence = Evidence(
        runs=tuple(runs),
        asymmetry=asymmetry,
        difference=difference,
        costs=costs,
        ladder=step_ladder(bench, _rungs_at_hand(records, settings)) if bench.hybrid else (),
        temperature_K=settings.temperature_K,
    )
    return AuditResult(
        subject=_subject(potential, given, structure_name),
        settings=settings,
        overall=overall(evidence),
        verdicts=judge(evidence),
        runs=evidence.runs,
        asymmetry=asymmetry,
        power=heating_power(records["direct"]) if "direct" in records else None,
        difference=difference,
        costs=costs,
        ladder=evidence.ladder,
        thresholds=THRESHOLDS,
        provenance=_provenance(time.perf_counter() - started),
    )


def _prepared(potential: Potential, structure: ase.Atoms | Structure) -> Structure:
    """One system in float64 on the potential's device, whose elements the potential knows."""
    if isinstance(structure, ase.Atoms):
        structure = Structure.from_ase(structure)
    if structure.n_systems != 1:
        raise UsageError(f"structure: got a batch of {structure.n_systems} systems; audit them one by one")
    if structure.n_atoms < 2:
        raise UsageError("structure: it has one atom, and no force to audit; give at least two")
    structure = structure.to(device=potential.device, dtype=torch.float64)
    potential.check_species(structure)
    return structure


def _rungs_at_hand(records: dict[str, Trajectory], settings: AuditSettings) -> dict[int, Trajectory]:
    """Beginnings of the long runs serve as rungs: M = 1 is the conservative run."""
    return {1: records["conservative"], settings.n_inner: records["mts"]}


def _subject(potential: Potential, structure: Structure, name: str) -> Subject:
    atoms = structure.to_ase()[0]
    formula = Formula(atoms.get_chemical_formula()).format("hill")
    return Subject(
        potential=potential.name,
        fingerprint=potential.fingerprint,
        forces=available(potential),
        cutoff=potential.cutoff,
        dtype=str(potential.dtype).removeprefix("torch."),
        device=str(potential.device),
        structure=name or formula,
        formula=formula,
        n_atoms=structure.n_atoms,
        cell=tuple(tuple(map(float, vector)) for vector in atoms.cell.array),
        periodic=tuple(map(bool, atoms.pbc)),
    )


def _provenance(seconds: float) -> Provenance:
    packages = ("torch", "numpy", "ase", "vesin")
    versions = {"mlcalc": mlcalc.__version__, "python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return Provenance(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=versions,
        machine=platform.processor() or platform.machine(),
        threads=torch.get_num_threads(),
        seconds=seconds,
    )
