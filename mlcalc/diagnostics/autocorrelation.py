"""How many independent samples a correlated series holds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_FORGOTTEN = 0.2  # correlation under which a sample has forgotten the first


def integrated_time(series: NDArray[np.float64], *, window: float = 5.0) -> float:
    """Integrated autocorrelation time τ = 1 + 2 Σ_t ρ(t), in samples, at least 1.

    The sum ends at the smallest t with t ≥ window·τ(t) (A. Sokal, "Monte Carlo methods in statistical mechanics",
    1996). The mean of n samples has the variance σ² τ / n. Two corrections keep errors from coming out too small:

    - taking the mean out of the series lowers every ρ(t) by about τ/n, so τ by 2·window·τ²/n;
    - an oscillation of which the record sees few periods has a small sum, so τ is at least the time after which ρ
      first falls under 0.2.

    Parameters
    ----------
    series : (n,)
    """
    values = np.asarray(series, dtype=float) - np.mean(series)
    n = len(values)
    if n < 4 or not values.any():
        return 1.0
    spectrum = np.fft.rfft(values, 2 * n)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:n]
    correlation /= correlation[0]
    sums = 2 * np.cumsum(correlation) - 1
    settled = np.arange(n) >= window * sums
    tau = float(sums[int(np.argmax(settled)) if settled.any() else n - 1])
    tau /= max(0.5, 1 - 2 * window * tau / n)
    return max(1.0, tau, float(np.argmax(correlation < _FORGOTTEN)))


def mean_with_error(series: NDArray[np.float64]) -> tuple[float, float, float]:
    """(mean, its standard error, number of independent samples) of a correlated series, (n,), n at least 2.

    The variance is itself estimated; that of Student's t, (n − 1)/(n − 3), makes up for it where samples are few.
    """
    independent = len(series) / integrated_time(series)
    error = float(np.std(series, ddof=1)) / math.sqrt(independent)
    return float(np.mean(series)), error * few_samples(independent), independent


def few_samples(n: float) -> float:
    """By which factor an error from n independent samples is to be widened: sqrt((n − 1)/(n − 3)), at most 2."""
    return math.sqrt((n - 1) / (n - 3)) if n > 11 / 3 else 2.0
