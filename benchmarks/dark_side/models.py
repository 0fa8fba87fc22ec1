"""What is measured of potentials, not of runs: a JSON of asymmetries and an .npz of errors by mode, item by item.

What is there already is not measured again, so that a step which was cut off goes on.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

import mlcalc
from dark_side import asymmetry, frequencies, learning
from dark_side.amplified import Amplified
from dark_side.runs import say
from mlcalc.potentials.potential import Potential

_N_HESSIANS = 3
_DIALLED = 10
ASYMMETRIES, MODES = "asymmetries.json", "errors-by-mode.npz"


def measure(data: Path, learnt: Path, fast: Potential, results: Path) -> None:
    """Asymmetries of the heads in `learnt` and of the bundled ones, then errors by mode.

    Parameters
    ----------
    learnt : folder that `learning.learn` wrote
    fast : the bundled water, perhaps compiled, for the Hessian
    """
    _, left_out = learning.frames(data, learning.SETTINGS.cutoff)
    heads = {f"forces-{_steps(path)}": mlcalc.load(path) for path in sorted(learnt.glob("direct-*.safetensors"))}
    water, pet = mlcalc.load("water"), mlcalc.load("water-pet")
    late = f"forces-{learning.STEPS}"
    path = results / ASYMMETRIES
    known = json.loads(path.read_text()) if path.exists() else {}
    todo = {**heads, "water": water, "water-pet": pet, f"strength-{_DIALLED}": Amplified(water, _DIALLED)}
    for name, potential in todo.items():
        if name not in known:
            far = name in ("water", "water-pet", late, min(heads, key=_steps_of))
            known[name] = asymmetry.measured(potential, left_out, far=far)
            path.write_text(json.dumps(known, indent=1))
            say(f"asymmetry of {name}: {known[name]['asymmetry']}")
    models = {"direct": (water, "direct"), "conservative": (water, "conservative"), "forces": (heads[late], "direct")}
    _modes(fast, models, left_out[:_N_HESSIANS], results / MODES)


def _modes(
    energy: Potential,
    models: dict[str, tuple[Potential, str]],
    frames: list[learning.Frame],
    path: Path,
) -> None:
    arrays = dict(np.load(path)) if path.exists() else {}
    for k, frame in enumerate(frames):
        if f"{k}/wavenumber" not in arrays:
            found = frequencies.project(energy, models, frame)
            arrays |= {f"{k}/{name}": values.astype(np.float32) for name, values in found.items()}
            np.savez_compressed(path, **arrays)
            say(f"errors by mode, frame {k + 1}")


def read_modes(results: Path) -> list[dict[str, np.ndarray]]:
    """What `measure` wrote, frame by frame."""
    with np.load(results / MODES) as file:
        numbers = sorted({int(key.split("/")[0]) for key in file.files})
        return [
            {key.split("/")[1]: file[key].astype(float) for key in file.files if key.startswith(f"{k}/")}
            for k in numbers
        ]


def _steps(path: Path) -> int:
    return int(re.findall(r"\d+", path.stem)[-1])


def _steps_of(name: str) -> int:
    return int(name.rpartition("-")[2])
