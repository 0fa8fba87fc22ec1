"""The native engine: refusals, explosions, neighbours reused, temperature as asked."""

from __future__ import annotations

import ase.build
import numpy as np
import pytest
import torch

from mlcalc.engines.native import Explosion, NativeEngine, maxwell_boltzmann
from mlcalc.errors import UsageError
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.painn import PaiNN
from mlcalc.structure import Structure
from mlcalc.trajectory import TrajectoryWriter, read_trajectory
from mlcalc.units import temperature_from_kinetic


@pytest.fixture
def argon() -> Structure:
    return Structure.from_ase(ase.build.bulk("Ar", cubic=True, a=5.3).repeat(2))


def test_momenta_have_the_temperature_and_no_drift(argon: Structure) -> None:
    momenta = maxwell_boltzmann(argon, 80.0, seed=1)
    kinetic = float((momenta.square() / (2 * argon.masses[:, None])).sum())
    assert temperature_from_kinetic(kinetic, 3 * argon.n_atoms - 3) == pytest.approx(80.0, rel=1e-12)
    torch.testing.assert_close(momenta.sum(dim=0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert torch.equal(momenta, maxwell_boltzmann(argon, 80.0, seed=1))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"timestep_fs": 0.0}, "timestep_fs"),
        ({"timestep_fs": -1.0}, "timestep_fs"),
        ({"timestep_fs": float("nan")}, "timestep_fs"),
        ({"timestep_fs": 1.0, "forces": "fast"}, "forces"),
        ({"timestep_fs": 1.0, "forces": "conservative", "n_inner": 2}, "n_inner"),
        ({"timestep_fs": 1.0, "forces": "mts", "n_inner": 0}, "n_inner"),
        ({"timestep_fs": 1.0, "forces": "mts", "n_inner": 2.5}, "n_inner"),
        ({"timestep_fs": 1.0, "forces": "mts"}, "direct"),
        ({"timestep_fs": 1.0, "forces": "conservative", "momenta": torch.zeros(2, 3)}, "momenta"),
    ],
)
def test_bad_input_is_refused_by_name(argon: Structure, options: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        NativeEngine(LennardJones(), argon, **options)


def test_absurd_temperature_is_refused(argon: Structure) -> None:
    for temperature in (-1.0, 1e9, float("nan")):
        with pytest.raises(UsageError, match="temperature_K"):
            maxwell_boltzmann(argon, temperature, seed=0)


def test_unknown_element_is_refused(argon: Structure) -> None:
    with pytest.raises(UsageError, match="Ar"):
        NativeEngine(PaiNN(["H"], 3.0, channels=4, n_layers=1), argon, forces="conservative", timestep_fs=1.0)


def test_an_explosion_keeps_its_frames(tmp_path, argon: Structure) -> None:  # type: ignore[no-untyped-def]
    """An unstable step (a spring's limit is Δt < 2/ω) is found; what came before is kept on disk and in the error."""
    wells = Harmonic(argon.positions, spring=50.0)
    engine = NativeEngine(
        wells,
        argon,
        forces="conservative",
        timestep_fs=30.0,
        momenta=maxwell_boltzmann(argon, 10.0, seed=0),
        max_temperature_K=1e4,
    )
    path = tmp_path / "run.traj"
    with TrajectoryWriter(path, argon, engine.provenance()) as writer, pytest.raises(Explosion) as caught:
        engine.run(1000, writer=writer)
    kept = read_trajectory(path)
    assert 1 <= kept.n_frames == caught.value.trajectory.n_frames < 1000
    assert np.isfinite(kept.positions).all()
    assert "\n" not in str(caught.value)


def test_neighbour_lists_are_reused_and_change_nothing(argon: Structure) -> None:
    momenta = maxwell_boltzmann(argon, 60.0, seed=3)
    options = {"forces": "conservative", "timestep_fs": 5.0, "momenta": momenta}
    with_skin = NativeEngine(LennardJones(), argon, skin=1.0, **options)
    without = NativeEngine(LennardJones(), argon, skin=0.0, **options)
    there, here = with_skin.run(60), without.run(60)
    np.testing.assert_allclose(there.positions, here.positions, atol=1e-11)
    assert with_skin.neighbours.n_builds < 5 < without.neighbours.n_builds


def test_runs_continue_where_they_stopped(argon: Structure) -> None:
    options = {
        "forces": "conservative",
        "timestep_fs": 5.0,
        "momenta": maxwell_boltzmann(argon, 60.0, seed=3),
    }
    whole = NativeEngine(LennardJones(), argon, **options).run(20)
    parts = NativeEngine(LennardJones(), argon, **options)
    parts.run(12)
    rest = parts.run(8)
    np.testing.assert_array_equal(rest.positions[-1], whole.positions[-1])
    assert rest.time_ps[-1] == pytest.approx(whole.time_ps[-1])
