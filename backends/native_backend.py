"""The native backend: loops over atoms are generated C, compiled by the system's compiler; the rest is NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

from backends import native_build, native_dense, native_powers, native_products, numpy_backend
from backends.kernel_code import KernelCode, NativeKernelCode
from backends.moments import Moments
from backends.native_loops import Loop
from backends.numpy_backend import (
    array,
    available,
    inspect,
    new_atoms,
    restore_atoms,
    stored_rows,
    to_numpy,
)
from tpc.lower.ir import Lowered
from tpc.lower.kernel_native import native_kernels
from tpc.lower.kernels import LoweredKernels
from tpc.lower.native_module import native_module

NAME = "native"
HALVES = True  # one pass over folded matrices, which are read faster than BLAS computes
DEVICE = False
DTYPES = ("float32",)
STORAGE = ("float32", "bfloat16", "float16")
ROUNDED = "bfloat16"  # the storage with which products are rounded, too


def compile_module(lowered: Lowered) -> ModuleType:
    """The generated module of a limit, ready to call; NumPy's where nothing can be compiled."""
    made = native_module(lowered)
    try:
        library = native_build.load(made.compiled)
        loops: dict[str, Callable[..., object]] = {
            loop.name: Loop(library, loop, made.symbols[loop.name]) for loop in made.loops
        }
        native_dense.functions()  # here, where there is someone to tell
        if ".half(" in made.python or ".halves(" in made.python:
            native_powers.function()
    except native_build.NoCompilerError as e:
        _warn(str(e))
        return numpy_backend.compile_module(lowered)
    return numpy_backend.run_source(made.python, lowered.graph.name, native=loops)


def compile_kernels(lowered: LoweredKernels) -> KernelCode:
    """The generated functions of a kernel limit; NumPy's where C has no rule for them or nothing can be compiled."""
    made = native_kernels(lowered)
    if made is not None:
        try:
            library = native_build.load(made.c)
            return NativeKernelCode(numpy_backend.run_source(made.python, lowered.graph.name), library, made)
        except native_build.NoCompilerError as e:
            _warn(str(e))
    return numpy_backend.compile_kernels(lowered)


def copied_bytes(storage: str | None, matrices: int, rank: int) -> int:
    """Matrices rounded to bfloat16, packed for a few samples."""
    return native_products.packed_bytes(matrices, rank) if storage == ROUNDED else 0


def new_moments(*given: Any, storage: str | None = None) -> Moments:
    """Empty folded tensors; for atoms stored as bfloat16 they are multiplied in bfloat16 where the processor can."""
    return Moments(*given, **_arithmetic(storage))


def restore_moments(*given: Any, storage: str | None = None) -> Moments:
    """Folded tensors from what their `dump` gave."""
    return Moments.restore(*given, **_arithmetic(storage))


def _arithmetic(storage: str | None) -> dict[str, Any]:
    """What folds atoms, and what contracts folded matrices with one latent."""
    if storage != ROUNDED:
        return {"arrays": native_powers.NativeArrays(), "halves": native_powers.halves}
    rounded = native_products.RoundedArrays()
    return {"arrays": rounded, "halves": rounded.halves}


@lru_cache(maxsize=1)
def _warn(reason: str) -> None:
    """One line, once."""
    print(f"warning: {reason}: the native backend runs NumPy code instead", file=sys.stderr)


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
    "restore_atoms",
    "restore_moments",
    "stored_rows",
    "to_numpy",
]
