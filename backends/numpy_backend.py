"""The NumPy backend: generated modules run with numpy and backends/numpy_runtime.py."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

import numpy as np

from backends import numpy_runtime
from backends.numpy_runtime import Array, Atoms
from tpc.lower.lowered import Lowered
from tpc.lower.numpy_module import numpy_module

NAME = "numpy"
DTYPES = ("float32", "float64")


def compile_module(lowered: Lowered) -> ModuleType:
    """The generated module of a limit, ready to call."""
    source = numpy_module(lowered)
    name = f"tpc_generated_{lowered.graph.name}"
    module = ModuleType(name)
    file = f"<{name} {id(module)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # tracebacks show the source
    exec(compile(source, file, "exec"), module.__dict__)  # our own generated text
    for function in ("predict", "gradients", "norms"):
        setattr(module, function, _on_one_blas_thread(getattr(module, function)))
    return module


def _on_one_blas_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any) -> Any:
        with numpy_runtime.threads().alone():
            return function(*args)

    return call


def array(x: Any, dtype: str) -> Array:
    """x as an array of this backend."""
    return np.ascontiguousarray(x, dtype=dtype)


def to_numpy(x: Any) -> Array:
    return np.asarray(x)


def new_atoms(widths: dict[str, tuple[int, ...]], dtype: str, momentum: bool) -> Atoms:
    return Atoms(widths, dtype, momentum)


def restore_atoms(read: Callable[[str], Array | None], widths: dict[str, tuple[int, ...]], dtype: str) -> Atoms:
    return Atoms.restore(read, widths, dtype)


__all__ = ["DTYPES", "NAME", "array", "compile_module", "new_atoms", "numpy_runtime", "restore_atoms", "to_numpy"]
