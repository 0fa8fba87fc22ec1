"""Whole audits, on small systems and a few frames."""

from __future__ import annotations

import math

import ase
import pytest
import torch
from ase.build import bulk
from ase.lattice.cubic import FaceCenteredCubic
from small_waters import few_waters, gentle_network

import mlcalc
from mlcalc.audit.experiments import Bench, constant_energy_run, step_ladder
from mlcalc.audit.result import CARE, NOT_MEASURED, SAFE, TOO_SHORT, UNSAFE
from mlcalc.audit.run import audit
from mlcalc.audit.settings import AuditSettings
from mlcalc.engines.native import maxwell_boltzmann
from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.two_potentials import TwoPotentials
from mlcalc.structure import Structure


@pytest.fixture(scope="module")
def hybrid():
    stages: list[tuple[str, int, int]] = []
    result = audit(gentle_network(), few_waters(), AuditSettings.quick(), lambda *stage: stages.append(stage))
    return result, stages


def test_a_hybrid_gets_everything(hybrid):
    result, _ = hybrid
    assert [run.forces for run in result.runs] == ["conservative", "mts", "direct"]
    assert {verdict.forces for verdict in result.verdicts} == {"conservative", "mts", "direct"}
    assert [rung.n_inner for rung in result.ladder] == [1, 8, 16]
    assert result.difference is not None
    assert result.costs.overhead is not None
    assert result.asymmetry.direct is not None
    assert result.asymmetry.direct.value > 0.01
    assert result.subject.n_atoms == 24


def test_the_three_runs_start_alike_and_are_recorded_at_the_same_times(hybrid):
    result, _ = hybrid
    times = {run.series.time_ps for run in result.runs}
    assert len({tuple(round(t, 9) for t in time) for time in times}) == 1
    assert len(result.runs[0].series.time_ps) == 17  # 0.064 ps in steps of 4 fs
    for run in result.runs:
        assert run.series.temperature_K[0] == pytest.approx(300.0, rel=1e-9)
        assert run.series.energy[0] == 0.0


def test_so_short_a_run_proves_nothing(hybrid):
    result, _ = hybrid
    assert result.overall.status in (TOO_SHORT, UNSAFE)
    assert "--duration-ps" in result.overall.advice


def test_progress_ends_every_stage(hybrid):
    _, stages = hybrid
    last = {stage: (done, total) for stage, done, total in stages}
    assert set(last) >= {"equilibration", "conservative forces", "direct forces", "cost table", "step ladder"}
    assert all(done == total for done, total in last.values())


def test_the_package_can_be_called(hybrid):
    again = mlcalc.audit(gentle_network(), few_waters(), AuditSettings.quick())
    assert again.subject == hybrid[0].subject
    # the same seed, the same physics
    assert again.runs[0].series == hybrid[0].runs[0].series


def test_lennard_jones_passes_as_far_as_it_goes():
    argon = FaceCenteredCubic("Ar", size=(2, 2, 2), latticeconstant=5.3)
    settings = AuditSettings(
        temperature_K=40, inner_timestep_fs=2.0, n_inner=2, duration_ps=2.0, timing_rounds=1, block_atoms=4
    )
    result = audit(LennardJones(), argon, settings)
    assert [run.forces for run in result.runs] == ["conservative"]
    assert result.overall.status == SAFE
    assert [(v.forces, v.status) for v in result.verdicts] == [("conservative", SAFE)] * 2
    assert result.ladder == ()
    assert result.costs.direct is None
    assert "conserved" in result.overall.headline


def test_a_direct_force_alone():
    result = audit(gentle_network("NC"), few_waters(), AuditSettings.quick())
    assert [run.forces for run in result.runs] == ["direct"]
    assert result.difference is None
    assert result.power is None
    statuses = {verdict.use: verdict.status for verdict in result.verdicts}
    assert statuses["geometry optimisation"] == CARE


def spinning_wells(asymmetry: float) -> tuple[Harmonic, ase.Atoms]:
    atoms = bulk("Si", cubic=True)
    return Harmonic(torch.as_tensor(atoms.positions), spring=5.0, asymmetry=asymmetry), atoms


def test_a_curl_is_found_and_its_heating_is_unsafe():
    potential, atoms = spinning_wells(0.1)
    # a clean wall clock is of no interest here
    settings = AuditSettings(duration_ps=0.6, ladder=(1, 4), ladder_ps=0.1, timing_rounds=1, block_atoms=4)
    result = audit(potential, atoms, settings)
    assert result.asymmetry.direct is not None
    assert result.asymmetry.direct.value == pytest.approx(0.1, abs=3 * result.asymmetry.direct.standard_error + 1e-9)
    statuses = {(v.use.split(",")[0], v.forces): v.status for v in result.verdicts}
    assert statuses["molecular dynamics", "direct"] == UNSAFE
    assert statuses["geometry optimisation", "conservative"] == SAFE


