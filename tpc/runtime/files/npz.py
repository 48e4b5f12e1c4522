"""Read .npz files that `write_npz` wrote: every header is held against the size of the file before any array."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLOCK = 1 << 20  # numbers looked at together
EXPONENT = np.uint16(0x7F80)  # of bfloat16; all ones in infinities and NaN


class Npz(Mapping[str, Array]):
    """The arrays of an open .npz file, read when asked for; `shapes` and `dtypes` are known before.

    Raises ValueError or zipfile.BadZipFile for anything but whole, uncompressed arrays of real numbers.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(stream)
        length = stream.seek(0, 2)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype[Any]] = {}
        for info in self._archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in self.shapes:
                raise ValueError(f"it has two arrays called {name}")
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise ValueError(f"{name} is compressed, and models are saved without compression")
            if info.header_offset + info.file_size > length:
                raise ValueError(f"{name} says it has {info.file_size:,} bytes, and the file has {length:,}")
            self._read_header(name, info)

    def _read_header(self, name: str, info: zipfile.ZipInfo) -> None:
        with self._archive.open(info) as entry:
            version = np.lib.format.read_magic(entry)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(entry)
            start = entry.tell()
        if dtype.kind not in "fiu" or dtype.hasobject:
            raise ValueError(f"expected real numbers in {name}, got {dtype}")
        if any(n < 0 for n in shape) or start + prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f"{name} should have the shape {shape}, but {info.file_size - start:,} bytes are there")
        self.shapes[name], self.dtypes[name] = shape, dtype

    def __getitem__(self, name: str) -> Array:
        if name not in self.shapes:
            raise KeyError(name)
        with self._archive.open(f"{name}.npy") as entry:
            found: Array = np.lib.format.read_array(entry, allow_pickle=False)
            if entry.read(1):  # reads to the end, where the checksum is compared
                raise ValueError(f"{name} goes on after its end")
        _require_finite(name, found)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def meta(self) -> dict[str, Any]:
        """What the entry "meta" says. Raises ValueError where it says nothing."""
        if "meta" not in self.shapes:
            raise ValueError("it has no entry called meta")
        if self.dtypes["meta"] != np.uint8 or len(self.shapes["meta"]) != 1:
            raise ValueError("its entry meta is no text")
        found = json.loads(self["meta"].tobytes())
        if not isinstance(found, dict):
            raise ValueError("its entry meta does not map names to values")
        return found


def read_meta(path: str | Path) -> dict[str, Any]:
    """What the entry "meta" of a file says; raises as `Npz` does, and OSError."""
    with open(path, "rb") as stream:
        return Npz(stream).meta()


def check_entries(file: Npz, wanted: Mapping[str, tuple[int | None, ...]]) -> None:
    """Raise ValueError unless the file has the wanted entries, with these shapes, and no others.

    A length of None is any, but the same in all entries with one first name ("hidden1/A", "hidden1/B").
    """
    if unknown := sorted(set(file) - set(wanted)):
        raise ValueError(f"it has the entry {unknown[0]}, which its model has no use for")
    if missing := sorted(set(wanted) - set(file)):
        raise ValueError(f"it lacks {missing[0]}")
    counts: dict[str, int] = {}
    for name, shape in wanted.items():
        found = file.shapes[name]
        whole = shape
        if None in shape and found:
            count = counts.setdefault(name.split("/")[0], found[0])
            whole = tuple(count if n is None else n for n in shape)
        if found != whole:
            raise ValueError(f"expected {name.removeprefix('array/').replace('/', '.')} of shape {whole}, got {found}")


def _require_finite(name: str, values: Array) -> None:
    flat = values.reshape(-1)
    for start in range(0, len(flat), BLOCK):
        part = flat[start : start + BLOCK]
        whole = ((part & EXPONENT) != EXPONENT).all() if part.dtype == np.uint16 else np.isfinite(part).all()
        if not whole:
            raise ValueError(f"{name} has numbers that are not finite")
