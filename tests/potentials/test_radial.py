"""The envelope's promises, by automatic differentiation."""

from __future__ import annotations

import pytest
import torch

from mlcalc.potentials.lennard_jones import switch
from mlcalc.potentials.radial import RadialBasis, envelope


def derivatives(function, x: float, order: int) -> list[float]:
    """f, f', … up to `order` at x."""
    point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    values = [function(point)]
    for _ in range(order):
        values.append(torch.autograd.grad(values[-1], point, create_graph=True)[0])
    return [float(value.detach()) for value in values]


@pytest.mark.parametrize("power", [4, 6, 8])
def test_envelope_and_three_derivatives_vanish_at_the_cutoff(power):
    # coefficients grow with the power, up to some 1e3, so zero means 1e-11 here
    assert derivatives(lambda x: envelope(x, power), 1 - 1e-15, 3) == pytest.approx([0] * 4, abs=1e-9)
    assert derivatives(lambda x: envelope(x, power), 1 - 1e-15, 4)[4] > 1  # and the fourth does not


def test_envelope_is_one_at_the_centre_falls_and_stays_zero():
    x = torch.linspace(0, 1.5, 301, dtype=torch.float64)
    u = envelope(x)
    assert float(u[0]) == 1
    assert bool((u.diff() <= 1e-15).all())
    torch.testing.assert_close(u[x >= 1], torch.zeros_like(u[x >= 1]), rtol=0, atol=1e-13)


def test_envelope_of_power_six_by_hand():
    # a = −7·8·9/6, b = 6·8·9/2, c = −6·7·9/2, d = 6·7·8/6, at x = 1/2
    by_hand = 1 - 84 / 64 + 216 / 128 - 189 / 256 + 56 / 512
    assert float(envelope(torch.tensor(0.5, dtype=torch.float64))) == pytest.approx(by_hand, abs=1e-15)


def test_switch_has_three_continuous_derivatives_at_both_ends():
    for end, value in ((2.0, 1.0), (3.0, 0.0)):
        inner = end + 1e-9 if value else end - 1e-9
        inside = derivatives(lambda r: switch(r, 2.0, 3.0), inner, 3)
        assert inside == pytest.approx([value, 0, 0, 0], abs=1e-5)  # the fourth derivative is 840 · 1e-9 away
    assert float(switch(torch.tensor(2.5), 2.0, 3.0)) == pytest.approx(0.5, abs=1e-6)  # odd about the middle


def test_basis_is_finite_and_zero_beyond_the_cutoff():
    basis, cut = RadialBasis(6, 3.0).double()(torch.tensor([0.3, 1.0, 2.999, 3.0, 3.4], dtype=torch.float64))
    assert bool(torch.isfinite(basis).all())
    torch.testing.assert_close(basis[3:], torch.zeros_like(basis[3:]), rtol=0, atol=1e-12)
    torch.testing.assert_close(cut[3:], torch.zeros_like(cut[3:]), rtol=0, atol=1e-12)
