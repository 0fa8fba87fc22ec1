"""What --compile and --cuda-graphs make of a potential."""

from __future__ import annotations

import argparse
from typing import Any

from mlcalc.errors import UsageError


def quickened(potential: Any, forces: str, arguments: argparse.Namespace) -> Any:
    """The potential, or each of two, as --compile and --cuda-graphs want it."""
    from mlcalc.evaluation import Wanted
    from mlcalc.potentials.compiled import CompiledPotential
    from mlcalc.potentials.network import Network
    from mlcalc.potentials.two_potentials import TwoPotentials

    chosen = [name for name in ("compile", "cuda_graphs") if getattr(arguments, name)]
    if not chosen:
        return potential
    two = isinstance(potential, TwoPotentials)
    parts = (potential.fast, potential.slow) if two else (potential,)
    if not any(isinstance(part, Network | CompiledPotential) for part in parts):
        raise UsageError(f"{chosen[0].replace('_', '-')}: {potential.name!r} is no network of ours; leave it out")
    if arguments.cuda_graphs and arguments.device == "cpu":
        raise UsageError("cuda-graphs: they are for GPUs; give --device cuda, or leave it out")
    if not two:
        kinds = ("direct", "joint") if forces == "mts" else (forces,)
        return _quicker(potential, arguments.potential, kinds, arguments)
    fast = "direct" if potential.fast.provides & Wanted.DIRECT else "conservative"
    return TwoPotentials(
        _quicker(potential.fast, arguments.fast, (fast,), arguments),
        _quicker(potential.slow, arguments.potential, ("conservative",), arguments),
    )


def _quicker(potential: Any, name: str, kinds: tuple[str, ...], arguments: argparse.Namespace) -> Any:
    """One potential; those of others stay as they are."""
    from mlcalc.audit.progress import Reporter
    from mlcalc.potentials import package_cache
    from mlcalc.potentials.compiled import CompiledPotential
    from mlcalc.potentials.graphed import GraphedPotential
    from mlcalc.potentials.network import Network

    if arguments.compile and isinstance(potential, Network):
        with Reporter() as progress:

            def show(kind: str, done: int, total: int) -> None:
                progress(f"compiling {name}", done, total, kind)

            potential = package_cache.load_cached(
                name, kinds, device=arguments.device, dtype=potential.dtype, progress=show
            )
    if arguments.cuda_graphs and isinstance(potential, Network | CompiledPotential):
        return GraphedPotential(potential)
    return potential
