"""The experiments of an audit: runs from one start, the step ladder, the asymmetry of the Jacobian, the difference."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mlcalc.audit import thresholds as limit
from mlcalc.audit.result import Asymmetry, Difference, Profile, Run, Rung, Series
from mlcalc.audit.settings import AuditSettings
from mlcalc.diagnostics import jacobian_asymmetry, nonconservative_power, nve_drift
from mlcalc.diagnostics.finding import Finding
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import RunError, TooShortToTell
from mlcalc.evaluation import JOINT, Wanted, required
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.probes import differences, products
from mlcalc.probes.batches import Job
from mlcalc.probes.pair_profile import pair_profile
from mlcalc.structure import Structure
from mlcalc.trajectory import Trajectory
from mlcalc.units import temperature_from_kinetic

#: called with the name of the stage, what is done of it, and how much there is to do
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Bench:
    """One potential on one structure under one set of settings: what every experiment needs.

    Attributes
    ----------
    momenta : (n_atoms, 3), internal units, of the start
    """

    potential: Potential
    structure: Structure
    momenta: torch.Tensor
    settings: AuditSettings
    progress: Progress

    @property
    def hybrid(self) -> bool:
        return both(self.potential)

    def engine(self, forces: str, n_inner: int = 1) -> NativeEngine:
        """An engine at the start; one that gets `EXPLOSION` times too hot stops with RunError."""
        return NativeEngine(
            self.potential,
            self.structure,
            forces=forces,
            timestep_fs=n_inner * self.settings.inner_timestep_fs,
            n_inner=n_inner,
            momenta=self.momenta,
            max_temperature_K=limit.EXPLOSION.value * self.settings.temperature_K,
        )


def both(potential: Potential) -> bool:
    """Whether a potential has conservative and direct forces."""
    wanted = Wanted.CONSERVATIVE | Wanted.DIRECT
    return potential.provides & wanted == wanted


def available(potential: Potential) -> tuple[str, ...]:
    """Which of "conservative" and "direct" a potential has."""
    flags = (("conservative", Wanted.CONSERVATIVE), ("direct", Wanted.DIRECT))
    return tuple(name for name, flag in flags if potential.provides & flag)


def equilibrate(bench: Bench) -> Bench:
    """A bench at equilibrium: short NVE pieces, momenta drawn afresh before each and after the last.

    It is Andersen's thermostat with all atoms colliding at once (doi:10.1063/1.439486), run with the conservative
    forces where there are any. The last momenta are scaled to the temperature exactly and sum to zero.

    Raises
    ------
    RunError
        if the structure is so strained that it flies apart.
    """
    settings = bench.settings
    forces = available(bench.potential)[0]
    n_steps = max(1, round(1000 * settings.equilibration_ps / settings.inner_timestep_fs))
    rounds = max(1, min(settings.equilibration_rounds, n_steps))
    structure = bench.structure
    for k in range(rounds):
        engine = NativeEngine(
            bench.potential,
            structure,
            forces=forces,
            timestep_fs=settings.inner_timestep_fs,
            momenta=maxwell_boltzmann(structure, settings.temperature_K, seed=1000 * settings.seed + k),
            # a strained structure may heat up on its way down, far above what a run from equilibrium may
            max_temperature_K=100 * limit.EXPLOSION.value * settings.temperature_K,
        )
        piece = n_steps // rounds
        try:
            record = engine.run(piece, stride=piece)
        except RunError as error:
            raise RunError(
                f"structure: it flies apart while equilibrating with {forces} forces at {settings.temperature_K:g} K "
                f"({error}); relax it first, or shorten the timestep"
            ) from error
        structure = structure.at(torch.as_tensor(record.positions[-1], dtype=structure.dtype, device=structure.device))
        bench.progress("equilibration", k + 1, rounds)
    momenta = maxwell_boltzmann(structure, settings.temperature_K, seed=1000 * settings.seed + rounds)
    return Bench(bench.potential, structure, momenta, settings, bench.progress)


def constant_energy_run(bench: Bench, forces: str) -> tuple[Run, Trajectory]:
    """One NVE run from the start, recorded at every outer step; an explosion is a result.

    Returns
    -------
    the run's summary, and its frames (those before the explosion, if there was one)
    """
    settings = bench.settings
    n_inner = settings.n_inner if forces == "mts" else 1
    stride = 1 if forces == "mts" else settings.n_inner
    title = {"mts": f"multiple time stepping, M = {n_inner}"}.get(forces, f"{forces} forces")
    n_steps = settings.outer_steps * settings.n_inner // n_inner
    record, exploded = _frames(bench, forces, n_inner, n_steps, stride, title)
    drift, long_enough = _drift(record)
    run = Run(
        forces=forces,
        timestep_fs=n_inner * settings.inner_timestep_fs,
        n_inner=n_inner,
        wanted_ps=settings.outer_steps * settings.outer_timestep_fs / 1000,
        reached_ps=float(record.time_ps[-1]),
        exploded=exploded,
        drift=None if drift is None else drift.per_atom,
        heating=None if drift is None else drift.kelvin,
        slope=None if drift is None else drift.slope,
        foretold=None if drift is None else drift.foretold,
        long_enough=long_enough,
        series=series_of(record),
    )
    return run, record


def _frames(
    bench: Bench, forces: str, n_inner: int, n_steps: int, stride: int, title: str
) -> tuple[Trajectory, str | None]:
    """The frames of a run, and why it stopped early if it did."""
    total, done = n_steps // stride, 0

    def count(_: object) -> None:
        nonlocal done
        bench.progress(title, min(done, total), total)
        done += 1

    try:
        return bench.engine(forces, n_inner).run(n_steps, stride=stride, on_frame=count), None
    except RunError as error:
        record = getattr(error, "trajectory", None)
        if record is None or len(record.time_ps) == 0:
            raise
        bench.progress(title, total, total)
        return record, _reason(error)


def _reason(error: RunError) -> str:
    """What stopped a run, without the engine's advice: an audit wants to see it happen."""
    inside = re.search(r"\((temperature [^)]*)\)|(atoms \d+ and \d+ are \S+ Å apart)", str(error))
    return (inside.group(1) or inside.group(2)) if inside else "positions or forces are not finite"


