"""What pair_style mlcalc costs in LAMMPS, side by side in one run: `python benchmarks/lammps_steps.py`.

Every round measures everything once; the tables have medians over rounds of what LAMMPS itself reports (its loop, and
the part of it that it spends in the pair style). It asserts nothing. It needs the plugin: pip install ./lammps_plugin.

`--also NAME` measures another potential in the same rounds; a compiled one (.pt2) without Python as well. `--ranks`
compares one process with two at 12,000 atoms, which takes minutes.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import importlib.metadata
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase import units
from ase.io.lammpsdata import write_lammps_data
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from torch import Tensor

import mlcalc
import mlcalc.engines.lammps as bridge
from mlcalc.engines.ase import MLCalculator
from mlcalc.evaluation import JOINT, Evaluation, Wanted
from mlcalc.memory import keep_freed_memory
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.compiled import KINDS, CompiledPotential
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

_INNER_PS = 0.0005
_M = 8
_NATIVE = " backend native"
#: LAMMPS's picosecond in ASE's unit of time, by its own constant of metal units (src/update.cpp)
_PICOSECOND = 1.0364269e-4**-0.5


class Nothing(Potential):
    """No forces at no cost: what is left is the bridge."""

    name, cutoff, provides = "nothing", 4.5, JOINT | Wanted.VIRIAL
    device, dtype, fingerprint = torch.device("cpu"), torch.float64, ""

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        zeros = torch.zeros_like(structure.positions)
        energy: Tensor = torch.zeros(1, dtype=torch.float64)
        return Evaluation(energy, None, zeros, zeros, torch.zeros(1, 3, 3, dtype=torch.float64))

    differentiable = evaluate


def water(copies: int) -> ase.Atoms:
    """192 atoms, repeated; in motion at 300 K."""
    atoms = mlcalc.water_box() * (copies, copies, copies)
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    return atoms


def cut(atoms: ase.Atoms, n_molecules: int) -> ase.Atoms:
    """The first molecules of a box, in a box of the same density (they overlap nowhere: they fill a slab)."""
    height = np.sort(atoms.positions[::3, 2])[n_molecules - 1] + 1.0
    order = np.argsort(atoms.positions[::3, 2], kind="stable")[:n_molecules]
    part = atoms[(3 * order[:, None] + np.arange(3)).ravel()]
    part.cell[2] *= height / part.cell[2, 2]
    return part


class Run:
    """LAMMPS in this process, and what its log says."""

    def __init__(self, folder: Path, name: str, atoms: ase.Atoms, style: str, commands: str) -> None:
        import lammps

        stem = re.sub(r"\W", "-", name)
        self.log, data = folder / f"{stem}.log", folder / f"{stem}.data"
        with data.open("w") as file:
            write_lammps_data(file, atoms, specorder=["H", "O"], masses=True, velocities=True, units="metal")
        self.lmp = lammps.lammps(cmdargs=["-log", str(self.log), "-screen", "none", "-nocite"])
        self.lmp.commands_string(
            f"units metal\natom_style atomic\nread_data {data}\nneighbor 1.0 bin\npair_style mlcalc {style}\n"
            f"pair_coeff * * H O\nthermo 0\nthermo_style custom step pe etotal\nfix 1 all nve\n{commands}"
        )

    def per_step(self, n_steps: int, section: str | None = None) -> float:
        """Milliseconds a step of LAMMPS's loop, or of a section of it."""
        self.lmp.command(f"run {n_steps}")
        text = self.log.read_text()
        pattern = rf"^{section} +\| +([\d.e+-]+)" if section else r"^Loop time of ([\d.e+-]+)"
        return 1000 * float(re.findall(pattern, text, re.M)[-1]) / n_steps


def rounds(rows: dict[str, Any], n_rounds: int) -> dict[str, list[float]]:
    """Each row measured once a round, after one round that does not count."""
    for measure in rows.values():
        measure()
    found: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(n_rounds):
        for name, measure in rows.items():
            found[name].append(measure())
    return found


