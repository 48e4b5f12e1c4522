"""The native backend: loops over atoms are generated C, compiled by the system's compiler; the rest is NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

from backends import native_build, native_dense, native_powers, native_products
from backends.kernel_code import KernelCode, NativeKernelCode, StretchCall, StretchedKernelCode
from backends.native_footprint import ROUNDED, NativeFootprint
from backends.native_loops import LoopCall
from backends.numpy_backend import NumpyBackend, run_source
from tpc.limits.power import Half
from tpc.lower.c_elementwise import OPERATIONS
from tpc.lower.footprint import Footprint
from tpc.lower.instructions import Lowered
from tpc.lower.kernel_native import native_kernels
from tpc.lower.kernel_stretches import stretched_kernels
from tpc.lower.kernels import LoweredKernels
from tpc.lower.native_module import native_module
from tpc.lower.protocol import Backend


class NativeBackend(NumpyBackend):
    """NumPy's, with generated C for what takes the time."""

    NAME = "native"
    DTYPES: tuple[str, ...] = ("float32",)
    STORAGE: tuple[str, ...] = ("float32", "bfloat16", "float16")
    HALVES = True  # one pass over folded matrices, which are read faster than BLAS computes
    operations: Mapping[str, str] = OPERATIONS
    footprint: Footprint = NativeFootprint()

    def compile_module(self, lowered: Lowered) -> ModuleType:
        """The generated module of a limit, ready to call; NumPy's where nothing can be compiled."""
        made = native_module(lowered)
        try:
            library = native_build.load(made.compiled)
            loops: dict[str, Callable[..., object]] = {
                loop.name: LoopCall(library, loop, made.symbols[loop.name]) for loop in made.loops
            }
            native_dense.functions()  # here, where there is someone to tell
            if any(isinstance(s, Half) for f in lowered.functions for s in f.steps):
                native_powers.function()
        except native_build.NoCompilerError as e:
            _warn(str(e))
            return super().compile_module(lowered)
        return run_source(made.python, lowered.graph.name, native=loops)

    def compile_kernels(self, lowered: LoweredKernels) -> KernelCode:
        """The generated functions of a kernel limit; NumPy's where C has no rule or nothing can be compiled."""
        name = lowered.graph.name
        made = native_kernels(lowered)
        parts = stretched_kernels(lowered) if made is None else None
        try:
            if made is not None:
                return NativeKernelCode(run_source(made.python, name), native_build.load(made.c), made)
            if parts is not None:
                library = native_build.load(parts.c)
                calls = {s.name: StretchCall(library, s) for s in parts.stretches}
                return StretchedKernelCode(run_source(parts.python, name, native=calls))
        except native_build.NoCompilerError as e:
            _warn(str(e))
        return super().compile_kernels(lowered)

    def folding(self, storage: str | None) -> dict[str, Any]:
        """In C; for atoms stored as bfloat16 products are of bfloat16 where the processor can."""
        if storage != ROUNDED:
            return {"arrays": native_powers.NativeArrays(), "halves": native_powers.halves}
        rounded = native_products.RoundedArrays()
        return {"arrays": rounded, "halves": rounded.halves}


@lru_cache(maxsize=1)
def _warn(reason: str) -> None:
    """One line, once."""
    print(f"warning: {reason}: the native backend runs NumPy code instead", file=sys.stderr)


BACKEND: Backend = NativeBackend()
