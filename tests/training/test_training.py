"""Training: labels are read as stated, runs resume exactly, every stage lowers what it is meant to lower."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.lj import LennardJones
from torch import Tensor

from mlcalc.errors import UsageError
from mlcalc.evaluation import Wanted
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.checkpoint import load_checkpoint, read_card
from mlcalc.potentials.painn import PaiNN
from mlcalc.potentials.pet import PET
from mlcalc.structure import Structure
from mlcalc.training import own_frames
from mlcalc.training.baseline import _three_body_coefficients, fit_baseline, fit_energy_offsets
from mlcalc.training.data import DataKeys, Frame, read_frames, split
from mlcalc.training.losses import KickWeights, Weights, disagreement
from mlcalc.training.run import TrainingSettings, relative_time, train
from mlcalc.training.trainer import Stage, Trainer, agreement, random_rotation, validate

KEYS = DataKeys("eV,Angstrom", stress="stress")
SIZES = {"channels": 8, "n_layers": 1, "n_radial": 6, "hidden": 16, "pair_channels": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames of eight argon-like atoms in a periodic box, labelled by ASE's Lennard-Jones with stress."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3), -1).reshape(-1, 3) * 2.4
    frames = []
    for _ in range(24):
        atoms = ase.Atoms("Ar4Ne4", positions=grid + rng.normal(0, 0.12, (8, 3)), cell=[4.8] * 3, pbc=True)
        atoms.calc = LennardJones(epsilon=0.2, sigma=2.1, rc=4.0, smooth=True)
        atoms.get_potential_energy()
        atoms.get_stress()
        frames.append(atoms)
    path = tmp_path_factory.mktemp("data") / "argon.xyz"
    ase.io.write(path, frames)
    return path


def small(seed: int = 0) -> PaiNN:
    torch.manual_seed(seed)
    return PaiNN(["Ne", "Ar"], 4.0, "M", **SIZES)


def labelled(network: PaiNN, structure: Structure) -> Frame:
    """With the network's own energy and conservative force."""
    neighbours = neighbour_list(structure, network.cutoff)
    result = network.evaluate(structure, neighbours, Wanted.ENERGY | Wanted.CONSERVATIVE)
    assert result.energy is not None and result.conservative_force is not None
    return Frame(structure, neighbours, result.energy.sum(), result.conservative_force, None)


def trainer(data: Path, folder: Path, stages: list[Stage], **options: object) -> Trainer:
    frames = read_frames(data, KEYS, 4.0)
    training, validation = split(frames, 4, 0)
    return Trainer(small(), training, validation, stages, folder, validate_every=10, **options)  # type: ignore[arg-type]


def test_labels_keep_their_units(data: Path) -> None:
    """The same file read as Hartree and Bohr: 1 Hartree = 27.2114 eV, 1 Bohr = 0.529177 Å (CODATA 2018)."""
    ours = read_frames(data, KEYS, 4.0)[0]
    theirs = read_frames(data, DataKeys("Hartree,Bohr", stress="stress"), 4.0)[0]
    assert float(theirs.energy / ours.energy) == pytest.approx(27.211386, rel=1e-6)
    torch.testing.assert_close(theirs.force, ours.force * 27.211386245988 / 0.529177210903)
    assert ours.virial is not None and theirs.virial is not None
    torch.testing.assert_close(theirs.virial, ours.virial * 27.211386245988 / 0.529177210903**3)