@contextmanager
def potential_named_nothing() -> Iterator[None]:
    real = bridge._load_once
    bridge._load_once = lambda *_: Nothing()  # type: ignore[assignment]
    yield
    bridge._load_once = real


def bridge_alone(folder: Path, n_rounds: int) -> None:
    print("### Pair time outside the potential: one that costs nothing\n\n| atoms | ms a step | of it, rebuilt lists |")
    print("|---|---|---|")
    with potential_named_nothing():
        for atoms in (water(1), cut(water(3), 667)):
            made = Run(folder, f"nothing{len(atoms)}", atoms, "nothing", "timestep 0.0005")
            times = rounds({"pair": lambda made=made: made.per_step(100, "Pair")}, n_rounds)["pair"]
            made.lmp.command("neigh_modify delay 1000 every 1000 check no")
            still = rounds({"pair": lambda made=made: made.per_step(50, "Pair")}, n_rounds)["pair"]
            whole, kept = statistics.median(times), statistics.median(still)
            print(f"| {len(atoms)} | {whole:.3f} | {max(0.0, whole - kept):.3f} |", flush=True)


def provided(name: str) -> Wanted:
    """By a potential; without Python, by what was compiled."""
    potential = mlcalc.load(name.removesuffix(_NATIVE))
    if not name.endswith(_NATIVE):
        return potential.provides
    assert isinstance(potential, CompiledPotential)
    return functools.reduce(Wanted.__or__, (KINDS[kind] for kind in potential.programs))


