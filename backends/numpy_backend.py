"""The NumPy backend: generated modules run with numpy and backends/numpy_runtime.py."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import ModuleType
from typing import Any

import numpy as np

from backends import numpy_runtime
from backends.folded_atoms import Moments
from backends.host_footprint import HostFootprint
from backends.kernel_code import KernelCode
from backends.large import is_finite
from backends.lifted import parsed
from backends.numpy_runtime import Array, Atoms
from tpc.available import Available, available
from tpc.lower.footprint import Footprint
from tpc.lower.instructions import Lowered
from tpc.lower.kernel_module import kernel_module
from tpc.lower.kernels import LoweredKernels
from tpc.lower.lowered import STAGES
from tpc.lower.numpy_module import numpy_module
from tpc.lower.numpy_operations import OPERATIONS
from tpc.lower.protocol import Backend


class NumpyBackend:
    """The protocol of tpc/lower/protocol.py, in the memory of this machine."""

    NAME = "numpy"
    DTYPES: tuple[str, ...] = ("float32", "float64")
    STORAGE: tuple[str, ...] = ("float32", "float64", "bfloat16", "float16")  # 16 bits are converted block by block
    HALVES = False  # BLAS is faster on packed powers
    DEVICE = False
    stages = STAGES
    operations: Mapping[str, str] = OPERATIONS
    footprint: Footprint = HostFootprint()

    def compile_module(self, lowered: Lowered) -> ModuleType:
        """The generated module of a limit, ready to call."""
        return run_source(numpy_module(lowered), lowered.graph.name)

    def compile_kernels(self, lowered: LoweredKernels) -> KernelCode:
        """The generated functions of a kernel limit."""
        return KernelCode(run_source(kernel_module(lowered), lowered.graph.name))

    def array(self, x: Any, dtype: str) -> Array:
        """x as an array of this backend."""
        return np.ascontiguousarray(x, dtype=dtype)

    def to_numpy(self, x: Any) -> Array:
        return np.asarray(x)

    def inspect(self, numbers: Sequence[Any], arrays: Sequence[Any]) -> tuple[list[float], bool]:
        """Numbers as floats, and whether all of the arrays are finite."""
        return [float(n) for n in numbers], all(is_finite(a) for a in arrays)

    def available(self) -> Available | None:
        """Memory of this machine."""
        return available()

    def new_atoms(self, *given: Any, **named: Any) -> Atoms:
        """Empty stored atoms."""
        return Atoms(*given, **named)

    def restore_atoms(self, *given: Any, **named: Any) -> Atoms:
        """Stored atoms from what their `dump` gave."""
        return Atoms.restore(*given, **named)

    def new_moments(self, *given: Any, storage: str | None = None) -> Moments:
        """Empty folded tensors."""
        return Moments(*given, **self.folding(storage))

    def restore_moments(self, *given: Any, storage: str | None = None) -> Moments:
        """Folded tensors from what their `dump` gave."""
        return Moments.restore(*given, **self.folding(storage))

    def folding(self, storage: str | None) -> dict[str, Any]:
        """What folds atoms, and what contracts folded matrices with one latent."""
        return {}


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


BACKEND: Backend = NumpyBackend()
