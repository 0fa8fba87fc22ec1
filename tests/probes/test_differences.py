"""λ from force evaluations alone: known curls are found, gradients pass, and round-off is called what it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlcalc.diagnostics import jacobian_asymmetry
from mlcalc.errors import UsageError
from mlcalc.evaluation import Evaluation
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.potentials.lennard_jones import LennardJones
from mlcalc.potentials.potential import Potential
from mlcalc.probes import differences, jacobian
from mlcalc.structure import Structure

NOISE = 1e-4  # eV/Å


class Noisy(LennardJones):
    """Forces with normal noise, new at every call."""

    def evaluate(self, structure, neighbours, wanted) -> Evaluation:
        force = super().evaluate(structure, neighbours, wanted).conservative_force
        assert force is not None
        return Evaluation(conservative_force=force + NOISE * torch.randn(force.shape, dtype=force.dtype))


def argon(repeats: int = 2) -> Structure:
    atoms = bulk("Ar", cubic=True, a=5.4) * (repeats, repeats, repeats)
    atoms.rattle(0.1, seed=0)
    return Structure.from_ase(atoms)


def measured(potential: Potential, structure: Structure, forces: str, **options):
    return jacobian_asymmetry.from_subspace(differences.sample_subspace(potential, structure, forces, **options))


@pytest.mark.parametrize("asymmetry", [0.003, 0.1, 0.6])
def test_a_known_curl_is_found(asymmetry: float) -> None:
    """Within 3 standard errors of the analytic λ for five seeds, and 10 % at 48 directions."""
    potential = Harmonic(asymmetry=asymmetry)
    for seed in range(5):
        found = measured(potential, argon(), "direct", seed=seed)
        assert abs(found.value - asymmetry) < 3 * found.standard_error
        assert found.standard_error < 0.1 * found.value
        assert "real" in found.note


def test_it_agrees_with_automatic_differentiation(make_network, make_water) -> None:
    network, structure = make_network("painn"), Structure.from_ase(make_water(8))
    exact = jacobian_asymmetry.from_jacobian(jacobian.exact_jacobian(network, structure, "direct"))
    found = measured(network, structure, "direct")
    assert abs(found.value - exact.value) < 3 * found.standard_error
    columns = differences.jacobian_columns(network, structure, "direct", [0, 5], step=1e-4)
    whole = jacobian.exact_jacobian(network, structure, "direct")
    np.testing.assert_allclose(columns, whole[:, [0, 1, 2, 15, 16, 17]], atol=1e-5 * np.abs(whole).max())


def test_a_gradient_passes() -> None:
    found = measured(LennardJones(), argon(), "conservative")
    assert found.noise_floor is not None and found.value < 10 * found.noise_floor
    assert "h²" in found.note  # float64: what is left is curvature, not round-off


def test_round_off_is_called_so() -> None:
    torch.manual_seed(0)
    found = measured(Noisy(), argon(), "conservative")
    assert found.noise_floor is not None and found.value < 3 * found.noise_floor
    assert "round-off" in found.note


def test_evaluations_are_counted() -> None:
    """2 for each of 48 directions and 2 more at each of two steps for 8 of them: 128."""
    calls = 0

    class Counting(LennardJones):
        def evaluate(self, structure, neighbours, wanted) -> Evaluation:
            nonlocal calls
            calls += 1
            return super().evaluate(structure, neighbours, wanted)

    differences.sample_subspace(Counting(), argon(1), "conservative")
    assert calls == 128


def test_bad_arguments() -> None:
    for options, word in (({"step": 0.0}, "step"), ({"n_directions": 4}, "n_directions"), ({"forces": "both"}, "both")):
        with pytest.raises(UsageError, match=word):
            differences.sample_subspace(LennardJones(), argon(1), **{"forces": "conservative", **options})
    with pytest.raises(UsageError, match="direct"):
        differences.sample_subspace(LennardJones(), argon(1), "direct")


def test_noise_of_an_element() -> None:
    """Two evaluations with noise ε give J at h the noise ε/(√2 h), at h/2 twice that; their difference √5 times."""
    torch.manual_seed(0)
    noise = differences.element_noise(Noisy(), argon(), "conservative", 3, step=0.004)
    assert noise == pytest.approx(NOISE / (2**0.5 * 0.004) * 5**0.5, rel=0.15)  # 279 elements: 4 % standard error
