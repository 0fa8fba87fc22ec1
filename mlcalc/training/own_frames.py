"""Frames from a potential's own molecular dynamics.

For multiple time stepping it is the difference of the potential's two forces that counts, not the error of either, and
that needs no label. So the last stage of training has both forces agree on such frames. Each holds five instants of a
trajectory, so that a loss can weigh how fast the difference varies.

A kick once in an outer step of length T cannot tell a frequency f from 1/T − f. With T = 4 fs, force at 4900 cm⁻¹ heats
O-H stretches at 3400, force at 6700 their bends. So the instants are 5T/8 = 2.5 fs apart, where the loss's filter
blocks what is slow and the stretches themselves, which a kick follows, and passes 4500 to 7700 cm⁻¹.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.network import Network
from mlcalc.structure import Structure
from mlcalc.training.data import Geometry
from mlcalc.training.losses import N_INSTANTS

_FRAMES_PER_START = 10
_OUTER_FS, _N_INNER = 2.5, 5  # of the dynamics; conserves with a direct head that has seen only the data


def own_frames(
    network: Network,
    starts: Sequence[Structure],
    *,
    n_frames: int,
    temperatures_K: Sequence[float] = (250.0, 300.0, 350.0, 400.0),
    spacing_fs: float = 15.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Geometry]:
    """Short NVE runs with multiple time stepping (outer step 2.5 fs, M = 5), temperatures in turn.

    Parameters
    ----------
    starts : structures to start from, taken in turn; each runs on from where its last run ended
    n_frames : how many frames to collect
    spacing_fs : between the beginnings of frames, at least 12.5

    Returns
    -------
    frames of five systems each: the same at five instants 2.5 fs apart
    """
    frames: list[Geometry] = []
    places = list(starts)
    between = max(1, round(spacing_fs / _OUTER_FS) - (N_INSTANTS - 1))
    run = 0
    while len(frames) < n_frames:
        structure = places[run % len(places)]
        temperature = temperatures_K[run % len(temperatures_K)]
        momenta = maxwell_boltzmann(structure, temperature, seed=1000 * seed + run)
        engine = NativeEngine(
            network, structure, forces="mts", timestep_fs=_OUTER_FS, n_inner=_N_INNER, momenta=momenta
        )
        for _ in range(min(_FRAMES_PER_START, n_frames - len(frames))):
            instants = []
            for n_steps in (between, *[1] * (N_INSTANTS - 1)):
                engine.run(n_steps, stride=n_steps)
                instants.append(torch.as_tensor(engine.phase.positions).clone())
            structure = structure.at(instants[-1])
            frames.append(_geometry(structure.replicated(N_INSTANTS).at(torch.cat(instants)), network.cutoff))
            if progress is not None:
                progress(min(len(frames), n_frames), n_frames)
        places[run % len(places)] = structure
        run += 1
    return frames


def kept_own_frames(
    path: Path,
    network: Network,
    starts: Sequence[Structure],
    *,
    n_frames: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Geometry]:
    """`own_frames`, read from `path` where an earlier call with the same arguments left them."""
    made_by = {"network": network.fingerprint, "n_frames": str(n_frames), "seed": str(seed)}
    made_by["instants"] = f"{N_INSTANTS}, {_OUTER_FS:g} fs apart"
    if path.exists():
        with safe_open(str(path), framework="pt") as file:
            if file.metadata() == made_by:
                positions = [file.get_tensor(f"{k:06d}") for k in range(n_frames)]
                places = [starts[k // _FRAMES_PER_START % len(starts)].replicated(N_INSTANTS) for k in range(n_frames)]
                return [_geometry(place.at(r), network.cutoff) for place, r in zip(places, positions, strict=True)]
    frames = own_frames(network, starts, n_frames=n_frames, seed=seed, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({f"{k:06d}": frame.structure.positions for k, frame in enumerate(frames)}, str(partial), made_by)
    os.replace(partial, path)
    return frames


def _geometry(structure: Structure, cutoff: float) -> Geometry:
    return Geometry(structure, neighbour_list(structure, cutoff))