def _drift(record: Trajectory) -> tuple[nve_drift.Drift | None, bool]:
    """Drift of a record's conserved energy, and whether its errors can be trusted."""
    finite = np.isfinite(record.conserved)
    if finite.sum() < 4:
        return None, False
    time, conserved = record.time_ps[finite], record.conserved[finite]
    temperature = float(np.mean(series_of(record).temperature_K))
    try:
        return nve_drift.measure(time, conserved, record.n_atoms, temperature), True
    except TooShortToTell as short:
        return (short.estimate if isinstance(short.estimate, nve_drift.Drift) else None), False


def series_of(record: Trajectory) -> Series:
    """Conserved energy by atom, less its start, and temperature."""
    energy = 1000 * (record.conserved - record.conserved[0]) / record.n_atoms
    freedom = max(1, 3 * record.n_atoms - 3)
    temperature = [temperature_from_kinetic(float(kinetic), freedom) for kinetic in record.kinetic_energy]
    return Series(tuple(record.time_ps.tolist()), tuple(energy.tolist()), tuple(temperature))


def heating_power(record: Trajectory) -> Finding | None:
    """⟨v·(f_direct − f_conservative)⟩ along a direct run: what its energy gains, without looking at its energy."""
    finite = np.isfinite(record.power)
    if finite.sum() < 3:
        return None
    try:
        found = nonconservative_power.measure(record.time_ps[finite], record.power[finite], record.n_atoms)
    except TooShortToTell as short:
        if not isinstance(short.estimate, nonconservative_power.Power):
            return None
        found = short.estimate
    return found.per_atom


def step_ladder(bench: Bench, known: dict[int, Trajectory]) -> tuple[Rung, ...]:
    """Short runs with multiple time stepping, one for each M of the ladder; M = 1 is conservative dynamics.

    `known` are records of longer runs from the same start, whose beginnings serve as rungs.
    """
    rungs: list[Rung] = []
    for k, n_inner in enumerate(bench.settings.ladder):
        record, exploded = _rung_frames(bench, n_inner, known.get(n_inner))
        rungs.append(_rung(bench.settings, n_inner, record, exploded))
        bench.progress("step ladder", k + 1, len(bench.settings.ladder))
    return tuple(rungs)


