"""What every data set offers: how to load it, where it is downloaded, and what of it is on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy.typing as npt

from tpc.data.dataset import Dataset
from tpc.errors import DataError


@dataclass(frozen=True)
class Download:
    """One file as its publisher offers it: address, MD5 checksum in hexadecimal, size in bytes."""

    file: str
    url: str
    md5: str
    size: int


class FileCheck(NamedTuple):
    """One file that was read and checked; `ok` says that it can be used."""

    file: str
    ok: bool
    message: str


@dataclass(frozen=True)
class Holding:
    """One thing on disk that belongs to a data set; `bytes` is 0 where nothing lies on disk."""

    dataset: str
    path: str
    bytes: int
    status: str


@dataclass(frozen=True)
class Source:
    """One data set, as the commands `train` and `data` see it.

    `load` takes the data folder, the number of training samples to keep (None: all) and the type of the
    inputs; `check` reads everything that is there; `holdings` only looks at names and sizes.
    """

    name: str
    summary: str
    load: Callable[[Path, int | None, npt.DTypeLike], Dataset]
    check: Callable[[Path], list[FileCheck]]
    holdings: Callable[[Path], list[Holding]]
    downloads: tuple[Download, ...] = ()


def md5_hex(content: bytes) -> str:
    """The MD5 checksum of bytes: the publishers' choice, good against accidents, not against forgery."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def md5_of(path: Path) -> str:
    """The MD5 checksum of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def disk_trouble(folder: Path) -> Iterator[None]:
    """Turn what the system says of a folder or a file in it into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"Cannot look into {folder}: {error.strerror or error}.") from error
