"""λ and λ_ij(r) of direct heads, early and late in training, and how far their forces are from the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mlcalc.diagnostics import jacobian_asymmetry, pair_asymmetry
from mlcalc.evaluation import Wanted, required
from mlcalc.potentials.potential import Potential
from mlcalc.probes import jacobian
from mlcalc.training.data import Frame

_N_PROFILE_ATOMS = 24  # eight molecules
_EDGES = np.arange(0.5, 11.0, 0.75).tolist()  # Å


def force_error(potential: Potential, frames: Sequence[Frame], forces: str = "direct") -> float:
    """Root mean square over frames, meV/Å."""
    squares = [((_force(potential, frame, forces) - frame.force) ** 2).mean() for frame in frames]
    return 1000 * float(torch.stack(squares).mean().sqrt())


def _force(potential: Potential, frame: Frame, forces: str) -> torch.Tensor:
    found = potential.evaluate(frame.structure, frame.neighbours, Wanted[forces.upper()])
    return required(found, f"{forces}_force").double()


def asymmetry(potential: Potential, frames: Sequence[Frame]) -> dict[str, float]:
    """λ of the direct force, its mean over frames with the standard error of that."""
    found = [
        jacobian_asymmetry.from_products(
            jacobian.sample_products(potential, frame.structure, "direct", relative_error=0.04, min_pairs=8, seed=k)
        )
        for k, frame in enumerate(frames)
    ]
    values = np.array([one.value for one in found])
    sampling = np.sqrt(np.mean([one.standard_error**2 for one in found]) / len(found))
    between = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    floors = [one.noise_floor or 0.0 for one in found]
    return {"value": float(values.mean()), "standard_error": float(max(between, sampling)), "noise_floor": max(floors)}


def profile(potential: Potential, frame: Frame) -> dict[str, list[float]]:
    """λ_ij by distance among eight molecules spread over the cell."""
    oxygens = (frame.structure.numbers == 8).nonzero().squeeze(1).tolist()
    picked = oxygens[:: len(oxygens) // (_N_PROFILE_ATOMS // 3)][: _N_PROFILE_ATOMS // 3]
    atoms_of_frame = frame.structure.to_ase()[0]
    apart_all = atoms_of_frame.get_all_distances(mic=True)
    atoms = sorted({int(atom) for o in picked for atom in np.argsort(apart_all[o])[:3]})
    rows = jacobian.jacobian_rows(potential, frame.structure, "direct", atoms)
    blocks = rows.reshape(len(atoms), 3, -1, 3)[:, :, atoms]
    noise = jacobian.element_noise(potential, frame.structure, "direct", atoms[0])
    found = pair_asymmetry.from_blocks(blocks, apart_all[np.ix_(atoms, atoms)], _EDGES, noise)
    return {key: np.asarray(values).tolist() for key, values in vars(found).items()}


def measured(potential: Potential, frames: Sequence[Frame], *, far: bool) -> dict[str, Any]:
    """Everything of one direct head.

    Parameters
    ----------
    frames : left out of training; λ is measured on the first two, its profile on the first
    far : whether the profile is wanted
    """
    return {
        "force_error": force_error(potential, frames),
        "asymmetry": asymmetry(potential, frames[:2]),
        "profile": profile(potential, frames[0]) if far else None,
    }
