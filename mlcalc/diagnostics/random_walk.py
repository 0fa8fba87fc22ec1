"""A series as a straight line, a random walk and noise: slope and diffusion, each with its error.

    E(t) = E₀ + μ t + W(t) + ε(t),    ⟨(W(t+s) − W(t))²⟩ = D s,    ε forgotten from block to block

The conserved energy of a run has both kinds of fluctuation: the integrator's error follows the vibrations and comes
back (ε), while a force that is no gradient, or one that kicks too seldom, pushes the energy up and down at random and
it does not come back (W). A line fitted by ordinary least squares does not know about W, and its error is then several
times too small: the slope of a walk of length T has the variance 6D/5T however many its frames.

Block means have the covariance c [(1 − w) 1 + w K], with K that of a walk. Restricted likelihood (REML) weighs the
shares w of a grid, evenly spaced in the logarithm of the odds from where so many blocks could not show a walk; slope
and diffusion are means over it, so their errors know that w is not known.

Noise that remembers for more than a block looks like a walk at first, but it comes back: then longer blocks show less
diffusion. And a force pushes one way for a while: then neighbouring innovations are correlated. In either case blocks
are doubled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_BLOCKS, _FEWEST_BLOCKS = 64, 6
_CORRELATED = 0.4  # neighbouring innovations, so far that blocks are too short
_BY_CHANCE = -2.65  # standard deviations: with a probability of 0.004 long blocks of a walk show less diffusion
_LEAST_SHARE, _GREATEST_ODDS, _GRID = 2.5, 400.0, 19  # the first over n²: n blocks cannot show less of a walk


@dataclass(frozen=True)
class Walk:
    """What was fitted.

    Attributes
    ----------
    slope, slope_error : units of the series per unit of time
    diffusion, diffusion_error : their square per unit of time
    smoothness : correlation of neighbouring innovations, near 0 where the model holds
    """

    slope: float
    slope_error: float
    diffusion: float
    diffusion_error: float
    smoothness: float


def fit(time: NDArray[np.float64], values: NDArray[np.float64]) -> Walk:
    """Fit evenly spaced `values` (n,) at `time` (n,); n at least 4."""
    size = -(-len(values) // _MOST_BLOCKS)
    sizes = [size]
    while len(values) // (2 * sizes[-1]) >= _FEWEST_BLOCKS:
        sizes.append(2 * sizes[-1])
    walks = [_fit_blocks(time, values, size) for size in sizes]
    # as much as a walk may diffuse whose blocks are found to diffuse so little
    most = [
        (walk.diffusion + walk.diffusion_error) * _excess(len(values) // size - 2)
        for walk, size in zip(walks, sizes, strict=True)
    ]
    for k, walk in enumerate(walks):
        if walk.smoothness < _CORRELATED and walk.diffusion < min(most[k + 1 :], default=math.inf):
            return walk
    return walks[-1]


def _excess(free: int) -> float:
    """By which factor a variance may exceed its estimate from `free` squares.

    χ²/free by the approximation of E. B. Wilson and M. M. Hilferty, Proc. Natl. Acad. Sci. 17, 684 (1931).
    """
    cube_root = 1 - 2 / (9 * free) + _BY_CHANCE * math.sqrt(2 / (9 * free))
    return 1 / max(cube_root, 0.1) ** 3


def _fit_blocks(time: NDArray[np.float64], values: NDArray[np.float64], size: int) -> Walk:
    """Fit means of `size` values."""
    n = len(values) // size
    means = values[len(values) - n * size :].reshape(n, size).mean(axis=1)
    means = means - means[0]
    length = size * (time[-1] - time[0]) / (len(time) - 1)
    place = np.arange(n) + 0.5
    walk = np.minimum.outer(place, place) - np.eye(n) / 6
    line = np.stack([np.ones(n), place * length], axis=1)
    odds = np.geomspace(_LEAST_SHARE / n**2, _GREATEST_ODDS, _GRID)
    shares = odds / (1 + odds)

    # in the basis of K's eigenvectors the covariance of every share is diagonal
    eigenvalues, basis = np.linalg.eigh(walk)
    covariance = 1 + shares[:, None] * (eigenvalues - 1)
    weighted = (basis.T @ line) / covariance[:, :, None]
    inverse = np.linalg.inv(np.einsum("skp,kq->spq", weighted, basis.T @ line))
    parameters = np.einsum("spq,skq,k->sp", inverse, weighted, basis.T @ means)
    rest = (means - parameters @ line.T) @ basis
    free = n - 2
    c = np.maximum((rest**2 / covariance).sum(axis=1) / free, np.finfo(float).tiny)
    likelihood = 0.5 * (np.linalg.slogdet(inverse)[1] - np.log(covariance).sum(axis=1) - free * np.log(c))

    weight = np.exp(likelihood - likelihood.max())
    weight /= weight.sum()
    slope, diffusion = parameters[:, 1], c * shares / length
    slope_variance = c * inverse[:, 1, 1] * free / max(free - 2, 1)  # the last is that of Student's t
    best_slope, best_diffusion = float(weight @ slope), float(weight @ diffusion)
    # each point of the grid knows its c from n − 2 squares
    spread = (diffusion - best_diffusion) ** 2 + 2 * diffusion**2 / free
    likeliest = int(np.argmax(likelihood))
    share = shares[likeliest]
    root = np.linalg.cholesky((1 - share) * np.eye(n) + share * walk)
    innovations = np.linalg.solve(root, means - line @ parameters[likeliest])
    return Walk(
        best_slope,
        math.sqrt(weight @ (slope_variance + (slope - best_slope) ** 2)),
        best_diffusion,
        math.sqrt(weight @ spread),
        float(innovations[1:] @ innovations[:-1]) / max(float(innovations @ innovations), np.finfo(float).tiny),
    )
