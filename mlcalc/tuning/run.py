"""The search: a map of short runs, from careful settings to bold ones, then longer runs of the fastest stable ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import ase

from mlcalc.audit.costs import measure_costs
from mlcalc.audit.experiments import Bench, both, equilibrate
from mlcalc.audit.settings import AuditSettings
from mlcalc.engines.batch_size import fit_batches
from mlcalc.engines.momenta import maxwell_boltzmann
from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure
from mlcalc.tuning.result import SAFE, UNSTABLE, Trial, Tuning
from mlcalc.tuning.settings import TuneSettings
from mlcalc.tuning.trials import Costs, Start, batched, run_trials

#: called with the name of the stage, what is done of it, and how much there is to do
Progress = Callable[[str, int, int], None]


def tune(
    potential: Potential,
    atoms: ase.Atoms,
    settings: TuneSettings | None = None,
    progress: Progress = lambda stage, done, total: None,
    *,
    structure_name: str = "structure",
) -> Tuning:
    """Find the settings that give most simulated time for the computing time and conserve energy.

    Runs at constant energy from one equilibrated structure with other momenta in each replica. First every setting for
    `scan_ps`, which leaves out what is surely unstable; a setting with both steps as long as those of an unstable one
    is not run. Then the fastest of the others, one after the other, for `confirm_ps`, until one is safe.

    Raises
    ------
    UsageError
        for a potential without conservative forces, or a structure that it does not know.
    RunError
        if the structure flies apart while it is equilibrated.
    """
    settings = settings or TuneSettings()
    if not potential.provides & Wanted.CONSERVATIVE:
        raise UsageError(
            f"potential {potential.name!r}: it has direct forces only, which no step makes conservative; give one with "
            "conservative forces as well, or another one for the outer steps (--slow)"
        )
    numbers = sorted(set(settings.n_inner)) if both(potential) else [1]
    structure = Structure.from_ase(atoms, device=potential.device)
    start, cost = _prepare(potential, structure, settings, progress)
    at_once = _at_once(potential, structure, len(settings.timesteps_fs) * settings.replicas)
    trials: list[Trial] = []
    for n_inner in numbers:

        def show(done: int, total: int, n_inner: int = n_inner) -> None:
            progress(f"{n_inner} inner steps" if n_inner > 1 else "conservative", done, total)

        worth = [step for step in sorted(set(settings.timesteps_fs)) if not _beyond(trials, step, n_inner)]
        if worth:
            trials += run_trials(start, worth, n_inner, settings.scan_ps, cost, at_once, show)
    trials = _confirmed(trials, start, settings, cost, at_once, progress)
    return Tuning(potential.name, structure_name, structure.n_atoms, settings.temperature_K, tuple(trials))


def _at_once(potential: Potential, structure: Structure, most: int) -> int:
    """How many copies of a system make a batch that the potential takes and the memory holds."""
    if not batched(potential, structure):
        return 1
    forces = "mts" if both(potential) else "conservative"
    return len(fit_batches(potential, structure.replicated(most), forces=forces)[0])


def _prepare(
    potential: Potential, structure: Structure, settings: TuneSettings, progress: Progress
) -> tuple[Start, Costs]:
    """Where runs begin, and what they cost."""
    audit = replace(
        AuditSettings(),
        temperature_K=settings.temperature_K,
        inner_timestep_fs=settings.careful_fs,
        equilibration_ps=settings.equilibration_ps,
        timing_rounds=3,
        seed=settings.seed,
        duration_ps=1000.0,  # never run
    )
    momenta = maxwell_boltzmann(structure, settings.temperature_K, settings.seed)
    bench = equilibrate(Bench(potential, structure, momenta, audit, progress))
    costs = measure_costs(bench)

    def cost(timestep_fs: float, n_inner: int) -> float:
        assert costs.conservative is not None
        cycle = costs.conservative
        if n_inner > 1:
            assert costs.direct is not None and costs.joint is not None
            cycle = (n_inner - 1) * costs.direct + costs.joint
        return 1000 / timestep_fs * cycle / n_inner

    start = Start.of(potential, bench.structure, settings.temperature_K, settings.replicas, 1000 * settings.seed + 500)
    return start, cost


def _beyond(trials: Sequence[Trial], timestep_fs: float, n_inner: int) -> bool:
    """Whether a setting with steps no longer than these is unstable."""
    return any(one.status == UNSTABLE and one.timestep_fs <= timestep_fs and one.n_inner <= n_inner for one in trials)


def _confirmed(
    trials: Sequence[Trial], start: Start, settings: TuneSettings, cost: Costs, at_once: int, progress: Progress
) -> list[Trial]:
    """The trials, those in the place of which longer ones were run replaced, up to the first that is safe."""
    known = {(one.timestep_fs, one.n_inner): one for one in trials}
    for one in sorted(trials, key=lambda one: one.ms_per_ps):
        if one.status == UNSTABLE:
            continue
        if one.status != SAFE:

            def show(done: int, total: int, one: Trial = one) -> None:
                progress(f"confirm {one.timestep_fs:g} fs x {one.n_inner}", done, total)

            steps = [one.timestep_fs]
            (one,) = run_trials(start, steps, one.n_inner, settings.confirm_ps, cost, at_once, show)
            known[one.timestep_fs, one.n_inner] = one
        if one.status == SAFE:
            break
    return list(known.values())
