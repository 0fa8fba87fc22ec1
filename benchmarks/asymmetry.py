"""What λ costs and how many products it takes; prints tables, asserts nothing.

`--exact` makes the dense Jacobian of the first box (576 products) and tells what single pairs of different estimators
miss λ by. `--repeats 1 2 4` are 192, 1536 and 12,288 atoms.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import mlcalc
from mlcalc.diagnostics import jacobian_asymmetry
from mlcalc.evaluation import Wanted
from mlcalc.memory import keep_freed_memory
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.probes.batches import Job
from mlcalc.probes.field import Field
from mlcalc.probes.jacobian import exact_jacobian
from mlcalc.probes.products import Sampling, sample_many
from mlcalc.structure import Structure


def seconds(device: torch.device, work) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def one_round(potential: Potential, structure: Structure, forces: str) -> dict[str, float]:
    """Seconds of everything, once."""
    device, neighbours = potential.device, neighbour_list(structure, potential.cutoff)
    one = {"direct": seconds(device, lambda: potential.evaluate(structure, neighbours, Wanted.DIRECT))}
    made: list[Field] = []

    def make() -> None:
        made.append(Field.at(potential, structure, forces))
        made[0].forward(torch.zeros_like(made[0].force))

    one["both graphs and Jv"] = seconds(device, make)
    vector = torch.randn_like(made[0].force)
    one["Jᵀv"] = seconds(device, lambda: made[0].transposed(vector))
    one["Jv"] = seconds(device, lambda: made[0].forward(vector))
    one["pair"] = one["Jᵀv"] + one["Jv"]
    one["MiB an atom"] = made[0].bytes_per_atom / 2**20
    return one


def costs(potential: Potential, structure: Structure, forces: str, rounds: int) -> None:
    """Each round measures everything once; ratios are medians over rounds of ratios within a round."""
    rows = [one_round(potential, structure, forces) for _ in range(rounds + 1)][1:]
    size = rows[0].pop("MiB an atom")
    print(f"\n{structure.n_atoms} atoms, {forces} forces, {size:.2f} MiB an atom\n")
    print("| what | ms | over a direct evaluation |\n|---|---|---|")
    for name in rows[0]:
        ratio = np.median([row[name] / row["direct"] for row in rows])
        print(f"| {name} | {1000 * np.median([row[name] for row in rows]):.1f} | {ratio:.2f} |", flush=True)


def whole(potential: Potential, structure: Structure, seeds: int) -> None:
    """λ to 5 %, floor included."""
    print(f"\nλ of direct forces to 5 %, {structure.n_atoms} atoms\n")
    print("| seed | λ | pairs | seconds | of the CPU |\n|---|---|---|---|---|")
    for seed in range(seeds):
        start, busy = time.perf_counter(), time.process_time()
        (samples,) = sample_many(Job(potential, structure, "direct"), Sampling(seed=seed))
        found = jacobian_asymmetry.from_products(samples)
        took, worked = time.perf_counter() - start, time.process_time() - busy
        value = f"{found.value:.6f} ± {found.standard_error:.6f}"
        print(f"| {seed} | {value} | {len(samples.total)} | {took:.1f} | {worked:.1f} |", flush=True)


def estimators(jacobian: np.ndarray, n_draws: int = 4000) -> None:
    """By how much λ is missed, root mean square over draws, from the dense Jacobian."""
    exact = jacobian_asymmetry.from_jacobian(jacobian).value
    random, n = np.random.default_rng(0), len(jacobian)

    def signs(k: int) -> np.ndarray:
        return random.choice([-1.0, 1.0], size=(n, k))

    def pairs(vectors: np.ndarray) -> float:
        forward, backward = jacobian @ vectors, jacobian.T @ vectors
        odd = ((forward - backward) ** 2).sum() / 4
        return float(np.sqrt(odd / (((forward**2).sum() + (backward**2).sum()) / 2)))

    def transposed_only(vectors: np.ndarray) -> float:
        backward = jacobian.T @ vectors
        between = vectors.T @ backward
        k = vectors.shape[1]
        odd = (((between - between.T) / 2) ** 2).sum() / (k * (k - 1))
        return float(np.sqrt(odd / ((backward**2).sum() / k)))

    print(f"\nλ = {exact:.6f} by the dense Jacobian; relative error of the estimate\n")
    print("| products | pairs, signs | pairs, normal | Jᵀv alone, between vectors |\n|---|---|---|---|")
    for k in (1, 2, 4, 8, 16):
        draws = n_draws // k
        errors = [
            np.sqrt(np.mean([(estimate() / exact - 1) ** 2 for _ in range(draws)]))
            for estimate in (
                lambda k=k: pairs(signs(k)),
                lambda k=k: pairs(random.normal(size=(n, k))),
                lambda k=k: transposed_only(signs(2 * k)),
            )
        ]
        print(f"| {2 * k} | " + " | ".join(f"{100 * error:.1f} %" for error in errors) + " |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, nargs="+", default=[1], help="of the water box along each side")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--device", default="cpu")
    options.add_argument("--exact", action="store_true")
    arguments = options.parse_args()
    keep_freed_memory()
    potential = mlcalc.load("water", device=arguments.device)
    print(
        f"mlcalc {mlcalc.__version__}, torch {torch.__version__}, {arguments.device}, {torch.get_num_threads()} threads"
    )
    for repeats in arguments.repeats:
        structure = Structure.from_ase(mlcalc.water_box().repeat(repeats), device=arguments.device)
        for forces in ("direct", "conservative"):
            costs(potential, structure, forces, arguments.rounds)
        whole(potential, structure, arguments.seeds)
    if arguments.exact:
        box = Structure.from_ase(mlcalc.water_box(), device=arguments.device)
        estimators(exact_jacobian(potential, box, "direct"))


if __name__ == "__main__":
    main()
