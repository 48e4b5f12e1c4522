"""The array library that programs are evaluated with: NumPy, or that of a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from itertools import pairwise
from typing import Any, cast

import numpy as np
import scipy.special
from numpy.typing import NDArray

from tpc.errors import UsageError
from tpc.runtime.models.backend import load_backend

Array = Any  # of the library
SHARED = 1 << 19  # numbers of a matrix that threads share
BLOCK_ROWS = 128
ADDED = 1 << 24  # numbers of a product at a time, where it is added to a weight
NAMED = (
    *("sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "arctan", "sinh", "cosh", "tanh", "arctanh"),
    *("arcsinh", "power", "sign"),
)


@dataclass(frozen=True, eq=False)
class Library:
    """`xp` has NumPy's functions; `special` gives those that NumPy lacks, by name."""

    name: str
    xp: Any
    special: Callable[[str], Callable[..., Array]]
    to_numpy: Callable[[Array], NDArray[Any]]
    functions: Mapping[str, Callable[..., Any]] = field(init=False)

    def __post_init__(self) -> None:
        xp = self.xp
        known = {name: getattr(xp, name) for name in NAMED} | {"erf": self.special("erf")}
        kinked = {  # with the program's conventions at zero
            "relu": lambda x: xp.maximum(x, 0.0),
            "step": lambda x: (x > 0).astype(x.dtype),
            "absolute": xp.abs,
            "softplus": lambda x: xp.logaddexp(x, x.dtype.type(0)),
        }
        object.__setattr__(self, "functions", {name: _of_numbers(f) for name, f in (known | kinked).items()})

    def array(self, x: Any, dtype: Any) -> Array:
        """x in the memory of the library."""
        return self.xp.ascontiguousarray(self.xp.asarray(x, dtype=dtype))

    def product(self, a: Array, b: Array) -> Array:
        """a b, of two dimensions each."""
        return self.xp.matmul(a, b)

    def add_outer(self, to: Array, keep: float, factor: float, left: Array, right: Array) -> None:
        """to ← keep·to + factor·leftᵀ right, in place; left (k, m), right (k, n), to (m, n)."""
        scaled, rows = (factor * left).T, max(1, ADDED // right.shape[1])
        for start in range(0, len(to), rows):
            part = to[start : start + rows]
            part *= keep
            part += scaled[start : start + rows] @ right

    def alone(self) -> AbstractContextManager[None]:
        """What products are computed in."""
        return nullcontext()


@dataclass(frozen=True, eq=False)
class _NumPy(Library):
    """NumPy with the threads of its backend: each has its share of a large matrix, and one thread of BLAS."""

    workers: Any = None

    def product(self, a: Array, b: Array) -> Array:
        if b.size < SHARED or b.shape[1] < self.workers.count:
            return np.matmul(a, b)
        out = np.empty((len(a), b.shape[1]), np.result_type(a, b))

        def share(columns: slice) -> None:
            np.matmul(a, b[:, columns], out=out[:, columns])

        self.workers.run([partial(share, columns) for columns in self._shares(b.shape[1])])
        return out

    def add_outer(self, to: Array, keep: float, factor: float, left: Array, right: Array) -> None:
        scaled = (factor * left).T

        def share(rows: slice) -> None:
            for start in range(rows.start, rows.stop, BLOCK_ROWS):  # so that what is added stays in the cache
                block = slice(start, min(start + BLOCK_ROWS, rows.stop))
                part = to[block]
                if keep != 1:
                    part *= keep
                part += scaled[block] @ right

        shares = self._shares(len(to)) if to.size >= SHARED else [slice(0, len(to))]
        self.workers.run([partial(share, rows) for rows in shares])

    def _shares(self, count: int) -> list[slice]:
        bounds = [count * i // self.workers.count for i in range(self.workers.count + 1)]
        return [slice(a, b) for a, b in pairwise(bounds) if a < b]

    def alone(self) -> AbstractContextManager[None]:
        return cast(AbstractContextManager[None], self.workers.alone())


def _of_numbers(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, with a Python number for Python numbers: those leave the number type of an array as it is."""

    def run(*x: Any) -> Any:
        return float(f(*map(np.float64, x))) if all(isinstance(a, int | float) for a in x) else f(*x)

    return run


@cache
def library(backend: str = "numpy") -> Library:
    """The library of a backend. Raises UsageError for one without, UserError where it has no device."""
    if backend == "numpy":
        workers = import_module("backends.threads").threads()
        return _NumPy(backend, np, lambda name: getattr(scipy.special, name), np.asarray, workers=workers)
    device = getattr(load_backend(backend), "device", None)
    if device is None:
        raise UsageError(f"finite networks run on the backends numpy and cupy, got {backend!r}")
    return Library(
        backend, device.xp, lambda name: lambda x: device.special(name, x), lambda x: np.asarray(device.to_host(x))
    )