def test_virial_label_is_minus_stress_times_volume(data: Path) -> None:
    atoms = ase.io.read(data, 0)
    virial = read_frames(data, KEYS, 4.0)[0].virial
    assert virial is not None
    np.testing.assert_allclose(virial.numpy(), -atoms.get_stress(voigt=False) * atoms.get_volume(), atol=1e-12)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        (DataKeys("eV"), "units"),
        (DataKeys("eV,Angstrom", energy="TotEnergy"), "TotEnergy"),
        (DataKeys("eV,Angstrom", forces="dft_forces"), "dft_forces"),
    ],
)
def test_wrong_keys_and_units_are_refused(data: Path, keys: DataKeys, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        read_frames(data, keys, 4.0)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        read_frames(tmp_path / "none.xyz", KEYS, 4.0)
    (tmp_path / "text.xyz").write_text("no numbers here\n")
    with pytest.raises(UsageError, match="extended XYZ"):
        read_frames(tmp_path / "text.xyz", KEYS, 4.0)


def test_energy_offsets_are_found(data: Path) -> None:
    """Energies made of known offsets come back as those offsets (least squares, exact data)."""
    frames = read_frames(data, KEYS, 4.0)
    mixed = []
    for k, frame in enumerate(frames[:6]):
        structure = frame.structure
        numbers = structure.numbers.clone()
        numbers[: k + 1] = 10
        energy = torch.where(numbers == 10, -3.0, -7.5).double().sum()
        changed = type(structure)(
            structure.positions, numbers, structure.cell, structure.periodic, structure.masses, structure.system
        )
        mixed.append(type(frame)(changed, frame.neighbours, energy, frame.force, None))
    torch.testing.assert_close(fit_energy_offsets(mixed, [10, 18]), torch.tensor([-3.0, -7.5], dtype=torch.float64))


def test_baseline_takes_a_pair_potential_whole(data: Path) -> None:
    """The labels are a pair potential's, so the pair baseline must leave nearly nothing of them to the network.

    Not nothing: 16 smooth functions cannot undo the wall, which begins a little within the data.
    """
    frames = read_frames(data, KEYS, 4.0)
    network = small().double()
    fit_baseline(network, frames)
    rms = float(torch.cat([frame.force for frame in frames]).square().mean().sqrt())
    assert float(network.scale) < 0.03 * rms
    network.scale.zero_()  # the network's own part
    errors = validate(network, frames)
    assert errors.conservative < 0.03 * 1000 * rms
    assert errors.alignment < 1e-9  # both heads stand on the same baseline


def test_baseline_takes_a_three_body_potential_whole(data: Path) -> None:
    """Labels of a three-body potential of random coefficients: the fit finds its force on frames it has not seen."""
    structure = read_frames(data, KEYS, 4.0)[0].structure
    torch.manual_seed(1)
    true, network = (PaiNN(["Ne", "Ar"], 4.0, three_body_cutoff=3.8, **SIZES).double() for _ in range(2))
    coefficients = torch.randn(8, 5, 5, 5, dtype=torch.float64)
    true.three_body_baseline.coefficients.copy_((coefficients + coefficients.transpose(2, 3)).flatten(2))
    true.scale.zero_()  # the network's own part
    network.scale.zero_()
    moved = [structure.at(structure.positions + 0.2 * torch.randn(8, 3, dtype=torch.float64)) for _ in range(150)]
    frames = [labelled(true, one) for one in moved]
    rms = float(torch.cat([frame.force for frame in frames]).square().mean().sqrt())
    network.three_body_baseline.coefficients.copy_(_three_body_coefficients(network, frames[:130]))
    assert rms > 0.1
    assert validate(network, frames[130:]).conservative < 0.03 * 1000 * rms  # the ridge leaves something


def test_density_network_sees_invariants_of_unit_spread(data: Path) -> None:
    frames = read_frames(data, KEYS, 4.0)
    torch.manual_seed(0)
    network = PaiNN(["Ne", "Ar"], 4.0, density_cutoff=3.0, **SIZES).double()
    fit_baseline(network, frames)
    density = network.density_network
    assert density is not None
    seen: list[Tensor] = []
    for frame in frames:
        vectors = frame.neighbours.vectors(frame.structure)
        species = (frame.structure.numbers == 18).long()
        places = density.places(vectors, frame.neighbours.centre, frame.neighbours.neighbour, species)
        _, (_, argon) = density.invariants(vectors[places.near], species, places)
        seen.append((argon.detach() - density.shift[1]) / density.spread[1])
    spread = torch.cat(seen).std(dim=0, correction=0)
    assert float(torch.cat(seen).mean(dim=0).abs().max()) < 1e-5
    assert float(spread.max()) == pytest.approx(1, rel=1e-5) and float(spread.median()) == pytest.approx(1, rel=1e-5)


def test_a_wall_stands_where_the_data_end(data: Path) -> None:
    """Two atoms nearer than any in the data repel one another, whatever the network says of them."""
    frames = read_frames(data, KEYS, 4.0)
    network = small().double()
    fit_baseline(network, frames)
    apart = [ase.io.read(data, k).get_all_distances(mic=True)[:4, :4] for k in range(len(frames))]  # argon with argon
    shortest = min(float(d[d > 0].min()) for d in apart)
    argon = torch.tensor([1, 1, 1])  # places in ["Ne", "Ar"]
    r = torch.tensor([0.85, 0.95, 1.05], dtype=torch.float64) * shortest
    assert float(network.pair_baseline.wall[3]) == pytest.approx(1.04 * shortest, rel=1e-6)
    network.pair_baseline.coefficients.zero_()
    energies, slopes = network.pair_baseline(r, argon, argon)
    depth = 1.04 * shortest - r
    expected = 1000 * torch.where(depth > 0, depth, 0.0) ** 4  # k (r_w − r)⁴ with k = 1000 eV/Å⁴
    torch.testing.assert_close(energies, expected, rtol=1e-5, atol=0)
    r = r.requires_grad_()  # slopes against automatic differentiation of the energies
    (gradient,) = torch.autograd.grad(network.pair_baseline(r, argon, argon)[0].sum(), r)
    torch.testing.assert_close(slopes, gradient, rtol=1e-12, atol=1e-12)
    assert bool((slopes[:2] < 0).all()) and float(slopes[2]) == 0


def test_a_killed_run_resumes_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    stages = [
        Stage("direct", 15, 1e-2, Weights(direct=1.0)),
        Stage("conservative", 15, 1e-2, Weights(conservative=1.0, energy=0.1, alignment=1.0)),
    ]
    whole = trainer(data, tmp_path / "whole", stages, seed=3).run()

    class Kill(Exception):
        pass

    def kill_in(stage: str) -> Callable[[str, int, int, float], None]:
        def killer(name: str, step: int, total: int, value: float) -> None:
            if name == stage and step == 12:  # two steps after the last state was written
                raise Kill

        return killer

    for stage in ("direct", "conservative"):
        with pytest.raises(Kill):
            trainer(data, tmp_path / "cut", stages, seed=3).run(kill_in(stage))
    resumed = trainer(data, tmp_path / "cut", stages, seed=3).run()
    assert resumed.fingerprint == whole.fingerprint


def test_another_schedule_does_not_resume(data: Path, tmp_path: Path) -> None:
    trainer(data, tmp_path, [Stage("direct", 5, 1e-3, Weights(direct=1.0))]).run()
    with pytest.raises(UsageError, match="schedule"):
        trainer(data, tmp_path, [Stage("direct", 6, 1e-3, Weights(direct=1.0))])


def test_own_dynamics_bring_both_forces_together(data: Path, tmp_path: Path) -> None:
    """On frames of dynamics that it has not been trained on, while it learns the data."""
    sampler = small()  # on a baseline, so that its dynamics stay near the data; what is trained has none
    fit_baseline(sampler, read_frames(data, KEYS, 4.0))
    starts = [frame.structure for frame in read_frames(data, KEYS, 4.0)]
    own = own_frames.own_frames(sampler, starts, n_frames=10)
    stage = Stage("alignment", 60, 3e-3, Weights(conservative=1.0, direct=1.0), kick_weights=KickWeights(30.0, 100.0))
    run = trainer(data, tmp_path, [stage], instants=own[:8])
    before, after = small(), run.run()
    assert agreement(after, own[8:]) < 0.7 * agreement(before, own[8:])
    assert validate(after, run.validation).conservative < validate(before, run.validation).conservative


def test_labelled_instants_make_kicks_smaller(data: Path, tmp_path: Path) -> None:
    """Of atoms that fly straight on: the direct force's fast error is less than half of what it is without them."""
    teacher = small(seed=1)
    fit_baseline(teacher, read_frames(data, KEYS, 4.0))
    generator = torch.Generator().manual_seed(0)
    frames, instants = [], []
    for one in read_frames(data, KEYS, 4.0)[:8]:
        here = one.structure
        way = 0.02 * torch.randn(here.positions.shape, generator=generator, dtype=torch.float64)
        places = torch.cat([here.positions + k * way for k in range(-2, 3)])
        frames.append(labelled(teacher, here))
        instants.append(labelled(teacher, here.replicated(5).at(places)))

    def fast_error(name: str, kick_weights: KickWeights | None) -> float:
        stage = Stage("kicks", 100, 3e-3, Weights(direct=1.0), kick_weights=kick_weights)
        made = Trainer(small(), frames[:7], frames[7:], [stage], tmp_path / name, instants=instants).run()
        values = []
        for frame in instants:
            force = made.evaluate(frame.structure, frame.neighbours, Wanted.DIRECT).direct_force
            assert force is not None
            values.append(disagreement(frame.force - force, frame.structure.masses, KickWeights(0.0, 1.0)))
        return float(torch.stack(values).mean())

    assert fast_error("with", KickWeights(1.0, 100.0)) < 0.5 * fast_error("without", None)


def test_a_stage_on_kicks_needs_instants(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no instants"):
        trainer(data, tmp_path, [Stage("alignment", 1, 1e-3, Weights(), kick_weights=KickWeights(1.0, 1.0))])


def test_disagreement_counts_fast_change_and_light_atoms(data: Path) -> None:
    """Of an oscillation of amplitude e and phase θ per instant the filter passes e (2 − 2 cos θ) 2 cos θ.

    Nothing of what grows linearly. A kick f does the work f²/2m, so the same bump counts in inverse proportion to mass.
    """
    masses = read_frames(data, KEYS, 4.0)[0].structure.replicated(5).masses
    force, even = torch.zeros(40, 3, dtype=torch.float64), torch.ones(8, 3, dtype=torch.float64)

    def value(difference: Tensor, alignment: float, fast: float) -> float:
        return float(disagreement(difference, masses, KickWeights(alignment, fast)))

    def instants(values: Sequence[float]) -> Tensor:
        return torch.cat([x * even for x in values])

    slow = instants([0.0, 0.5, 1.0, 1.5, 2.0])
    assert value(slow, 0.0, 2.0) == pytest.approx(0, abs=1e-12)
    assert value(slow, 2.0, 0.0) == pytest.approx(float(slow.square().mean()))
    for phase in (0.5 * math.pi, 0.8 * math.pi, math.pi):
        wave = instants([0.3 * math.cos(phase * (k - 2)) for k in range(5)])
        passed = 0.3 * (2 - 2 * math.cos(phase)) * 2 * math.cos(phase)
        assert value(slow + wave, 0.0, 2.0) == pytest.approx(passed**2, abs=1e-12)
    argon, neon = torch.zeros_like(force), torch.zeros_like(force)
    argon[16], neon[23] = 0.3, 0.3  # at the middle instant
    assert value(neon, 0.0, 1.0) / value(argon, 0.0, 1.0) == pytest.approx(39.948 / 20.1797, rel=1e-4)  # IUPAC 2016


def test_own_frames_are_five_instants_of_a_trajectory(data: Path) -> None:
    """2.5 fs apart: the second difference of the positions is force over mass times (2.5 fs)²."""
    network = small().double()
    fit_baseline(network, read_frames(data, KEYS, 4.0))
    network.scale.zero_()  # the baseline alone, so that both forces are the same
    start = read_frames(data, KEYS, 4.0)[0].structure
    frame, *_ = own_frames.own_frames(network, [start], n_frames=2, spacing_fs=15.0)
    positions = frame.structure.positions.unflatten(0, (5, -1))
    assert frame.structure.n_systems == 5 and float((positions[1:] - positions[:-1]).abs().amax((1, 2)).min()) > 1e-3
    # eV/Å over amu in Å/fs²: 1.602176634e-19 J / 1.66053907e-27 kg · 1e-10 (m²/s² per Å²/fs²)
    acceleration = 9.64853e-3 * labelled(network, frame.structure).force.unflatten(0, (5, -1)) / start.masses[:, None]
    bend = positions[:-2] - 2 * positions[1:-1] + positions[2:]
    torch.testing.assert_close(bend, 2.5**2 * acceleration[1:-1], rtol=0.05, atol=2e-5)


def test_random_rotations_are_orthogonal_and_reproducible() -> None:
    turn = random_rotation(1, 2)
    torch.testing.assert_close(turn @ turn.T, torch.eye(3, dtype=torch.float64))
    assert torch.equal(turn, random_rotation(1, 2))
    assert not torch.equal(turn, random_rotation(1, 3))
    assert {float(torch.linalg.det(random_rotation(0, k)).round()) for k in range(16)} == {1.0, -1.0}


def test_a_turned_frame_has_turned_labels(data: Path) -> None:
    """An equivariant network cannot tell a frame from its rotation: same errors for both."""
    frame = read_frames(data, KEYS, 4.0)[0]
    network = small().double()
    turned = frame.rotated(random_rotation(0, 1))
    here, there = validate(network, [frame]), validate(network, [turned])
    assert there.direct == pytest.approx(here.direct, rel=1e-9)
    assert there.conservative == pytest.approx(here.conservative, rel=1e-9)


def settings(**changes: object) -> TrainingSettings:
    base: dict[str, object] = dict(
        cutoff=4.0,
        steps_direct=100,
        steps_conservative=120,
        steps_joint=80,
        steps_alignment=60,
        n_validation=4,
        n_own_frames=8,
        learning_rate=1e-2,
        sizes=tuple(SIZES.items()),
    )
    return TrainingSettings(**{**base, **changes})  # type: ignore[arg-type]


def test_the_whole_schedule(data: Path, tmp_path: Path) -> None:
    path = train(data, KEYS, tmp_path, settings())
    network = load_checkpoint(path)
    frames = read_frames(data, KEYS, 4.0)
    rms = 1000 * float(torch.cat([frame.force for frame in frames]).square().mean().sqrt())
    errors = validate(network, split(frames, 4, 0)[1])
    # a network that predicts nothing has the error `rms`; the conservative force must have learnt most of the force,
    # and the direct one must be on its way to it
    assert errors.conservative < 0.4 * rms
    assert errors.alignment < 0.4 * rms
    card = read_card(path)
    *stages, total = card["time_over_conservative_from_scratch"].values()
    assert len(stages) == 3 and total == pytest.approx(sum(stages))
    assert json.loads((tmp_path / "card.json").read_text()) == card
    for name in ("log.csv", "curves.png", "parity.png", "alignment/log.csv"):
        assert (tmp_path / name).stat().st_size > 100
    assert card["own_dynamics"]["alignment_on_frames_held_out"] < 0.4 * rms
    with (tmp_path / "log.csv").open() as file:
        assert [row["stage"] for row in csv.DictReader(file)] == ["direct", "conservative", "joint"]
    own = tmp_path / "alignment" / "own-frames.safetensors"
    made = own.stat().st_mtime_ns
    again = load_checkpoint(train(data, KEYS, tmp_path, settings()))  # all is done: nothing may change
    assert again.fingerprint == network.fingerprint
    assert own.stat().st_mtime_ns == made


def test_times_are_compared_step_by_step() -> None:
    """10 cheap steps of 1 s and 20 of 3 s, over 30 of 3 s: 1/9 and 2/3."""
    stages = [Stage("direct", 10, 1e-3, Weights()), Stage("conservative", 20, 1e-3, Weights())]
    assert relative_time(stages, [10.0, 60.0]) == pytest.approx(
        {"direct": 1 / 9, "conservative": 2 / 3, "total": 7 / 9}
    )


@pytest.mark.parametrize(("form", "heads"), [("C", ["conservative"]), ("NC", ["direct"])])
def test_single_headed_forms_train(data: Path, tmp_path: Path, form: str, heads: list[str]) -> None:
    network = load_checkpoint(
        train(data, KEYS, tmp_path, settings(form=form, steps_direct=20, steps_conservative=20, steps_joint=0))
    )
    with (tmp_path / "log.csv").open() as file:
        row = next(csv.DictReader(file))
    assert [name for name in ("direct", "conservative") if row[name] != "nan"] == heads
    assert network.form == form


def test_pet_learns(data: Path, tmp_path: Path) -> None:
    sizes = {"width": 16, "n_layers": 1, "n_heads": 2, "n_radial": 6, "hidden": 16}
    steps = {"steps_direct": 120, "steps_conservative": 0, "steps_joint": 0, "steps_alignment": 0}
    made = settings(architecture="pet", sizes=tuple(sizes.items()), **steps)
    network = load_checkpoint(train(data, KEYS, tmp_path, made))
    assert isinstance(network, PET)
    frames = read_frames(data, KEYS, 4.0)
    rms = 1000 * float(torch.cat([frame.force for frame in frames]).square().mean().sqrt())
    assert validate(network, frames).direct < 0.8 * rms


def test_impossible_settings_are_refused() -> None:
    for changes, word in (
        ({"architecture": "gnn"}, "architecture"),
        ({"form": "X"}, "form"),
        ({"steps_direct": -1}, "steps_direct"),
    ):
        with pytest.raises(UsageError, match=word):
            TrainingSettings(**changes)  # type: ignore[arg-type]