def _rung_frames(bench: Bench, n_inner: int, known: Trajectory | None) -> tuple[Trajectory, str | None]:
    settings = bench.settings
    wanted = settings.ladder_ps
    if known is not None and float(known.time_ps[-1]) >= wanted - 1e-9:
        keep = known.time_ps <= wanted + 1e-9
        return _first(known, int(keep.sum())), None
    n_steps = max(2, round(1000 * wanted / (n_inner * settings.inner_timestep_fs)))
    quiet = Bench(bench.potential, bench.structure, bench.momenta, settings, lambda *_: None)
    forces = "conservative" if n_inner == 1 else "mts"
    stride = max(1, min(settings.n_inner, n_steps // 4)) if n_inner == 1 else 1
    return _frames(quiet, forces, n_inner, n_steps, stride, "step ladder")


def _first(record: Trajectory, n_frames: int) -> Trajectory:
    """The first frames of a record."""
    by_frame = ("time_ps", "positions", "momenta", "potential_energy", "kinetic_energy", "heat", "power")
    fixed = {"provenance", "numbers", "masses", "cell", "periodic"}
    values = {name: getattr(record, name)[:n_frames] for name in by_frame}
    return Trajectory(**{name: getattr(record, name) for name in fixed}, **values)


def _rung(settings: AuditSettings, n_inner: int, record: Trajectory, exploded: str | None) -> Rung:
    found, _ = _drift(record)
    drift, note = None if found is None else found.per_atom, ""
    if exploded:
        note = "exploded"
    elif drift is not None:
        surely = abs(drift.value) - limit.SIGNIFICANCE.value * drift.standard_error
        if surely > limit.DRIFT_TOLERANCE.value:
            note = "energy runs away" if abs(drift.value) > limit.DRIFT_LIMIT.value else "energy drifts"
    reached = float(record.time_ps[-1])
    return Rung(n_inner, n_inner * settings.inner_timestep_fs, reached, drift, not note, note)


def asymmetries(bench: Bench) -> Asymmetry:
    """λ of every force that the potential has, with its floor, and λ_ij against distance."""
    forces = available(bench.potential)
    found = {name: _asymmetry(bench, name) for name in forces}
    profile = _profile(bench, "direct" if "direct" in forces else "conservative")
    return Asymmetry(found.get("direct"), found.get("conservative"), () if profile is None else (profile,))


def _asymmetry(bench: Bench, forces: str) -> Finding | None:
    settings = bench.settings
    stage = f"asymmetry of {forces} forces"
    if not bench.potential.differentiates:
        subspace = differences.sample_subspace(
            bench.potential,
            bench.structure,
            forces,
            n_directions=settings.directions,
            n_scanned=min(8, settings.directions),
            seed=settings.seed,
            progress=lambda done, total: bench.progress(stage, done, total),
        )
        return jacobian_asymmetry.from_subspace(subspace)
    # the conservative one is a check against the floor, which a handful of products settles
    most = settings.product_pairs if forces == "direct" else settings.reference_pairs
    samples = products.sample_products(
        bench.potential,
        bench.structure,
        forces,
        max_pairs=most,
        min_pairs=min(16, most),
        seed=settings.seed,
        progress=lambda done, total: bench.progress(stage, done, total),
    )
    bench.progress(stage, most, most)
    try:
        return jacobian_asymmetry.from_products(samples)
    except TooShortToTell as short:
        return short.estimate if isinstance(short.estimate, Finding) else None


def _profile(bench: Bench, forces: str) -> Profile | None:
    def progress(done: int, total: int) -> None:
        bench.progress("asymmetry against distance", done, total)

    job = Job(bench.potential, bench.structure, forces)
    found = pair_profile(job, bench.settings.block_atoms, seed=bench.settings.seed, progress=progress)
    if len(found.distance) == 0:
        return None
    return Profile(
        forces=forces,
        distance=tuple(found.distance.tolist()),
        asymmetry=tuple(found.asymmetry.tolist()),
        standard_error=tuple(found.standard_error.tolist()),
        noise_floor=tuple(found.noise_floor.tolist()),
        n_pairs=tuple(found.n_pairs.tolist()),
    )


def force_difference(bench: Bench, record: Trajectory, n_frames: int = 8) -> Difference:
    """How far the two forces are apart on frames spread over a record."""
    picked = np.unique(np.linspace(0, len(record.time_ps) - 1, n_frames).round().astype(int))
    squares, references, worst = [], [], []
    for k, index in enumerate(picked):
        positions = torch.as_tensor(record.positions[index])
        structure = bench.structure.at(positions.to(bench.structure.positions))
        result = bench.potential.evaluate(structure, neighbour_list(structure, bench.potential.cutoff), JOINT)
        conservative = required(result, "conservative_force")
        difference = conservative - required(result, "direct_force")
        squares.append(float(difference.square().mean()))
        references.append(float(conservative.square().mean()))
        worst.append(float(difference.norm(dim=1).max()))
        bench.progress("difference of the forces", k + 1, len(picked))
    return Difference(
        rms=1000 * math.sqrt(float(np.mean(squares))),
        largest=1000 * float(np.median(worst)),
        force_rms=1000 * math.sqrt(float(np.mean(references))),
        n_frames=len(picked),
    )
