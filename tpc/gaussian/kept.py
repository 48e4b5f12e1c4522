"""Arrays that take long to compute, kept in a private folder: what is read back is what was written, or nothing.

A file is a digest of its content, then the arrays. A missing, damaged or unwritable folder costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tpc.private import private_folder

Arrays = Mapping[str, NDArray[Any]]

SOURCES = ("evaluate", "fitting", "near_zero", "regular", "smoothing", "table")
DIGEST = 32  # bytes
BETWEEN = 5.0  # seconds of computing between two words about it


def recall(what: str, compute: Callable[[], Arrays], shown: str) -> Arrays:
    """The arrays called `what`: read from the folder, or computed and kept there.

    Who waits long for it is told that `shown` is being computed.
    """
    folder = private_folder("tables")
    place = None if folder is None else folder / f"{_key(what)}.npz"
    if place is not None and (found := _read(place)) is not None:
        return found
    with _told(shown), threadpool_limits(1):  # many small products: threads only wait for each other
        made = compute()
    if place is not None:
        _write(place, made)
    return made


def _key(what: str) -> str:
    return hashlib.sha256("\0".join([_version(), what]).encode()).hexdigest()[:40]


@lru_cache(maxsize=1)
def _version() -> str:
    """Of everything that the arrays depend on besides what they are called."""
    texts = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in SOURCES]
    return hashlib.sha256(b"\0".join([np.__version__.encode(), *texts])).hexdigest()


def _read(place: Path) -> Arrays | None:
    try:
        content = place.read_bytes()
        if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
            return None
        with np.load(io.BytesIO(content[DIGEST:]), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception:  # whatever is wrong with a file, it is computed anew
        return None


def _write(place: Path, arrays: Arrays) -> None:
    """Write to a file of its own and move it to its place, so that nobody reads half of it."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    name = None
    try:
        handle, name = tempfile.mkstemp(prefix="part-", dir=place.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(name, place)
    except OSError:  # a full disk, say
        if name is not None:
            Path(name).unlink(missing_ok=True)


class _told:
    """Counts the time spent on computing, and tells of it after a second, and then every few."""

    spent, count, patience = 0.0, 0, 1.0

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __enter__(self) -> None:
        self._timer = Timer(max(_told.patience - _told.spent, 0.0), self._tell)
        self._timer.daemon = True
        self._timer.start()
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        _told.spent += time.monotonic() - self._start
        _told.count += 1

    def _tell(self) -> None:
        _told.patience = _told.spent + BETWEEN
        made = f", {_told.count} tables so far" if _told.count else ""
        line = f"computing kernels without a closed form, now {self._shown}{made}; they are kept for later runs"
        with suppress(OSError, ValueError):  # nobody listens
            print(line, file=sys.stderr, flush=True)
