"""The CuPy backend: a CUDA device trains the limit. CuPy is imported when the first array is made."""

from __future__ import annotations

from backends.cupy_device import find
from backends.device_backend import DeviceBackend

BACKEND = DeviceBackend("cupy", find)
