"""Kernel limits on a device: `pairs` of the generated module as array operations there, everything else in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.device import Device
from backends.device_runtime import DeviceRuntime
from backends.device_tables import on_device
from backends.kernel_code import KernelCode
from backends.kernel_runtime import settled
from backends.numpy_runtime import SINGLE_TOLERANCE, exact_product

Array = NDArray[Any]


class DeviceKernelCode(KernelCode):
    """Blocks are computed on the device one after another, and copied to the arrays asked for."""

    ROWS, COLUMNS = 1024, 4096

    def __init__(self, module: ModuleType, pairs: ModuleType, device: Device) -> None:
        super().__init__(module)
        self._pairs, self._device = pairs, device

    def pairs(self, first: Sequence[Array], second: Sequence[Array], out: Mapping[str, Array]) -> None:
        """Write the kernels of every row with every column into the arrays of `out`."""
        there = [self._device.xp.asarray(a) for a in (*first, *second)]
        for name, value in self._pairs.pairs(*there).items():
            out[name][...] = self._device.to_host(value)

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Do the jobs one by one: a device has its own parallelism."""
        for job in jobs:
            job()

    def threads(self) -> int:
        return 1


class DeviceKernelRuntime(DeviceRuntime):
    """The `rt` of pairs: functions in the type of their arguments, and a gap that settles at |ρ| = 1."""

    def gap(self, p: Any, q: Any, c: Any, out: Any = None) -> Any:
        """√max(pq − c², 0), and 0 where that is what rounding errors leave of it."""
        xp, single = self._xp, c.dtype == np.float32
        p, q, c = (xp.asarray(x, dtype=np.float64) for x in (p, q, c))
        if single:  # products of floats are exact in doubles
            square = p * q - c * c
        else:
            (high, low), (most, rest) = exact_product(p, q), exact_product(c, c)
            square = (high - most) + (low - rest)
        dtype = np.dtype(np.float32 if single else np.float64)
        found = xp.sqrt(xp.maximum(square, 0))
        least = xp.sqrt(p) * xp.sqrt(q) * float(np.sqrt(settled(dtype)))
        return xp.where(found <= least, 0, found).astype(dtype)

    def step(self, x: Any, out: Any = None) -> Any:
        """1 where x > 0, else 0"""
        return (x > 0).astype(x.dtype)

    def dawson(self, x: Any, out: Any = None) -> Any:
        """On the host: no device library has it."""
        import scipy.special

        return self._xp.asarray(scipy.special.dawsn(self._device.to_host(x)), dtype=x.dtype)

    def tabulated(self, phi: str, psi: str) -> Callable[[Any, Any, Any], Any]:
        """V[phi, psi](p, q, c) for a pair without a closed form."""
        numeric, xp = self.numeric(phi, psi), self._xp
        tables = {
            np.dtype(np.float32): on_device(numeric.truncated(SINGLE_TOLERANCE), xp, self.angle, self._device.to_host),
            np.dtype(np.float64): on_device(numeric, xp, self.angle, self._device.to_host, np.float64),
        }

        def evaluate(p: Any, q: Any, c: Any) -> Any:
            p, q = (x.reshape((1,) * (c.ndim - x.ndim) + x.shape) for x in map(xp.asarray, (p, q)))
            return tables[c.dtype](p, q, c)

        return evaluate
