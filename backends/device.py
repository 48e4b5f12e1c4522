"""A device with memory, matrix products and compiled kernels of its own; CuPy is one (backends/cupy_device.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.lower.c_elementwise import FUNCTIONS
from tpc.lower.cuda_loop import KERNELS

Array = NDArray[Any]
Kernel = Callable[..., None]  # (blocks, threads of a block, arguments)

FLOAT32 = np.dtype(np.float32)
THREADS = 256
KINDS = {np.dtype(np.float32): 0, np.dtype(np.uint16): 1, np.dtype(np.float16): 2}
FIRST_ROWS, FIRST_BYTES = 1 << 16, 1 << 26  # of a store's first segment, the lesser; each next one has twice as many
MEMORY_SHARE = 16  # until a segment takes this share of the device's memory
POWER_BYTES = 1 << 28  # of packed powers made at a time when atoms are folded


@dataclass(frozen=True)
class Memory:
    """Bytes of a device."""

    free: int
    total: int


class Device(ABC):
    """What differs between devices, and the kernels that all limits use."""

    xp: Any  # numpy, or a module like it
    name: str
    cache_bytes: int  # what a chunk's products and weights should fit in
    _ones: Any = None

    @abstractmethod
    def build(self, source: str) -> Callable[[str], Kernel]:
        """Compiles CUDA text; gives its kernels by name."""

    @abstractmethod
    def gemm(self, a: Any, b: Any, out: Any, *, ta: bool = False, tb: bool = False, add: bool = False) -> None:
        """out = a b, or out += a b; a and b are transposed first if so asked.

        Rows lie one after another. a and b have one type, float32, float16 or bfloat16 (uint16); out and all sums are
        float32, and no product is rounded.
        """

    @abstractmethod
    def to_host(self, x: Any) -> Array:
        """x as a NumPy array."""

    @abstractmethod
    def synchronize(self) -> None:
        """Waits until everything that was asked for is done."""

    @abstractmethod
    def versions(self) -> str:
        """What a measurement depends on."""

    @abstractmethod
    def memory(self) -> Memory:
        """What can still be taken, memory that the process keeps for reuse included."""

    @abstractmethod
    def special(self, name: str, x: Any) -> Any:
        """A special function, "erf", "erfc" or "erfcx", of every number."""

    @cached_property
    def kernels(self) -> Callable[[str], Kernel]:
        """Those of cuda_kernels.h."""
        found: dict[str, Kernel] = {}
        built = self.build("\n".join(p.read_text(encoding="utf-8") for p in (FUNCTIONS, KERNELS)))

        def kernel(name: str) -> Kernel:
            if name not in found:
                found[name] = built(name)
            return found[name]

        return kernel

    def each(self, kernel: str | Kernel, count: int, *arguments: Any) -> None:
        """Runs a kernel with one thread for each of `count` numbers, which is its first argument."""
        if count:
            run = self.kernels(kernel) if isinstance(kernel, str) else kernel
            run(-(-count // THREADS), THREADS, (count, *arguments))

    def contiguous(self, x: Any) -> Any:
        """x as float32 numbers that lie one after another."""
        if x.dtype == FLOAT32 and x.flags.c_contiguous:
            return x
        made = self.xp.ascontiguousarray(x, dtype=np.float32)
        return made if made.ndim == x.ndim else made.reshape(x.shape)  # a number stays one

    def ones(self, count: int) -> Any:
        """(1, count) ones."""
        if self._ones is None or self._ones.shape[1] < count:
            self._ones = self.xp.ones((1, count), np.float32)
        return self._ones[:, :count]

    def segment_bytes(self) -> int:
        """The largest segment of a store."""
        return max(FIRST_BYTES, self.memory().total // MEMORY_SHARE)


class DeviceArrays:
    """Stored numbers on a device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.xp = device.xp

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self.xp.empty(shape, dtype)

    def segment_rows(self, rows: int, row_bytes: int, segments: int) -> int:
        """The first is small, since many runs are; large ones make few matrix products of many."""
        most = max(1, self._device.segment_bytes() // max(1, row_bytes))
        first = min(FIRST_ROWS, max(256, FIRST_BYTES // max(1, row_bytes)))
        return min(first << min(segments, 40), max(first, most))

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
        from backends.device_powers import powers

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
        from backends.device_powers import polarized

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
