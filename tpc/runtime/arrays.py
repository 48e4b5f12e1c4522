"""The array library that programs are evaluated with: NumPy, or that of a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray
from scipy.linalg import get_blas_funcs

from tpc.errors import UsageError
from tpc.runtime.backend import load_backend

Array = Any  # of the library
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

    def add_outer(self, to: Array, keep: float, factor: float, left: Array, right: Array) -> None:
        """to ← keep·to + factor·leftᵀ right, in place; left (k, m), right (k, n), to (m, n), contiguous."""
        if self.xp is np:
            # BLAS counts columns first: toᵀ ← keep·toᵀ + factor·rightᵀ left
            gemm = get_blas_funcs("gemm", dtype=to.dtype)
            gemm(factor, right.T, left.T, beta=keep, c=to.T, trans_b=True, overwrite_c=True)
            return
        to *= keep
        to += (factor * left).T @ right


def _of_numbers(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, with a Python number for Python numbers: those leave the number type of an array as it is."""

    def run(*x: Any) -> Any:
        return float(f(*map(np.float64, x))) if all(isinstance(a, int | float) for a in x) else f(*x)

    return run


@cache
def library(backend: str = "numpy") -> Library:
    """The library of a backend. Raises UsageError for one without, UserError where it has no device."""
    if backend == "numpy":
        return Library(backend, np, lambda name: getattr(scipy.special, name), np.asarray)
    device = getattr(load_backend(backend), "device", None)
    if device is None:
        raise UsageError(f"finite networks run on the backends numpy and cupy, got {backend!r}")
    return Library(
        backend, device.xp, lambda name: lambda x: device.special(name, x), lambda x: np.asarray(device.to_host(x))
    )
