"""Labelled frames from a teacher: rattled cells first, then dynamics that the student already makes cheap."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import RunError
from mlcalc.evaluation import Evaluation, Wanted, required
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.potential import Potential
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure
from mlcalc.training.data import Frame
from mlcalc.training.losses import N_INSTANTS
from mlcalc.trajectory import Frame as Record

Progress = Callable[[int, int], None]

_RATTLES = (0.02, 0.05, 0.1)  # Å, in turn
_STRAIN = 0.015  # root mean square of the elements of a random strain
_WILD = 30.0  # eV/Å; a frame with a greater force is a collision that no dynamics at the wanted temperatures meets
_FRICTION_PER_PS = 5.0
_INNER_BETWEEN_INSTANTS = 4  # 2 fs with hydrogen: the filter then passes what outer steps of 3 fs turn into heat
_BETWEEN_GROUPS_FS = 20.0


def strained(structure: Structure, generator: torch.Generator, size: float = _STRAIN) -> Structure:
    """The structure under a random symmetric strain along its periodic directions; unchanged where it has none."""
    if not bool(structure.periodic.all()):
        return structure
    strain = size * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    deform = (torch.eye(3, dtype=torch.float64) + (strain + strain.T) / 2).to(structure.positions)
    return Structure(
        structure.positions @ deform,
        structure.numbers,
        structure.cell @ deform,
        structure.periodic,
        structure.masses,
        structure.system,
    )


def label(teacher: Potential, structure: Structure) -> Evaluation:
    """The teacher's energy and conservative force."""
    neighbours = neighbour_list(structure, teacher.cutoff)
    return teacher.evaluate(structure, neighbours, Wanted.ENERGY | Wanted.CONSERVATIVE)


def frame(structure: Structure, evaluation: Evaluation, cutoff: float) -> Frame:
    """A training frame on the CPU; cutoff in Å, the student's."""
    here = structure.to(device="cpu", dtype=torch.float64)
    energy, force = (required(evaluation, key).double().cpu() for key in ("energy", "conservative_force"))
    return Frame(here, neighbour_list(here, cutoff), energy.sum(), force, None)


def rattled(structure: Structure, n_frames: int, generator: torch.Generator) -> list[Structure]:
    """Random displacements, every second in a strained cell."""
    made = []
    for k in range(n_frames):
        cell = strained(structure, generator) if k % 2 else structure
        noise = torch.randn(cell.positions.shape, generator=generator, dtype=torch.float64).to(cell.positions)
        made.append(cell.at(cell.positions + _RATTLES[k % len(_RATTLES)] * noise))
    return made


def labelled_frames(
    teacher: Potential, structures: Sequence[Structure], cutoff: float, *, progress: Progress
) -> list[Frame]:
    """One evaluation of the teacher each; cutoff in Å, the student's."""
    frames = []
    for k, structure in enumerate(structures, 1):
        frames.append(frame(structure, label(teacher, structure), cutoff))
        progress(k, len(structures))
    return frames


