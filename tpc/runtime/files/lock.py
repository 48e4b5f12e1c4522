"""One process at a time writes to a run: a lock of the kernel, which ends with its process, and a note of who has it.

The lock is `flock` on a file; the note in that file (pid, host, since when) is for people alone. A killed process
leaves the file but not the lock, so nothing stale ever keeps anyone out. Reading a run takes no lock.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tpc.errors import UserError
from tpc.runtime.files.whole import writing

NAME = ".lock"
PATIENCE = 0.3  # seconds in which a holder that has just come writes its note
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class BusyError(UserError):
    """Another process writes there."""


class Lock:
    """Held from `acquire` to `release`; `what` names in messages what it is the lock of."""

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        self._descriptor: int | None = None

    def acquire(self) -> Self:
        """Take the lock at once, or raise BusyError that says who holds it."""
        deadline = time.monotonic() + PATIENCE
        with writing(self.path):
            while not self._taken():
                holder, lives = _holder(self.path)
                if lives or time.monotonic() > deadline:
                    raise BusyError(
                        f"{self.what} is being written by {holder}. Wait until it ends, or stop it; a process that "
                        "has died holds nothing."
                    )
                time.sleep(0.02)
        return self

    def release(self) -> None:
        """Let others in; the file goes, too."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            self.path.unlink()  # before the lock ends: later, it could be the file of the next holder
        os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> Self:
        return self if self._descriptor is not None else self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _taken(self) -> bool:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            told = f"warning: {self.path}: this file system has no locks ({error.strerror}); start no second process "
            print(f"{told}on {self.what}", file=sys.stderr)
        if not _same_file(descriptor, self.path):  # its holder ended between our open and our lock
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        with suppress(OSError):  # a full disk is told by whoever needs it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(_note()).encode())
        return True


def require_free(path: Path, what: str) -> None:
    """Raise BusyError if a process holds the lock at `path`; takes nothing."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # not there, or not ours to lock: the one who writes is told
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        Lock(path, what).acquire().release()  # which tells by whom
    except OSError:
        return
    finally:
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _note() -> dict[str, object]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _holder(path: Path) -> tuple[str, bool]:
    """Who wrote the note, in words, and whether that process lives: the note may be one of a process before."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        pid, host, since = int(note["pid"]), str(note["host"]), str(note["since"])
        return f"process {pid} on {host} since {since}", host != socket.gethostname() or _lives(pid)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another process", False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
