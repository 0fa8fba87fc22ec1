"""Progress of long commands: bars in a terminal, one line a stage elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO


class Reporter:
    """Shows (stage, done, total, note) as it is called; a context manager.

    In a terminal every stage is a bar with its elapsed time. Elsewhere (a file, a CI log) a stage gets a line when it
    ends, and long ones a line a minute.
    """

    def __init__(self, stream: TextIO | None = None, *, every_seconds: float = 60.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every_seconds
        self._started: dict[str, float] = {}
        self._spoke = time.monotonic()
        self._ended: set[str] = set()
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Reporter:
        if self._stream.isatty():
            self._bars = _bars(self._stream)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None:
        self._started.setdefault(stage, time.monotonic())
        if self._bars is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, total=total)
            text = f"{stage}  {note}" if note else stage
            self._bars.update(self._tasks[stage], completed=done, total=total, description=text)
            return
        now = time.monotonic()
        if done >= total and stage not in self._ended:
            self._ended.add(stage)
            self._say(f"{stage}: done in {now - self._started[stage]:.1f} s")
        elif done < total and now - self._spoke > self._every:
            self._say(f"{stage}: {done:.6g} of {total:.6g}" + (f", {note}" if note else ""))

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        print(line, file=self._stream, flush=True)


def _bars(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )
