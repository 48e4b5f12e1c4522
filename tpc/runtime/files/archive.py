"""Write .npz files column by column, straight from the pieces an array is stored in: saving copies no array."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_BLOCK = 1 << 24  # bytes, a multiple of every item's size
_EXPONENT = np.uint16(0x7F80)  # of bfloat16; all ones in infinities and NaN


def write_npz(file: IO[bytes], columns: Mapping[str, Sequence[Array]]) -> None:
    """Every entry is the concatenation of its pieces along the first axis; `numpy.load` reads the file."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, pieces in columns.items():
            shape = (sum(len(p) for p in pieces), *pieces[0].shape[1:])
            header = {"descr": np.lib.format.dtype_to_descr(pieces[0].dtype), "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_2_0(entry, header)
                for piece in pieces:
                    entry.write(np.ascontiguousarray(piece).data)


def not_finite(path: str | Path) -> str:
    """The name of the first array in an .npz file with a number that is not finite; empty where all are.

    Columns of uint16 are bfloat16. A file that cannot be read has none: whoever loads it tells what is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return next((n.removesuffix(".npy") for n in archive.namelist() if _has_others(archive, n)), "")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        return ""


def _has_others(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as entry:
        version = np.lib.format.read_magic(entry)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        dtype = read(entry)[2]
        if dtype.kind not in "fc" and dtype != np.uint16:
            return False
        while block := entry.read(_BLOCK):
            values = np.frombuffer(block[: len(block) // dtype.itemsize * dtype.itemsize], dtype)
            if dtype == np.uint16:
                if ((values & _EXPONENT) == _EXPONENT).any():
                    return True
            elif not np.isfinite(values).all():
                return True
    return False
