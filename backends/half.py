"""Numbers of 16 bits for storage: bfloat16 (as uint16, which NumPy has no type for) and float16."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STORED = {"bfloat16": np.dtype(np.uint16), "float16": np.dtype(np.float16)}


LEAST, MOST = 2.0**7, 2.0**15  # where the largest coefficient stored as float16 should be


def fitting(top: float) -> float:
    """The power of two that brings `top` to where the largest of many float16 numbers should be; 1 if it is there.

    float16 has 11 bits down to 6e-5 and ends at 65504. With the largest number at 2¹³ the least that is not rounded
    away is 7e-12 of it, however small the numbers are.
    """
    if not 0 < top < math.inf or LEAST <= top <= MOST:
        return 1.0
    return 2.0 ** (13 - math.frexp(top)[1])


def stored_dtype(storage: str) -> np.dtype[Any]:
    """The NumPy dtype of stored columns."""
    return STORED.get(storage) or np.dtype(storage)


def to_stored(x: Array, dtype: np.dtype[Any]) -> Array:
    """x, rounded to the nearest number (ties to even) that a stored column of `dtype` can hold."""
    if dtype == np.uint16:
        return _to_bfloat16(x)
    return _to_float16(x) if dtype == np.float16 else x.astype(dtype, copy=False)


def from_stored(x: Array, dtype: np.dtype[Any]) -> Array:
    """A stored column as numbers of `dtype`; the column itself where nothing needs converting."""
    return _from_bfloat16(x).astype(dtype, copy=False) if x.dtype == np.uint16 else x.astype(dtype, copy=False)


def _to_float16(x: Array) -> Array:
    """Numbers beyond ±65504 become ±65504: bfloat16 has the range of float32, float16 has not."""
    with np.errstate(over="ignore"):
        made = x.astype(np.float16, copy=False)
    lost = np.isinf(made) & np.isfinite(x)
    return np.where(lost, np.copysign(np.finfo(np.float16).max, made), made) if lost.any() else made


def _to_bfloat16(x: Array) -> Array:
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).reshape(x.shape)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)  # rounding could carry a NaN into infinity
    return np.where(np.isnan(x), quiet, rounded).astype(np.uint16)


def _from_bfloat16(x: Array) -> Array:
    return (x.astype(np.uint32) << np.uint32(16)).view(np.float32)
