"""Many systems in one batch: each follows the trajectory that it would have alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ase
import ase.build
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mlcalc import units
from mlcalc.engines.batch import BatchEngine
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.engines.reports import Report
from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.integrators.barostat import Barostat
from mlcalc.integrators.bussi import Bussi
from mlcalc.integrators.ensemble import Ensemble
from mlcalc.integrators.gle import GLE
from mlcalc.integrators.langevin import Langevin
from mlcalc.integrators.nose_hoover import NoseHoover
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure
from mlcalc.trajectory import Frame, Trajectory, TrajectoryWriter, read_trajectory

SIZES = ((1, 1, 1), (2, 1, 1), (2, 2, 1))
#: Short, so that the cells may be small: lists hold images all the same
LJ = LennardJones(sigma=3.4, cutoff=5.0)
BOTH = TwoPotentials(LennardJones(sigma=3.3, cutoff=5.0), LJ)


def argon(size: tuple[int, int, int]) -> ase.Atoms:
    atoms = ase.build.bulk("Ar", cubic=True, a=5.3).repeat(size)
    atoms.rattle(0.05, seed=sum(size))
    return atoms


BATCH = Structure.from_ase([argon(size) for size in SIZES])
NUMBERS = range(len(SIZES))


def momenta_of(structure: Structure, temperature_K: float = 80.0, seed: int = 1) -> torch.Tensor:
    return maxwell_boltzmann(structure, temperature_K, seed)


def options(forces: str, ensemble: Ensemble | None = None) -> dict:
    return {"forces": forces, "timestep_fs": 8.0, "n_inner": 4 if forces == "mts" else 1, "ensemble": ensemble}


def test_momenta_of_a_batch_are_those_of_its_systems() -> None:
    whole = momenta_of(BATCH).split(BATCH.atoms_per_system.tolist())
    for k in NUMBERS:
        assert torch.equal(whole[k], momenta_of(BATCH.select([k]), seed=1 + k))


BATHS = {
    "constant energy": Ensemble(),
    "Langevin": Ensemble(Langevin(80.0, 5.0, seed=3)),
    "Bussi": Ensemble(Bussi(80.0, 0.1, seed=3)),
    "NoseHoover": Ensemble(NoseHoover(80.0, 0.1)),
    "GLE": Ensemble(GLE(80.0, ((10.0, 30.0, 0.0), (-30.0, 60.0, 20.0), (0.0, -20.0, 15.0)), seed=3)),
}


@pytest.mark.parametrize("forces", ["mts", "conservative", "direct"])
@pytest.mark.parametrize("bath", BATHS)
def test_each_system_does_what_it_would_do_alone(bath: str, forces: str) -> None:
    """Frames to round-off, thermostats' variables too; seeds count up from the thermostat's."""
    ensemble = BATHS[bath]
    engine = BatchEngine(BOTH, BATCH, momenta=momenta_of(BATCH), **options(forces, ensemble))
    together = engine.run(12, stride=4)
    for k in NUMBERS:
        bath_of_one = ensemble.thermostat
        if bath_of_one is not None and not isinstance(bath_of_one, NoseHoover):
            bath_of_one = replace(bath_of_one, seed=3 + k)
        one = BATCH.select([k])
        native = NativeEngine(BOTH, one, momenta=momenta_of(one, seed=1 + k), **options(forces, Ensemble(bath_of_one)))
        alone = native.run(12, stride=4)
        assert together[k].provenance == alone.provenance
        for name in ("time_ps", "positions", "momenta", "potential_energy", "kinetic_energy", "heat", "power", "state"):
            there, here = getattr(together[k], name), getattr(alone, name)
            if here is None:
                assert there is None
            else:
                np.testing.assert_allclose(there, here, rtol=1e-10, atol=1e-11, err_msg=name)
        assert np.ptp(alone.positions, axis=0).max() > 0.05


def test_a_network_is_evaluated_in_batches_to_round_off() -> None:
    """The bundled potential in single precision, 8 inner steps."""
    import mlcalc

    water = mlcalc.water_box()
    systems = [water[:24], water[:48]]
    batch = Structure.from_ase(systems)
    settings = {"timestep_fs": 4.0, "n_inner": 8}
    together = BatchEngine(mlcalc.load("water"), batch, momenta=momenta_of(batch, 300.0), **settings).run(1)
    for k, part in enumerate(together):
        one = batch.select([k])
        alone = NativeEngine(mlcalc.load("water"), one, momenta=momenta_of(one, 300.0, 1 + k), **settings).run(1)
        np.testing.assert_allclose(part.positions, alone.positions, atol=1e-6)
        np.testing.assert_allclose(part.conserved, alone.conserved, atol=1e-4)


def test_every_system_has_its_own_timestep() -> None:
    engine = BatchEngine(
        BOTH, BATCH, momenta=momenta_of(BATCH), **{**options("mts"), "timestep_fs": np.array([2.0, 4.0, 8.0])}
    )
    together = engine.run(10, stride=10)
    for k, timestep_fs in enumerate((2.0, 4.0, 8.0)):
        one = BATCH.select([k])
        native = NativeEngine(
            BOTH, one, momenta=momenta_of(one, seed=1 + k), **{**options("mts"), "timestep_fs": timestep_fs}
        )
        alone = native.run(10, stride=10)
        np.testing.assert_allclose(together[k].positions, alone.positions, atol=1e-11)
        np.testing.assert_array_equal(together[k].time_ps, alone.time_ps)
        assert together[k].provenance["timestep_fs"] == timestep_fs


def same(one: Trajectory, other: Trajectory) -> bool:
    names = ("time_ps", "positions", "momenta", "potential_energy", "kinetic_energy", "heat")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


#: What breaks system 1 of the batch below, its momenta or its place
BROKEN = {
    "hot": {"heat_up": 1e4},  # passes max_temperature_K
    "not a number": {"heat_up": 1e200},
    "collision": {"distance": 0.3},  # the force between two atoms is 1e13 eV/Å
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("bath", ["constant energy", "Langevin", "NoseHoover"])
def test_an_explosion_leaves_the_bits_of_the_others(kind: str, bath: str) -> None:
    """Systems 0 and 2 end as they do beside a sane system 1; it keeps the frames before."""

    def run(heat_up: float = 1.0, distance: float | None = None) -> tuple[BatchEngine, list[Trajectory]]:
        systems = [argon(size) for size in SIZES]
        if distance is not None:
            systems[1].positions[1] = systems[1].positions[0] + [distance, 0, 0]
        batch = Structure.from_ase(systems)
        momenta = momenta_of(batch)
        momenta[batch.system == 1] *= heat_up
        engine = BatchEngine(
            BOTH, batch, momenta=momenta, seeds=(5, 6, 7), max_temperature_K=5e3, **options("mts", BATHS[bath])
        )
        return engine, engine.run(12, stride=4)

    broken, frames = run(**BROKEN[kind])
    sane, beside = run()
    assert sane.active == (0, 1, 2) and not sane.endings
    assert broken.active == (0, 2) and broken.endings[1].exploded
    assert "system 1: it exploded after" in broken.endings[1].reason and "\n" not in broken.endings[1].reason
    assert frames[1].n_frames <= 1 and np.isfinite(frames[1].positions).all()
    for k in (0, 2):
        assert frames[k].n_frames == 4 and same(frames[k], beside[k])


def test_when_all_have_exploded_the_run_is_over() -> None:
    engine = BatchEngine(BOTH, BATCH, momenta=1e4 * momenta_of(BATCH), **options("mts"))
    counts = dict(engine.counts)
    frames = engine.run(12, stride=4)
    assert [part.n_frames for part in frames] == [0, 0, 0] and not engine.active and len(engine.endings) == 3
    assert engine.counts == counts  # found in the first state
    with pytest.raises(UsageError, match="no system goes on"):
        engine.report()


class Fragile(LennardJones):
    """Refuses a system with an atom beyond x = 50 Å, and with it the whole batch."""

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        if bool((structure.positions[:, 0] > 50).any()):
            raise RunError("an atom is where no atom can be")
        return super().evaluate(structure, neighbours, wanted)


def test_a_system_that_cannot_be_evaluated_is_found_among_the_others() -> None:
    """It flies at 1 Å a step; the error names no system."""
    lonely = ase.Atoms("Ar", positions=[[45.5, 0, 0]])
    batch = Structure.from_ase([argon(SIZES[0]), lonely, argon(SIZES[1])])
    momenta = momenta_of(batch)
    momenta[batch.system == 1] = torch.tensor([1.0, 0, 0], dtype=torch.float64) * batch.masses[batch.system == 1, None]
    momenta[batch.system == 1] /= units.from_femtoseconds(8.0)
    settings = {**options("conservative"), "max_temperature_K": 1e6}
    engine = BatchEngine(Fragile(cutoff=5.0), batch, momenta=momenta, **settings)
    frames = engine.run(8, stride=2)
    assert engine.active == (0, 2)
    assert engine.endings[1].time_ps == pytest.approx(4 * 0.008)  # the fifth step is the first that it cannot take
    assert "an atom is where no atom can be" in engine.endings[1].reason
    assert [part.n_frames for part in frames] == [5, 3, 5]
    alone = BatchEngine(LennardJones(cutoff=5.0), batch.select([0, 2]), momenta=momenta[batch.system != 1], **settings)
    for part, other in zip((frames[0], frames[2]), alone.run(8, stride=2), strict=True):
        assert same(part, other)


def test_an_error_of_no_system_alone_is_an_error_of_the_run() -> None:
    class Choosy(LennardJones):
        def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
            if engines and structure.n_systems > 1:
                raise RunError("one at a time")
            return super().evaluate(structure, neighbours, wanted)

    engines: list[BatchEngine] = []
    engines.append(BatchEngine(Choosy(cutoff=5.0), BATCH, **options("conservative")))
    with pytest.raises(RunError, match=r"each of its systems can \(one at a time\)"):
        engines[0].run(1)


@pytest.mark.parametrize("bath", BATHS)
def test_a_restart_is_exact_to_the_bit(bath: str, tmp_path: Path) -> None:
    """From the frames of files, after one system has left; the state of thermostats is in them."""

    def engine() -> BatchEngine:
        return BatchEngine(BOTH, BATCH, momenta=momenta_of(BATCH), **options("mts", BATHS[bath]))

    whole = engine()
    paths = [tmp_path / f"{k}.trajectory" for k in NUMBERS]
    writers = [TrajectoryWriter(paths[k], BATCH.select([k]), whole.provenance(k), whole.layout(k)) for k in NUMBERS]
    whole.run(4, stride=2, writers=writers)
    whole.drop([1], "not needed")
    whole.run(4, stride=2, writers=writers)
    records = [read_trajectory(path) for path in paths]
    assert [record.n_frames for record in records] == [6, 3, 6]  # the frame between the runs is there twice
    again = engine()
    again.resume([records[0].frame(2), None, records[2].frame(2)])
    assert again.active == (0, 2) and set(again.endings) == {1}
    rest = again.run(4, stride=2)
    for k in (0, 2):
        for j in range(3):
            there, here = records[k].frame(3 + j), rest[k].frame(j)
            for name, value in vars(there).items():
                assert np.array_equal(value, getattr(here, name)), name


def test_a_report_may_drop_systems_and_frames_follow_it() -> None:
    """The frame of the report that dropped a system is its last; frames come after their report, in order."""
    engine = BatchEngine(BOTH, BATCH, momenta=momenta_of(BATCH), **options("mts"))
    reports: list[Report] = []
    frames: list[tuple[int, Frame]] = []

    def report(report: Report) -> None:
        reports.append(report)
        if len(reports) == 2:
            engine.drop([0], "seen enough")

    engine.advance(6, lambda system, frame: frames.append((system, frame)), stride=3, on_report=report)
    assert [one.systems for one in reports] == [(0, 1, 2), (0, 1, 2), (1, 2)]
    assert [system for system, _ in frames] == [0, 1, 2, 0, 1, 2, 1, 2]
    told = [row for one in reports for row in zip(one.time_ps, one.conserved, strict=True)]
    assert told == [(frame.time_ps, frame.conserved) for _, frame in frames]
    assert engine.endings[0].reason == "seen enough" and not engine.endings[0].exploded


class Waits(TorchDispatchMode):
    """Counts what a GPU's host waits for: operations that bring values, or sizes that depend on them, to Python."""

    NAMES = ("_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero", "masked_select", "unique", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types: Sequence[type], args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function.overloadpacket.__name__.startswith(self.NAMES):
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("bath", BATHS)
def test_steps_wait_for_nothing(bath: str) -> None:
    """Twelve outer steps of a potential that does not wait, with a list that is there, between two reports."""
    batch = Structure.from_ase([ase.Atoms("Ar3", positions=0.1 * np.eye(3) + 0.1 * k) for k in range(3)])
    wells = TwoPotentials(Harmonic(spring=1.0), Harmonic(spring=1.5))
    engine = BatchEngine(wells, batch, momenta=momenta_of(batch), **options("mts", BATHS[bath]))
    listed = engine._dynamics.neighbours(batch)
    engine._dynamics.neighbours = lambda structure: listed  # type: ignore[assignment,method-assign]
    with Waits() as waits:
        engine.advance(12, lambda system, frame: None, stride=12, on_report=lambda report: waits.seen.append("report"))
    assert waits.seen == ["report", "report"]
    with Waits() as waits:  # the counter counts
        assert float(batch.positions.sum()) > 0 and not torch.equal(batch.cell, batch.cell + 1)
    assert len(waits.seen) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("bath", BATHS)
def test_steps_wait_for_nothing_on_a_gpu(bath: str) -> None:
    """The same, as the device itself sees it: any wait is an error."""
    batch = Structure.from_ase([ase.Atoms("Ar3", positions=0.1 * np.eye(3) + 0.1 * k) for k in range(3)], device="cuda")
    wells = TwoPotentials(Harmonic(spring=1.0).to("cuda"), Harmonic(spring=1.5).to("cuda"))
    engine = BatchEngine(wells, batch, momenta=momenta_of(batch), **options("mts", BATHS[bath]))
    listed = engine._dynamics.neighbours(batch)
    engine._dynamics.neighbours = lambda structure: listed  # type: ignore[assignment,method-assign]
    engine.run(2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine.advance(12, lambda system, frame: None, stride=24, first=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"timestep_fs": (1.0, 2.0)}, "timestep_fs: got 2 for 3 systems"),
        ({"timestep_fs": (1.0, -2.0, 1.0)}, "timestep_fs: got -2.0"),
        ({"timestep_fs": (1.0, 2.0, 3.0), "ensemble": Ensemble(Langevin(80.0))}, "with a thermostat; give one for all"),
        ({"seeds": (1, 2)}, "seeds: got 2 for 3 systems"),
        ({"seeds": (1, 2, -3)}, "seed: got -3"),
        ({"ensemble": Ensemble(Langevin(80.0), Barostat())}, "barostat: got one with a batch"),
        ({"ensemble": Ensemble(Bussi(80.0)), "momenta": momenta_of(BATCH, 0.0)}, "system 0: momenta: all are 0"),
        ({"momenta": torch.zeros(2, 3)}, "momenta: got shape"),
        ({"n_inner": 0}, "n_inner: got 0"),
    ],
)
def test_bad_input_is_refused_by_name(more: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        BatchEngine(BOTH, BATCH, **{**options("mts"), "momenta": momenta_of(BATCH), **more})


def test_a_system_that_cannot_start_is_named() -> None:
    overlapping = ase.Atoms("Ar2", positions=[[0, 0, 0], [0.1, 0, 0]])
    with pytest.raises(UsageError, match="system 1: structure: atoms 0 and 1 are 0.100 Å apart"):
        batch = Structure.from_ase([argon(SIZES[0]), overlapping])
        BatchEngine(LJ, batch, momenta=momenta_of(batch), **options("conservative", BATHS["Bussi"]))


def test_frames_that_do_not_belong_together_are_refused() -> None:
    engine = BatchEngine(BOTH, BATCH, momenta=momenta_of(BATCH), **options("mts"))
    early, late = (engine.run(1)[k] for k in (0, 1))
    with pytest.raises(UsageError, match="different steps"):
        engine.resume([early.frame(0), late.frame(1), None])
    with pytest.raises(UsageError, match="frames: got 1 for 3"):
        engine.resume([early.frame(0)])
    with pytest.raises(UsageError, match="those that go on"):
        engine.drop([4])
