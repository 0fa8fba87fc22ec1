"""Matrices of a GLE thermostat from a file: as GLE4MD (gle4md.org) writes them, raw or for i-PI."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from mlcalc import units
from mlcalc.errors import UsageError
from mlcalc.integrators.gle import Rows

_ATOMIC_TIME_PS = 2.4188843265864e-5  # CODATA 2018
_HARTREE_K = 27.211386245988 / units.BOLTZMANN
_INVERSE_CM_THZ = 0.0299792458  # exact

#: Unit → 1/ps. i-PI's plain frequencies become angular ones, as in its manual
_RATES = {
    "picoseconds^-1": 1.0,
    "femtoseconds^-1": 1e3,
    "seconds^-1": 1e-12,
    "atomic time units^-1": 1 / _ATOMIC_TIME_PS,
    "": 1 / _ATOMIC_TIME_PS,
    "atomic_unit": 1 / _ATOMIC_TIME_PS,
    "inversecm": 2 * math.pi * _INVERSE_CM_THZ,
    "thz": 2 * math.pi,
    "terahertz": 2 * math.pi,
}
#: Unit → K
_TEMPERATURES = {
    "k": 1.0,
    "kelvin": 1.0,
    "ev": 1 / units.BOLTZMANN,
    "atomic energy units": _HARTREE_K,
    "": _HARTREE_K,
    "atomic_unit": _HARTREE_K,
}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?")


def read_gle_matrices(path: str | Path) -> tuple[Rows, Rows | None]:
    """A (1/ps) and C (K, None where the file has none) of a GLE.

    Two forms are read: lines of numbers under headings such as "# A MATRIX: (picoseconds^-1)" and "# C MATRIX: (K)",
    and i-PI's elements <A shape="(n,n)" units="…"> and <C …>, in atomic units where no unit is given.

    Raises
    ------
    UsageError
        for a missing file, one without A, an unknown unit, or numbers that fill no square.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"gle-file: no file {path}; give the path of matrices that GLE4MD wrote")
    text = path.read_text(errors="replace")
    drift = _matrix(text, "A", _RATES, path)
    if drift is None:
        raise UsageError(f"gle-file: {path} has no matrix A; give one with '# A MATRIX: (unit)' or with <A …>")
    return drift, _matrix(text, "C", _TEMPERATURES, path)


def _matrix(text: str, letter: str, known: dict[str, float], path: Path) -> Rows | None:
    raw = re.search(rf"^#\s*{letter} MATRIX:\s*\(([^)]*)\)[^\n]*\n((?:[^#]*\n?)*)", text, re.M)
    element = re.search(rf"<{letter}\b([^>]*)>(.*?)</{letter}>", text, re.S)
    if raw:
        unit, body = raw[1].strip(), raw[2]
    elif element:
        named = re.search(r"units\s*=\s*['\"]([^'\"]*)['\"]", element[1])
        unit, body = (named[1].strip() if named else ""), element[2]
    else:
        return None
    if unit.lower() not in known:
        raise UsageError(f"gle-file: {path} gives {letter} in {unit!r}; known are {', '.join(filter(None, known))}")
    numbers = np.array([float(word.lower().replace("d", "e")) for word in _NUMBER.findall(body)])
    n = math.isqrt(len(numbers))
    if not n or n * n != len(numbers):
        raise UsageError(f"gle-file: {path} has {len(numbers)} numbers in {letter}; a square matrix is needed")
    return tuple(map(tuple, (known[unit.lower()] * numbers.reshape(n, n)).tolist()))
