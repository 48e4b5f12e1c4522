"""Where stored numbers lie: in the memory of a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.device import Device
from backends.device_powers import polarized, powers

Array = NDArray[Any]

KINDS = {np.dtype(np.float32): 0, np.dtype(np.uint16): 1, np.dtype(np.float16): 2}
FIRST_ROWS, FIRST_BYTES = 1 << 16, 1 << 26  # of a store's first segment, the lesser; each next one has twice as many
MEMORY_SHARE = 16  # until a segment takes this share of the device's memory
POWER_BYTES = 1 << 28  # of packed powers made at a time when atoms are folded


class DeviceArrays:
    """Stored numbers on a device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.xp = device.xp

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self.xp.empty(shape, dtype)

    def segment_rows(self, rows: int, row_bytes: int, segments: int) -> int:
        """The first is small, since many runs are; large ones make few matrix products of many."""
        most = max(1, self._segment_bytes() // max(1, row_bytes))
        first = min(FIRST_ROWS, max(256, FIRST_BYTES // max(1, row_bytes)))
        return min(first << min(segments, 40), max(first, most))

    def _segment_bytes(self) -> int:
        """The largest segment of a store."""
        return max(FIRST_BYTES, self._device.memory().total // MEMORY_SHARE)

    def store(self, target: Any, values: Any) -> None:
        if values.dtype == target.dtype:
            target[...] = self.xp.asarray(values)
            return
        if values.dtype in (np.uint16, np.float16):  # stored in another way, as in a checkpoint
            values = self.load(self.xp.asarray(values), np.dtype(np.float32))
        if target.dtype == np.float32:
            target[...] = self.xp.asarray(values, dtype=np.float32)
            return
        numbers = self._device.contiguous(self.xp.asarray(values))
        self._device.each("tpc_narrow", numbers.size, numbers, KINDS[target.dtype], target)

    def load(self, stored: Any, dtype: np.dtype[Any]) -> Any:
        if stored.dtype in (np.uint16, np.float16):
            made = self.xp.empty(stored.shape, np.float32)
            self._device.each("tpc_widen", stored.size, self.xp.ascontiguousarray(stored), KINDS[stored.dtype], made)
            stored = made
        return stored.astype(dtype, copy=False)

    def to_host(self, x: Any) -> Array:
        return self._device.to_host(x)

    def view(self, x: Any) -> Any:
        return LaterOnHost(self._device, x)

    def multiply(self, target: Any, number: Any) -> None:
        target *= number

    def add_powers(self, target: Any, a: Any, b: Any, order: int) -> None:
        if order == 0:
            target += a.sum(axis=0)
            return
        made, a = powers(self._device), self._device.contiguous(a)
        rows = max(1, POWER_BYTES // (4 * max(1, made.count(b.shape[1], order))))
        for start in range(0, len(b), rows):
            part = made.power(self._device.contiguous(b[start : start + rows]), order)
            self._device.gemm(a[start : start + rows], part, target, ta=True, add=True)

    def add_outer(self, target: Any, a: Any, b: Any) -> None:
        self._device.gemm(self._device.contiguous(a), self._device.contiguous(b), target, ta=True, add=True)

    def add_products(
        self, target: Any, a: Any, vectors: Sequence[Any], parts: Sequence[tuple[Any, tuple[int, ...]]]
    ) -> None:
        for c, index in parts:
            n, scaled = sum(index), a * c[:, None]
            factors = [v for v, k in zip(vectors, index, strict=True) for _ in range(k)]
            for number, mixed in polarized(factors) if n else ((1.0, vectors[0]),):
                self.add_powers(target, scaled * np.float32(number), mixed, n)


class LaterOnHost:
    """An array of a device that NumPy copies when it reads it: a checkpoint holds one piece at a time."""

    def __init__(self, device: Device, x: Any) -> None:
        self._device, self._x = device, x
        self.shape, self.dtype = tuple(x.shape), x.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self._device.to_host(self._x), dtype=dtype)
