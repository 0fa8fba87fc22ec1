"""What was found of the asymmetry: every structure's λ, the distribution, λ_ij against distance; as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mlcalc
from mlcalc.audit.thresholds import ASYMMETRY_OVER_FLOOR
from mlcalc.diagnostics.autocorrelation import mean_with_error
from mlcalc.diagnostics.finding import Finding
from mlcalc.diagnostics.pair_asymmetry import PairAsymmetry
from mlcalc.errors import UsageError

Array = NDArray[np.float64]
FORMAT = "mlcalc-asymmetry-1"
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class FrameAsymmetry:
    """λ of one structure.

    Attributes
    ----------
    index : among those measured; time_ps : ps, or None
    finding : λ with its standard error and its noise floor
    """

    index: int
    time_ps: float | None
    n_atoms: int
    finding: Finding

    @property
    def above_floor(self) -> bool:
        """Whether round-off cannot explain it."""
        return self.finding.value > ASYMMETRY_OVER_FLOOR.value * (self.finding.noise_floor or 0.0)


@dataclass(frozen=True)
class AsymmetryResult:
    """λ of one or many structures.

    Attributes
    ----------
    potential : its name; forces : "direct" or "conservative"; formulas : of the structures, each once
    profile : λ_ij against distance, where it was asked for
    """

    potential: str
    forces: str
    formulas: tuple[str, ...]
    frames: tuple[FrameAsymmetry, ...]
    profile: PairAsymmetry | None = None

    @property
    def values(self) -> Array:
        """(n_frames,), λ"""
        return np.array([frame.finding.value for frame in self.frames])

    @property
    def standard_errors(self) -> Array:
        """(n_frames,)"""
        return np.array([frame.finding.standard_error for frame in self.frames])

    @property
    def noise_floor(self) -> float:
        """The largest of the floors."""
        return max(frame.finding.noise_floor or 0.0 for frame in self.frames)

    @property
    def mean(self) -> Finding:
        """Mean over the structures; its error knows that frames that follow each other are alike."""
        if len(self.frames) == 1:
            return self.frames[0].finding
        value, error, _ = mean_with_error(self.values)
        return Finding("jacobian_asymmetry", value, error, "1", f"mean of {len(self.frames)}", self.noise_floor)

    @property
    def spread(self) -> float | None:
        """Standard deviation of λ over the structures without that of the sampling; None for one structure."""
        if len(self.frames) == 1:
            return None
        sampled = float(np.mean(self.standard_errors**2))
        return math.sqrt(max(0.0, float(np.var(self.values, ddof=1)) - sampled))

    @property
    def largest(self) -> FrameAsymmetry:
        return self.frames[int(np.argmax(self.values))]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; numbers that are not finite become null."""
        mean = self.mean
        return {
            "format": FORMAT,
            "mlcalc": mlcalc.__version__,
            "potential": self.potential,
            "forces": self.forces,
            "formulas": list(self.formulas),
            "mean": _finite(mean.value),
            "standard_error": _finite(mean.standard_error),
            "spread": self.spread,
            "quantiles": dict(zip(map(str, QUANTILES), np.quantile(self.values, QUANTILES).tolist(), strict=True)),
            "noise_floor": self.noise_floor,
            "largest": self.largest.index,
            "frames": [_frame(frame) for frame in self.frames],
            "profile": None if self.profile is None else _profile(self.profile),
        }

    def write_json(self, path: str | Path) -> None:
        """Raises UsageError if the file cannot be written."""
        try:
            Path(path).write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"json: cannot write {path} ({error.strerror}); give a writable path") from error

    def __str__(self) -> str:
        from mlcalc.asymmetry.text import render_text

        return render_text(self)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _frame(frame: FrameAsymmetry) -> dict[str, Any]:
    found = frame.finding
    return {
        "index": frame.index,
        "time_ps": frame.time_ps,
        "n_atoms": frame.n_atoms,
        "value": _finite(found.value),
        "standard_error": _finite(found.standard_error),
        "noise_floor": _finite(found.noise_floor),
        "note": found.note,
    }


def _profile(profile: PairAsymmetry) -> dict[str, Any]:
    names = ("distance", "asymmetry", "standard_error", "noise_floor", "n_pairs")
    return {name: [_finite(value) for value in getattr(profile, name).tolist()] for name in names}
