"""A device with memory, matrix products and compiled kernels of its own; CuPy is one (backends/cupy_device.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
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
