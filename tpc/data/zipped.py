"""Members of a zip archive, read within bounds straight into memory; nothing is ever unpacked to disk."""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tpc.errors import DataError

CORRUPTED = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, NotImplementedError, RuntimeError)

BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks these no further than announced, others whole


@dataclass(frozen=True)
class Limits:
    """What an archive may have at most: bytes on disk, entries, bytes of one unpacked entry and of all together."""

    archive: int
    entries: int
    entry: int
    total: int


class _NotAsPublished(Exception):
    pass


def read_zip(path: Path, wanted: Callable[[str], bool], limits: Limits, fix: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the wanted files of an archive, sorted by name.

    Every entry is judged before the first is read: one that names a place outside the folder it is unpacked
    into, links, encrypted and repeated ones, and sizes beyond `limits` condemn the whole archive. The sizes an
    archive announces bind its content, and its checksums are compared. Raises DataError, ending with `fix`.
    """
    try:
        size = path.stat().st_size
        if size > limits.archive:
            raise _NotAsPublished(f"expected at most {limits.archive:,} bytes, got {size:,}")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _judge(entries, limits)
            for entry in sorted(entries, key=lambda each: each.filename):
                if not entry.is_dir() and wanted(entry.filename):
                    yield entry.filename, archive.read(entry)
    except _NotAsPublished as error:
        raise DataError(f"{path} is not the archive it claims to be: {error}.\n{fix}") from error
    except CORRUPTED as error:
        raise DataError(f"{path} is truncated or corrupted: {str(error) or type(error).__name__}.\n{fix}") from error
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing.\n{fix}") from error
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error


def _judge(entries: list[zipfile.ZipInfo], limits: Limits) -> None:
    if len(entries) > limits.entries:
        raise _NotAsPublished(f"expected at most {limits.entries:,} entries, got {len(entries):,}")
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        if _leaves(name) or _leaves(entry.orig_filename):
            raise _NotAsPublished(f"its entry {name!r} names a place outside of its folder")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _NotAsPublished(f"its entry {name!r} is a link or a device, not a file")
        if entry.flag_bits & 1:
            raise _NotAsPublished(f"its entry {name!r} is encrypted")
        if entry.compress_type not in BOUNDED:
            raise _NotAsPublished(f"its entry {name!r} is packed in another way than deflated")
        if entry.file_size > limits.entry:
            raise _NotAsPublished(f"its entry {name!r} unpacks to {entry.file_size:,} bytes, above {limits.entry:,}")
        if name in seen:
            raise _NotAsPublished(f"it holds {name!r} twice")
        seen.add(name)
    total = sum(entry.file_size for entry in entries)
    if total > limits.total:
        raise _NotAsPublished(f"it unpacks to {total:,} bytes, above {limits.total:,}")


def _leaves(name: str) -> bool:
    """Whether an entry of this name could be written outside of the folder it is unpacked into, on any system."""
    parts = re.split(r"[/\\]", name)
    return not name.isprintable() or "\\" in name or name.startswith("/") or ".." in parts or ":" in parts[0]
