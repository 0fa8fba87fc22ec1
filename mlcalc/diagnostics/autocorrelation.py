"""How many independent samples a correlated series holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def integrated_time(series: NDArray[np.float64], window: float = 5.0) -> float:
    """Integrated autocorrelation time τ = 1 + 2 Σ_t ρ(t), in samples, at least 1.

    The sum ends at the smallest t with t ≥ window·τ(t) (A. Sokal, "Monte Carlo methods in statistical mechanics", 1996).
    The mean of n samples has the variance σ² τ / n.
    """
    values = np.asarray(series, dtype=float) - np.mean(series)
    n = len(values)
    if n < 4 or not values.any():
        return 1.0
    spectrum = np.fft.rfft(values, 2 * n)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:n]
    tau = 2 * np.cumsum(correlation / correlation[0]) - 1
    settled = np.arange(n) >= window * tau
    return max(1.0, float(tau[int(np.argmax(settled)) if settled.any() else n - 1]))
