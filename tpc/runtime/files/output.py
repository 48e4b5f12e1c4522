"""Streams whose reader may go away: what a command computes does not depend on who looks at it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class Lasting:
    """A text stream that swallows what cannot be written, once it has told why.

    Everything but writing is the stream's own. `lost` is the reason, empty while all is well.
    """

    def __init__(self, stream: TextIO | None, tell: Callable[[str], None]) -> None:
        self._stream = stream
        self._tell = tell
        self.lost = ""

    def write(self, text: str) -> int:
        """Write, or drop the text where nobody can read it."""
        return self._tried(lambda stream: stream.write(text)) or len(text)

    def flush(self) -> None:
        """Hand everything on."""
        self._tried(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Whether a terminal is there."""
        return bool(self._tried(lambda stream: stream.isatty()))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _tried(self, use: Callable[[TextIO], Any]) -> Any:
        if self.lost:
            return None
        try:
            if self._stream is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return use(self._stream)
        except UnicodeError:
            raise
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self.lost = (isinstance(error, OSError) and error.strerror) or "it is closed"
            _silence(self._stream)
            self._tell(self.lost)
        return None


def lasting(stream: TextIO | None) -> TextIO:
    """A standard stream that work may write to without depending on it; told on standard error."""
    return stream if isinstance(stream, Lasting) else cast(TextIO, Lasting(stream, _tell))


@contextmanager
def lasting_streams() -> Iterator[Lasting]:
    """Let the block outlive standard output and standard error; gives the former."""
    before = sys.stdout, sys.stderr
    out, err = Lasting(before[0], _tell), Lasting(before[1], lambda reason: None)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
        out.flush()
    finally:
        sys.stdout, sys.stderr = before


def _tell(reason: str) -> None:
    told = f"warning: standard output is gone ({reason}): the work goes on, and what would be printed there is lost"
    print(told, file=sys.stderr, flush=True)


def _silence(stream: TextIO | None) -> None:
    """Send what is still in the buffers of a standard stream nowhere: flushing it at the end must not fail."""
    with suppress(OSError, ValueError, AttributeError):
        descriptor = cast(TextIO, stream).fileno()
        if descriptor in (1, 2):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


class Closed:
    """Standard output where there was none from the start: writing fails, as it does in every other program."""

    encoding, errors = "utf-8", "strict"

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")

    def flush(self) -> None:
        """Nothing was written."""

    def isatty(self) -> bool:
        """No."""
        return False


def open_standard_streams() -> None:
    """Let no file that is opened later take the place of a standard stream that is closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = cast(TextIO, Closed())
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - for the life of the process
