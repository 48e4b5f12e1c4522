"""Write .npz files column by column, straight from the pieces an array is stored in: saving copies no array."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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