class WithoutEnergy(Harmonic):
    """A direct force and nothing else."""

    def __init__(self, anchors: torch.Tensor) -> None:
        super().__init__(anchors, asymmetry=0.1)
        self.provides = Wanted.DIRECT


def test_without_an_energy_nothing_is_claimed():
    _, atoms = spinning_wells(0.1)
    result = audit(WithoutEnergy(torch.as_tensor(atoms.positions)), atoms, AuditSettings.quick())
    assert result.overall.status == NOT_MEASURED
    assert result.runs[0].drift is None
    str(result)


def test_the_ladder_flags_the_rung_that_resonates():
    """Springs of 5 eV/Å², 4.5 of it inside: impulses every Δt are unstable where ω₁Δt is a little less than π.

    In the basis of one outer step |cos ω₁Δt − (δω²Δt/2ω₁) sin ω₁Δt| is 1.014 at Δt = 76 fs and below 1 at 38 fs, with
    ω₁ of the inner springs and δω² of the rest (Schlick, Barth, Mandziuk, Annu. Rev. Biophys. 26, 181 (1997)).
    """
    atoms = bulk("Si", cubic=True)
    anchors = torch.as_tensor(atoms.positions)
    potential = TwoPotentials(fast=Harmonic(anchors, spring=4.5), slow=Harmonic(anchors, spring=5.0))
    structure = Structure.from_ase(atoms)
    settings = AuditSettings(inner_timestep_fs=4.75, n_inner=16, duration_ps=2.0, ladder=(1, 8, 16), ladder_ps=2.0)
    bench = Bench(potential, structure, maxwell_boltzmann(structure, 300.0, 3), settings, lambda *_: None)
    assert [rung.stable for rung in step_ladder(bench, {})] == [True, True, False]


def test_an_explosion_is_a_result():
    potential, atoms = spinning_wells(0.9)
    structure = Structure.from_ase(atoms)
    settings = AuditSettings(duration_ps=1.0, seed=3)
    bench = Bench(potential, structure, maxwell_boltzmann(structure, 300.0, 3), settings, lambda *_: None)
    run, record = constant_energy_run(bench, "direct")
    assert run.exploded is not None
    assert run.exploded.startswith("temperature")
    assert 0 < run.reached_ps < 1
    assert len(record.time_ps) == len(run.series.energy)
    assert all(map(math.isfinite, run.series.energy))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature_K": -1.0}, "temperature_K"),
        ({"temperature_K": 1e9}, "temperature_K"),
        ({"temperature_K": math.nan}, "temperature_K"),
        ({"inner_timestep_fs": 0.0}, "inner_timestep_fs"),
        ({"inner_timestep_fs": -0.5}, "inner_timestep_fs"),
        ({"n_inner": 0}, "n_inner"),
        ({"duration_ps": 0.001}, "outer steps"),
        ({"duration_ps": math.inf}, "duration_ps"),
    ],
)
def test_settings_are_refused_by_name(changes, words):
    with pytest.raises(UsageError, match=words):
        AuditSettings(**changes)


def test_unusable_structures():
    lone = ase.Atoms("O", [[0, 0, 0]])
    with pytest.raises(UsageError, match="one atom"):
        audit(gentle_network(), lone, AuditSettings.quick())
    foreign = ase.Atoms("O2Fe", [[0, 0, 0], [1.2, 0, 0], [0, 3, 0]])
    with pytest.raises(UsageError, match="Fe"):
        audit(gentle_network(), foreign, AuditSettings.quick())
    batch = Structure.from_ase([few_waters(), few_waters()])
    with pytest.raises(UsageError, match="batch"):
        audit(gentle_network(), batch, AuditSettings.quick())


def test_a_strained_structure_says_so():
    argon = FaceCenteredCubic("Ar", size=(2, 2, 2), latticeconstant=2.2)
    with pytest.raises(RunError, match="flies apart while equilibrating"):
        audit(LennardJones(), argon, AuditSettings.quick(temperature_K=40, equilibration_ps=0.05))


@pytest.mark.parametrize(("inner_fs", "expected"), [(0.5, 125), (1.0, 63), (0.7, 90)])
def test_runs_are_never_shorter_than_asked(inner_fs: float, expected: int) -> None:
    """0.5 ps in outer steps of 4, 8 and 5.6 fs: the least whole number that covers it."""
    settings = AuditSettings(inner_timestep_fs=inner_fs, duration_ps=0.5)
    assert settings.outer_steps == expected
    assert settings.outer_steps * settings.outer_timestep_fs >= 500 - 1e-9
