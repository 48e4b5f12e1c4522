"""Matrices and few samples outside the loops: dense.h, compiled as generated code is; otherwise backends/large.py."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends import large, native_build, native_workers, numpy_runtime
from backends.large import OuterSum
from backends.threads import ranges

Array = NDArray[Any]
SOURCE = Path(__file__).with_name("dense.h")
FEW = 12  # samples: with more of them BLAS is as fast
FLOAT = np.dtype(np.float32)


class _Call(ctypes.Structure):
    """tpc_dense of dense.h"""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("first", "last", "rows", "columns", "samples")),
        *((name, ctypes.c_void_p) for name in ("matrix", "x", "y", "out")),
        ("keep", ctypes.c_double),
    ]


class Functions(NamedTuple):
    """Addresses of those of dense.h."""

    products: int
    vecmats: int
    matvecs: int
    update: int


@lru_cache(maxsize=1)
def functions() -> Functions:
    """Those of dense.h, and the workers that run them. Raises NoCompilerError."""
    native_workers.runner()
    library = native_build.load(SOURCE.read_text(encoding="utf-8"))
    return Functions(*(native_workers.address(library[f"tpc_{name}"]) for name in Functions._fields))


def matmul(a: Array, b: Array) -> Array:
    """a @ b for two matrices."""
    samples, rows = a.shape
    if samples > FEW or not _plain(a, b) or not b.size:
        return large.matmul(a, b)
    parts = ranges(rows, large.workers(b.size))
    shares = np.zeros((len(parts), samples, b.shape[1]), np.float32)
    calls = [
        _Call(*part, rows, b.shape[1], samples, _at(b), _at(a), None, _at(out)) for part, out in zip(parts, shares)
    ]
    native_workers.run(functions().products, calls)
    total: Array = shares[0]
    for share in shares[1:]:  # always in this order
        total += share
    return total


def matvecs(matrices: Array, vectors: Array) -> Array:
    """A matrix times a vector for every sample, (b, k, r) and (b, r) → (b, k)."""
    if _plain(matrices, vectors):
        return _by_sample(functions().matvecs, matrices, vectors, matrices.shape[1])
    turned = matrices.transpose(0, 2, 1)
    return vecmats(vectors, turned) if _plain(turned, vectors) else large.matvecs(matrices, vectors)


def vecmats(vectors: Array, matrices: Array) -> Array:
    """A vector times a matrix for every sample, (b, k) and (b, k, r) → (b, r)."""
    if not _plain(matrices, vectors):
        return large.vecmats(vectors, matrices)
    return _by_sample(functions().vecmats, matrices, vectors, matrices.shape[2])


def _by_sample(function: int, matrices: Array, vectors: Array, width: int) -> Array:
    samples, rows, columns = matrices.shape
    made = np.zeros((samples, width), np.float32)
    if not matrices.size:
        return made
    parts = ranges(samples, min(large.workers(matrices.size), samples))
    native_workers.run(
        function, [_Call(*part, rows, columns, 1, _at(matrices), _at(vectors), None, _at(made)) for part in parts]
    )
    return made


def accumulate(
    state: dict[str, Any], name: str, gradient: Any, rate: float, clip: float, keep: float, momentum: float
) -> None:
    """As numpy_runtime.accumulate; without momentum in one pass over the weight."""
    w = state[name]
    moving = momentum or f"{name}.velocity" in state
    if moving or not (isinstance(gradient, OuterSum) and len(gradient.x) <= FEW and _plain(w, gradient.x, gradient.y)):
        numpy_runtime.accumulate(state, name, gradient, rate, clip, keep, momentum)
        return
    y = gradient.y * w.dtype.type(rate * clip)
    (rows, columns), samples = w.shape, len(y)
    calls = [
        _Call(*part, rows, columns, samples, _at(w), _at(gradient.x), _at(y), None, keep)
        for part in ranges(rows, large.workers(w.size))
    ]
    native_workers.run(functions().update, calls)


def _plain(*arrays: Any) -> bool:
    """Whether C can read them."""
    return all(x.dtype == FLOAT and x.flags.c_contiguous for x in arrays)


def _at(x: Array) -> int:
    return int(x.ctypes.data)
