"""A download as it goes: how much is there, how fast it comes, how long it will take; also while nothing comes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tpc.words import human_bytes, human_time

EVERY = 5.0  # seconds between lines where there is no terminal
SPAN = 20.0  # seconds over which the rate is measured


@contextmanager
def download_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (bytes there, bytes wanted): a bar on a terminal, lines by the tenth and the time elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress("{task.description}", *columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    lines = Lines(title, sys.stderr)
    try:
        yield lines
    finally:
        lines.close()


class Lines:
    """Called with (bytes there, bytes wanted); a thread of its own speaks up when no call comes."""

    def __init__(self, title: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: list[tuple[float, int]] = []  # when how much was there
        self._total = 0
        self._tenth = -1
        self._said = clock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __call__(self, done: int, total: int) -> None:
        with self._lock:
            now, tenth = self._clock(), 10 * done // max(total, 1)
            if done < (self._seen[-1][1] if self._seen else 0):  # another file
                self._seen.clear()
            self._total = total
            self._seen = [*(seen for seen in self._seen if now - seen[0] <= SPAN), (now, done)]
            if tenth != self._tenth or now - self._said >= EVERY:
                self._tenth = tenth
                self._say(now)

    def close(self) -> None:
        """Say no more."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(EVERY):
            with self._lock:
                now = self._clock()
                if now - self._said >= EVERY:
                    self._say(now)

    def _say(self, now: float) -> None:
        self._said = now
        print(f"{self._title}: {self.text(now)}", file=self._stream, flush=True)

    def text(self, now: float) -> str:
        """'1.2 MB of 170.5 MB, 3.1 MB/s, 54.6 s left'."""
        if not self._seen:
            return "waiting for the server"
        (since, before), (last, done) = self._seen[0], self._seen[-1]
        there = f"{human_bytes(done)} of {human_bytes(self._total)}"
        if done >= self._total or now - since < 0.1:
            return there
        if now - last >= EVERY:
            return f"{there}, nothing for {now - last:.0f} s"
        rate = (done - before) / (now - since)
        return f"{there}, {human_bytes(rate)}/s" + (f", {human_time((self._total - done) / rate)} left" if rate else "")
