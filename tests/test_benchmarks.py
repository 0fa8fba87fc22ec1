"""The benchmarks that others build on: what they count, and that one call does all of it, in small."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_waters import few_waters, gentle_network

from mlcalc import units
from mlcalc.engines.native import NativeEngine
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.langevin import Langevin
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.checkpoint import save_checkpoint
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.structure import Structure
from mlcalc.trajectory import read_trajectory

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def import_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:  # they have names that others may have too
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("kind", ["direct", "conservative"])
def test_products_are_counted_as_by_the_profiler(kind):
    from roofline import WANTED, work_of

    network = gentle_network()
    structure = Structure.from_ase(few_waters())
    neighbours = neighbour_list(structure, network.cutoff)
    work = work_of(network, structure, neighbours, WANTED[kind])
    # torch's profiler reads the shapes in the operators themselves
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True) as seen:
        network.evaluate(structure, neighbours, WANTED[kind])
    products = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
    assert work.products == sum(event.flops for event in seen.key_averages() if event.key in products)
    assert work.bytes > 4 * work.others


def test_traffic_of_one_sum():
    from roofline import Counter

    one, other = torch.ones(10, 20), torch.ones(10, 20)
    with Counter() as counter:
        (one + other).T.reshape(5, 40)  # the reshape copies, the transpose does not
    assert (counter.others, counter.products) == (400, 0)
    assert counter.bytes == 4 * (3 * 200 + 2 * 200)


def test_throughput_in_small(tmp_path):
    from throughput import Size, measure, parser
    from throughput_report import write

    save_checkpoint(tmp_path / "small.safetensors", gentle_network(), {"data": "none: random weights"})
    arguments = ["--potential", str(tmp_path / "small.safetensors"), "--rounds", "1", "--output", str(tmp_path)]
    options = parser().parse_args([*arguments, "--threads", str(torch.get_num_threads())])
    measure(options, Size(192), tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    rows = {f"native | eager | {forces}" for forces in ("direct", "conservative", "MTS 4", "MTS 8")}
    assert rows | {"ASE | eager | MTS 8"} <= set(found["times"])
    assert all(0 < found["outside"][name][0] < found["times"][name][0] for name in rows)
    write(options, [found], ["384 atoms × 1: the budget was used up"])
    (table,) = tmp_path.glob("throughput-*.md")
    assert "the budget was used up" in table.read_text(encoding="utf-8")
    assert len(list(tmp_path.glob("throughput-*.png"))) == 1


def test_the_call_for_a_gpu_finds_its_tests():
    from gpu import gpu_tests

    found = gpu_tests()
    files = {name.partition("::")[0] for name in found}
    assert {"tests/test_neighbours.py", "tests/engines/test_batch.py", "tests/probes/test_products.py"} <= files


def test_asked_and_got():
    from gpu_report import table

    times = {
        "evaluation | eager | direct": [10.0, 20.0],
        "native | eager | conservative": [24.0, 48.0],
        "native | eager | MTS 8": [8.0, 16.0],
        "ASE | eager | conservative": [12.0, 24.0],
    }
    size = {
        "atoms": 192,
        "replicas": 1,
        "times": times,
        "outside": {"native | eager | MTS 8": [0.2, 0.4]},
        "failed": {},
    }
    record = dict.fromkeys(("date", "device", "torch", "python", "mlcalc", "potential"), "x")
    parts = {
        "batch": {"replicas": 64, "ratios": [9.0, 9.0], "took_s": 1},
        "growth": {"costs": {"list 100": [1.0, 50.0], "list 1000": [12.0, 500.0]}, "took_s": 1},
    }
    text = table({**record, "quick": False, "on_gpu": True, "parts": parts, "sizes": [size]})
    got = {row.split(" | ")[0].strip("| "): row for row in text.splitlines()}
    assert got["192 atoms, MTS 8: time outside the potential, a step"].endswith("| 2.000 % | yes |")
    assert got["192 atoms, eager: MTS 8 against conservative"].endswith("| 3.000 | yes |")
    assert got["192 atoms, conservative: native against ASE"].endswith("| 0.500 | no |")
    assert got["192 atoms, conservative: native against torch-sim"].endswith("| not measured |  |")
    assert "| yes |" in got["64 replicas of 192 atoms as one batch against one after the other, MTS 8"]
    assert "time 1.20, memory 1.00" in got["growth from 100 to 1000 atoms, list"]
    assert got["growth from 100 to 1000 atoms, list"].endswith("| no |")


def test_boxes_are_repeated_evenly():
    from roofline import water

    with pytest.raises(ValueError, match="atoms: got 200; give 192 times a power of two"):
        water(200)
    assert len(water(1536)) == 1536
    assert np.ptp(water(1536).cell.lengths()) == pytest.approx(0)


def test_exact_sampling_of_a_force_that_is_no_gradient(tmp_path):
    """Wells have a mean energy of 3/2 kT. The direct force has a curl, λ = 0.4; the outer step is a third of a period.

    Multiple time stepping in a bath is 5 % too high there, seven errors; hybrid Monte Carlo rejects every sixth trial.
    """
    import ase
    from exact_sampling import Sampling, sample

    wells = ase.Atoms("H8", 3.0 * np.array(list(np.ndindex(2, 2, 2))))
    potential, structure = Harmonic(wells.positions, spring=1.0, asymmetry=0.4), Structure.from_ase(wells)
    settings = Sampling(300.0, friction_per_ps=50.0, inner_timestep_fs=5.0, n_inner=4, seed=1)
    taken = sample(potential, structure, settings, 2000, tmp_path / "whole")
    assert 0.75 < taken < 0.9
    found = read_trajectory(tmp_path / "whole")

    def over_kT(energies: np.ndarray) -> tuple[float, float]:
        blocks = np.array([block.mean() for block in np.array_split(energies[100:], 16)])
        blocks /= 1.5 * len(wells) * units.BOLTZMANN * 300.0
        return blocks.mean(), blocks.std(ddof=1) / 4

    longer = replace(settings, n_outer=2)
    assert 0.75 < sample(potential, structure, longer, 2000, tmp_path / "longer") < 0.9
    for one in (found, read_trajectory(tmp_path / "longer")):
        for energies in (one.potential_energy, one.kinetic_energy):
            mean, error = over_kT(energies)
            assert error < 0.015 and abs(mean - 1) < 4 * error
    bath = Ensemble(Langevin(300.0, friction_per_ps=50.0))
    engine = NativeEngine(potential, structure, timestep_fs=20.0, n_inner=4, ensemble=bath)
    mean, error = over_kT(engine.run(2000).potential_energy)
    assert mean - 1 > 3 * error

    sample(potential, structure, settings, 30, tmp_path / "parts")
    sample(potential, structure, settings, 60, tmp_path / "parts")
    parts = read_trajectory(tmp_path / "parts")
    assert np.array_equal(parts.positions, found.positions[:60])
    assert sample(potential, structure, settings, 2000, tmp_path / "whole") == taken


@pytest.mark.parametrize("kinds", ["same", "other"])
def test_errors_of_radial_distributions_where_nothing_moves(kinds):
    """Atoms at random that stay where they are: pairs are independent, so numbers in a bin have a binomial variance."""
    from radial_errors import error_by_atoms

    random, n, side, r_max, n_bins = np.random.default_rng(0), 60, 10.0, 5.0, 10
    one = np.arange(n) if kinds == "same" else np.arange(n // 2)
    other = one if kinds == "same" else np.arange(n // 2, n)
    systems = side * random.random((200, 1, n, 3)).repeat(3, axis=1)
    found = [error_by_atoms(frames, side * np.eye(3), one, other, r_max, n_bins) ** 2 for frames in systems]
    shell = 4 / 3 * np.pi * np.diff(np.linspace(0, r_max, n_bins + 1) ** 3) / side**3
    n_pairs = n * (n - 1) / 2 if kinds == "same" else n * n / 4
    law = (1 - shell) / (n_pairs * shell)
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - law) < 4 * error).all()
    assert (error < 0.05 * law)[1:].all()


def test_errors_by_atoms_in_any_cell():
    """The same lattice by other vectors has the same distances."""
    from radial_errors import error_by_atoms

    positions, kinds = 9.0 * np.random.default_rng(1).random((1, 30, 3)), (np.arange(10), np.arange(10, 30))
    oblique = 9.0 * np.array([[1, 0, 0], [3, 1, 0], [-2, 1, 1]])
    straight, found = (error_by_atoms(positions, cell, *kinds, 4.5, 9) for cell in (9.0 * np.eye(3), oblique))
    assert found == pytest.approx(straight, rel=1e-9) and (straight > 0)[3:].all()
