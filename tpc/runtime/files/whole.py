"""Files that are whole or absent, and errors that name the file that could not be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tpc.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class WriteError(UserError):
    """A file could not be written: where, why, and in `remedy` what would help."""

    def __init__(self, what: str, error: OSError) -> None:
        super().__init__(f"cannot write {what}: {error.strerror or error}.")
        self.remedy = "Make room" if error.errno in _FULL else "Mend that"


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Turn an OSError of the block, which seldom names a file, into a WriteError that names `what`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteError(str(what), error) from error


def write_atomic(path: Path, text: str | bytes) -> None:
    """Replace `path` in one step: readers and crashes see the old text or the new one. Raises WriteError."""
    with writing(path):
        if path.exists() and not path.is_file():  # a device or a pipe: nothing to replace
            path.write_bytes(_bytes(text))
            return
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # two processes never share one
        try:
            put(temporary, text)
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        sync(path.parent)


def put(path: Path, text: str | bytes) -> None:
    """Write and wait until it is on the disk. Raises OSError; what was begun is removed then."""
    try:
        with path.open("wb") as file:
            file.write(_bytes(text))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
