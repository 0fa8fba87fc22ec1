"""benchmarks/dark_side.py: from a trajectory to what is kept, and from what is kept to the page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlcalc.diagnosis.read import read_record
from mlcalc.diagnosis.run import diagnose
from mlcalc.evaluation import JOINT, required
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.simulation.run import SimulationSettings, simulate
from mlcalc.structure import Structure
from mlcalc.units import temperature_from_kinetic

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from dark_side import analysis, frequencies, page, series  # noqa: E402
from dark_side.amplified import Amplified  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "dark_side"


def test_what_is_kept_of_a_run_gives_its_numbers_again(tmp_path: Path) -> None:
    """Argon in a bath: files hold what `mlcalc diagnose` finds in the trajectory, to single precision."""
    bath = Ensemble(Langevin(30.0, 2.0, seed=1))
    settings = SimulationSettings(
        steps=600, forces="conservative", timestep_fs=10.0, n_inner=1, stride=2, ensemble=bath, temperature_K=30.0
    )  # fmt: skip
    argon = bulk("Ar", cubic=True, a=5.3) * (2, 2, 2)
    simulate(LennardJones(cutoff=5.0), argon, settings, tmp_path / "run.traj")
    series.write(series.summarise(tmp_path / "run.traj", settled_ps=1.0), tmp_path / "kept")
    kept = page.read_runs(tmp_path / "kept")["run"]
    record = read_record([tmp_path / "run.traj"])
    assert record.series is not None and record.series.conserved_eV is not None
    assert kept.n_atoms == 32 and kept.length_ps == pytest.approx(6.0) and kept.settled.sum() == 251
    known = {row.label.strip(): row.finding for row in diagnose(record).rows}
    assert analysis.drift(kept).value == pytest.approx(known["drift of conserved energy"].value, rel=1e-2)
    whole = temperature_from_kinetic(float(kept.kinetic_eV[kept.settled].mean()), 3 * 32)
    # the element's temperature is that of 3 degrees of freedom fewer, whose energy is not the centre of mass's
    assert analysis.temperature(kept, "Ar").value == pytest.approx(whole, abs=3)
    curve = kept.curves["radial distribution", "Ar-Ar"]
    assert curve.x[np.argmax(curve.y)] == pytest.approx(5.3 / np.sqrt(2), abs=0.15)
    assert analysis.apart(curve, curve) == (0.0, 0.0)


def test_the_page_is_made_of_what_is_kept(tmp_path: Path) -> None:
    page.make(RESULTS, tmp_path)
    text = (tmp_path / "conservation.md").read_text(encoding="utf-8")
    assert "$" not in text and not re.search(r"\bnan\b", text)
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 6
    for picture in pictures:
        assert picture.name in text and picture.read_bytes().startswith(b"\x89PNG")
        assert (ROOT / "docs" / picture.name).exists()


def test_numbers_of_the_page_show_what_it_says() -> None:
    """The claims that depend on no reader's judgement, by the committed data."""
    runs = page.read_runs(RESULTS)
    direct = analysis.drift(runs["nve-direct"])
    assert direct.value > 3 * direct.error
    for name in ("bussi-conservative", "bussi-mts8", "nve-conservative", "nve-mts8"):
        assert abs(analysis.drift(runs[name]).value) < 0.2 * direct.value
    rose, should = analysis.gained(runs["nve-direct"])
    assert rose == pytest.approx(should, rel=0.1)  # dE/dt is the power, but for the integrator's error
    heated = [analysis.power(runs[f"nve-strength{s}"]).value for s in (3, 10)]
    assert 3 < heated[1] / heated[0] < 30  # as the square, 11
    for name in ("gle-strength10", "bussi-forces"):
        hydrogen = analysis.temperature(runs[name], "H")
        assert hydrogen.value - 3 * hydrogen.error > 300
    early = "early diffusion of O"
    free = analysis.finding(runs["bussi-conservative"], early)
    weak, strong = (free.over(analysis.finding(runs[f"langevin{time}-direct"], early)) for time in (100, 10))
    assert weak.value - 3 * weak.error > 1 and weak.value + 3 * weak.error < strong.value - 3 * strong.error
    assert min(analysis.last_temperature(runs["bussi-strength10"], element) for element in "HO") > 400


def test_amplified_difference_of_forces() -> None:
    """s = 0 is the conservative force, 1 the direct one, and the rest lies on the line through both."""
    structure = Structure.from_ase(bulk("Ar", cubic=True, a=5.3))
    structure = structure.at(structure.positions + 0.1 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    base = Harmonic(structure.positions + 0.05, curl=0.3)
    neighbours = neighbour_list(structure, base.cutoff)
    plain = base.evaluate(structure, neighbours, JOINT)
    ends = required(plain, "conservative_force"), required(plain, "direct_force")
    for s in (0.0, 1.0, 7.0):
        found = required(Amplified(base, s).evaluate(structure, neighbours, JOINT), "direct_force")
        assert torch.allclose(found, ends[0] + s * (ends[1] - ends[0]))


def test_errors_by_band_and_expected_slowdown() -> None:
    """Errors of a tenth of the force are a tenth in each band; k_B T/mγ of water at 300 K by SI units."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(3):
        force = rng.normal(size=60)
        frames.append({"wavenumber": np.linspace(-100, 3900, 60), "reference": force, "model": 0.1 * force})
    rows = frequencies.bands(frames)
    assert sum(row["modes"] for row in rows) == pytest.approx(1) == sum(row["force"] for row in rows)
    assert all(row["model"] == pytest.approx((0.1, 0.0), abs=1e-12) for row in rows)
    free = 1.380649e-23 * 300 / (18.015 * 1.66053907e-27 * 1e14) * 1e20 / 1e12  # Å²/ps
    assert analysis.expected_slowdown(free, 10) == pytest.approx(2, rel=1e-4)
