"""Where stored numbers lie: in the memory of this machine, as NumPy arrays, or on a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backends import powers
from backends.half import from_stored, to_stored

Array = NDArray[Any]

ALIGNMENT = 64  # bytes of a cache line, where rows that fill whole lines should start


class Arrays(Protocol):
    """What stored atoms and folded tensors need of the place they are kept in."""

    xp: Any  # numpy, or a module like it

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """An array that is not written yet."""

    def segment_rows(self, rows: int, row_bytes: int, segments: int) -> int:
        """Rows of the next segment of a store with `segments` of them; `rows` is the usual number."""

    def store(self, target: Any, values: Any) -> None:
        """Write numbers, rounded to the type of the target; uint16 holds bfloat16, in the values, too."""

    def load(self, stored: Any, dtype: np.dtype[Any]) -> Any:
        """Stored numbers as numbers of `dtype`; the array itself where nothing needs converting."""

    def to_host(self, x: Any) -> Array:
        """x as a NumPy array."""

    def view(self, x: Any) -> Any:
        """Something with dtype, shape and length that NumPy can read, now or later."""

    def multiply(self, target: Any, number: Any) -> None:
        """target *= number, in place."""

    def add_powers(self, target: Any, a: Any, b: Any, order: int) -> None:
        """target += Σ_m a_m Φ_order(b_m), in place: (k, count), (M, k), (M, r)."""

    def add_outer(self, target: Any, a: Any, b: Any) -> None:
        """target += aᵀ b, in place: (n, k), (M, n), (M, k)."""

    def add_products(
        self, target: Any, a: Any, vectors: Sequence[Any], parts: Sequence[tuple[Any, tuple[int, ...]]]
    ) -> None:
        """target += Σ_m a_m Σ_parts c_m sym(b₁ₘ^⊗β₁ ⊗ b₂ₘ^⊗β₂ ⊗ …) packed, in place, for parts (c, β) of one degree."""


class HostArrays:
    """NumPy arrays."""

    xp: Any = np

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        return aligned(shape, dtype)

    def segment_rows(self, rows: int, row_bytes: int, segments: int) -> int:
        return rows

    def store(self, target: Array, values: Array) -> None:
        if values.dtype == target.dtype:
            target[...] = values
        else:
            wide = np.dtype(np.float32) if values.dtype == np.uint16 else values.dtype
            target[...] = to_stored(from_stored(values, wide), target.dtype)

    def load(self, stored: Array, dtype: np.dtype[Any]) -> Array:
        return from_stored(stored, dtype)

    def to_host(self, x: Array) -> Array:
        return x

    def view(self, x: Array) -> Array:
        return x

    def multiply(self, target: Array, number: Any) -> None:
        target *= number

    def add_powers(self, target: Array, a: Array, b: Array, order: int) -> None:
        powers.add_powers(target, a, b, order)

    def add_outer(self, target: Array, a: Array, b: Array) -> None:
        target += a.T @ b

    def add_products(
        self, target: Array, a: Array, vectors: Sequence[Array], parts: Sequence[tuple[Array, tuple[int, ...]]]
    ) -> None:
        powers.add_products(target, a, vectors, parts)


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array that is not written yet and starts at a cache line."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    skip = -raw.__array_interface__["data"][0] % ALIGNMENT
    return raw[skip : skip + size].view(dtype).reshape(shape)


HOST = HostArrays()
