"""λ, drift and cost of several families on the same two structures: the tables of docs/potentials.md.

    python benchmarks/potentials.py run      # hours; what is in results/potentials.json is not done again
    python benchmarks/potentials.py table

Silicon of 64 atoms, displaced as at 300 K, and 27 molecules of water, equilibrated with `water`. Every run starts from
there with the same momenta of 300 K and goes at constant energy, whatever the potential makes of the structure. Steps
are timed side by side: each round measures every row once.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import torch
from ase.build import bulk

import mlcalc
from mlcalc.audit.experiments import Bench, asymmetries, constant_energy_run
from mlcalc.audit.settings import AuditSettings
from mlcalc.diagnostics.finding import Finding
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.memory import keep_freed_memory
from mlcalc.potentials.potential import Potential
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure

RESULTS = Path(__file__).parent / "results" / "potentials.json"
_WATER = RESULTS.with_name("water-27.xyz")
_ROUNDS, _STEPS = 7, 8  # inner steps; a cycle of multiple time stepping
_PACKAGES = ("torch", "sevenn", "chgnet")


@dataclass(frozen=True)
class Row:
    """A potential on a structure with one kind of force; `slow` is the teacher outside where there is one."""

    structure: str
    potential: str
    forces: str = "conservative"
    slow: str = ""

    @property
    def key(self) -> str:
        return " ".join(part for part in (self.structure, self.potential, self.slow, self.forces) if part)


# cheapest first
ROWS = (
    Row("silicon", "chgnet"),
    Row("silicon", "silicon-7net-0", "direct", slow="7net-0"),
    Row("silicon", "silicon-7net-0", "mts", slow="7net-0"),
    Row("water", "water"),
    Row("water", "water", "direct"),
    Row("water", "water", "mts"),
    Row("water", "chgnet"),
    Row("silicon", "7net-0"),
    Row("silicon", "7net-l3i5"),
    Row("water", "7net-0"),
    Row("water", "7net-l3i5"),
)
SETTINGS = {
    "silicon": AuditSettings(inner_timestep_fs=1.0, duration_ps=0.512, block_atoms=2),
    "water": AuditSettings(inner_timestep_fs=0.5, duration_ps=0.256, block_atoms=2),
}


def silicon() -> ase.Atoms:
    """Displaced by 0.076 Å along each axis, ⟨u²⟩ = B/8π² with B = 0.46 Å² at room temperature."""
    atoms = bulk("Si", cubic=True, a=5.43) * (2, 2, 2)
    atoms.rattle(0.076, seed=0)
    return atoms


def water() -> ase.Atoms:
    """27 molecules at 1 g/cm³, after 2 ps at 300 K with `water`; made once."""
    if not _WATER.exists():
        engine = NativeEngine(
            mlcalc.load("water"),
            Structure.from_ase(_molecules_on_a_grid()),
            timestep_fs=2.0,
            n_inner=4,
            ensemble=Ensemble(Langevin(300.0, friction_per_ps=10.0)),
        )
        engine.advance(1000, lambda _: None)
        made = engine.structure.at(engine.phase.positions).to_ase()[0]
        ase.io.write(_WATER, ase.Atoms(made.symbols, made.positions, cell=made.cell, pbc=True))
    return ase.io.read(_WATER)


def _molecules_on_a_grid() -> ase.Atoms:
    draw, spacing = np.random.default_rng(0), 29.9 ** (1 / 3)
    box = ase.Atoms(cell=[3 * spacing] * 3, pbc=True)
    for corner in np.ndindex(3, 3, 3):
        molecule = ase.Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        molecule.rotate(draw.uniform(0, 360), draw.normal(size=3))
        molecule.translate(spacing * np.array(corner))
        box += molecule
    return box


@cache
def start(name: str) -> tuple[Structure, torch.Tensor]:
    """A structure and momenta, the same for every potential."""
    structure = Structure.from_ase({"silicon": silicon, "water": water}[name]())
    return structure, maxwell_boltzmann(structure, SETTINGS[name].temperature_K, seed=1)


@cache
def load(row: Row) -> Potential:
    fast = mlcalc.load(row.potential)
    return TwoPotentials(fast, mlcalc.load(row.slow)) if row.slow else fast


def bench(row: Row, potential: Potential | None = None) -> Bench:
    structure, momenta = start(row.structure)
    return Bench(potential or load(row), structure, momenta, SETTINGS[row.structure], lambda *_: None)


def cells() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Everything that is measured, by its name in the results."""
    for row in ROWS:
        if row.forces != "mts":
            yield f"{row.key}: asymmetry", partial(asymmetry, row)
        yield f"{row.key}: run", partial(run, row)
    for name in SETTINGS:
        yield f"{name}: ms per step", partial(cost, name)


