"""Distillation: frames are the teacher's, the student learns them, and what is said of it is so."""

from __future__ import annotations

import json
from dataclasses import replace

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

from mlcalc.distillation import examination
from mlcalc.distillation.examination import Examination, Rung, force_error
from mlcalc.distillation.run import distill
from mlcalc.distillation.sampling import (
    dynamics_frames,
    joined,
    labelled_frames,
    rattled,
    read_frames,
    strained,
    write_frames,
)
from mlcalc.distillation.settings import DistillSettings
from mlcalc.distillation.text import summary
from mlcalc.errors import RunError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.checkpoint import load_checkpoint, read_card
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.structure import Structure
from mlcalc.training.run import TrainingSettings, build_network
from mlcalc.trajectory import read_trajectory

TEACHER = LennardJones(epsilon=0.2, sigma=2.3, cutoff=4.4)
SETTINGS = DistillSettings(
    temperatures_K=(300.0, 450.0),
    inner_timestep_fs=2.0,
    n_first=12,
    n_frames=12,
    n_rounds=2,
    steps_round=60,
    steps_last=150,
    ladder_ps=0.4,
    sizes=(("channels", 8), ("n_layers", 1), ("hidden", 16), ("pair_channels", 4)),
)


def copper() -> ase.Atoms:
    """Near the teacher's lattice constant, with neighbours at 2.55 Å."""
    return bulk("Cu", cubic=True, a=3.6) * (2, 2, 1)


def argon() -> ase.Atoms:
    return bulk("Ar", cubic=True, a=5.3) * (2, 2, 1)


def quiet(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("distilled") / "copper.safetensors"
    return distill(TEACHER, copper(), path, SETTINGS)


def test_the_student_is_better_than_nothing_and_is_kept(made) -> None:
    """Its error is a small part of the forces themselves; the checkpoint gives the same student."""
    student = load_checkpoint(made.path)
    frames = read_frames(made.path.with_suffix(".distillation") / "frames-1.safetensors",
                         Structure.from_ase(copper()), student.cutoff)  # fmt: skip
    forces = 1000 * float(torch.cat([frame.force for frame in frames]).square().mean().sqrt())
    assert force_error(student, frames) < 0.2 * forces
    assert made.examination.force_error < 0.2 * forces
    assert student.provides & Wanted.DIRECT
    card = read_card(made.path)
    assert card["teacher"]["fingerprint"] == TEACHER.fingerprint
    assert card["structure"] == {"formula": "Cu16", "atoms": 16}
    assert card["examination"]["n_inner"] == made.examination.n_inner
    assert json.dumps(card["examination"])
    assert len(made.fresh_errors) == SETTINGS.n_rounds
    assert made.n_frames == 12 * (1 + len(made.fresh_errors))


def test_the_students_force_has_no_net(made) -> None:
    student = load_checkpoint(made.path).double()
    atoms = copper()
    atoms.rattle(0.1, seed=1)
    structure = Structure.from_ase(atoms)
    force = student.evaluate(structure, neighbour_list(structure, student.cutoff), Wanted.DIRECT).direct_force
    assert force is not None and float(force.sum(dim=0).abs().max()) < 1e-12


def test_labels_are_the_teachers(made) -> None:
    folder = made.path.with_suffix(".distillation")
    for number in (0, 1):
        for frame in read_frames(folder / f"frames-{number}.safetensors", Structure.from_ase(copper()), 4.5)[:3]:
            found = TEACHER.evaluate(frame.structure, neighbour_list(frame.structure, 4.4),
                                     Wanted.ENERGY | Wanted.CONSERVATIVE)  # fmt: skip
            torch.testing.assert_close(frame.force, found.conservative_force, atol=1e-12, rtol=0)
            torch.testing.assert_close(frame.energy, found.energy.sum(), atol=1e-10, rtol=0)


def test_a_distillation_that_was_cut_off_goes_on(made, tmp_path, monkeypatch) -> None:
    """Killed in the second round's sampling: the same student comes out."""
    path = tmp_path / "copper.safetensors"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlcalc.distillation.run.dynamics_frames", killed)
        with pytest.raises(KeyboardInterrupt):
            distill(TEACHER, copper(), path, SETTINGS)
    again = distill(TEACHER, copper(), path, SETTINGS)
    assert load_checkpoint(path).fingerprint == load_checkpoint(made.path).fingerprint
    assert again.fresh_errors == made.fresh_errors


def test_another_run_in_the_same_place_is_refused(made) -> None:
    with pytest.raises(UsageError, match="holds a run with another teacher, structure or settings"):
        distill(TEACHER, copper(), made.path, replace(SETTINGS, seed=5))
    wider = copper()
    wider.set_cell(wider.cell.array * 1.01, scale_atoms=True)  # the same atoms in another cell
    with pytest.raises(UsageError, match="holds a run with another teacher, structure or settings"):
        distill(TEACHER, wider, made.path, SETTINGS)


def test_the_summary_fits_and_names_the_command(made) -> None:
    text = summary(made)
    long = summary(replace(made, fresh_errors=20 * (123.4,), n_frames=1234))
    assert max(map(len, [*text.splitlines(), *long.splitlines()])) <= 80 and long.count("123,") == 19
    found = made.examination
    assert (f"--n-inner {found.n_inner}" in text) == bool(found.n_inner)
    quick = summary(replace(made, examination=replace(found, teacher_ms=160.0, student_ms=10.0, n_inner=16)))
    assert "Use it with --n-inner 16: 8.0 times as fast as the teacher alone." in quick  # 160 / (10 + 160 / 16)
    slow = summary(replace(made, examination=replace(found, teacher_ms=10.0, student_ms=19.375, n_inner=16)))
    assert "With --n-inner 16 it takes 2.0 times as long as the teacher alone: of no use." in slow


def test_the_ladder_finds_the_outer_step_that_is_unstable() -> None:
    """Springs: a slow force of 2 eV/Å² on 40 amu is unstable beyond 2/ω = 91 fs, whatever the fast force, and flew
    apart within the run; well below that the energy stays."""
    atoms = ase.Atoms("Ar8", positions=np.random.default_rng(0).normal(0, 0.1, (8, 3)))
    structure = Structure.from_ase(atoms)
    pair = examination.TwoPotentials(Harmonic(spring=1e-3), Harmonic(spring=2.0))
    momenta = examination.maxwell_boltzmann(structure, 100.0, seed=0)
    too_long = examination._rung(pair, structure, momenta, 16, 6.0, 4.0)
    assert not too_long.stable
    short = examination._rung(pair, structure, momenta, 2, 6.0, 4.0)
    assert short.stable and abs(short.drift) < 0.1


def test_speed_up_is_that_of_the_costs() -> None:
    """100 ms outside every eighth step and 5 ms inside each: 100/(5 + 100/8)."""
    found = Examination(10.0, 1e-3, 1e-4, 100.0, 5.0, (Rung(8, 4.0, 0.0, 0.01, True),), 8)
    assert found.speed_up == pytest.approx(100 / 17.5)
    assert found.cost_ratio == pytest.approx(20)
    assert replace(found, n_inner=0).speed_up == 1.0


def test_strain_is_small_symmetric_and_keeps_fractions() -> None:
    structure = Structure.from_ase(copper())
    moved = strained(structure, torch.Generator().manual_seed(0))
    deform = torch.linalg.solve(structure.cell[0], moved.cell[0])
    torch.testing.assert_close(deform, deform.T)
    assert 0 < float((deform - torch.eye(3)).abs().max()) < 0.1
    torch.testing.assert_close(structure.positions @ deform, moved.positions)
    cluster = Structure.from_ase(ase.Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]]))
    assert strained(cluster, torch.Generator()) is cluster


