"""The CuPy backend: a CUDA device trains the limit. CuPy is imported when the first array is made."""

from __future__ import annotations

from typing import Any

from backends.cupy_device import find
from backends.device_backend import DeviceBackend

_BACKEND = DeviceBackend("cupy", find)

NAME, DTYPES, STORAGE = _BACKEND.NAME, _BACKEND.DTYPES, _BACKEND.STORAGE
HALVES, DEVICE = _BACKEND.HALVES, _BACKEND.DEVICE
compile_module, compile_kernels, array, to_numpy, inspect = (
    _BACKEND.compile_module, _BACKEND.compile_kernels, _BACKEND.array, _BACKEND.to_numpy, _BACKEND.inspect,
)  # fmt: skip
available, stored_rows, copied_bytes = _BACKEND.available, _BACKEND.stored_rows, _BACKEND.copied_bytes


def __getattr__(name: str) -> Any:
    """Stores and what else needs the device itself."""
    if name in ("new_atoms", "restore_atoms", "new_moments", "restore_moments", "device"):
        return getattr(_BACKEND, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
