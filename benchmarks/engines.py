"""A step of velocity Verlet in the native engine, ASE and torch-sim, with the same potential and the same forces.

Every round measures each engine once; the table has medians over rounds, and ratios with the standard error of their
median. Evaluations are timed within the steps, so that the rest of a step is known too. Each engine asks the potential
for what it gives its users: ASE's calculator for both forces and the stress, torch-sim for the stress as well unless
it is told not to, the native engine for neither. It asserts nothing. Needs: pip install 'mlcalc[torchsim]'
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import ase
import numpy as np
import torch
import torch_sim
from ase.md.verlet import VelocityVerlet
from run import median_and_error, milliseconds

import mlcalc
from mlcalc import units
from mlcalc.engines.ase import MLCalculator
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.engines.torch_sim import TorchSimModel
from mlcalc.evaluation import Evaluation
from mlcalc.memory import keep_freed_memory
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

_TIMESTEP_FS = 0.5
_TEMPERATURE_K = 300.0

#: take so many steps
Run = Callable[[int], object]


def native(potential: Potential, atoms: ase.Atoms, momenta: torch.Tensor, forces: str) -> Run:
    structure = Structure.from_ase(atoms)
    engine = NativeEngine(potential, structure, forces=forces, timestep_fs=_TIMESTEP_FS, momenta=momenta)
    return lambda n: [engine._step() for _ in range(n)]


def through_ase(potential: Potential, atoms: ase.Atoms, momenta: torch.Tensor, forces: str) -> Run:
    box = atoms.copy()
    box.set_momenta(momenta.cpu().numpy())
    box.calc = MLCalculator(potential, forces)
    return VelocityVerlet(box, units.from_femtoseconds(_TIMESTEP_FS)).run


def through_torch_sim(
    potential: Potential, atoms: ase.Atoms, momenta: torch.Tensor, forces: str, stress: bool | None
) -> Run:
    model = TorchSimModel(potential, forces, compute_stress=stress)
    state = torch_sim.io.atoms_to_state([atoms], model.device, model.dtype)
    state.momenta = momenta.to(model.device)
    step = torch_sim_nve(state, model, torch.tensor(units.from_femtoseconds(_TIMESTEP_FS), dtype=model.dtype))
    return lambda n: [step() for _ in range(n)]


def torch_sim_nve(state: Any, model: TorchSimModel, dt: torch.Tensor) -> Callable[[], None]:
    """torch-sim's own step, in either form of its interface."""
    dt, cold = dt.to(model.device), torch.zeros_like(dt, device=model.device)
    try:
        from torch_sim.integrators import nve_init, nve_step

        now = [nve_init(state, model, kT=cold)]
        update = partial(nve_step, model=model, dt=dt)
    except ImportError:  # 0.3
        from torch_sim.integrators import nve

        start, update = nve(model, dt=dt, kT=cold)
        now = [start(state)]

    def step() -> None:
        now[0] = update(now[0])

    return step


def table(potential: Potential, atoms: ase.Atoms, forces: str, rounds: int, steps: int) -> None:
    """Measure one size and print it."""
    inside = [0.0]
    timed = copy.copy(potential)

    def evaluate(*arguments: Any) -> Evaluation:
        results: list[Evaluation] = []
        inside[0] += milliseconds(lambda: results.append(potential.evaluate(*arguments)))
        return results[0]

    vars(timed)["evaluate"] = evaluate
    momenta = maxwell_boltzmann(Structure.from_ase(atoms), _TEMPERATURE_K, seed=0)
    runs = {
        "native": native(timed, atoms, momenta, forces),
        "ASE": through_ase(timed, atoms, momenta, forces),
        "torch-sim": through_torch_sim(timed, atoms, momenta, forces, stress=None),
        "torch-sim, no stress": through_torch_sim(timed, atoms, momenta, forces, stress=False),
    }
    whole: dict[str, list[float]] = {name: [] for name in runs}
    outside: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):  # the first is a warm-up
        for name, run in runs.items():
            inside[0] = 0.0
            total = milliseconds(partial(run, steps))
            if number:
                whole[name].append(total / steps)
                outside[name].append((total - inside[0]) / steps)
    print(f"\n### {len(atoms)} atoms, {forces} forces, medians of {rounds} rounds of {steps} steps\n")
    print("| engine | ms per step | over native | outside the potential, ms |")
    print("|---|---|---|---|")
    for name in runs:
        ratio = median_and_error(np.array(whole[name]) / np.array(whole["native"]))
        print(f"| {name} | {np.median(whole[name]):.2f} | {ratio} | {np.median(outside[name]):.3f} |")


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--potential", default="water")
    parser.add_argument("--forces", choices=("conservative", "direct"), default="conservative")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10, help="in a round, of each engine")
    parser.add_argument("--repeat", type=int, nargs="*", default=[1, 2], help="box repeated n × n × n: 192 n³ atoms")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    potential = mlcalc.load(options.potential, device=options.device)
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    for n in options.repeat:
        table(potential, mlcalc.water_box().repeat(n), options.forces, options.rounds, options.steps)


if __name__ == "__main__":
    main()
