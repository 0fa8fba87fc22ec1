"""From a teacher and a structure to a student that makes the teacher's dynamics cheaper.

1. A first student learns from rattled cells, and from configurations that the user has, say of a cheap potential's
   dynamics. It may start from an existing potential of the same elements, whatever its level of theory: what that has
   learnt of molecules it need not learn again.
2. Rounds: dynamics with the student inside and the teacher outside, whose evaluations at the outer steps are labels
   that cost nothing more; the student's error on these fresh frames is noted, then it learns from them too. The rounds
   end when that error stops falling.
3. A last, longer training on everything.
4. If asked for, a stage on groups of instants along trajectories, which weighs what of the student's error is too fast
   for kicks: that heats, and so decides how long the outer step may be.
5. What it is good for, by running it: error, asymmetry, cost, and the longest outer step that conserves energy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.data import chemical_symbols

from mlcalc.distillation.examination import Examination, examine, force_error
from mlcalc.distillation.sampling import (
    dynamics_frames,
    joined,
    labelled_frames,
    labelled_instants,
    rattled,
    read_frames,
    write_frames,
)
from mlcalc.distillation.settings import DistillSettings
from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.checkpoint import save_checkpoint
from mlcalc.potentials.network import Network
from mlcalc.potentials.painn import PaiNN
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure
from mlcalc.training.data import Frame
from mlcalc.training.losses import N_INSTANTS, KickWeights, Weights
from mlcalc.training.run import TrainingSettings, build_network, initial_network
from mlcalc.training.trainer import Stage, Trainer

Progress = Callable[[str, int, int], None]

_KICK_WEIGHTS = KickWeights(alignment=1.0, fast=15.0)  # the fast part counts some five times the rest, at first
_GROUPS_PER_START = 8


@dataclass(frozen=True)
class Distilled:
    """What came of it.

    Attributes
    ----------
    path : of the student's checkpoint
    fresh_errors : meV/Å, root mean square of the student's force on frames of each round before it learnt from them
    n_frames : labelled by the teacher in all
    examination : what the student is good for
    """

    path: Path
    fresh_errors: tuple[float, ...]
    n_frames: int
    examination: Examination


def distill(
    teacher: Potential,
    atoms: ase.Atoms,
    path: str | Path,
    settings: DistillSettings | None = None,
    *,
    configurations: Sequence[ase.Atoms] = (),
    progress: Progress | None = None,
) -> Distilled:
    """Distil a student with direct forces; goes on where an earlier call with the same arguments was cut off.

    Parameters
    ----------
    teacher : with an energy and conservative forces
    atoms : the system that the student is for
    path : of the checkpoint to write, ending in .safetensors; a folder beside it keeps frames and training states
    configurations : more places of the same atoms, in any cell, for the first round

    Raises
    ------
    UsageError
        for unusable settings, a teacher that does not know the elements, or configurations of other atoms.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"path: got {path}; let the name of the student end in .safetensors")
    teacher.check_wanted(Wanted.ENERGY | Wanted.CONSERVATIVE)
    structure = Structure.from_ase(atoms, device=teacher.device, dtype=torch.float64)
    teacher.check_species(structure)
    more = [_same_atoms(one, atoms, k, teacher) for k, one in enumerate(configurations)]
    return _Distillation(teacher, structure, path, settings or DistillSettings(), progress or _silent, more).run()


def _same_atoms(one: ase.Atoms, atoms: ase.Atoms, k: int, teacher: Potential) -> Structure:
    if one.numbers.tolist() != atoms.numbers.tolist() or one.pbc.tolist() != atoms.pbc.tolist():
        raise UsageError(
            f"configurations: number {k} ({one.get_chemical_formula()}) has other atoms, another order or other "
            f"periodic directions than the structure ({atoms.get_chemical_formula()}); give frames of the same system"
        )
    return Structure.from_ase(one, device=teacher.device, dtype=torch.float64)


def _silent(stage: str, done: int, total: int) -> None:
    pass


