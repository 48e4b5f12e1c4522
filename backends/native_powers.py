"""Folded matrices contracted with one latent, and monomials of atoms: powers.h, compiled as generated code is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import native_build, powers
from backends.arrays import HostArrays, aligned
from backends.threads import ranges, threads

Array = NDArray[Any]
SOURCE = Path(__file__).with_name("powers.h")
LANES, COLUMNS, STRIP, DEPTH = 8, 12, 32, 512  # as there
FLOAT = np.dtype(np.float32)
THREAD_WORK = 1 << 18  # numbers of the matrices that are worth waking a thread


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    return native_build.load(SOURCE.read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def function() -> Any:
    """tpc_half of powers.h. Raises NoCompilerError."""
    made = _library()["tpc_half"]
    made.argtypes, made.restype = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 5, None
    return made


def halves(matrix: Array, g: Array) -> tuple[Array, Array]:
    """⟨M, g ⊗ ·⟩ and ⟨M, g ⊗ g⟩ as powers.halves has them, for M in float32; without a compiler NumPy computes them."""
    try:
        run = function()
    except native_build.NoCompilerError:
        return powers.halves(matrix, g)
    if g.ndim == 1:
        one, all_of_it = halves(matrix, g[None])
        return one[0], all_of_it[0]
    matrix = np.ascontiguousarray(matrix, np.float32)
    outer, (batch, rank) = len(matrix), g.shape
    groups = -(-batch // LANES)
    lanes = aligned((groups, rank, LANES), FLOAT)
    padded = np.zeros((groups * LANES, rank), np.float32)
    padded[:batch] = g
    lanes[...] = padded.reshape(groups, LANES, rank).transpose(0, 2, 1)
    made, whole = np.empty((batch, outer, rank), np.float32), np.empty((batch, outer), np.float32)

    def job(first: int, last: int) -> None:
        scratch = aligned((rank, LANES), FLOAT)
        run(*(a.ctypes.data for a in (matrix, lanes, scratch, made, whole)), first, last, outer, batch, rank)

    over_outer(matrix, job)
    return made, whole


class NativeArrays(HostArrays):
    """NumPy arrays to which folded atoms are added natively."""

    def add_powers(self, target: Array, a: Array, b: Array, order: int) -> None:
        powers.add_powers(target, a, b, order, adding, filling)

    def add_products(
        self, target: Array, a: Array, vectors: Sequence[Array], parts: Sequence[tuple[Array, tuple[int, ...]]]
    ) -> None:
        powers.add_products(target, a, vectors, parts, adding)


def adding(a: Array) -> Callable[[Array, Array], None]:
    """As powers.adding, in float32; NumPy's without a compiler, or where BLAS is as fast."""
    try:
        run = _library()["tpc_add"]
    except (native_build.NoCompilerError, AttributeError):
        return powers.adding(a)
    run.argtypes, run.restype = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 4, None
    groups, rows = -(-len(a) // COLUMNS), a.shape[1]
    padded = np.zeros((groups * COLUMNS, rows), np.float32)
    padded[: len(a)] = a
    packed = np.ascontiguousarray(padded.reshape(groups, COLUMNS, rows).transpose(0, 2, 1))

    def add(target: Array, b: Array) -> None:
        b = np.ascontiguousarray(b, np.float32)
        scratch = aligned((-(-b.shape[1] // STRIP), DEPTH, STRIP), FLOAT)
        addresses = (x.ctypes.data for x in (target, packed, b, scratch))
        run(*addresses, rows, b.shape[1], target.strides[0] // target.itemsize, len(target))

    return add


def filling(g: Array, low: Array, order: int) -> powers.Fill:
    """As powers.filling, in float32; without a compiler NumPy computes it."""
    try:
        run = _library()["tpc_monomials"]
    except native_build.NoCompilerError:
        return powers.filling(g, low, order)
    rank = g.shape[1]
    run.argtypes, run.restype = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 5, None
    scale = powers.weights(rank, order).astype(np.float32)
    g, low = (np.ascontiguousarray(x, np.float32) for x in (g, low))
    sizes = np.array([powers.count(i + 1, order - 1) for i in range(rank)], np.int64)

    def fill(part: Array, start: int, stop: int) -> None:
        begin = scale[powers.count(start, order) :]
        addresses = (x.ctypes.data for x in (g, low, begin, sizes, part))
        run(*addresses, len(g), rank, low.shape[1], start, stop)

    return fill


def over_outer(matrix: Array, job: Callable[[int, int], None]) -> None:
    """Run job(first, last) for ranges of the outer indices of packed matrices (outer, count), one to a thread."""
    workers, outer = threads(), len(matrix)
    count = max(1, min(workers.count, outer, matrix.size // THREAD_WORK))
    workers.run([partial(job, *ends) for ends in ranges(outer, count)])