def steps(folder: Path, names: list[str], atoms: ase.Atoms, arguments: argparse.Namespace) -> None:
    """Direct, conservative and MTS steps in LAMMPS; conservative ones in ASE."""
    respa = f"timestep {_M * _INNER_PS}\nrun_style respa 2 {_M} inner 1 1.0 1.5 outer 2"
    rows: dict[str, Any] = {}
    needs = {"direct": Wanted.DIRECT, "conservative": Wanted.CONSERVATIVE, f"MTS {_M}": JOINT}
    for name in names:
        style = f"{name} device {arguments.device} threads {arguments.threads}"
        verlet = f"timestep {_INNER_PS}"
        provides = provided(name)
        runs = {
            "direct": (style + " forces direct", verlet, 1),
            "conservative": (style, verlet, 1),
            f"MTS {_M}": (style, respa, _M),
        }
        for kind, (words, commands, n_inner) in runs.items():
            if not needs[kind] & ~provides:
                made = Run(folder, f"{name}{kind}{len(atoms)}", atoms, words, commands)
                n_steps = max(1, _M // n_inner)
                rows[f"{name}: {kind}"] = lambda made=made, n=n_steps, inner=n_inner: made.per_step(n) / inner
    mobile = atoms.copy()
    mobile.calc = MLCalculator(mlcalc.load(names[0], device=arguments.device))
    dynamics = VelocityVerlet(mobile, 1000 * _INNER_PS * units.fs)

    def in_ase() -> float:
        start = time.perf_counter()
        dynamics.run(_M)
        return 1000 * (time.perf_counter() - start) / _M

    rows[f"{names[0]}: conservative, ASE"] = in_ase
    found = rounds(rows, arguments.rounds)
    print(
        f"\n### {len(atoms)} atoms, an inner step, medians of {arguments.rounds} rounds\n\n| what | ms | over direct |"
    )
    print("|---|---|---|")
    base = found[f"{names[0]}: direct"]

    def over(one: str, other: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(found[one], other, strict=True))

    for what, times in found.items():
        print(f"| {what} | {statistics.median(times):.2f} | {over(what, base):.3f} |")
    c = over(f"{names[0]}: conservative", base)
    print(
        f"\nc = {c:.3f}: bound for M = {_M} with one evaluation of both forces {1 + (c - 1) / _M:.3f}, with three pair "
        f"styles {1 + (1 + c) / _M:.3f}\nconservative NVE, LAMMPS over ASE: "
        f"{over(f'{names[0]}: conservative', found[f'{names[0]}: conservative, ASE']):.3f}",
        flush=True,
    )


def deviation(folder: Path, n_steps: int) -> None:
    """Conservative dynamics of 192 atoms in LAMMPS and in ASE, float64, with LAMMPS's unit of time."""
    atoms = water(1)
    made = Run(folder, "deviation", atoms, "water dtype float64", f"timestep {_INNER_PS}\nmass 1 1.008\nmass 2 15.999")
    ids = made.lmp.numpy.extract_atom("id")[:192]
    made.lmp.numpy.extract_atom("v")[:192] = atoms.get_velocities()[ids - 1] * _PICOSECOND
    made.lmp.command(f"run {n_steps}")
    atoms.calc = MLCalculator(mlcalc.load("water", dtype=torch.float64))
    VelocityVerlet(atoms, _INNER_PS * _PICOSECOND).run(n_steps)
    ids = made.lmp.numpy.extract_atom("id")[:192]
    away = made.lmp.numpy.extract_atom("x")[:192] - atoms.positions[ids - 1]
    away -= atoms.cell[0, 0] * np.round(away / atoms.cell[0, 0])
    energy = made.lmp.get_thermo("pe") + made.lmp.get_thermo("ke") - atoms.get_total_energy()
    print(
        f"\nafter {n_steps} steps LAMMPS and ASE differ by {np.abs(away).max():.1e} Å and {abs(energy):.1e} eV",
        flush=True,
    )


def processes(folder: Path, threads: int) -> None:
    """One process against two."""
    atoms = water(4)
    with (folder / "large.data").open("w") as file:
        write_lammps_data(file, atoms, specorder=["H", "O"], masses=True, velocities=True, units="metal")
    text = (
        "units metal\natom_style atomic\nread_data large.data\nneighbor 1.0 bin\npair_style mlcalc water threads "
        f"{threads}\npair_coeff * * H O\nfix 1 all nve\ntimestep 0.0005\nrun 5\n"
    )
    (folder / "large.in").write_text(text)
    print(f"\n### {len(atoms)} atoms, conservative\n\n| processes | ms a step | largest process so far, MiB |")
    print("|---|---|---|")
    programs = Path(sys.executable).parent
    for ranks in (1, 2):
        command = [programs / "mpirun", "-np", str(ranks), programs / "lmp", "-in", "large.in", "-log", "none"]
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
        seconds = float(re.findall(r"^Loop time of ([\d.]+)", said, re.M)[0])
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"| {ranks} | {200 * seconds:.0f} | {peak:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What pair_style mlcalc costs.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1], metavar="K", help="boxes of 192 K³ atoms (default: 1)"
    )
    parser.add_argument("--also", nargs="*", default=[], metavar="NAME", help="other potentials, measured likewise")
    parser.add_argument("--deviation-steps", type=int, default=500, metavar="N", help="0 for none")
    parser.add_argument(
        "--ranks", action="store_true", help="one process against two at 12,288 atoms, and nothing else"
    )
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    mpi = next(path for path in importlib.metadata.files("mpich") or () if path.name == "libmpi.so.12")
    ctypes.CDLL(str(mpi.locate()), ctypes.RTLD_GLOBAL)
    print(f"mlcalc {mlcalc.__version__}, torch {torch.__version__}, {arguments.device}, {arguments.threads} threads\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.ranks:
            processes(folder, arguments.threads)
            return
        bridge_alone(folder, arguments.rounds)
        for size in arguments.sizes:
            packages = [f"{name}{_NATIVE}" for name in arguments.also if name.endswith(".pt2")]
            steps(folder, ["water", *arguments.also, *packages], water(size), arguments)
        if arguments.deviation_steps:
            deviation(folder, arguments.deviation_steps)


if __name__ == "__main__":
    main()