@dataclass
class _Distillation:
    teacher: Potential
    structure: Structure
    path: Path
    settings: DistillSettings
    progress: Progress
    configurations: list[Structure]
    training: list[Frame] = field(default_factory=list)
    validation: list[Frame] = field(default_factory=list)

    def run(self) -> Distilled:
        _ = self._training_settings  # refuses what cannot be trained before anything is labelled or written
        self.folder.mkdir(parents=True, exist_ok=True)
        self._same_run()
        settings = self.settings
        self._add(self._frames(0, None))
        student = self._train(build_network(self._training_settings, self.training), 0, settings.steps_round, 1e-3)
        errors: list[float] = []
        for k in range(1, settings.n_rounds + 1):
            fresh = self._frames(k, student)
            errors.append(force_error(student, fresh))
            self._add(fresh)
            # the first round begins at rest, so its error is too small to compare with
            if len(errors) > 2 and errors[-1] > settings.stop_at * errors[-2]:
                break
            student = self._train(student, k, settings.steps_round, 1e-3)
        student = self._train(student, settings.n_rounds + 1, settings.steps_last, 1e-3)
        n_frames = len(self.training) + len(self.validation)
        if settings.n_groups:
            instants = self._instants(student)
            student = self._train(student, settings.n_rounds + 2, settings.steps_kicks, 1e-3, instants)
            n_frames += N_INSTANTS * len(instants)
        student.name = self.path.stem
        found = examine(
            student,
            self.teacher,
            self.structure,
            self.validation,
            temperature_K=settings.temperatures_K[0],
            inner_timestep_fs=self.inner_timestep_fs,
            ladder_ps=settings.ladder_ps,
            progress=self.progress,
        )
        save_checkpoint(self.path, student, self._card(errors, n_frames, found))
        return Distilled(self.path, tuple(errors), n_frames, found)

    @property
    def folder(self) -> Path:
        return self.path.with_suffix(".distillation")

    @property
    def inner_timestep_fs(self) -> float:
        with_hydrogen = bool((self.structure.numbers == 1).any())
        return self.settings.inner_timestep_fs or (0.5 if with_hydrogen else 1.0)

    def _same_run(self) -> None:
        """Refuse a folder that another run has left."""
        mine = {"teacher": self.teacher.fingerprint, "settings": json.loads(json.dumps(asdict(self.settings)))}
        mine |= {name: getattr(self.structure, name).tolist() for name in ("numbers", "positions", "cell", "periodic")}
        mine["configurations"] = [[one.positions.sum().item(), one.cell.sum().item()] for one in self.configurations]
        note = self.folder / "settings.json"
        if note.exists() and json.loads(note.read_text()) != mine:
            raise UsageError(
                f"path: {self.folder} holds a run with another teacher, structure or settings; remove it, or give "
                "another name"
            )
        note.write_text(json.dumps(mine))

    @cached_property
    def _training_settings(self) -> TrainingSettings:
        settings = self.settings
        if settings.initial is not None:
            initial = initial_network(settings.initial)
            if not isinstance(initial, PaiNN):
                raise UsageError(
                    f"initial: {settings.initial!r} is a {type(initial).__name__}; students are PaiNN only"
                )
            symbols = [chemical_symbols[number] for number in self.structure.numbers.unique().tolist()]
            if list(initial.species) != symbols:
                raise UsageError(
                    f"initial: {settings.initial!r} knows {', '.join(initial.species)}, but the structure holds "
                    f"{', '.join(symbols)}; give a potential of the same elements"
                )
            made_of: dict[str, Any] = dict(initial.hyperparameters)
            cutoffs = [made_of.pop(name) for name in ("cutoff", "three_body_cutoff", "density_cutoff")]
            sizes = tuple((name, size) for name, size in made_of.items() if name not in ("species", "form"))
        else:
            short = min(_first_shell(self.structure), settings.cutoff)
            three_body = short if len(self.structure.numbers.unique()) <= 4 else 0.0
            cutoffs = [settings.cutoff, three_body, min(short + 0.6, settings.cutoff)]
            sizes = settings.sizes
        cutoff, three_body_cutoff, density_cutoff = cutoffs
        return TrainingSettings(
            form="NC",
            cutoff=cutoff,
            three_body_cutoff=three_body_cutoff,
            density_cutoff=density_cutoff,
            seed=settings.seed,
            initial=settings.initial,
            sizes=sizes,
        )

    def _frames(self, number: int, student: Network | None) -> list[Frame]:
        """The frames of a round, from its file where there is one."""
        path = self.folder / f"frames-{number}.safetensors"
        if not path.exists():
            made = self._sample(number, student)
            if len(made) < 10:
                raise UsageError(
                    f"structure: round {number} gave {len(made)} usable frames; relax it with the teacher first, or "
                    "lower the temperatures"
                )
            write_frames(path, made)
        return read_frames(path, self.structure, self._training_settings.cutoff)

    def _sample(self, number: int, student: Network | None) -> list[Frame]:
        settings = self.settings

        def count(done: int, total: int) -> None:
            self.progress(f"frames, round {number}", done, total)

        if student is None:
            generator = torch.Generator().manual_seed(settings.seed)
            return labelled_frames(
                self.teacher,
                [*rattled(self.structure, settings.n_first, generator), *self.configurations],
                self._training_settings.cutoff,
                progress=count,
            )
        # after the first round, go on from frames of the round before
        begin = [self.structure] * len(settings.temperatures_K)
        if number > 1:
            generator = torch.Generator().manual_seed(1000 * settings.seed + number)
            picked = torch.randint(1, settings.n_frames // 2, (len(begin),), generator=generator).tolist()
            begin = [self.training[-k].structure.to(device=self.teacher.device) for k in picked]
        return dynamics_frames(
            self.teacher,
            student,
            list(zip(begin, settings.temperatures_K, strict=True)),
            n_frames=settings.n_frames,
            inner_timestep_fs=self.inner_timestep_fs,
            n_inner=2 if number == 1 else 6,
            seed=1000 * settings.seed + number,
            progress=count,
        )

    def _add(self, frames: list[Frame]) -> None:
        """Every tenth frame is left out of training."""
        self.validation += frames[::10]
        self.training += [one for k, one in enumerate(frames) if k % 10]

    def _instants(self, student: Network) -> list[Frame]:
        """Groups of five as one frame each, from their file where there is one; begun in the last round's dynamics."""
        settings, path = self.settings, self.folder / "instants.safetensors"
        if not path.exists():
            recent, temperatures = self.training[-settings.n_frames :], settings.temperatures_K
            places = recent[:: max(1, len(recent) * _GROUPS_PER_START // settings.n_groups)]
            starts = [
                (place.structure.to(device=self.teacher.device), temperatures[k % len(temperatures)])
                for k, place in enumerate(places)
            ]
            frames = labelled_instants(
                self.teacher,
                student,
                starts,
                n_groups=settings.n_groups,
                inner_timestep_fs=self.inner_timestep_fs,
                seed=1000 * settings.seed + settings.n_rounds + 2,
                progress=lambda done, total: self.progress("groups of instants", done, total),
            )
            if not frames:
                raise UsageError(
                    "temperatures_K: all runs with the student flew apart; lower them, or leave n_groups 0"
                )
            write_frames(path, frames)
        cutoff = self._training_settings.cutoff
        return joined(read_frames(path, self.structure, cutoff), cutoff)

    def _train(
        self, student: Network, number: int, n_steps: int, rate: float, instants: Sequence[Frame] = ()
    ) -> Network:
        name = "last training" if number > self.settings.n_rounds else f"training, round {number}"
        stage = Stage(
            "kicks" if instants else name,
            n_steps,
            rate,
            Weights(direct=1.0, energy=0.01),
            final_fraction=0.01,
            kick_weights=_KICK_WEIGHTS if instants else None,
        )
        trainer = Trainer(
            student.requires_grad_(True),
            self.training,
            self.validation,
            [stage],
            self.folder / f"training-{number}",
            instants=instants,
            seed=self.settings.seed + number,
        )
        return trainer.run(lambda stage, done, total, _: self.progress(stage, done, total)).requires_grad_(False)

    def _card(self, errors: list[float], n_frames: int, found: Examination) -> dict[str, Any]:
        return {
            "made_by": "distillation",
            "teacher": {"name": self.teacher.name, "fingerprint": self.teacher.fingerprint},
            "structure": {
                "formula": _formula(self.structure),
                "atoms": self.structure.n_atoms,
            },
            "settings": asdict(self.settings),
            "frames": n_frames,
            "fresh_errors_meV_per_A": errors,
            "examination": found.as_dict(),
            "validation_errors": {"direct": found.force_error},
            "validation_units": "meV/Å, against the teacher",
            "torch": torch.__version__,
        }


def _first_shell(structure: Structure) -> float:
    """A little beyond the nearest neighbours, Å: 1.15 times the median distance to the nearest atom, from 2.6 to 3.6.

    2.6 is what suits water: the next molecule's hydrogen is 1.8 Å from an oxygen.
    """
    edges = neighbour_list(structure, 4.0)
    if not edges.n_edges:
        return 2.6
    distance = torch.linalg.vector_norm(edges.vectors(structure), dim=1)
    nearest = torch.full((structure.n_atoms,), torch.inf, dtype=distance.dtype, device=distance.device)
    nearest.scatter_reduce_(0, edges.centre, distance, "amin")
    return float(np.clip(1.15 * float(nearest.median()), 2.6, 3.6))


def _formula(structure: Structure) -> str:
    numbers, counts = structure.numbers.unique(return_counts=True)
    return "".join(f"{chemical_symbols[n]}{c}" for n, c in zip(numbers.tolist(), counts.tolist(), strict=True))
