"""How to distil."""

from __future__ import annotations

from dataclasses import dataclass

from mlcalc.errors import UsageError


@dataclass(frozen=True)
class DistillSettings:
    """How to distil.

    Attributes
    ----------
    temperatures_K : of the dynamics; the first is the one that the student is made for
    inner_timestep_fs : of the student in multiple time stepping; None for 0.5 fs with hydrogen, else 1 fs
    initial : name or file of a potential of ours for the student to start from, with its cutoffs and sizes
    n_first : rattled frames of the first round
    n_frames : of each later round; n_rounds : at most so many of these
    stop_at : rounds end when the error on fresh frames is above this fraction of what it was a round before
    steps_round, steps_last : optimiser steps of each round and of the last training
    n_groups : of five instants each, for the stage on kicks; 0 leaves it out
    steps_kicks : optimiser steps of that stage, each as dear as six others
    cutoff : Å, of the student
    ladder_ps : ps, of each run that tells how long the outer step may be
    sizes : of a student that starts afresh, see `TrainingSettings`; cutoff likewise
    """

    temperatures_K: tuple[float, ...] = (300.0, 450.0)
    inner_timestep_fs: float | None = None
    n_first: int = 40
    n_frames: int = 80
    n_rounds: int = 5
    stop_at: float = 0.9
    steps_round: int = 1500
    steps_last: int = 5000
    n_groups: int = 0
    steps_kicks: int = 1500
    cutoff: float = 4.5
    ladder_ps: float = 0.5
    seed: int = 0
    initial: str | None = None
    sizes: tuple[tuple[str, int], ...] = (("channels", 32), ("n_layers", 2), ("hidden", 64))

    def __post_init__(self) -> None:
        if not self.temperatures_K or not all(0 < t <= 1e5 for t in self.temperatures_K):
            raise UsageError(f"temperatures_K: got {self.temperatures_K}; give one or more from above 0 to 1e5 K")
        least = {"n_first": 10, "n_frames": 10, "n_rounds": 0, "n_groups": 0}
        least |= dict.fromkeys(("steps_round", "steps_last", "steps_kicks"), 1)
        for name, number in least.items():
            if getattr(self, name) < number:
                raise UsageError(f"{name}: got {getattr(self, name)}; give {number} or more")
        for name in ("inner_timestep_fs", "cutoff", "ladder_ps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name}: got {value}; give a number above 0")
