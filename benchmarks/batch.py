"""What a step of the native engines takes beside the potential, and what many systems at once gain over one by one.

Time outside the potential: forces that cost nothing, on the water box at 300 K, over one direct evaluation of as many
atoms in the same round. Together or alone: N replicas as one batch against N times the time of one. Medians over rounds
of ratios within a round, with the standard error of the median. It asserts nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from run import median_and_error, milliseconds

import mlcalc
from mlcalc.engines.batch import BatchEngine
from mlcalc.engines.momenta import maxwell_boltzmann
from mlcalc.engines.native import NativeEngine
from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.memory import keep_freed_memory
from mlcalc.neighbours import Neighbours, neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

_SKIN = 0.5

#: take so many outer steps
Run = Callable[[int], object]


class Free(Potential):
    """No forces, in as good as no time. Its atoms fly: lists of neighbours are made as often as in a liquid or more."""

    name, provides, fingerprint = "free", JOINT, "free"

    def __init__(self, like: Potential, structure: Structure) -> None:
        self.cutoff, self._device = like.cutoff, like.device
        none = torch.zeros_like(structure.positions)
        energy = none.new_zeros(structure.n_systems)
        self._answers = {
            Wanted.DIRECT: Evaluation(direct_force=none),
            JOINT: Evaluation(energy=energy, conservative_force=none, direct_force=none),
        }

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        return self._answers[wanted]

    differentiable = evaluate


def engine(
    kind: type[NativeEngine] | type[BatchEngine],
    potential: Potential,
    structure: Structure,
    n_inner: int,
    ensemble: Ensemble | None = None,
) -> Run:
    momenta = maxwell_boltzmann(structure, 300.0, seed=0)
    settings = {"forces": "mts", "timestep_fs": 0.5 * n_inner, "n_inner": n_inner, "ensemble": ensemble}
    made = kind(potential, structure, momenta=momenta, skin=_SKIN, **settings)
    return partial(made.advance, on_frame=lambda *_: None, stride=10**9, first=False)


def synchronised(work: Callable[[], object], device: torch.device) -> float:
    """ms"""

    def whole() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return milliseconds(whole)


def outside(potential: Potential, box: Structure, replicas: list[int], rounds: int, n_inner: int) -> None:
    """Print time outside the potential."""
    baths = {
        "constant energy": None,
        "Langevin": Ensemble(Langevin(300.0)),
        "Nosé–Hoover": Ensemble(NoseHoover(300.0, 0.1)),
    }
    print("\n| engine | ensemble | ms an inner step | over a direct evaluation |")
    print("|---|---|---|---|")
    for n in replicas:
        structure = box.replicated(n)
        listed = neighbour_list(structure, potential.cutoff, skin=_SKIN)
        free = Free(potential, structure)
        kinds = ((NativeEngine, "native"),) if n == 1 else ()
        runs = {
            (f"{name} {n} × {box.n_atoms}", bath): engine(kind, free, structure, n_inner, ensemble)
            for kind, name in (*kinds, (BatchEngine, "batch"))
            for bath, ensemble in baths.items()
        }
        steps, times, direct = max(2, 32 // n_inner), {name: [] for name in runs}, []
        for number in range(rounds + 1):  # the first is a warm-up
            took = synchronised(lambda: potential.evaluate(structure, listed, Wanted.DIRECT), potential.device)  # noqa: B023
            direct += [took] if number else []
            for name, run in runs.items():
                took = synchronised(partial(run, steps), potential.device) / (steps * n_inner)
                times[name] += [took] if number else []
        for (name, bath), took in times.items():
            share = median_and_error(np.array(took) / np.array(direct))
            print(f"| {name} | {bath} | {np.median(took):.3f} | {share} |")


def together(potential: Potential, box: Structure, replicas: list[int], rounds: int, n_inner: int) -> None:
    """Print what batches gain."""
    alone = engine(NativeEngine, potential, box, n_inner)
    batches = {n: engine(BatchEngine, potential, box.replicated(n), n_inner) for n in replicas}
    ratios: dict[int, list[float]] = {n: [] for n in replicas}
    for number in range(rounds + 1):
        one = synchronised(partial(alone, 1), potential.device)
        for n, run in batches.items():
            took = synchronised(partial(run, 1), potential.device)
            ratios[n] += [n * one / took] if number else []
    print(f"\n| replicas of {box.n_atoms} atoms, MTS {n_inner} | faster than one after the other |")
    print("|---|---|")
    for n, values in ratios.items():
        print(f"| {n} | {median_and_error(np.array(values))} |")


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--potential", default="water")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--n-inner", type=int, default=8)
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 16])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    potential = mlcalc.load(options.potential, device=options.device)
    box = Structure.from_ase(mlcalc.water_box(), device=potential.device)
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    outside(potential, box, options.replicas, options.rounds, options.n_inner)
    together(potential, box, options.replicas, options.rounds, options.n_inner)


if __name__ == "__main__":
    main()