def asymmetry(row: Row) -> dict[str, Any]:
    """λ of the force of a row."""
    found = asymmetries(bench(row, mlcalc.load(row.potential)))
    return _said(found.direct if row.forces == "direct" else found.conservative)


def run(row: Row) -> dict[str, Any]:
    """A run at constant energy."""
    found, _ = constant_energy_run(bench(row), row.forces)
    second_half = found.series.temperature_K[len(found.series.temperature_K) // 2 :]
    return {
        "picoseconds": found.reached_ps,
        "exploded": found.exploded,
        "slope": _said(found.slope),
        "foretold": _said(found.foretold),
        "long_enough": found.long_enough,
        "temperature_K": float(np.mean(second_half)),
    }


def _said(found: Finding | None) -> dict[str, Any]:
    if found is None:
        return {}
    floor = {} if found.noise_floor is None else {"noise_floor": found.noise_floor}
    return {"value": found.value, "standard_error": found.standard_error, "note": found.note, **floor}


def cost(name: str) -> dict[str, Any]:
    """Wall time of an inner step of every row, ms: medians over rounds, and of ratios to 7net-0 within a round."""
    engines = {row.key: bench(row).engine(row.forces, _inner(row)) for row in ROWS if row.structure == name}
    times: dict[str, list[float]] = {key: [] for key in engines}
    for turn in range(_ROUNDS + 1):  # the first one allocates
        for key, engine in engines.items():
            # heavy ones twice, cheap ones as often as a cycle has inner steps
            steps = 2 if "mts" not in key and turn and times[key][0] > 200 else _STEPS
            cycles = steps // engine.n_inner
            began = time.perf_counter()
            engine.advance(cycles, lambda _: None, stride=cycles + 1, first=False)
            times[key].append(1000 * (time.perf_counter() - began) / (cycles * engine.n_inner))
    base = np.array(times[f"{name} 7net-0 conservative"][1:])
    return {
        key: {"ms": float(np.median(one[1:])), "over_7net-0": float(np.median(np.array(one[1:]) / base))}
        for key, one in times.items()
    }


def _inner(row: Row) -> int:
    return _STEPS if row.forces == "mts" else 1


def read() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def write(results: dict[str, Any]) -> None:
    """Whole or not at all."""
    draft = RESULTS.with_suffix(".part")
    draft.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    draft.replace(RESULTS)


def measure(pattern: str) -> None:
    for name, task in cells():
        if name in read() or not fnmatch.fnmatch(name, pattern):
            continue
        began = time.perf_counter()
        found = task()
        with_versions = {**found, "versions": {package: version(package) for package in _PACKAGES}}
        write({**read(), name: with_versions})
        print(f"{name}   {time.perf_counter() - began:.0f} s", flush=True)


def table() -> None:
    """Print the results as Markdown; what is not measured is left empty."""
    results = read()
    for name in SETTINGS:
        costs = results.get(f"{name}: ms per step", {})
        print(f"\n| {name} | force | λ | floor | drift, slope | drift foretold | ps | K | ms a step | of 7net-0 |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for row in sorted((row for row in ROWS if row.structure == name), key=lambda row: row.potential):
            odd = results.get(f"{row.key}: asymmetry", {})
            ran = results.get(f"{row.key}: run", {})
            took = costs.get(row.key, {})
            label = f"`{row.potential}`" + f" in `{row.slow}`" * (row.forces == "mts" and bool(row.slow))
            force = f"MTS, M = {_STEPS}" if row.forces == "mts" else row.forces
            entries = [
                label,
                force,
                _number(odd, "{:.2g}"),
                f"{odd['noise_floor']:.1g}" if "noise_floor" in odd else "",
                _number(ran.get("slope", {}), "{:.4f}"),
                _number(ran.get("foretold", {}), "{:.4f}"),
                f"{ran['picoseconds']:.2f}" + " (exploded)" * bool(ran["exploded"]) if ran else "",
                f"{ran['temperature_K']:.0f}" if ran else "",
                f"{took['ms']:.0f}" if took else "",
                f"{took['over_7net-0']:.2f}" if took else "",
            ]
            print(f"| {' | '.join(entries)} |")


def _number(found: dict[str, Any], style: str) -> str:
    if not found:
        return ""
    error = found["standard_error"]
    return style.format(found["value"]) + (f" ± {style.format(error)}" if error and math.isfinite(error) else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    running = steps.add_parser("run", help="what is missing in the results, cheapest first")
    running.add_argument("--only", default="*", help="cells whose name fits the pattern")
    steps.add_parser("table", help="the results as Markdown")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if given.step == "run":
        measure(given.only)
    else:
        table()


if __name__ == "__main__":
    main()
