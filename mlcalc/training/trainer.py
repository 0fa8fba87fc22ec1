"""The training loop: stages, exponential moving average, validation, exact resumption after a kill."""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import JOINT, Wanted, required
from mlcalc.potentials.network import Network
from mlcalc.training.data import Frame, Geometry
from mlcalc.training.losses import KickWeights, Weights, disagreement, loss

_G = TypeVar("_G", bound=Geometry)

# A gradient longer than this many times the median of the last ones is shortened to it: now and then a frame throws a
# network so far that it takes hundreds of steps to come back.
_LONGEST_GRADIENT, _REMEMBERED, _FEWEST_REMEMBERED = 1.5, 100, 20


@dataclass(frozen=True)
class Stage:
    """One stage of the schedule.

    Attributes
    ----------
    name : what reports call it
    n_steps : optimiser steps, one frame each (and one of five instants, where `kick_weights` are given)
    learning_rate : its peak, after a linear warm-up
    final_fraction : of the peak, reached by a cosine
    weights : of the loss on the data
    kick_weights : of the loss on frames of five instants
    """

    name: str
    n_steps: int
    learning_rate: float
    weights: Weights
    final_fraction: float = 0.02
    kick_weights: KickWeights | None = None

    def learning_rate_at(self, step: int, warm_up: int = 200) -> float:
        """Of step `step` (from 0) of this stage."""
        ramp = min(1.0, (step + 1) / min(warm_up, max(1, self.n_steps // 10)))
        cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, self.n_steps)))
        return self.learning_rate * ramp * (self.final_fraction + (1 - self.final_fraction) * cosine)


@dataclass(frozen=True)
class Errors:
    """Root-mean-square errors over validation frames: meV/Å for forces, meV/atom for the energy."""

    direct: float
    conservative: float
    alignment: float
    energy: float


