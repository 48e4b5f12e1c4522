"""Runs the generated functions of a kernel limit on blocks, in NumPy or in C."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from ctypes import addressof
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.threads import threads
from tpc.lower.kernel_native import NativeKernels
from tpc.lower.kernel_stretches import Stretch

Array = NDArray[Any]


class KernelCode:
    """Points, diagonal and pairs of a generated NumPy module."""

    ROWS, COLUMNS = 128, 1024  # of a block: its intermediate results stay in the cache

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def points(self, x: Array) -> dict[str, Array]:
        """What pairs need to know of every sample."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            found: dict[str, Array] = self._module.points(x)
        return found

    def diagonal(self, x: Array) -> dict[str, Array]:
        """The kernels at equal samples."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            found: dict[str, Array] = self._module.diagonal(x)
        return found

    def pairs(self, first: Sequence[Array], second: Sequence[Array], out: Mapping[str, Array]) -> None:
        """Compute in double precision the kernels of every row with every column; write them to the arrays of `out`.

        In single precision the angle of nearly equal samples would be rounding errors of its cosine.
        """
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for name, value in self._module.pairs(*_doubles(first), *_doubles(second)).items():
                out[name][...] = value

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Do the jobs in threads."""
        threads().run(list(jobs))

    def threads(self) -> int:
        """How many jobs run at a time."""
        return threads().count


class Call(ctypes.Structure):
    """tpc_pairs of generated C"""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("products", "left", "right", "numbers", "out", "strides")),
    ]


class NativeKernelCode(KernelCode):
    """The same with pairs in C: products of the data by BLAS, then one pass over them in double precision."""

    ROWS, COLUMNS = 256, 2048

    def __init__(self, module: ModuleType, library: ctypes.CDLL, made: NativeKernels) -> None:
        super().__init__(module)
        self._made = made
        self._functions = {}
        for real, dtype in (("float", np.float32), ("double", np.float64)):
            function = library[f"pairs_{real}"]
            function.argtypes, function.restype = [ctypes.c_void_p], None
            self._functions[np.dtype(dtype)] = function

    def pairs(self, first: Sequence[Array], second: Sequence[Array], out: Mapping[str, Array]) -> None:
        """Write the kernels of every row with every column into the arrays of `out`, whose rows are contiguous."""
        results = [out[name] for name in self._made.outputs]
        first, second = _doubles(first), _doubles(second)
        products = [np.ascontiguousarray(p) for p in self._module.products(*first, *second).values()]
        left = [np.ascontiguousarray(first[i]) for i in self._made.left]
        right = [np.ascontiguousarray(second[i]) for i in self._made.right]
        numbers = np.array([float(first[i]) for i in self._made.numbers])
        tables = [_addresses(arrays) for arrays in (products, left, right)]
        targets = _addresses(results)
        strides = (ctypes.c_int64 * len(results))(*(r.strides[0] // r.itemsize for r in results))
        call = Call(
            *results[0].shape,
            *map(addressof, tables),
            numbers.ctypes.data,
            addressof(targets),
            addressof(strides),
        )
        self._functions[results[0].dtype](addressof(call))


class StretchedKernelCode(KernelCode):
    """The same with sums in NumPy and the elementwise work between them in C."""

    def pairs(self, first: Sequence[Array], second: Sequence[Array], out: Mapping[str, Array]) -> None:
        """Compute in double precision the kernels of every row with every column; write them to the arrays of `out`."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for name, value in self._module.stretched(*_doubles(first), *_doubles(second)).items():
                out[name][...] = value


class StretchCall:
    """Calls the C function of a stretch."""

    def __init__(self, library: ctypes.CDLL, stretch: Stretch) -> None:
        self._function = library[stretch.name]
        self._function.argtypes, self._function.restype = [ctypes.c_void_p] * 3, None
        self._outer, self._count = stretch.outer, len(stretch.results)

    def __call__(self, shape: tuple[int, ...], given: Sequence[Array]) -> list[Array]:
        """The results, arrays of this shape."""
        lengths = (*shape[: self._outer], math.prod(shape[self._outer :]))
        made = [np.empty(shape) for _ in range(self._count)]
        arrays = [np.ascontiguousarray(a, np.float64) for a in given]
        sizes = (ctypes.c_int64 * len(lengths))(*lengths)
        tables = [_addresses(arrays), _addresses(made)]
        self._function(addressof(sizes), *map(addressof, tables))
        return made


def _doubles(arrays: Sequence[Array]) -> list[Array]:
    return [np.asarray(a, np.float64) for a in arrays]


def _addresses(arrays: Sequence[Array]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * max(1, len(arrays)))(*(a.ctypes.data for a in arrays))
