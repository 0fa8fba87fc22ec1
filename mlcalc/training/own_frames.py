"""Frames from a potential's own molecular dynamics.

For multiple time stepping it is the difference of the potential's two forces that counts, not the error of either, and
that needs no label. So the last stage of training has both forces agree on such frames. Each holds three instants of a
trajectory, one outer step apart, so that a loss can weigh how fast the difference varies.
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

_FRAMES_PER_START = 10
_OUTER_FS, _N_INNER = 2.0, 4  # of the dynamics; conserves with a direct head that has seen only the data


def own_frames(
    network: Network,
    starts: Sequence[Structure],
    *,
    n_frames: int,
    temperatures_K: Sequence[float] = (250.0, 300.0, 350.0, 400.0),
    spacing_fs: float = 12.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Geometry]:
    """Short NVE runs with multiple time stepping (outer 2 fs, M = 4), temperatures in turn.

    Parameters
    ----------
    starts : structures to start from, taken in turn; each runs on from where its last run ended
    n_frames : how many frames to collect
    spacing_fs : between frames

    Returns
    -------
    frames of three systems each: the same at three instants 2 fs apart
    """
    frames: list[Geometry] = []
    places = list(starts)
    between = max(1, round(spacing_fs / _OUTER_FS) - 2)
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
            for n_steps in (between, 1, 1):
                engine.run(n_steps, stride=n_steps)
                instants.append(torch.as_tensor(engine.phase.positions).clone())
            structure = structure.at(instants[-1])
            frames.append(_geometry(structure.replicated(3).at(torch.cat(instants)), network.cutoff))
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
    if path.exists():
        with safe_open(str(path), framework="pt") as file:
            if file.metadata() == made_by:
                positions = [file.get_tensor(f"{k:06d}") for k in range(n_frames)]
                places = [starts[k // _FRAMES_PER_START % len(starts)].replicated(3) for k in range(n_frames)]
                return [_geometry(place.at(r), network.cutoff) for place, r in zip(places, positions, strict=True)]
    frames = own_frames(network, starts, n_frames=n_frames, seed=seed, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({f"{k:06d}": frame.structure.positions for k, frame in enumerate(frames)}, str(partial), made_by)
    os.replace(partial, path)
    return frames


def _geometry(structure: Structure, cutoff: float) -> Geometry:
    return Geometry(structure, neighbour_list(structure, cutoff))
