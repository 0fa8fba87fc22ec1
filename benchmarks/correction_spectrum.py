"""How fast f_conservative − f_direct varies, and which outer steps that allows.

Multiple time stepping samples the correction δ every Δt and so adds to it copies of its spectrum, shifted by multiples
of Ω = 2π/Δt. To lowest order a copy acts as a random force, and heats every degree of freedom where it moves:

    P_i = Σ_{k≠0} ∫ S_δi(kΩ − ω) g_i(ω) dω / 2m_i,    ∫ g_i(ω) dω = 1,

S the spectral density of δ and g that of the velocity along a run with conservative forces. It leaves out that the
kicks change the motion that makes δ, so it ranks outer steps and potentials better than it predicts a drift.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import mlcalc
from mlcalc import units
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.evaluation import JOINT, required
from mlcalc.memory import keep_freed_memory
from mlcalc.neighbours import NeighbourCache
from mlcalc.potentials.potential import Potential
from mlcalc.structure import Structure

_STEP_FS = 0.5
_PER_CM = 2.99792458e-5  # 1/fs
_BANDS = (0, 500, 1200, 2000, 3000, 4200, 4600, 5000, 5600, 6600, 7700, 9000)


def record(potential: Potential, structure: Structure, n_steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """δ in meV/Å and velocity in Å/fs at each step of a conservative run at 300 K, each (n_steps, n_atoms, 3)."""
    momenta = maxwell_boltzmann(structure, 300.0, seed=seed)
    engine = NativeEngine(potential, structure, forces="conservative", timestep_fs=_STEP_FS, momenta=momenta)
    engine.run(40, stride=40)
    neighbours, correction, velocity = NeighbourCache(potential.cutoff, 0.3), [], []
    for _ in range(n_steps):
        engine.run(1, stride=1)
        now = structure.at(engine.phase.positions)
        both = potential.evaluate(now, neighbours(now), JOINT)
        correction.append(required(both, "conservative_force") - required(both, "direct_force"))
        velocity.append(engine.phase.momenta / engine.phase.masses * units.from_femtoseconds(1.0))
    return 1000 * torch.stack(correction).cpu().numpy(), torch.stack(velocity).cpu().numpy()


def spectrum(series: np.ndarray) -> np.ndarray:
    """Two-sided spectral density by atom, mean over components, per 1/fs: (n_frequencies, n_atoms)."""
    window = np.hanning(len(series))[:, None, None]
    amplitude = np.fft.rfft((series - series.mean(axis=0)) * window, axis=0)
    return (np.abs(amplitude) ** 2).mean(axis=2) * _STEP_FS / (window**2).sum()


def heating(
    wavenumber: np.ndarray, correction: np.ndarray, velocity: np.ndarray, masses: np.ndarray, outer_fs: float
) -> float:
    """P of the module's equation, meV/atom/ps."""
    share = velocity / velocity.sum(axis=0)
    sampling = 1 / (outer_fs * _PER_CM)
    amu = 103.642697  # eV fs²/Å²
    total = 0.0
    for atom, mass in enumerate(masses):
        for k in range(1, 12):
            for shifted in (np.abs(k * sampling - wavenumber), k * sampling + wavenumber):
                density = np.interp(shifted, wavenumber, correction[:, atom], right=0.0)
                total += 3 * float((share[:, atom] * density).sum()) / (2 * mass * amu)
    return total / len(masses)  # (meV/Å)² fs / (eV fs²/Å²) is 1e-3 meV/fs, so meV/ps


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--potential", default="water")
    parser.add_argument("--ps", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keep_freed_memory()
    potential, atoms = mlcalc.load(options.potential), mlcalc.water_box()
    structure = Structure.from_ase(atoms)
    correction, velocity = record(potential, structure, round(1000 * options.ps / _STEP_FS), options.seed)
    wavenumber = np.fft.rfftfreq(len(correction), _STEP_FS) / _PER_CM
    of_correction, of_velocity = spectrum(correction), spectrum(velocity)
    print(f"f_conservative - f_direct over {options.ps:g} ps: {np.sqrt((correction**2).mean()):.2f} meV/Å\n")
    symbols = sorted(set(atoms.symbols))
    print("| 1/cm | " + " | ".join(f"{symbol}, meV/Å" for symbol in symbols) + " |\n|---|" + "---|" * len(symbols))
    for low, high in zip(_BANDS[:-1], _BANDS[1:], strict=True):
        inside = (wavenumber >= low) & (wavenumber < high)
        width = (wavenumber[1] - wavenumber[0]) * _PER_CM
        rms = [np.sqrt(2 * of_correction[inside][:, atoms.symbols == s].mean(axis=1).sum() * width) for s in symbols]
        print(f"| {low}-{high} | " + " | ".join(f"{value:.2f}" for value in rms) + " |")
    print("\n| M (inner step 0.5 fs) | heating to lowest order, meV/atom/ps |\n|---|---|")
    for n_inner in (2, 4, 5, 6, 7, 8, 10, 12, 16):
        value = heating(wavenumber, of_correction, of_velocity, atoms.get_masses(), n_inner * _STEP_FS)
        print(f"| {n_inner} | {value:.4f} |")


if __name__ == "__main__":
    main()
