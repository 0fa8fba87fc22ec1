"""Steps a second against atoms and replicas: every way to run the same potential, side by side.

    python benchmarks/throughput.py                                 # 192 and 1536 atoms, 1 and 4 replicas
    mlcalc export water water.pt2 && python benchmarks/throughput.py --package water.pt2
    python benchmarks/throughput.py --device cuda --budget-s 400    # up to 98,304 atoms and 256 replicas

Velocity Verlet with direct and with conservative forces and MTS 4 and 8, by eager code, a compiled package and, on a
GPU, replayed CUDA graphs; in the native engines, ASE and torch-sim (without stress). A step is an inner one, 0.5 fs,
everywhere. Each size is measured in a process of its own, and every round measures all of it once; an entry is the
median over rounds, a ratio that of ratios within a round, with its standard error. Where the budget does not reach,
the largest sizes are left out. Writes a table, a figure and all numbers; asserts nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from roofline import WANTED, ceilings, water, work_of
from run import milliseconds, peak_memory_mib
from throughput_report import write

import mlcalc
from mlcalc import units
from mlcalc.engines.batch import BatchEngine
from mlcalc.engines.momenta import maxwell_boltzmann
from mlcalc.engines.native import NativeEngine
from mlcalc.errors import UsageError
from mlcalc.evaluation import Evaluation
from mlcalc.memory import keep_freed_memory
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.compiled import CompiledPotential
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

INNER_FS = 0.5
_BOX = 192  # atoms of a replica
_REPLAYED = 12_288  # atoms up to which CUDA graphs are measured: beyond, launching a kernel takes no time to speak of
_FORCES = {"direct": 1, "conservative": 1, "MTS 4": 4, "MTS 8": 8}
_NEEDED = {
    "direct": {"direct"},
    "conservative": {"conservative"},
    "MTS 4": {"direct", "joint"},
    "MTS 8": {"direct", "joint"},
}
SIZES = {
    "cpu": ([192, 1536], [1, 4]),
    "cuda": ([192, 768, 3072, 12_288, 49_152, 98_304], [1, 4, 16, 64, 256]),
}

#: take so many inner steps
Run = Callable[[int], object]


@dataclass(frozen=True)
class Size:
    """Atoms of each replica, and replicas."""

    atoms: int
    replicas: int = 1

    @property
    def total(self) -> int:
        return self.atoms * self.replicas


class Stopwatch:
    """Of a potential: how long its evaluations take, where it is on. It waits for the device then."""

    def __init__(self) -> None:
        self.on, self.ms = False, 0.0

    def of(self, potential: Potential) -> Potential:
        """The same potential, timed."""
        timed = copy.copy(potential)

        def evaluate(*arguments: Any) -> Evaluation:
            if not self.on:
                return potential.evaluate(*arguments)
            results: list[Evaluation] = []
            self.ms += milliseconds(lambda: results.append(potential.evaluate(*arguments)))
            return results[0]

        vars(timed)["evaluate"] = evaluate
        return timed


@dataclass(frozen=True)
class System:
    """What is run: the replicas as a batch, and one of them for ASE."""

    size: Size
    structure: Structure
    atoms: Any
    momenta: torch.Tensor

    @classmethod
    def of(cls, size: Size, device: torch.device) -> System:
        atoms = water(size.atoms)
        structure = Structure.from_ase([atoms] * size.replicas, device=device)
        return cls(size, structure, atoms, maxwell_boltzmann(structure, 300.0, seed=0))


def native(potential: Potential, system: System, forces: str) -> Run:
    n_inner = _FORCES[forces]
    kind = NativeEngine if system.size.replicas == 1 else BatchEngine
    engine = kind(
        potential,
        system.structure,
        forces="mts" if n_inner > 1 else forces,
        timestep_fs=INNER_FS * n_inner,
        n_inner=n_inner,
        momenta=system.momenta,
    )
    return lambda n: [engine._step() for _ in range(n // n_inner)]


def through_ase(potential: Potential, system: System, forces: str) -> Run:
    from ase.md.verlet import VelocityVerlet

    from mlcalc.engines.ase import MLCalculator
    from mlcalc.engines.ase_dynamics import MTSVelocityVerlet

    box, n_inner = system.atoms.copy(), _FORCES[forces]
    box.set_momenta(system.momenta.cpu().numpy())
    box.calc = MLCalculator(potential, "direct" if forces == "direct" else "conservative")
    timestep = units.from_femtoseconds(INNER_FS * n_inner)
    dynamics = VelocityVerlet(box, timestep) if n_inner == 1 else MTSVelocityVerlet(box, timestep, n_inner=n_inner)
    return lambda n: dynamics.run(n // n_inner)


def through_torch_sim(potential: Potential, system: System, forces: str) -> Run:
    import torch_sim
    from engines import torch_sim_nve

    from mlcalc.engines.torch_sim import TorchSimModel

    model = TorchSimModel(potential, forces, compute_stress=False)
    state = torch_sim.io.atoms_to_state([system.atoms] * system.size.replicas, model.device, model.dtype)
    state.momenta = system.momenta.to(model.device)
    step = torch_sim_nve(state, model, torch.tensor(units.from_femtoseconds(INNER_FS), dtype=model.dtype))
    return lambda n: [step() for _ in range(n)]


def codes(eager: Potential, package: Potential | None, forces: str, size: Size) -> Iterator[tuple[str, Potential]]:
    """Ways to evaluate: what was not compiled is left out."""
    from mlcalc.potentials.graphed import GraphedPotential
    from mlcalc.potentials.network import Network

    ways = {"eager": eager}
    if isinstance(package, CompiledPotential) and _NEEDED[forces] <= set(package.programs):
        ways["compiled"] = package
    yield from ways.items()
    if eager.device.type == "cuda" and size.total <= _REPLAYED and isinstance(eager, Network):
        # one for each engine, since it keeps the lists of one
        yield from ((f"{name}, replayed", GraphedPotential(one)) for name, one in ways.items())


def makers(
    eager: Potential, package: Potential | None, system: System, watch: Stopwatch
) -> dict[str, Callable[[], Run]]:
    """Name → how to make what runs. Names are engine | code | forces."""
    made: dict[str, Callable[[], Run]] = {}
    for forces in _FORCES:
        for code, potential in codes(eager, package, forces, system.size):
            made[f"native | {code} | {forces}"] = partial(native, watch.of(potential), system, forces)
    peers = (("conservative", through_torch_sim),)
    if system.size.replicas == 1:
        peers += tuple((forces, through_ase) for forces in ("direct", "conservative", "MTS 8"))
    for forces, maker in peers:
        name = "ASE" if maker is through_ase else "torch-sim"
        made[f"{name} | eager | {forces}"] = partial(maker, watch.of(eager), system, forces)
    return made


def memory_in_use_mib(device: torch.device) -> float:
    """On a GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _peak(device: torch.device, work: Callable[[], object]) -> float:
    """MiB: of this process so far, on a GPU since now; so what takes most goes last."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    work()
    return peak_memory_mib()


class Measurement:
    """All rows of one size, in this process."""

    def __init__(self, options: argparse.Namespace, size: Size) -> None:
        self.steps, self.on_gpu = options.steps, options.device != "cpu"
        self.watch = Stopwatch()
        eager = mlcalc.load(options.potential, device=options.device)
        package = mlcalc.load(options.package, device=options.device) if options.package else None
        system = System.of(size, eager.device)
        listed = neighbour_list(system.structure, eager.cutoff, skin=0.5)
        before = memory_in_use_mib(eager.device)
        self.tasks: dict[str, Run] = {}
        self.found: dict[str, Any] = {**asdict(size), "edges": listed.n_edges, "times": {}, "outside": {}, "failed": {}}
        self.found |= {"memory_mib": {}, "work": {}}
        for name, wanted in WANTED.items():
            evaluate = partial(eager.evaluate, system.structure, listed, wanted)
            try:
                self.found["memory_mib"][name] = _peak(eager.device, evaluate) - before
                if size.replicas == 1:
                    self.found["work"][name] = asdict(work_of(eager, system.structure, listed, wanted))
            except RuntimeError as error:
                self._failed(f"evaluation | eager | {name}", error)
                continue
            self.tasks[f"evaluation | eager | {name}"] = lambda n, evaluate=evaluate: [evaluate() for _ in range(n)]
        self.found["ceilings"] = asdict(ceilings(eager.device))
        for name, make in makers(eager, package, system, self.watch).items():
            try:
                self.tasks[name] = make()
            except (ImportError, RuntimeError, UsageError) as error:
                self._failed(name, error)

    def _failed(self, name: str, error: Exception) -> None:
        self.found["failed"][name] = str(error).splitlines()[0]
        self.tasks.pop(name, None)

    def round(self, counts: bool) -> None:
        """Everything once."""
        for name, task in list(self.tasks.items()):
            # an evaluation is no step: two are enough
            steps = 2 if name.startswith("evaluation") else self.steps
            self.watch.on, self.watch.ms = not self.on_gpu, 0.0
            try:
                whole = milliseconds(lambda: task(steps))  # noqa: B023
                rate = whole / steps
                if self.on_gpu:  # timing an evaluation holds the device up, so it is done apart
                    self.watch.on = True
                    whole = milliseconds(lambda: task(steps))  # noqa: B023
            except (RuntimeError, UsageError) as error:
                self._failed(name, error)
                continue
            if counts:
                self.found["times"].setdefault(name, []).append(rate)
                if not name.startswith("evaluation"):
                    self.found["outside"].setdefault(name, []).append((whole - self.watch.ms) / steps)


def measure(options: argparse.Namespace, size: Size, path: Path) -> None:
    """Rounds of one size until they or the seconds are used up; the file is written after each."""
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    start = time.monotonic()
    measurement = Measurement(options, size)
    for number in range(options.rounds + 1):  # the first is a warm-up
        begun = time.monotonic()
        measurement.round(counts=number > 0)
        path.write_text(json.dumps(measurement.found))
        now = time.monotonic()
        if number and now - start + (now - begun) > options.budget_s:
            break


def measured_apart(
    options: argparse.Namespace, size: Size, share: float, seconds: float
) -> tuple[dict[str, Any] | None, str]:
    """One size in a process of its own, in its share of time, or in so many seconds at most.

    Returns
    -------
    (what it found, or None; why nothing)
    """
    names = ("potential", "device", "threads", "rounds", "steps")
    arguments = [part for name in names for part in (f"--{name}", str(getattr(options, name)))]
    if options.package:
        arguments += ["--package", options.package]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        this = ["--size", str(size.atoms), str(size.replicas), str(path), "--budget-s", str(0.8 * share)]
        reason = "no whole round in the time that was left"
        try:
            done = subprocess.run(
                [sys.executable, __file__, *arguments, *this], capture_output=True, text=True, timeout=seconds
            )
            if done.returncode:
                reason = (done.stderr.splitlines() or [f"ended with {done.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            pass
        found = json.loads(path.read_text()) if path.is_file() else None
    return (found, "") if found and found["times"] else (None, reason)


def all_sizes(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """(what was found, what was left out and why), the smallest first."""
    sizes = {Size(n) for n in options.atoms} | {Size(_BOX, n) for n in options.replicas}
    end, found, left_out = time.monotonic() + options.budget_s, [], []
    for number, size in enumerate(sorted(sizes, key=lambda one: (one.total, one.replicas))):
        left = end - time.monotonic()
        share = left / (len(sizes) - number)
        result, reason = measured_apart(options, size, share, left) if left > 5 else (None, "the budget was used up")
        name = f"{size.atoms} atoms × {size.replicas}"
        print(f"{name}: {reason or 'done'}, {max(end - time.monotonic(), 0):.0f} s left", file=sys.stderr, flush=True)
        if result is None:
            left_out.append(f"{name}: {reason}")
        else:
            found.append(result)
        write(options, found, left_out)
    return found, left_out


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--potential", default="water")
    made.add_argument("--package", help="what mlcalc export made of it")
    made.add_argument("--device", default="cpu", choices=tuple(SIZES))
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--atoms", type=int, nargs="+", help="of one system: 192 times a power of two")
    made.add_argument("--replicas", type=int, nargs="*", help="of 192 atoms")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--steps", type=int, default=8, help="inner steps of each row in a round, a multiple of 8")
    made.add_argument("--budget-s", type=float, default=1800.0, help="of all sizes together, or of --size")
    made.add_argument("--output", default="benchmarks/results", metavar="DIR")
    made.add_argument(
        "--size", nargs=3, metavar=("ATOMS", "REPLICAS", "FILE"), help="measure this one, in this process"
    )
    return made


def main() -> None:
    """Parse the command line, measure and write."""
    options = parser().parse_args()
    if options.steps % 8:
        raise SystemExit(f"steps: got {options.steps}; give a multiple of 8, for MTS 8 takes so many at once")
    if options.size:
        atoms, replicas, path = options.size
        measure(options, Size(int(atoms), int(replicas)), Path(path))
        return
    atoms, replicas = SIZES[options.device]
    options.atoms = options.atoms or atoms
    options.replicas = replicas if options.replicas is None else options.replicas
    found, _ = all_sizes(options)
    if not found:
        raise SystemExit("nothing was measured")


if __name__ == "__main__":
    main()