def test_frames_of_a_run_that_flies_apart_are_left_out(tmp_path) -> None:
    """A fast force of the wrong sign: the frames before it goes wild are kept."""
    structure = Structure.from_ase(copper())
    wrong = Harmonic(copper().positions, spring=50.0, curl=200.0)
    frames = dynamics_frames(TEACHER, wrong, [(structure, 50.0)], n_frames=40, inner_timestep_fs=4.0, n_inner=4,
                                   seed=0, progress=quiet)  # fmt: skip
    assert len(frames) < 40
    assert all(float(frame.force.abs().max()) < 30 for frame in frames)


def test_kept_frames_come_back_and_damage_is_found(tmp_path) -> None:
    structure = Structure.from_ase(copper())
    generator = torch.Generator().manual_seed(0)
    frames = labelled_frames(TEACHER, rattled(structure, 3, generator), 4.5, progress=quiet)
    write_frames(tmp_path / "a.safetensors", frames)
    for before, after in zip(frames, read_frames(tmp_path / "a.safetensors", structure, 4.5), strict=True):
        assert torch.equal(before.structure.positions, after.structure.positions)
        assert torch.equal(before.structure.cell, after.structure.cell)
        assert torch.equal(before.force, after.force) and torch.equal(before.energy, after.energy)
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match="damaged"):
        read_frames(tmp_path / "a.safetensors", structure, 4.5)


def test_a_last_stage_against_what_is_too_fast_for_kicks(tmp_path) -> None:
    """Its groups are five instants four inner steps (8 fs) apart, labelled by the teacher: the second difference of the
    positions is force over mass times (8 fs)², within what a fast force that is off by a tenth makes of it."""
    settings = replace(SETTINGS, n_rounds=1, steps_last=60, n_groups=10, steps_kicks=20)
    found = distill(TEACHER, copper(), tmp_path / "copper.safetensors", settings)
    assert found.n_frames == 12 + 12 + 5 * 10
    folder = tmp_path / "copper.distillation"
    assert "kicks,20," in (folder / "training-3" / "log.csv").read_text()
    frames = read_frames(folder / "instants.safetensors", Structure.from_ase(copper()), 4.5)
    assert len(frames) == 50
    # eV/Å over amu in Å/fs²: 1.602176634e-19 J / 1.66053907e-27 kg · 1e-10 (m²/s² per Å²/fs²)
    to_step = 8**2 * 9.64853e-3 / frames[0].structure.masses[:, None]
    apart = []
    for five in joined(frames, 4.5):
        taught = TEACHER.evaluate(five.structure, five.neighbours, Wanted.CONSERVATIVE).conservative_force
        torch.testing.assert_close(five.force, taught, atol=1e-12, rtol=0)
        positions, force = (x.unflatten(0, (5, -1)) for x in (five.structure.positions, five.force))
        bend = positions[:-2] - 2 * positions[1:-1] + positions[2:]
        apart.append((bend - to_step * force[1:-1]).norm() / bend.norm())
    assert float(torch.stack(apart).median()) < 0.1


