"""What a diagnosis found: findings with judgements, curves, and what could not be done; as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mlcalc
from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import UsageError

Array = NDArray[np.float64]
FORMAT = "mlcalc-diagnosis-1"
#: Judgements; the empty one says that there is nothing to judge
GOOD, ATTENTION, TOO_SHORT, NONE = "good", "attention", "too short", ""


@dataclass(frozen=True)
class Row:
    """One finding.

    Attributes
    ----------
    diagnostic : which one; label : of what, in words
    judgement : "good", "attention", "too short" or ""; reason : in a few words
    """

    diagnostic: str
    label: str
    finding: Finding
    judgement: str = NONE
    reason: str = ""


@dataclass(frozen=True)
class Curve:
    """A function with its standard error, (n,) each; `error` has no entries where there is none."""

    diagnostic: str
    label: str
    x_name: str
    y_name: str
    x: Array
    y: Array
    error: Array


@dataclass(frozen=True)
class Diagnosis:
    """Everything about one run.

    Attributes
    ----------
    files, formula : names; n_atoms : or None if unknown; n_frames : of the trajectory; span_ps : of trajectory or log
    not_done : diagnostic → why not, and the remedy
    remarks : what the user must know of the files
    """

    files: str
    formula: str
    n_atoms: int | None
    n_frames: int
    span_ps: float | None
    rows: tuple[Row, ...]
    curves: tuple[Curve, ...]
    not_done: dict[str, str]
    remarks: tuple[str, ...]

    def curves_of(self, diagnostic: str) -> list[Curve]:
        return [curve for curve in self.curves if curve.diagnostic == diagnostic]

    def rows_of(self, diagnostic: str) -> list[Row]:
        return [row for row in self.rows if row.diagnostic == diagnostic]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types that fit `schema`; numbers that are not finite become null."""
        return {
            "format": FORMAT,
            "mlcalc": mlcalc.__version__,
            "files": self.files,
            "formula": self.formula,
            "n_atoms": self.n_atoms,
            "n_frames": self.n_frames,
            "span_ps": self.span_ps,
            "findings": [_row(row) for row in self.rows],
            "curves": [_curve(curve) for curve in self.curves],
            "not_done": self.not_done,
            "remarks": list(self.remarks),
        }

    def write_json(self, path: str | Path) -> None:
        """Raises UsageError if the file cannot be written."""
        try:
            Path(path).write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"json: cannot write {path} ({error.strerror}); give a writable path") from error


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of what `Diagnosis.to_dict` gives."""
    text = resources.files("mlcalc.diagnosis").joinpath("diagnosis.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _row(row: Row) -> dict[str, Any]:
    found = row.finding
    return {
        "diagnostic": row.diagnostic,
        "label": row.label,
        "value": _number(found.value),
        "standard_error": _number(found.standard_error),
        "unit": found.unit,
        "note": found.note,
        "judgement": row.judgement,
        "reason": row.reason,
    }


def _curve(curve: Curve) -> dict[str, Any]:
    columns = {name: [_number(value) for value in getattr(curve, name)] for name in ("x", "y", "error")}
    return {
        "diagnostic": curve.diagnostic,
        "label": curve.label,
        "x_name": curve.x_name,
        "y_name": curve.y_name,
        **columns,
    }
