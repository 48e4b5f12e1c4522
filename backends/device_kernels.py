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
from backends.kernel_runtime import SETTLED

Array = NDArray[Any]


class DeviceKernelCode(KernelCode):
    """Blocks are computed on the device one after another, and copied to the arrays asked for."""

    ROWS, COLUMNS = 1024, 4096

    def __init__(self, module: ModuleType, pairs: ModuleType, device: Device) -> None:
        super().__init__(module)
        self._pairs, self._device = pairs, device

    def pairs(self, first: Sequence[Array], second: Sequence[Array], out: Mapping[str, Array]) -> None:
        """Compute in double precision the kernels of every row with every column; write them to the arrays of `out`."""
        there = [self._device.xp.asarray(a).astype(np.float64) for a in (*first, *second)]
        for name, value in self._pairs.pairs(*there).items():
            out[name][...] = self._device.to_host(value)

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Do the jobs one by one: a device has its own parallelism."""
        for job in jobs:
            job()

    def threads(self) -> int:
        return 1


class DeviceKernelRuntime(DeviceRuntime):
    """The `rt` of pairs: functions in double precision, and a gap that settles at |ρ| = 1."""

    def gap(self, p: Any, q: Any, c: Any, out: Any = None) -> Any:
        """√max(pq − c², 0), and 0 where that is what rounding errors leave of it."""
        xp = self._xp
        root, size = xp.sqrt(p) * xp.sqrt(q), xp.abs(c)
        below = root - size
        return xp.sqrt(xp.where(below <= (SETTLED / 2) * root, 0, below)) * xp.sqrt(root + size)

    def step(self, x: Any, out: Any = None) -> Any:
        """1 where x > 0, else 0"""
        return (x > 0).astype(x.dtype)

    def dawson(self, x: Any, out: Any = None) -> Any:
        """On the host: no device library has it."""
        import scipy.special

        return self._xp.asarray(scipy.special.dawsn(self._device.to_host(x)), dtype=x.dtype)

    def tabulated(self, phi: str, psi: str) -> Callable[[Any, Any, Any], Any]:
        """V[phi, psi](p, q, c) for a pair without a closed form."""
        xp = self._xp
        table = on_device(self.numeric(phi, psi), xp, self.angle, self._device.to_host, np.float64)

        def evaluate(p: Any, q: Any, c: Any) -> Any:
            p, q = (x.reshape((1,) * (c.ndim - x.ndim) + x.shape) for x in map(xp.asarray, (p, q)))
            return table(p, q, c)

        return evaluate
