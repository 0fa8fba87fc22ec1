"""How many systems fit into the memory of a device at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from mlcalc.engines.batch import BatchEngine
from mlcalc.errors import RunError
from mlcalc.memory import free_bytes
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

_SHARE = 0.7  # of the free memory: neighbours fluctuate, and allocators fragment
_GIB = 2.0**30


def peak_bytes(work: Callable[[], object], device: torch.device) -> float:
    """The most memory that tensors take at any time during some work, beyond what they took before."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with _silence():
        profile.start()
    try:
        work()
    finally:
        with _silence():
            profile.stop()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events: list[Any] = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        taken += event.nbytes()
        peak = max(peak, taken)
    return peak


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing to standard error: torch's profiler greets and takes its leave there."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def fit_batches(
    potential: Potential,
    structure: Structure,
    *,
    forces: str = "mts",
    free: Callable[[torch.device], float] = free_bytes,
    peak: Callable[[Callable[[], object], torch.device], float] = peak_bytes,
) -> list[list[int]]:
    """Divide systems into batches that fit into memory, in their order.

    Memory is taken to be linear in atoms and neighbours, and is measured on the first steps of the largest system, once
    and twice.

    Parameters
    ----------
    structure : all systems; may be on the CPU where a device could not hold them
    forces : as for `BatchEngine`
    free, peak : what memory there is, and what some work takes, bytes

    Returns
    -------
    the numbers of the systems of each batch; `structure.select` makes it

    Raises
    ------
    RunError
        for a system that does not fit alone.
    """
    sizes = [_size(potential, structure.select([k])) for k in range(structure.n_systems)]
    largest = sizes.index(max(sizes))
    room = _SHARE * free(potential.device)

    def measured(copies: int) -> float:
        systems = structure.select([largest] * copies)
        return peak(partial(_start, potential, systems, forces), potential.device)

    once = measured(1)
    try:
        twice = measured(2)
    except RunError:  # more than there is
        twice = 2 * once
    # what does not grow with the batch is counted once
    slope = max(twice - once, once / 2) / sizes[largest]
    fixed = max(0.0, once - slope * sizes[largest])
    batches: list[list[int]] = []
    filled = float("inf")
    for k, size in enumerate(sizes):
        if fixed + slope * size > room:
            raise RunError(
                f"structure: system {k} needs {(fixed + slope * size) / _GIB:.3g} GiB, and {room / _GIB:.3g} may be "
                "used; take a device with more memory, or a smaller system"
            )
        if fixed + filled + slope * size > room:
            batches.append([])
            filled = 0.0
        batches[-1].append(k)
        filled += slope * size
    return batches


def _size(potential: Potential, structure: Structure) -> int:
    """Atoms and neighbours."""
    return structure.n_atoms + neighbour_list(structure, potential.cutoff).n_edges


def _start(potential: Potential, structure: Structure, forces: str) -> None:
    """A list of neighbours, and an evaluation of each kind that a run makes."""
    try:
        BatchEngine(potential, structure, forces=forces, timestep_fs=1.0).report()
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"structure: {structure.n_atoms} atoms do not fit into memory; take a device with more of it"
        ) from error
