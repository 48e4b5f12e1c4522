"""A partial download on the disk, which only the right file replaces."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self


class Part:
    """Bytes of one file, of which `have` are there from a download before.

    What a server sends again is compared with those. As long as it is the same the file grows; once it differs, nobody
    knows yet who is right, and what is sent goes to a file of its own beside the old one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.have = path.stat().st_size if path.is_file() else 0
        self._branch_path = path.with_name(f"{path.name}.new")
        self._branch_path.unlink(missing_ok=True)
        self._finished = False
        self._file = _opened(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self.keep()

    @property
    def newest(self) -> Path:
        """The file with what was sent last."""
        return Path(self._file.name)

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes at an offset up to which the file is known."""
        if self.newest == self.path and offset < self.have:
            self._file.seek(offset)
            there = self._file.read(len(data))[: self.have - offset]
            if data.startswith(there):
                offset, data = offset + len(there), data[len(there) :]
            else:
                self._branch(offset)
        self._file.seek(offset)
        while data:
            data = data[self._file.write(data) :]

    def finish(self) -> Path:
        """Close, with everything on the disk; the file with what was sent last."""
        os.fsync(self._file.fileno())
        self._file.close()
        self._finished = True
        return self.newest

    def keep(self) -> int:
        """Close with what has come for the next time, unless it is another file; the bytes kept."""
        self._file.close()
        if self.newest != self.path:
            return self.give_up()
        return self._size()

    def give_up(self) -> int:
        """Close with what was there before, for what came is wrong; the bytes kept."""
        self._file.close()
        if self.newest != self.path:
            self.newest.unlink(missing_ok=True)
        elif self.path.exists():
            os.truncate(self.path, self.have)
        return self._size()

    def _size(self) -> int:
        if not self.path.exists():
            return 0
        size = self.path.stat().st_size
        if not size:
            self.path.unlink()
        return size

    def _branch(self, offset: int) -> None:
        """Go on in a file of its own, which begins as this one."""
        other = _opened(self._branch_path)
        self._file.seek(0)
        left = offset
        while left:
            block = self._file.read(min(left, 1 << 20))
            other.write(block)
            left -= len(block)
        self._file.close()
        self._file = other


def _opened(path: Path) -> FileIO:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # unbuffered: what has come is there when we are killed
    os.close(descriptor)
    return FileIO(str(path), "r+")
