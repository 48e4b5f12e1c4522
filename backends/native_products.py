"""Folded tensors multiplied in bfloat16, with sums in float32: products16.h, compiled as generated code is.

The processor's instructions for it (AVX512_BF16) multiply at twice the rate of float32. Factors are rounded, to a
relative 2⁻⁹ as stored atoms then are; the tensors themselves stay float32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends import large, native_build, native_powers, powers
from backends.arrays import aligned
from backends.half import to_stored

Array = NDArray[Any]
SOURCE = Path(__file__).with_name("products16.h")
COLUMNS, LANES, PAIRS, ROWS = 8, 32, 256, 16  # as there
FEW = 24  # samples: more are worth packing the matrices in another way, for a matrix product
BFLOAT16, PAIR, FLOAT = np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.float32)


class Functions(NamedTuple):
    """Those of products16.h."""

    many: Any
    pack: Any
    few: Any
    add: Any


@lru_cache(maxsize=1)
def functions() -> Functions | None:
    """Those of products16.h; None where processor or compiler lack the instructions."""
    try:
        library = native_build.load(SOURCE.read_text(encoding="utf-8"))
    except native_build.NoCompilerError:
        return None
    if not library.tpc_has_products16():
        return None
    made = Functions(library.tpc_half16, library.tpc_pack16, library.tpc_few16, library.tpc_add16)
    for function, (pointers, numbers) in zip(made, ((4, 5), (2, 3), (6, 5), (4, 4)), strict=True):
        function.argtypes, function.restype = [ctypes.c_void_p] * pointers + [ctypes.c_int64] * numbers, None
    return made


class RoundedArrays(native_powers.NativeArrays):
    """NumPy arrays for the folded atoms of one store, multiplied in bfloat16 where that is faster than in float32."""

    def __init__(self) -> None:
        self._packed: Array | None = None  # of the matrices
        self._changed = True  # since they were packed

    def halves(self, matrix: Array, g: Array) -> tuple[Array, Array]:
        """⟨M, g ⊗ ·⟩ and ⟨M, g ⊗ g⟩ as powers.halves has them."""
        found = functions()
        if found is None:
            return native_powers.halves(matrix, g)
        if g.ndim == 1:
            one, all_of_it = self.halves(matrix, g[None])
            return one[0], all_of_it[0]
        return self._few(found, matrix, g) if len(g) < FEW else _many(found, matrix, g)

    def _few(self, functions: Functions, matrix: Array, g: Array) -> tuple[Array, Array]:
        """From the matrices packed once for all steps until they change."""
        (batch, rank), outer = g.shape, len(matrix)
        rows = -(-rank // ROWS) * ROWS
        if self._packed is None:
            self._packed = aligned((outer, _packed_pairs(rows // ROWS)), PAIR)
        if self._changed:
            _pack(functions.pack, matrix, self._packed, rank)
            self._changed = False
        lanes = _columns(g, rows)
        twice, exact = aligned((*lanes.shape, 2), PAIR), aligned((*lanes.shape, 2), FLOAT)
        twice[...] = lanes[..., None]
        padded = np.zeros((len(lanes) * COLUMNS, rows), np.float32)
        padded[:batch, :rank] = g
        exact[...] = padded.reshape(-1, COLUMNS, rows // 2, 2).transpose(0, 2, 1, 3)
        made, whole = np.empty((batch, outer, rank), np.float32), np.empty((batch, outer), np.float32)
        given, sizes = (self._packed, twice, exact), (outer, batch, rank)
        _over_outer(functions.few, matrix, given, (rows, COLUMNS), (made, whole), sizes)
        return made, whole

    def multiply(self, target: Array, number: Any) -> None:
        self._changed = True
        super().multiply(target, number)

    def add_powers(self, target: Array, a: Array, b: Array, order: int) -> None:
        self._changed = True
        powers.add_powers(target, a, b, order, adding, native_powers.filling)

    def add_products(
        self, target: Array, a: Array, vectors: Sequence[Array], parts: Sequence[tuple[Array, tuple[int, ...]]]
    ) -> None:
        self._changed = True
        powers.add_products(target, a, vectors, parts, adding)


def _over_outer(
    run: Any,
    matrix: Array,
    given: Sequence[Array],
    scratch: tuple[int, int],
    made: Sequence[Array],
    sizes: tuple[int, ...],
) -> None:
    """run(*given, a scratch, *made, first, last, *sizes) for ranges of outer indices."""

    def job(first: int, last: int) -> None:
        work = aligned(scratch, PAIR)
        run(*(a.ctypes.data for a in (*given, work, *made)), first, last, *sizes)

    native_powers.over_outer(matrix, job)


def _many(functions: Functions, matrix: Array, g: Array) -> tuple[Array, Array]:
    (batch, rank), outer = g.shape, len(matrix)
    made = np.empty((batch, outer, rank), np.float32)
    scratch, sizes = (-(-rank // 2), LANES), (outer, batch, rank)
    _over_outer(functions.many, matrix, (matrix, _columns(g, rank)), scratch, (made,), sizes)
    return made, large.matvecs(made, g)


def packed_bytes(matrices: int, rank: int) -> int:
    """Of so many matrices packed for a few samples; none where the instructions are missing."""
    return 0 if functions() is None else matrices * _packed_pairs(-(-rank // ROWS)) * PAIR.itemsize


def _packed_pairs(blocks: int) -> int:
    """Of one matrix with so many blocks of rows."""
    return blocks * (blocks + 1) // 2 * ROWS * ROWS // 2


def _pack(run: Any, matrix: Array, packed: Array, rank: int) -> None:
    def job(first: int, last: int) -> None:
        run(matrix.ctypes.data, packed.ctypes.data, first, last, rank)

    native_powers.over_outer(matrix, job)


def adding(a: Array) -> Callable[[Array, Array], None]:
    """What does target += a b, in place, for (k, M): (k, n), whose rows are contiguous, and (M, n)."""
    made = functions()
    if made is None:
        return native_powers.adding(a)
    run, packed = made.add, _columns(a, a.shape[1])

    def add(target: Array, b: Array) -> None:
        b = np.ascontiguousarray(b, np.float32)
        scratch = aligned((-(-b.shape[1] // LANES), PAIRS, LANES), PAIR)
        addresses = (x.ctypes.data for x in (target, packed, b, scratch))
        run(*addresses, len(b), b.shape[1], target.strides[0] // target.itemsize, len(target))

    return add


def _columns(x: Array, numbers: int) -> Array:
    """Rows as columns of a tile: (n, m) → (groups of 8 rows, pairs of `numbers` ≥ m, 8) of two bfloat16 each."""
    groups, pairs = -(-len(x) // COLUMNS), -(-numbers // 2)
    padded = np.zeros((groups * COLUMNS, pairs * 2), BFLOAT16)
    padded[: len(x), : x.shape[1]] = to_stored(x, BFLOAT16)
    made = aligned((groups, pairs, COLUMNS), PAIR)
    made[...] = padded.view(PAIR).reshape(groups, COLUMNS, pairs).transpose(0, 2, 1)
    return made
