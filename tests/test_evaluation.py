"""What is asked, what is answered, and how the forces are split."""

from __future__ import annotations

import pytest
import torch

from mlcalc.errors import UsageError
from mlcalc.evaluation import JOINT, Evaluation, Wanted, remove_net_force, required, split_forces


def test_slow_and_fast_forces_sum_to_the_conservative_force():
    generator = torch.Generator().manual_seed(0)
    conservative, direct = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    slow, fast = split_forces(Evaluation(conservative_force=conservative, direct_force=direct))
    assert torch.equal(fast, direct)
    torch.testing.assert_close(slow + fast, conservative, rtol=0, atol=1e-15)


@pytest.mark.parametrize("there", ["conservative_force", "direct_force"])
def test_splitting_needs_both_forces(there):
    with pytest.raises(UsageError, match="was not computed"):
        split_forces(Evaluation(**{there: torch.zeros(2, 3)}))


def test_required_names_what_is_absent():
    assert required(Evaluation(energy=torch.ones(1)), "energy") == 1
    with pytest.raises(UsageError, match="virial"):
        required(Evaluation(), "virial")


def test_joint_is_energy_and_both_forces():
    assert Wanted.ENERGY | Wanted.CONSERVATIVE | Wanted.DIRECT == JOINT
    assert not JOINT & Wanted.VIRIAL


def test_net_force_is_removed_from_each_system_on_its_own():
    system = torch.tensor([0, 0, 0, 1, 1, 2])
    force = torch.arange(18, dtype=torch.float64).reshape(6, 3)
    clean = remove_net_force(force, system, 3)
    sums = torch.zeros(3, 3, dtype=torch.float64).index_add(0, system, clean)
    torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-12)
    # by hand: the first system's mean is row 1, so row 0 loses three and row 2 gains three
    torch.testing.assert_close(clean[:3], torch.tensor([[-3.0] * 3, [0.0] * 3, [3.0] * 3], dtype=torch.float64))
    assert torch.equal(clean[5], torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(remove_net_force(clean, system, 3), clean)


@pytest.mark.parametrize(
    ("form", "refused", "says"),
    [
        ("C", Wanted.DIRECT, "no direct forces"),
        ("NC", Wanted.CONSERVATIVE, "no conservative forces"),
        ("NC", JOINT | Wanted.VIRIAL, "no conservative forces, virial"),
    ],
)
@pytest.mark.parametrize("architecture", ["painn", "pet"])
def test_a_potential_says_what_it_lacks(make_network, architecture, form, refused, says):
    with pytest.raises(UsageError, match=says):
        make_network(architecture, form).check_wanted(refused)
