"""What training shows: a live bar on a terminal, one plain line per epoch anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from tpc.runtime.files.output import lasting
from tpc.words import human_time

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Observer(Protocol):
    """Told of every step; decides what to show."""

    def step(self, done: int, fields: Mapping[str, str]) -> None:
        """`done` steps are taken; `fields` are short texts to show (loss, accuracy, …)."""

    def say(self, line: str) -> None:
        """A line that stays."""


class Quiet:
    """Shows nothing."""

    def step(self, done: int, fields: Mapping[str, str]) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""


class Display:
    """A rich progress bar when `stream` is a terminal, plain lines when it is not.

    Parameters
    ----------
    total: number of steps at the end of the work.
    title: the word in front of the bar.
    stream: where to write; standard output unless told.
    """

    def __init__(self, total: int, title: str, stream: TextIO | None = None) -> None:
        self._total = total
        self._title = title
        self._stream = lasting(stream if stream is not None else sys.stdout)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._progress = _bar(self._stream)
            self._task = self._progress.add_task(self._title, total=self._total, fields="")
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, done: int, fields: Mapping[str, str]) -> None:
        """Move the bar to `done` steps."""
        if self._progress is not None and self._task is not None:
            text = "  ".join(f"{name} {value}" for name, value in fields.items())
            self._progress.update(self._task, completed=done, fields=text)

    def say(self, line: str) -> None:
        """Print a line above the bar, or simply print it."""
        if self._progress is not None:
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self._stream, flush=True)


class Pace:
    """Lines with the time left where there is no bar, at most one in `SECONDS`; nothing of what is done sooner."""

    SECONDS = 10.0

    def __init__(self, display: Display, has_bar: bool) -> None:
        self._display = display
        self._has_bar = has_bar
        self._start = self._last = time.monotonic()

    def told(self, part: float, what: str) -> None:
        """So large a part of the work is done."""
        now = time.monotonic()
        if self._has_bar or part >= 1 or now - self._last < self.SECONDS:
            return
        self._last = now
        left = (now - self._start) * (1 / part - 1)
        self._display.say(f"{what}: {part:.0%} done, about {human_time(left)} left")


def _bar(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[fields]}", markup=False),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(file=stream),
        refresh_per_second=5,
        transient=True,
        speed_estimate_period=60.0,
    )


def warn(warnings: Iterable[str]) -> None:
    """Print each warning once, on standard error."""
    for warning in dict.fromkeys(warnings):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
