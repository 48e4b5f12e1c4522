"""The NumPy backend: generated modules run with numpy and backends/numpy_runtime.py."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from functools import wraps
from types import ModuleType
from typing import Any

import numpy as np

from backends import numpy_runtime
from backends.kernel_code import KernelCode
from backends.large import is_finite
from backends.lifted import parsed
from backends.moments import Moments
from backends.numpy_runtime import Array, Atoms
from tpc.available import available
from tpc.lower.ir import Lowered
from tpc.lower.kernel_module import kernel_module
from tpc.lower.kernels import LoweredKernels
from tpc.lower.numpy_module import numpy_module

NAME = "numpy"
DTYPES = ("float32", "float64")
HALVES = False  # BLAS is faster on packed powers
DEVICE = False
STORAGE = ("float32", "float64", "bfloat16", "float16")  # 16 bits are converted block by block


def compile_module(lowered: Lowered) -> ModuleType:
    """The generated module of a limit, ready to call."""
    return run_source(numpy_module(lowered), lowered.graph.name)


def compile_kernels(lowered: LoweredKernels) -> KernelCode:
    """The generated functions of a kernel limit."""
    return KernelCode(run_source(kernel_module(lowered), lowered.graph.name))


def run_source(source: str, limit: str, one_thread: bool = True, **names: Any) -> ModuleType:
    """A module from generated source, which may use `names`; its functions leave BLAS one thread if so asked."""
    name = f"tpc_generated_{limit}"
    module = ModuleType(name)
    module.__dict__.update(names)
    file = f"<{name} {id(module)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # tracebacks show the source
    exec(compile(parsed(source, file), file, "exec"), module.__dict__)  # our own generated text
    for function in {"predict", "gradients", "norms", "update", "fold"} & module.__dict__.keys() if one_thread else ():
        setattr(module, function, _on_one_blas_thread(getattr(module, function)))
    return module


def _on_one_blas_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **data: Any) -> Any:
        with numpy_runtime.threads().alone():
            return function(*args, **data)

    return call


def array(x: Any, dtype: str) -> Array:
    """x as an array of this backend."""
    return np.ascontiguousarray(x, dtype=dtype)


def to_numpy(x: Any) -> Array:
    return np.asarray(x)


def inspect(numbers: Sequence[Any], arrays: Sequence[Any]) -> tuple[list[float], bool]:
    """Numbers as floats, and whether all of the arrays are finite."""
    return [float(n) for n in numbers], all(is_finite(a) for a in arrays)


def stored_rows(atoms: int, row_bytes: int, rows: int | None = None) -> int:
    """Memory of a segment is taken when its rows are written."""
    return atoms


def copied_bytes(storage: str | None, matrices: int, rank: int) -> int:
    """Folded matrices are read as they are."""
    return 0


new_atoms, restore_atoms = Atoms, Atoms.restore


def new_moments(*given: Any, storage: str | None = None) -> Moments:
    """Empty folded tensors."""
    return Moments(*given)


def restore_moments(*given: Any, storage: str | None = None) -> Moments:
    """Folded tensors from what their `dump` gave."""
    return Moments.restore(*given)


__all__ = [
    "DEVICE",
    "DTYPES",
    "HALVES",
    "NAME",
    "STORAGE",
    "array",
    "available",
    "compile_kernels",
    "compile_module",
    "copied_bytes",
    "inspect",
    "new_atoms",
    "new_moments",
    "numpy_runtime",
    "restore_atoms",
    "restore_moments",
    "stored_rows",
    "to_numpy",
]
