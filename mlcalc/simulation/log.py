"""The log of a run: one line of comma-separated numbers for each frame, written as the run goes."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TextIO

from mlcalc.errors import UsageError


@dataclass(frozen=True)
class Line:
    """One frame.

    Attributes
    ----------
    time_ps : ps; n_inner : inner steps in an outer one from the frame before to this one
    temperature_K : K
    potential_eV, kinetic_eV, conserved_eV : eV, of the whole system
    volume_A3 : Å³, of the cell; None where it is not periodic in all directions
    """

    time_ps: float
    n_inner: int
    temperature_K: float
    potential_eV: float
    kinetic_eV: float
    conserved_eV: float
    volume_A3: float | None = None


_COLUMNS = tuple(field.name for field in fields(Line))


class LogWriter:
    """Writes lines; each is handed to the system at once. The file begins with `lines`.

    Raises
    ------
    UsageError
        if the file cannot be made.
    """

    def __init__(self, path: str | Path, lines: Sequence[Line] = ()) -> None:
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            with open(partial, "w", newline="") as file:
                writer = csv.DictWriter(file, _COLUMNS)
                writer.writeheader()
                writer.writerows(map(asdict, lines))
            os.replace(partial, path)  # at no moment is there less than there was
            self._file: TextIO = open(path, "a", newline="", buffering=1)  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise UsageError(f"log: cannot write {path} ({error.strerror}); give another place") from error
        self._writer = csv.DictWriter(self._file, _COLUMNS)

    def append(self, line: Line) -> None:
        self._writer.writerow(asdict(line))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_log(path: str | Path) -> list[Line]:
    """Every whole line of a log; one that a crash tore is left out.

    Raises
    ------
    UsageError
        for a missing or foreign file.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"log: no file {path}; give the path of a log that `mlcalc run` wrote")
    text = path.read_text(errors="replace")
    rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    if not rows or tuple(rows[0]) not in (_COLUMNS, _COLUMNS[:-1]):  # the first logs had no volume
        raise UsageError(f"log: {path} is not a log of `mlcalc run`; its first line must be {','.join(_COLUMNS)}")
    try:
        return [
            Line(float(row[0]), int(row[1]), *map(float, row[2:6]), *(float(word) for word in row[6:] if word))
            for row in rows[1:]
        ]
    except (ValueError, TypeError, IndexError) as error:
        raise UsageError(f"log: {path} has a line that is not {len(_COLUMNS)} numbers ({error}); repair it") from error
