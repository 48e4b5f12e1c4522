"""metrics.jsonl of a run: one record per line, appended while training, read by the report, mended when resuming."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tpc.errors import DataError
from tpc.runtime.files.json_text import dumps
from tpc.runtime.files.whole import write_atomic, writing

Record = dict[str, Any]
DAMAGED = ".damaged"
_NEEDED = {  # what the report reads of a record, by its kind
    "step": ("step", "loss", "accuracy"),
    "epoch": (
        *("epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
        *("atoms", "bytes", "seconds"),
    ),
}
_ON_VALIDATION = {"test_loss": "validation_loss", "test_accuracy": "validation_accuracy"}  # measured instead


class MetricsLog:
    """Appends one JSON object per line, each line flushed.

    `size` is the length a checkpoint recorded: what a killed run wrote after it is cut off, so that a
    resumed run has no line twice. Raises WriteError where the disk is full.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._path = path
        with writing(path):
            self._file: IO[bytes] = path.open("a+b")  # appending: no other process can make it leave a hole
            self._file.truncate(min(size, self._file.seek(0, os.SEEK_END)))
            self._file.seek(0, os.SEEK_END)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; numbers that are not finite become null."""
        with writing(self._path):
            self._file.write(dumps(record).encode() + b"\n")
            self._file.flush()

    def sync(self) -> int:
        """Wait until everything is on the disk; returns the length in bytes."""
        with writing(self._path):
            os.fsync(self._file.fileno())
            return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # every record was flushed, or its failure told, when it was written
            self._file.close()


def read(path: Path) -> list[Record]:
    """All whole records; a torn last line of a killed run is passed over. Raises DataError for a damaged file."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            found.append(_record(line))
        except ValueError as error:
            raise DataError(
                f"{path} is damaged: line {number} {error}. Going on with the run (--resume) mends it."
            ) from error
    return found


def mend(path: Path, size: int, epoch: int, step: int) -> tuple[int, str]:
    """Make the file hold the whole records of a training up to a checkpoint: of `epoch` epochs and `step` steps.

    `size` is the length the checkpoint recorded. Where so many bytes of the file are not those records, all of it is
    searched for them, and the file as it was stays beside it, with the ending .damaged. Returns the length now, and
    what was done, in words; an empty text where all was well.
    """
    data = path.read_bytes() if path.exists() else b""
    if _text(_salvaged(data[:size], epoch, step)[0]) == data[:size] and len(data) >= size:
        return size, ""
    records, lost = _salvaged(data, epoch, step)
    text = _text(records)
    if data:
        write_atomic(path.with_name(path.name + DAMAGED), data)
    write_atomic(path, text)
    return len(text), _told(path, data, size, len(records), lost)


def _text(records: list[Record]) -> bytes:
    return b"".join(dumps(record).encode() + b"\n" for record in records)


def _salvaged(data: bytes, epoch: int, step: int) -> tuple[list[Record], int]:
    """The records before a checkpoint, each once and in order, and how many lines hold none."""
    found: dict[tuple[int, str, int], Record] = {}
    lost = 0
    for line in data.split(b"\n"):
        text = line.strip(b"\0 ")
        if not text:
            lost += bool(line)
            continue
        try:
            record = _record(text)
            at, of, kind = int(record["step"]), int(record["epoch"]), str(record["kind"])
        except (ValueError, KeyError, TypeError):
            lost += 1
            continue
        if at <= step and (kind != "epoch" or of <= epoch):
            found.setdefault((at, "" if kind == "step" else kind, of), record)
    return [found[key] for key in sorted(found)], lost


def _told(path: Path, data: bytes, size: int, kept: int, lost: int) -> str:
    if not data:
        return f"{path} is gone or empty, so that the report will lack the records before this checkpoint"
    found = []
    if len(data) < size:
        found.append(f"has {len(data):,} bytes of the {size:,} that the checkpoint recorded")
    if lost:
        found.append(f"has {lost} line{'s' if lost > 1 else ''} that are no records")
    what = " and ".join(found) or f"has other records than the checkpoint recorded in its first {size:,} bytes"
    return f"{path} {what}: {kept} records are kept, and the file as it was is {path.name}{DAMAGED}"


def _record(line: bytes) -> Record:
    """A record from its line. Raises ValueError that says what is wrong."""
    try:
        record = json.loads(line, parse_constant=lambda _: None)
    except ValueError as error:  # not UTF-8 or not JSON
        raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError("is not a record")
    needed = _NEEDED.get(str(record.get("kind")), ())
    missing = [name for name in needed if name not in record and _ON_VALIDATION.get(name) not in record]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    return record