def frame_order(n_frames: int, seed: int, epoch: int) -> list[int]:
    """The order of the frames in one epoch: a function of seed and epoch alone, so a resumed run needs no state."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(n_frames, generator=generator).tolist()


def random_rotation(seed: int, step: int) -> Tensor:
    """A uniformly random orthogonal matrix (3, 3), improper half the time; a function of seed and step alone."""
    generator = torch.Generator().manual_seed(7_919 * seed + step)
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()


def agreement(network: Network, frames: Sequence[Geometry]) -> float:
    """Root-mean-square difference of the two forces, meV/Å."""
    squares = []
    for frame in frames:
        result = network.evaluate(frame.structure, frame.neighbours, JOINT)
        difference = required(result, "direct_force") - required(result, "conservative_force")
        squares.append(difference.square().mean())
    return 1000 * float(torch.stack(squares).mean().sqrt())


def validate(network: Network, frames: Sequence[Frame]) -> Errors:
    """Errors of both heads, of their difference, and of the energy."""
    squares: dict[str, list[Tensor]] = {"direct": [], "conservative": [], "alignment": [], "energy": []}
    for frame in frames:
        result = network.evaluate(frame.structure, frame.neighbours, network.provides & JOINT)
        direct, conservative = result.direct_force, result.conservative_force
        if direct is not None:
            squares["direct"].append((direct - frame.force).square().mean())
        if conservative is not None:
            squares["conservative"].append((conservative - frame.force).square().mean())
        if direct is not None and conservative is not None:
            squares["alignment"].append((direct - conservative).square().mean())
        miss = required(result, "energy").sum() - frame.energy
        squares["energy"].append((miss / frame.structure.n_atoms).square())
    rms = {k: 1000 * float(torch.stack(v).mean().sqrt()) if v else math.nan for k, v in squares.items()}
    return Errors(**rms)


class Trainer:
    """Trains a network through stages, one frame a step, writing everything into one folder.

    Parameters
    ----------
    network : trained in place; its EMA is what `trained()` gives
    training, validation : frames
    stages : in order
    instants : frames that hold one system at five instants each, for stages with `kick_weights`. The slow force is the
        label's where there is one, else the network's own conservative one: then both forces give way
    folder : for state.safetensors (resume), log.csv (learning curve)
    seed : of the order of frames and of the rotations
    rotate : whether each frame is turned at random before use (for architectures that are not equivariant)
    """

    def __init__(
        self,
        network: Network,
        training: Sequence[Frame],
        validation: Sequence[Frame],
        stages: Sequence[Stage],
        folder: str | Path,
        *,
        instants: Sequence[Geometry] = (),
        seed: int = 0,
        rotate: bool = False,
        ema_decay: float = 0.999,
        validate_every: int = 500,
    ) -> None:
        if not training or not validation:
            raise UsageError("training: both training and validation frames are needed")
        if not instants and any(stage.kick_weights for stage in stages):
            raise UsageError("training: a stage weighs the kicks of multiple time stepping, but there are no instants")
        self.network, self.training, self.validation = network, list(training), list(validation)
        self.instants = list(instants)
        self.stages, self.folder, self.seed, self.rotate = list(stages), Path(folder), seed, rotate
        self.ema_decay, self.validate_every = ema_decay, validate_every
        self.ema = copy.deepcopy(network).requires_grad_(False)
        self.stage = self.step = 0
        self.seconds = [0.0] * len(self.stages)
        self.gradient_norms: list[float] = []
        self.optimiser = self._optimiser()
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / "state.safetensors").exists():
            self._resume()

    def _optimiser(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.network.parameters(), lr=0.0)

    def run(self, progress: Callable[[str, int, int, float], None] | None = None) -> Network:
        """Train to the end of the last stage; returns the averaged network."""
        while self.stage < len(self.stages):
            stage = self.stages[self.stage]
            while self.step < stage.n_steps:
                started = time.perf_counter()
                value = self._one_step(stage)
                self.seconds[self.stage] += time.perf_counter() - started
                self.step += 1
                if progress is not None:
                    progress(stage.name, self.step, stage.n_steps, value)
                if self.step % self.validate_every == 0 or self.step == stage.n_steps:
                    self._log(stage, value)
                    self._save()
            self.stage, self.step = self.stage + 1, 0
            if self.stage < len(self.stages):
                self.network.load_state_dict(self.ema.state_dict())
                self.optimiser, self.gradient_norms = self._optimiser(), []
            self._save()
        return self.trained()

    def trained(self) -> Network:
        """The exponential moving average of the weights."""
        return copy.deepcopy(self.ema)

    def _one_step(self, stage: Stage) -> float:
        done = sum(earlier.n_steps for earlier in self.stages[: self.stage]) + self.step
        frame = self._turn_of(self.training, done)
        for group in self.optimiser.param_groups:
            group["lr"] = stage.learning_rate_at(self.step)
        wanted = stage.weights.wanted(frame)
        evaluation = self.network.differentiable(frame.structure, frame.neighbours, wanted)
        value = loss(evaluation, frame, stage.weights)
        if not bool(torch.isfinite(value)):
            raise RunError(
                f"training: the loss is {float(value)} at step {done}; lower learning_rate ({stage.learning_rate})"
            )
        self.optimiser.zero_grad(set_to_none=True)
        value.backward()
        if stage.kick_weights is not None:
            five = self._turn_of(self.instants, done)
            disagreement(self._kick(five), five.structure.masses, stage.kick_weights).backward()
        self._clip()
        self.optimiser.step()
        self._average()
        return float(value.detach())

    def _kick(self, frame: Geometry) -> Tensor:
        """The slow force minus the fast one, (n_atoms, 3), eV/Å."""
        wanted = Wanted.DIRECT if isinstance(frame, Frame) else JOINT
        found = self.network.differentiable(frame.structure, frame.neighbours, wanted)
        slow = frame.force if isinstance(frame, Frame) else required(found, "conservative_force")
        return slow - required(found, "direct_force")

    def _clip(self) -> None:
        known = self.gradient_norms
        longest = _LONGEST_GRADIENT * median(known) if len(known) >= _FEWEST_REMEMBERED else math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), longest)
        self.gradient_norms = [*known[1 - _REMEMBERED :], float(norm)]

    def _turn_of(self, frames: Sequence[_G], step: int) -> _G:
        """The frame whose turn it is, itself turned where the network must learn that directions are alike."""
        epoch, place = divmod(step, len(frames))
        frame = frames[frame_order(len(frames), self.seed, epoch)[place]]
        return frame.rotated(random_rotation(self.seed, step)) if self.rotate else frame

    @torch.no_grad()
    def _average(self) -> None:
        # every stage starts from the average, and what a head was before it learnt anything must not linger in it
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        mine = dict(self.network.named_parameters())
        for name, average in self.ema.named_parameters():
            average.lerp_(mine[name], 1 - decay)

    def _log(self, stage: Stage, value: float) -> None:
        errors = validate(self.ema, self.validation)
        path = self.folder / "log.csv"
        row = {
            "stage": stage.name,
            "step": self.step,
            "seconds": round(sum(self.seconds), 1),
            "loss": f"{value:.6g}",
            **{key: f"{number:.4f}" for key, number in asdict(errors).items()},
        }
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _save(self) -> None:
        tensors: dict[str, Tensor] = {}
        for key, tensor in self.network.state_dict().items():
            tensors[f"network.{key}"] = tensor
        for key, tensor in self.ema.state_dict().items():
            tensors[f"ema.{key}"] = tensor
        for k, state in self.optimiser.state_dict()["state"].items():
            for key, tensor in state.items():
                tensors[f"adam.{k}.{key}"] = tensor
        progress = {
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
            "gradient_norms": self.gradient_norms,
            "schedule": self._schedule(),
        }
        path = self.folder / "state.safetensors"
        partial = path.with_suffix(".partial")
        save_file(
            {k: v.detach().clone().contiguous() for k, v in tensors.items()},
            str(partial),
            {"progress": json.dumps(progress)},
        )
        os.replace(partial, path)

    def _schedule(self) -> list[Mapping[str, Any]]:
        return [asdict(stage) for stage in self.stages]

    def _resume(self) -> None:
        path = self.folder / "state.safetensors"
        with safe_open(str(path), framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no dict)
        if progress["schedule"] != json.loads(json.dumps(self._schedule())):
            raise UsageError(
                f"folder: {self.folder} holds a run with another schedule; use a new folder or the same stages"
            )
        self.stage, self.step, self.seconds = progress["stage"], progress["step"], progress["seconds"]
        self.gradient_norms = progress["gradient_norms"]

        def part(prefix: str) -> dict[str, Tensor]:
            return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

        self.network.load_state_dict(part("network."))
        self.ema.load_state_dict(part("ema."))
        self.optimiser = self._optimiser()
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part("adam.").items():
            k, name = key.split(".")
            state.setdefault(int(k), {})[name] = value
        if state:
            self.optimiser.load_state_dict(
                {"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]}
            )
