"""The drawings of Omniglot as one compact file beside the archives; what does not check out is made again."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tpc.data.dataset import Pixels
from tpc.data.omniglot_format import DRAWINGS, SIDE
from tpc.data.zipped import Limits, read_zip
from tpc.errors import DataError

FILE = "omniglot-28x28.npz"
VERSION = 1  # of the file's layout and of how drawings are made from the archives
LIMITS = Limits(archive=2**25, entries=8, entry=2**26, total=2**27)  # the official drawings make 25 MB, packed 5 MB


class Drawings(NamedTuple):
    """All characters, those of the background archive first: images (C, 20, 784) with 255 for ink, their names
    `alphabet/character`, and how many of them are of the background archive."""

    images: Pixels
    names: tuple[str, ...]
    background: int


def read_cache(folder: Path, source: str) -> Drawings | None:
    """The drawings made from the archives with the checksums `source`, or None where there are none intact."""
    try:
        members = dict(read_zip(folder / FILE, lambda name: name.endswith(".npy"), LIMITS, ""))
        arrays = {name.removesuffix(".npy"): _array(raw) for name, raw in members.items()}
        names = tuple(arrays["names"].tobytes().decode().split("\n"))
        drawings = Drawings(arrays["images"], names, int(arrays["background"][()]))
        intact = arrays["digest"].tobytes().decode() == _digest(drawings, source)
    except (DataError, KeyError, ValueError, OverflowError):
        return None
    fits = drawings.images.shape == (len(names), DRAWINGS, SIDE * SIDE) and 0 < drawings.background <= len(names)
    return drawings if intact and fits and drawings.images.dtype == np.uint8 else None


def write_cache(folder: Path, source: str, drawings: Drawings) -> bool:
    """Keep the drawings in `folder`, in one step: a file of this name is always whole. False where it cannot be
    written (a folder that is read-only or full); the cache only saves time."""
    unfinished = folder / f"{FILE}.{os.getpid()}.tmp"
    try:
        with unfinished.open("wb") as stream:
            np.savez_compressed(
                stream,
                images=drawings.images,
                names=_letters("\n".join(drawings.names)),
                background=np.int64(drawings.background),
                digest=_letters(_digest(drawings, source)),
            )
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, folder / FILE)
    except OSError:
        unfinished.unlink(missing_ok=True)
        return False
    return True


def _letters(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _array(raw: bytes) -> npt.NDArray[Any]:
    """An array from the bytes of its .npy file; ValueError where they are not one. Never unpickles."""
    stream = io.BytesIO(raw)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of the .npy format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran or dtype.hasobject:
        raise ValueError("an array that tpc does not write")
    return np.frombuffer(raw, dtype, offset=stream.tell()).reshape(shape)


def _digest(drawings: Drawings, source: str) -> str:
    head = "\n".join([str(VERSION), source, str(drawings.background), *drawings.names, ""])
    state = hashlib.sha256(head.encode())
    state.update(drawings.images.tobytes())
    return state.hexdigest()
