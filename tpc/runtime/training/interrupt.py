"""SIGINT, SIGTERM and SIGHUP as a flag that training looks at between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Set by the first signal; the second one acts as it would without us."""

    def __init__(self) -> None:
        self.name = ""
        self.number = 0

    @property
    def exit_code(self) -> int:
        """As shells have it for a process that a signal ended."""
        return 128 + self.number

    def __bool__(self) -> bool:
        return bool(self.name)


@contextmanager
def catch_signals() -> Iterator[Interrupt]:
    """Collect the signals while the block runs (only the main thread can). A SIGHUP that `nohup` ignores stays so."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]

    def handle(number: int, _frame: FrameType | None) -> None:
        interrupt.name, interrupt.number = signal.Signals(number).name, number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, handle)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
