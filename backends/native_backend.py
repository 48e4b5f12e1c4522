"""The native backend: loops over atoms are generated C, compiled by the system's compiler; the rest is NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

from backends import native_build, native_powers, numpy_backend
from backends.kernel_code import KernelCode, NativeKernelCode
from backends.native_loops import Loop
from backends.numpy_backend import (
    array,
    available,
    inspect,
    new_atoms,
    new_moments,
    restore_atoms,
    restore_moments,
    stored_rows,
    to_numpy,
)
from tpc.lower.kernel_native import native_kernels
from tpc.lower.kernels import LoweredKernels
from tpc.lower.lowered import Lowered
from tpc.lower.native_module import NativePrinter, native_module

NAME = "native"
HALVES = True  # one pass over folded matrices, which are read faster than BLAS computes
DEVICE = False
DTYPES = ("float32",)
STORAGE = ("float32", "bfloat16", "float16")


def compile_module(lowered: Lowered) -> ModuleType:
    """The generated module of a limit, ready to call; NumPy's where nothing can be compiled."""
    made = native_module(lowered)
    try:
        library = native_build.load(made.c)
        loops: dict[str, Callable[..., object]] = {loop.name: Loop(library, loop) for loop in made.loops}
        if NativePrinter.half in made.python:
            native_powers.function()  # here, where there is something to fall back to
            loops["half"] = native_powers.half
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
    "inspect",
    "new_atoms",
    "new_moments",
    "restore_atoms",
    "restore_moments",
    "stored_rows",
    "to_numpy",
]