def dynamics_frames(
    teacher: Potential,
    student: Potential,
    starts: Sequence[tuple[Structure, float]],
    *,
    n_frames: int,
    inner_timestep_fs: float,
    n_inner: int,
    seed: int,
    progress: Progress,
) -> list[Frame]:
    """Langevin dynamics with the student inside and the teacher outside, whose evaluations are the labels.

    Parameters
    ----------
    starts : (structure, temperature in K), each gets an equal share of the frames
    n_frames : how many, one an outer step

    Returns
    -------
    the frames; fewer where a run flew apart, as with a young student it may
    """
    pair = TwoPotentials(student, teacher)
    frames: list[Frame] = []
    share = -(-n_frames // len(starts))
    for k, (structure, temperature) in enumerate(starts):
        engine = NativeEngine(
            pair,
            structure,
            forces="mts",
            timestep_fs=n_inner * inner_timestep_fs,
            n_inner=n_inner,
            momenta=maxwell_boltzmann(structure, temperature, seed=1000 * seed + k),
            ensemble=Ensemble(Langevin(temperature, _FRICTION_PER_PS, seed=1000 * seed + k)),
            max_temperature_K=5 * temperature + 500,
        )

        def keep(record: Record, engine: NativeEngine = engine, structure: Structure = structure) -> None:
            here = structure.at(torch.as_tensor(record.positions, device=structure.device))
            if bool(required(engine.evaluation, "conservative_force").abs().max() < _WILD):
                frames.append(frame(here, engine.evaluation, student.cutoff))
            progress(min(len(frames), n_frames), n_frames)

        with contextlib.suppress(RunError):  # it flew apart; what came before stays
            engine.advance(share, keep, first=False)
    return frames


def labelled_instants(
    teacher: Potential,
    student: Potential,
    starts: Sequence[tuple[Structure, float]],
    *,
    n_groups: int,
    inner_timestep_fs: float,
    seed: int,
    progress: Progress,
) -> list[Frame]:
    """Groups of five labelled instants of a trajectory with the student inside; between groups it goes on alone.

    Parameters
    ----------
    starts : (structure, temperature in K), each gets an equal share of the groups
    n_groups : how many

    Returns
    -------
    five frames for each group, one after the other; fewer groups where a run flew apart or atoms collided
    """
    pair = TwoPotentials(student, teacher)
    frames: list[Frame] = []
    share = -(-n_groups // len(starts))
    for k, (structure, temperature) in enumerate(starts):
        momenta = maxwell_boltzmann(structure, temperature, seed=1000 * seed + k)
        with contextlib.suppress(RunError):  # it flew apart; what came before stays
            for group in range(min(share, n_groups - len(frames) // N_INSTANTS)):
                bath = Langevin(temperature, _FRICTION_PER_PS, seed=1000 * seed + share * k + group)
                structure, momenta = _later(student, structure, momenta, bath, inner_timestep_fs)
                five, structure, momenta = _five_instants(pair, structure, momenta, inner_timestep_fs)
                if all(bool(one.force.abs().max() < _WILD) for one in five):
                    frames += five
                progress(len(frames) // N_INSTANTS, n_groups)
    return frames


def _later(
    student: Potential, structure: Structure, momenta: Tensor, bath: Langevin, timestep_fs: float
) -> tuple[Structure, Tensor]:
    """Structure and momenta after the time between two groups."""
    engine = NativeEngine(
        student,
        structure,
        forces="direct",
        timestep_fs=timestep_fs,
        momenta=momenta,
        ensemble=Ensemble(bath),
        max_temperature_K=5 * bath.temperature_K + 500,
    )
    engine.advance(max(1, round(_BETWEEN_GROUPS_FS / timestep_fs)), lambda _: None, first=False)
    return structure.at(engine.phase.positions), engine.phase.momenta


def _five_instants(
    pair: TwoPotentials, structure: Structure, momenta: Tensor, inner_timestep_fs: float
) -> tuple[list[Frame], Structure, Tensor]:
    """The labelled frames of a group; structure and momenta at its end."""
    engine = NativeEngine(
        pair,
        structure,
        forces="mts",
        timestep_fs=_INNER_BETWEEN_INSTANTS * inner_timestep_fs,
        n_inner=_INNER_BETWEEN_INSTANTS,
        momenta=momenta,
    )
    frames: list[Frame] = []

    def keep(record: Record) -> None:
        here = structure.at(torch.as_tensor(record.positions, device=structure.device))
        frames.append(frame(here, engine.evaluation, pair.fast.cutoff))

    engine.advance(N_INSTANTS - 1, keep)
    return frames, structure.at(engine.phase.positions), engine.phase.momenta


def joined(frames: Sequence[Frame], cutoff: float) -> list[Frame]:
    """Each five frames as one of five systems; cutoff in Å, the student's."""
    groups = []
    for k in range(0, len(frames), N_INSTANTS):
        five = frames[k : k + N_INSTANTS]
        systems = five[0].structure.replicated(N_INSTANTS).at(torch.cat([one.structure.positions for one in five]))
        energy, force = torch.stack([one.energy for one in five]).sum(), torch.cat([one.force for one in five])
        groups.append(Frame(systems, neighbour_list(systems, cutoff), energy, force, None))
    return groups


def write_frames(path: Path, frames: Sequence[Frame]) -> None:
    """Keep labelled frames in one file, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for k, one in enumerate(frames):
        parts = {"positions": one.structure.positions, "cell": one.structure.cell, "force": one.force}
        for name, value in {**parts, "energy": one.energy.reshape(1)}.items():
            tensors[f"{k:06d}.{name}"] = value.contiguous().clone()
    partial = path.with_suffix(".partial")
    save_file(tensors, str(partial), {"n_frames": str(len(frames))})
    os.replace(partial, path)


def read_frames(path: Path, structure: Structure, cutoff: float) -> list[Frame]:
    """Frames of one structure's atoms that `write_frames` kept; cutoff in Å, the student's.

    Raises
    ------
    RunError
        if the file is damaged.
    """
    here = structure.to(device="cpu", dtype=torch.float64)
    frames = []
    try:
        with safe_open(str(path), framework="pt") as file:
            for k in range(int(file.metadata()["n_frames"])):
                positions, cell, force, energy = (
                    file.get_tensor(f"{k:06d}.{name}") for name in ("positions", "cell", "force", "energy")
                )
                placed = Structure(positions, here.numbers, cell, here.periodic, here.masses, here.system)
                frames.append(Frame(placed, neighbour_list(placed, cutoff), energy[0], force, None))
    except (SafetensorError, KeyError, OSError) as error:
        raise RunError(f"distillation: {path} is damaged ({error}); remove it and run the command again") from error
    return frames
