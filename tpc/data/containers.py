"""Files of a data set in a folder or a .tar.gz archive, read within bounds and never unpacked to disk."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from pathlib import Path
from typing import Protocol

from tpc.errors import DataError

MAX_FILE = 40 * 2**20  # bytes of one file; the largest official one has 31 MB
MAX_TOTAL = 256 * 2**20  # bytes of one unpacked archive; the official ones have 187 MB
MAX_MEMBERS = 64


class Container(Protocol):
    """Named files of a data set."""

    @property
    def path(self) -> Path: ...

    def sizes(self) -> dict[str, int]:
        """The wanted files that are there, with their sizes in bytes."""

    def take(self, name: str) -> bytes:
        """The content of one file; an archive hands it out once and forgets it."""

    def label(self, name: str) -> str:
        """How to call one file in a message."""


class Folder:
    """Files lying in a directory."""

    def __init__(self, path: Path, wanted: tuple[str, ...]) -> None:
        self.path = path
        self.wanted = wanted

    def label(self, name: str) -> str:
        return str(self.path / name)

    def sizes(self) -> dict[str, int]:
        files = {name: self.path / name for name in self.wanted}
        return {name: file.stat().st_size for name, file in files.items() if file.is_file()}

    def take(self, name: str) -> bytes:
        file = self.path / name
        try:
            with file.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                if size > MAX_FILE:
                    raise DataError(f"{file} is too large: expected at most {MAX_FILE:,} bytes, got {size:,}.")
                return stream.read(size)
        except FileNotFoundError as error:
            raise DataError(f"{file} is missing.") from error
        except OSError as error:
            raise DataError(f"Cannot read {file}: {error.strerror or error}.") from error


class _Bounded(io.RawIOBase):
    """A gzip stream that refuses to unpack to more than MAX_TOTAL bytes."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        super().__init__()
        self.stream = stream
        self.total = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        room = MAX_TOTAL + 1 - self.total
        chunk = self.stream.read(room if size < 0 else min(size, room))
        self.total += len(chunk)
        if self.total > MAX_TOTAL:
            raise _TooLarge(f"it unpacks to more than {MAX_TOTAL:,} bytes")
        return chunk


CORRUPTED = (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError, RecursionError, ValueError)


class _TooLarge(Exception):
    pass


class Archive:
    """Files in the folder `root` of a .tar.gz archive, read into memory in one pass.

    Names are only compared with the wanted ones, so an archive cannot write anywhere. Reading goes on to the
    end of the archive, where gzip keeps the checksum of the content.
    """

    def __init__(self, path: Path, root: str, wanted: tuple[str, ...]) -> None:
        self.path = path
        self.root = root
        self.wanted = wanted
        self.content = self._read()

    def label(self, name: str) -> str:
        return f"{self.root}/{name} in {self.path}"

    def sizes(self) -> dict[str, int]:
        return {name: len(content) for name, content in self.content.items()}

    def take(self, name: str) -> bytes:
        if name not in self.content:
            raise DataError(f"{self.label(name)} is missing.")
        return self.content.pop(name)

    def _read(self) -> dict[str, bytes]:
        try:
            with gzip.open(self.path, "rb") as stream:
                bounded = _Bounded(stream)
                content = self._members(bounded)
                while bounded.read(2**20):
                    pass
        except CORRUPTED as error:
            raise DataError(f"{self.path} is truncated or corrupted: {error}.") from error
        except _TooLarge as error:
            raise DataError(f"{self.path} is not the archive it claims to be: {error}.") from error
        except OSError as error:
            raise DataError(f"Cannot read {self.path}: {error.strerror or error}.") from error
        return content

    def _members(self, stream: _Bounded) -> dict[str, bytes]:
        content: dict[str, bytes] = {}
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for count, member in enumerate(archive):
                name = member.name.removeprefix("./").removeprefix(f"{self.root}/")
                if count >= MAX_MEMBERS or member.size > MAX_FILE:
                    raise _TooLarge(f"it has more than {MAX_MEMBERS} entries or one above {MAX_FILE:,} bytes")
                if name not in self.wanted or not member.isreg() or "/" not in member.name:
                    continue
                if name in content:
                    raise _TooLarge(f"it holds {name} twice")
                file = archive.extractfile(member)
                content[name] = file.read() if file else b""
        return content