def test_a_student_may_start_from_another_and_learn_from_given_frames(made, tmp_path) -> None:
    """With next to no training its error is near that of where it comes from, not near that of a fresh one."""
    settings = replace(SETTINGS, initial=str(made.path), n_rounds=1, steps_round=2, steps_last=2, ladder_ps=0.1)
    more = [copper(), copper()]
    for k, atoms in enumerate(more):
        atoms.set_cell(atoms.cell.array * (0.99 + 0.01 * k), scale_atoms=True)
        atoms.rattle(0.05, seed=k)
    path = tmp_path / "student.safetensors"
    found = distill(TEACHER, copper(), path, settings, configurations=more)
    source, student = load_checkpoint(made.path), load_checkpoint(path)
    assert student.hyperparameters == source.hyperparameters
    labelled = read_frames(
        path.with_suffix(".distillation") / "frames-0.safetensors", Structure.from_ase(copper()), 4.5
    )
    assert found.n_frames == 12 + 2 + 12 and len(labelled) == 14
    for atoms, frame in zip(more, labelled[12:], strict=True):
        np.testing.assert_allclose(frame.structure.positions.numpy(), atoms.positions)
        np.testing.assert_allclose(frame.structure.cell[0].numpy(), atoms.cell.array)
    parameters = {name: source.hyperparameters[name] for name in ("cutoff", "three_body_cutoff", "density_cutoff")}
    afresh = build_network(TrainingSettings(form="NC", sizes=SETTINGS.sizes, **parameters), labelled)
    errors = [force_error(one, labelled) for one in (source, student, afresh)]  # 25, 28, 38 meV/Å
    assert errors[1] - errors[0] < 0.5 * (errors[2] - errors[0])

    with pytest.raises(UsageError, match="number 1 \\(Ar16\\) has other atoms"):
        distill(TEACHER, copper(), tmp_path / "no.safetensors", configurations=[copper(), argon()])
    with pytest.raises(UsageError, match="'water-pet' is a PET"):
        distill(TEACHER, copper(), tmp_path / "no.safetensors", replace(SETTINGS, initial="water-pet"))
    with pytest.raises(UsageError, match="'water' knows H, O, but the structure holds Cu"):
        distill(TEACHER, copper(), tmp_path / "no.safetensors", replace(SETTINGS, initial="water"))
    assert not (tmp_path / "no.distillation").exists()  # so that the corrected call is not taken for another run


def test_bad_input_is_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match="end in .safetensors"):
        distill(TEACHER, copper(), tmp_path / "student.pt")
    with pytest.raises(UsageError, match="temperatures_K"):
        DistillSettings(temperatures_K=(0.0,))
    with pytest.raises(UsageError, match="n_frames: got 2"):
        DistillSettings(n_frames=2)
    for name, wrong in (("n_groups", -1), ("steps_last", 0), ("cutoff", 0.0), ("ladder_ps", float("nan"))):
        with pytest.raises(UsageError, match=f"{name}: got {wrong}; give"):
            DistillSettings(**{name: wrong})


def test_the_command(tmp_path, capsys) -> None:
    from mlcalc import cli

    nowhere = ["distill", "--teacher", "lennard_jones", "--out", str(tmp_path / "no.safetensors")]
    for wrong, says in (
        (["--initial", "water", "--cutoff", "5"], "cutoff: got 5 Å with --initial water"),
        (["--configurations", str(tmp_path / "no.xyz")], "configurations: no file"),
    ):
        assert cli.main([*nowhere, *wrong]) == 2
        assert says in capsys.readouterr().err

    ase.io.write(tmp_path / "argon.xyz", argon())
    out = tmp_path / "student.safetensors"
    options = ["--structure", str(tmp_path / "argon.xyz"), "--temperature", "40", "--inner-timestep-fs", "4"]
    quick = ["--frames", "10", "--rounds", "1", "--steps-round", "20", "--steps-last", "20"]
    assert cli.main(["distill", "--teacher", "lennard_jones", *options, *quick, "--out", str(out)]) == 0
    assert "teacher over student" in capsys.readouterr().out
    run = ["run", "--fast", str(out), "--slow", "lennard_jones", *options[:2], "--steps", "3", "--n-inner", "2"]
    assert cli.main([*run, "--temperature-K", "40", "--output", str(tmp_path / "a.trajectory")]) == 0
    assert read_trajectory(tmp_path / "a.trajectory").n_frames == 4
