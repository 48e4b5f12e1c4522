"""A CUDA device through CuPy. Only here is CuPy imported, and only when a device is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.device import Device, Kernel, Memory
from tpc.errors import UserError

Array = NDArray[Any]

OPTIONS = ("-std=c++17",)
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 2, np.dtype(np.uint16): 14}  # cudaDataType
DEFAULT_CACHE = 1 << 25  # where the device does not say how large its own is
INSTALL = "python -m pip install 'tpc[cuda]'"
ELSEWHERE = "or choose --backend native, which needs none"


def find() -> CupyDevice:
    """The current CUDA device. Raises UserError, with what to do, where CuPy or a device is missing."""
    try:
        cupy = import_module("cupy")
    except ImportError as e:
        raise UserError(
            f"--backend cupy needs CuPy, which cannot be imported ({_first_line(e)}). Install it ({INSTALL}), "
            f"{ELSEWHERE}."
        ) from e
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
        reason = "CuPy sees none"
    except cupy.cuda.runtime.CUDARuntimeError as e:
        count, reason = 0, _first_line(e)
    if count == 0:
        raise UserError(
            f"--backend cupy needs a CUDA device, and none was found ({reason}). Run on a machine with an NVIDIA GPU "
            f"and its driver (nvidia-smi lists them), {ELSEWHERE}."
        )
    libraries = import_module("cupy_backends.cuda.libs")  # which finds a library when it is first asked for
    try:
        cublas = libraries.cublas
        libraries.nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as e:
        raise UserError(
            f"--backend cupy needs cuBLAS and NVRTC, which CuPy does not find ({_first_line(e)}). Install CUDA 12 or "
            f"its libraries ({INSTALL}), {ELSEWHERE}."
        ) from e
    return CupyDevice(cupy, cublas)


class CupyDevice(Device):
    """The device that is current when it is made."""

    def __init__(self, cupy: Any, cublas: Any) -> None:
        self.xp = cupy
        self._cublas = cublas
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        name = properties.get("name", b"CUDA device")
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.cache_bytes = int(properties.get("l2CacheSize") or DEFAULT_CACHE) // 2
        self._numbers = np.array([0, 1], np.float32)  # which cuBLAS reads by their addresses
        self._zero, self._one = (self._numbers.ctypes.data + at for at in (0, 4))

    def build(self, source: str) -> Callable[[str], Kernel]:
        module = self.xp.RawModule(code=source, options=OPTIONS, backend="nvrtc")

        def kernel(name: str) -> Kernel:
            function = module.get_function(name)

            def run(blocks: int, threads: int, arguments: tuple[Any, ...]) -> None:
                typed = tuple(np.int64(a) if isinstance(a, int) else a for a in arguments)
                function((blocks,), (threads,), typed)

            return run

        return kernel

    def gemm(self, a: Any, b: Any, out: Any, *, ta: bool = False, tb: bool = False, add: bool = False) -> None:
        """cuBLAS counts columns first, so outᵀ = bᵀ aᵀ; nothing is rounded to TF32."""
        blas = self._cublas
        rows, columns = out.shape
        inner = a.shape[0] if ta else a.shape[1]
        if not out.size:
            return
        if not inner:
            if not add:
                out[...] = 0
            return
        kind = TYPES[a.dtype]
        blas.gemmEx(
            self.xp.cuda.device.get_cublas_handle(),
            blas.CUBLAS_OP_T if tb else blas.CUBLAS_OP_N, blas.CUBLAS_OP_T if ta else blas.CUBLAS_OP_N,
            columns, rows, inner, self._one, b.data.ptr, kind, b.shape[1], a.data.ptr, kind, a.shape[1],
            self._one if add else self._zero, out.data.ptr, TYPES[out.dtype], columns,
            blas.CUBLAS_COMPUTE_32F, blas.CUBLAS_GEMM_DEFAULT,
        )  # fmt: skip

    def special(self, name: str, x: Any) -> Any:
        return getattr(import_module("cupyx.scipy.special"), name)(x)

    def to_host(self, x: Any) -> Array:
        return np.asarray(self.xp.asnumpy(x))

    def synchronize(self) -> None:
        self.xp.cuda.runtime.deviceSynchronize()

    def versions(self) -> str:
        runtime = self.xp.cuda.runtime
        numbers = f"CUDA runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}"
        return f"CuPy {self.xp.__version__}, {numbers}"

    def memory(self) -> Memory:
        free, total = self.xp.cuda.runtime.memGetInfo()
        return Memory(int(free) + int(self.xp.get_default_memory_pool().free_bytes()), int(total))


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
