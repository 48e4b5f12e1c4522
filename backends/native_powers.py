"""Folded matrices contracted with one latent, natively: powers.h, compiled as generated code is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import native_build
from backends.atoms import aligned
from backends.blocks import threads

Array = NDArray[Any]
SOURCE = Path(__file__).with_name("powers.h")
LANES = 8
THREAD_WORK = 1 << 18  # numbers of the matrices that are worth waking a thread


@lru_cache(maxsize=1)
def _function() -> Any:
    made = native_build.load(SOURCE.read_text(encoding="utf-8"))["tpc_half"]
    made.argtypes, made.restype = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 5, None
    return made


def half(matrix: Array, g: Array) -> Array:
    """⟨M, g ⊗ ·⟩ for packed symmetric M, (k, count) and (b, r) float32 → (b, k, r). Raises NoCompilerError."""
    function = _function()
    outer, (batch, rank) = len(matrix), g.shape
    groups = -(-batch // LANES)
    lanes = aligned((groups, rank, LANES), np.dtype(np.float32))
    padded = np.zeros((groups * LANES, rank), np.float32)
    padded[:batch] = g
    lanes[...] = padded.reshape(groups, LANES, rank).transpose(0, 2, 1)
    made = np.empty((batch, outer, rank), np.float32)
    workers = threads()
    count = max(1, min(workers.count, outer, matrix.size // THREAD_WORK))
    bounds = [outer * k // count for k in range(count + 1)]

    def job(first: int, last: int) -> Callable[[], None]:
        scratch = aligned((rank, LANES), np.dtype(np.float32))
        addresses = (a.ctypes.data for a in (matrix, lanes, scratch, made))
        arguments = (*addresses, first, last, outer, batch, rank)
        return lambda: (scratch, function(*arguments))[1]

    workers.run([job(a, b) for a, b in pairwise(bounds)])
    return made
