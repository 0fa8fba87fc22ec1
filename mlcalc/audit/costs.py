"""Wall times, measured side by side: every round measures everything once, medians over rounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from mlcalc.audit.experiments import Bench
from mlcalc.audit.result import Costs
from mlcalc.errors import RunError
from mlcalc.evaluation import JOINT, Wanted
from mlcalc.neighbours import neighbour_list


def _seconds(task: Callable[[], object], device: torch.device) -> float:
    """Wall time of a task, with the device's queue empty before and after."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    task()
    wait()
    return time.perf_counter() - start


def _evaluations(bench: Bench) -> dict[str, Callable[[], float]]:
    """Timers, ms, of one evaluation of each kind that the potential offers."""
    potential, structure = bench.potential, bench.structure
    neighbours = neighbour_list(structure, potential.cutoff)
    kinds = {
        "direct": Wanted.DIRECT,
        "conservative": Wanted.ENERGY | Wanted.CONSERVATIVE,
        "joint": JOINT,
    }

    def timer(wanted: Wanted) -> Callable[[], float]:
        return lambda: 1000 * _seconds(lambda: potential.evaluate(structure, neighbours, wanted), potential.device)

    return {name: timer(wanted) for name, wanted in kinds.items() if wanted & potential.provides == wanted}


def _steps(bench: Bench) -> dict[str, Callable[[], float]]:
    """Timers, ms, of one inner step of each kind of dynamics.

    A run pays for frames at its two ends; the difference of a longer and a shorter run does not.
    """
    n_inner = bench.settings.n_inner
    kinds = {"step_direct": ("direct", 1), "step_conservative": ("conservative", 1), "step_mts": ("mts", n_inner)}
    offered = {"direct": Wanted.DIRECT, "conservative": Wanted.CONSERVATIVE, "mts": Wanted.DIRECT | Wanted.CONSERVATIVE}

    def timer(forces: str, m: int) -> Callable[[], float]:
        device, inner = bench.potential.device, n_inner

        def measure() -> float:
            engine = bench.engine(forces, m)
            try:
                engine.run(1)
                short = _seconds(lambda: engine.run(1, stride=1), device)
                long = _seconds(lambda: engine.run(1 + inner // m, stride=1 + inner // m), device)
            except RunError:
                return math.nan  # too unstable for so few steps; the runs themselves will say so
            return 1000 * (long - short) / inner

        return measure

    return {
        name: timer(forces, m)
        for name, (forces, m) in kinds.items()
        if offered[forces] & bench.potential.provides == offered[forces]
    }


def measure_costs(bench: Bench) -> Costs:
    """The cost table."""
    timers = {**_evaluations(bench), **_steps(bench)}
    rounds = bench.settings.timing_rounds
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(2):  # the first calls allocate and compile
        for name in ("direct", "conservative", "joint"):
            if name in timers:
                timers[name]()
    for k in range(rounds):
        for name, timer in timers.items():
            times[name].append(timer())
        bench.progress("cost table", k + 1, rounds)

    def get(name: str) -> float | None:
        finite = [value for value in times.get(name, ()) if math.isfinite(value)]
        return float(np.median(finite)) if finite else None

    direct, conservative, step_direct, step_mts = map(get, ("direct", "conservative", "step_direct", "step_mts"))
    n_inner = bench.settings.n_inner
    overhead = step_mts / step_direct if step_mts and step_direct and step_direct > 0 else None
    bound = 1 + (conservative / direct - 1) / n_inner if conservative and direct else None
    return Costs(
        direct=direct,
        conservative=conservative,
        joint=get("joint"),
        step_conservative=get("step_conservative"),
        step_direct=step_direct,
        step_mts=step_mts,
        overhead=overhead,
        bound=bound,
        n_inner=n_inner,
        rounds=rounds,
    )
