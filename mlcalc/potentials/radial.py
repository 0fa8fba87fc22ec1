"""Smooth functions of distance that networks are built on.

The rules are those of Fu et al. (arXiv 2502.12147, section 4) for potentials that conserve energy over long runs: a
strict distance cutoff, no limit on the number of neighbours, and an envelope whose derivatives vanish at the cutoff.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def envelope(x: Tensor, power: int = 6) -> Tensor:
    """1 at x = 0, and 0 with its first three derivatives at x = 1; x = distance/cutoff, any shape.

    u(x) = 1 + a xᵖ + b xᵖ⁺¹ + c xᵖ⁺² + d xᵖ⁺³, the four coefficients fixed by u = u' = u'' = u''' = 0 at x = 1. It is
    the polynomial of Gasteiger et al. (arXiv 2003.03123, eq. 8), taken one derivative further.
    """
    p = power
    a = -(p + 1) * (p + 2) * (p + 3) / 6
    b = p * (p + 2) * (p + 3) / 2
    c = -p * (p + 1) * (p + 3) / 2
    d = p * (p + 1) * (p + 2) / 6
    inside = x.clamp(max=1.0)
    return 1 + inside**p * (a + inside * (b + inside * (c + inside * d)))


def envelope_slope(x: Tensor, power: int = 6) -> Tensor:
    """du/dx = −p(p+1)(p+2)(p+3)/6 · xᵖ⁻¹ (1 − x)³, any shape."""
    p = power
    inside = x.clamp(max=1.0)
    return -p * (p + 1) * (p + 2) * (p + 3) / 6 * inside ** (p - 1) * (1 - inside) ** 3


class RadialBasis(nn.Module):
    """e_n(r) = sqrt(2/r_c) sin(nπ r/r_c)/r · u(r/r_c), n = 1 … n_radial (Gasteiger et al., arXiv 2003.03123, eq. 7).

    Parameters
    ----------
    cutoff : Å
    """

    frequencies: Tensor

    def __init__(self, n_radial: int, cutoff: float) -> None:
        super().__init__()
        self.n_radial = n_radial
        self.cutoff = cutoff
        self.register_buffer("frequencies", torch.arange(1, n_radial + 1) * math.pi / cutoff, persistent=False)

    def forward(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """(n_edges,), Å → basis (n_edges, n_radial) and envelope (n_edges, 1), both zero beyond the cutoff."""
        r = distance.unsqueeze(1)
        cut = envelope(r / self.cutoff)
        return torch.sin(r * self.frequencies) * (cut * (math.sqrt(2 / self.cutoff) / r)), cut

    def with_slopes(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Basis and its derivative by r: (n_edges,), Å → twice (n_edges, n_radial)."""
        r = distance.unsqueeze(1)
        phase, x, norm = r * self.frequencies, r / self.cutoff, math.sqrt(2 / self.cutoff)
        wave, fade = torch.sin(phase), norm * envelope(x) / r
        fade_slope = (norm * envelope_slope(x) / self.cutoff - fade) / r
        return wave * fade, torch.cos(phase) * (self.frequencies * fade) + wave * fade_slope
