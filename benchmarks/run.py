"""What evaluations and steps cost, side by side in one run: `make bench`.

Every round measures everything once, so a machine that slows down slows all of it; the table has medians over rounds,
ratios with the standard error of their median. It asserts nothing.
"""

from __future__ import annotations

import argparse
import copy
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import ase
import numpy as np
import torch
from ase import units

import mlcalc
from mlcalc.engines.ase import MLCalculator
from mlcalc.engines.ase_dynamics import MTSVelocityVerlet
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.memory import keep_freed_memory
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

_INNER_FS = 0.5
_MULTIPLES = (2, 4, 8)


def peak_memory_mib() -> float:
    """Of this process so far, on the GPU if there is one, MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def milliseconds(task: Callable[[], object]) -> float:
    """Wall time of a task, with the GPU's queue empty before and after."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    task()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def evaluations(potential: Potential, structure: Structure) -> dict[str, Callable[[], float]]:
    """One evaluation of each kind, ms."""
    neighbours = neighbour_list(structure, potential.cutoff)
    kinds = {"direct": Wanted.DIRECT, "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE, "joint": JOINT}

    def timer(wanted: Wanted) -> Callable[[], float]:
        return lambda: milliseconds(lambda: potential.evaluate(structure, neighbours, wanted))

    return {name: timer(wanted) for name, wanted in kinds.items()}


def native_steps(potential: Potential, structure: Structure, inner_steps: int) -> dict[str, Callable[[], float]]:
    """Inner steps of the native engine, ms each; the first and last frames of a run are not in it."""
    momenta = maxwell_boltzmann(structure, 300.0, seed=0)

    def timer(forces: str, n_inner: int) -> Callable[[], float]:
        engine = NativeEngine(
            potential, structure, forces=forces, timestep_fs=_INNER_FS * n_inner, n_inner=n_inner, momenta=momenta
        )
        cycles = max(1, inner_steps // n_inner)

        def measure() -> float:
            return milliseconds(lambda: [engine._step() for _ in range(cycles)]) / (cycles * n_inner)

        return measure

    made = {f"native {forces}": timer(forces, 1) for forces in ("direct", "conservative")}
    return made | {f"native MTS {n}": timer("mts", n) for n in _MULTIPLES}


def ase_steps(potential: Potential, atoms: ase.Atoms, inner_steps: int) -> dict[str, Callable[[], float]]:
    """Inner steps of the ASE class, ms each. Direct-only is ASE's own velocity Verlet with the direct calculator."""
    from ase.md.velocitydistribution import thermalize_momenta
    from ase.md.verlet import VelocityVerlet

    def start(forces: str) -> ase.Atoms:
        box = atoms.copy()
        thermalize_momenta(box, temperature_K=300, rng=np.random.default_rng(0))
        box.calc = MLCalculator(potential, forces)
        return box

    def timer(dynamics: VelocityVerlet | MTSVelocityVerlet, n_inner: int) -> Callable[[], float]:
        cycles = max(1, inner_steps // n_inner)
        return lambda: milliseconds(lambda: dynamics.run(cycles)) / (cycles * n_inner)

    made = {"ASE direct": timer(VelocityVerlet(start("direct"), _INNER_FS * units.fs), 1)}
    for n in _MULTIPLES:
        made[f"ASE MTS {n}"] = timer(MTSVelocityVerlet(start("conservative"), n * _INNER_FS * units.fs, n_inner=n), n)
    return made


def time_outside(potential: Potential, atoms: ase.Atoms, inner_steps: int) -> dict[str, Callable[[], float]]:
    """What an inner step of MTS 8 takes beside the evaluations, ms: integration, neighbour lists, results."""
    inside = [0.0]
    timed = copy.copy(potential)

    def evaluate(*arguments: Any) -> Evaluation:
        results: list[Evaluation] = []
        inside[0] += milliseconds(lambda: results.append(potential.evaluate(*arguments)))
        return results[0]

    vars(timed)["evaluate"] = evaluate

    def without_inside(step: Callable[[], float]) -> Callable[[], float]:
        def measure() -> float:
            inside[0] = 0.0
            return step() - inside[0] / inner_steps

        return measure

    native = native_steps(timed, Structure.from_ase(atoms).to(device=potential.device), inner_steps)["native MTS 8"]
    through_ase = ase_steps(timed, atoms, inner_steps)["ASE MTS 8"]
    return {"outside native": without_inside(native), "outside ASE": without_inside(through_ase)}


def ase_alone(atoms: ase.Atoms, inner_steps: int) -> dict[str, Callable[[], float]]:
    """A step of ASE's own velocity Verlet with forces that cost nothing, ms: the measure of time outside."""
    from ase.calculators.calculator import Calculator, all_changes
    from ase.md.verlet import VelocityVerlet

    class Free(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(self, atoms: Any = None, properties: Any = (), system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties, system_changes)
            self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}

    box = atoms.copy()
    box.calc = Free()
    dynamics = VelocityVerlet(box, _INNER_FS * units.fs)
    return {"in ASE's own velocity Verlet": lambda: milliseconds(lambda: dynamics.run(inner_steps)) / inner_steps}


def table(potential: Potential, atoms: ase.Atoms, rounds: int, inner_steps: int) -> None:
    """Measure one size and print it."""
    structure = Structure.from_ase(atoms).to(device=potential.device)
    timers = {
        **evaluations(potential, structure),
        **native_steps(potential, structure, inner_steps),
        **ase_steps(potential, atoms, inner_steps),
        **time_outside(potential, atoms, inner_steps),
        **ase_alone(atoms, inner_steps),
    }
    for timer in timers.values():
        timer()
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            times[name].append(timer())
    median = {name: float(np.median(values)) for name, values in times.items()}
    ratio = float(np.median(np.array(times["conservative"]) / np.array(times["direct"])))
    print(f"\n### {len(atoms)} atoms, c = conservative/direct = {ratio:.2f}, medians of {rounds} rounds\n")
    print("| what | ms | over direct | bound 1 + (c−1)/M |")
    print("|---|---|---|---|")
    for name, value in median.items():
        if name.startswith(("outside", "in ")):
            print(f"| time {name}, per {'inner ' if 'outside' in name else ''}step | {value:.3f} | | |")
            continue
        engine = name.split()[0]
        # medians of ratios within a round are steadier than ratios of medians when the machine's speed drifts
        over = median_and_error(np.array(times[name]) / np.array(times[_base(engine)]))
        bound = f"{1 + (ratio - 1) / int(name.split()[-1]):.3f}" if "MTS" in name else ""
        print(f"| {name} | {value:.2f} | {over} | {bound} |")
    print(f"\npeak memory of the process so far: {peak_memory_mib():.0f} MiB")


def median_and_error(values: np.ndarray) -> str:
    """The median and its standard error, √(π/2n) of the deviation that the median absolute one stands for."""
    median = float(np.median(values))
    deviation = 1.4826 * float(np.median(np.abs(values - median)))
    return f"{median:.3f} ± {deviation * (np.pi / 2 / len(values)) ** 0.5:.3f}" if deviation else f"{median:.3f}"


def _base(engine: str) -> str:
    return f"{engine} direct" if engine in ("native", "ASE") else "direct"


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--potential", default="water")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeat", type=int, nargs="*", default=[1, 2], help="box repeated n × n × n: 192 n³ atoms")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    potential = mlcalc.load(options.potential, device=options.device)
    print(
        f"mlcalc {mlcalc.__version__}, torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads"
    )
    print(f"peak memory before the first evaluation: {peak_memory_mib():.0f} MiB")
    for n in options.repeat:
        table(potential, mlcalc.water_box().repeat(n), options.rounds, inner_steps=16)


if __name__ == "__main__":
    main()
