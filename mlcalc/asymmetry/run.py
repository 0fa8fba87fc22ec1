"""λ of many structures under one potential."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ase
import numpy as np
from ase.formula import Formula

from mlcalc.asymmetry.frames import frames_of
from mlcalc.asymmetry.result import AsymmetryResult, FrameAsymmetry
from mlcalc.asymmetry.settings import AsymmetrySettings
from mlcalc.diagnostics import jacobian_asymmetry
from mlcalc.diagnostics.finding import Finding
from mlcalc.diagnostics.pair_asymmetry import PairAsymmetry
from mlcalc.errors import TooShortToTell, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.potential import Potential
from mlcalc.probes import differences
from mlcalc.probes.batches import Job
from mlcalc.probes.pair_profile import pair_profile
from mlcalc.probes.products import Sampling, sample_many
from mlcalc.structure import Structure
from mlcalc.trajectory import Trajectory

#: called with the name of the stage, what is done of it, and how much there is to do
Progress = Callable[[str, int, int], None]


def measure_asymmetry(
    potential: Potential,
    structures: ase.Atoms | Sequence[ase.Atoms] | Trajectory,
    settings: AsymmetrySettings | None = None,
    *,
    times_ps: Sequence[float] | None = None,
    progress: Progress = lambda *_: None,
) -> AsymmetryResult:
    """λ = ‖(J − Jᵀ)/2‖/‖J‖ of each structure, and its distribution over them.

    With a potential that has derivatives, by random products, several structures in one pass; else by differences.

    Parameters
    ----------
    structures : one, several of any size, or the frames of a trajectory
    times_ps : of the structures, where they are frames of a run and not a Trajectory, which has its own

    Raises
    ------
    UsageError
        for structures without atoms or with elements that the potential does not know, or forces that it does not have.
    RunError
        if a structure's derivatives do not fit into memory.
    """
    settings = settings or AsymmetrySettings()
    if isinstance(structures, Trajectory):
        times_ps, structures = structures.time_ps.tolist(), frames_of(structures)
    frames = [structures] if isinstance(structures, ase.Atoms) else list(structures)
    if times_ps is not None and len(times_ps) != len(frames):
        raise UsageError(f"times_ps: got {len(times_ps)} for {len(frames)} structures; give one for each")
    batch = Structure.from_ase(frames, device=potential.device)
    potential.check_species(batch)
    forces = settings.forces or ("direct" if potential.provides & Wanted.DIRECT else "conservative")
    potential.check_wanted(Wanted[forces.upper()])
    memory = None if settings.memory_GiB is None else settings.memory_GiB * 2**30
    job = Job(potential, batch, forces, memory)
    findings = _lambdas(job, settings, progress)
    times = [None] * len(frames) if times_ps is None else [float(time) for time in times_ps]
    return AsymmetryResult(
        potential=potential.name,
        forces=forces,
        formulas=tuple(dict.fromkeys(Formula.from_list(list(atoms.symbols)).format("hill") for atoms in frames)),
        frames=tuple(
            FrameAsymmetry(k, times[k], len(atoms), found)
            for k, (atoms, found) in enumerate(zip(frames, findings, strict=True))
        ),
        profile=_profile(job, settings, progress) if settings.centres else None,
    )


def _lambdas(job: Job, settings: AsymmetrySettings, progress: Progress) -> list[Finding]:
    stage = f"asymmetry of {job.forces} forces"
    if settings.by_differences or not job.potential.differentiates:
        return [_by_differences(job, settings, k, progress) for k in range(job.structure.n_systems)]
    sampling = Sampling(settings.relative_error, settings.max_pairs, settings.min_pairs, settings.seed)
    samples = sample_many(job, sampling, progress=lambda done, total: progress(stage, done, total))
    findings = []
    for one in samples:
        try:
            findings.append(jacobian_asymmetry.from_products(one))
        except TooShortToTell as short:
            assert isinstance(short.estimate, Finding)
            findings.append(short.estimate)
    return findings


def _by_differences(job: Job, settings: AsymmetrySettings, system: int, progress: Progress) -> Finding:
    done_before, n_systems = system, job.structure.n_systems

    def count(done: int, total: int) -> None:
        progress(f"asymmetry of {job.forces} forces", done_before * total + done, n_systems * total)

    samples = differences.sample_subspace(
        job.potential,
        job.structure.select([system]),
        job.forces,
        n_directions=settings.directions,
        seed=int(np.random.SeedSequence((settings.seed, system)).generate_state(1)[0]),
        progress=count,
    )
    return jacobian_asymmetry.from_subspace(samples)


def _profile(job: Job, settings: AsymmetrySettings, progress: Progress) -> PairAsymmetry:
    return pair_profile(
        job,
        settings.centres,
        seed=settings.seed,
        by_differences=settings.by_differences,
        progress=lambda done, total: progress("asymmetry against distance", done, total),
    )
