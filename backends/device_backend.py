"""A backend for a device: generated kernels and matrix products on it, driven by generated Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.atoms import Atoms
from backends.device import THREADS, Device
from backends.device_arrays import DeviceArrays
from backends.device_footprint import DeviceFootprint
from backends.device_groups import ElementwiseKernel
from backends.device_kernels import DeviceKernelCode, DeviceKernelRuntime
from backends.device_loops import LoopCall
from backends.device_runtime import DeviceRuntime
from backends.folded_atoms import Moments
from backends.numpy_backend import run_source
from tpc.available import Available
from tpc.lower.c_elementwise import OPERATIONS
from tpc.lower.cuda_module import cuda_module
from tpc.lower.footprint import Footprint
from tpc.lower.instructions import Lowered
from tpc.lower.kernel_module import kernel_module, pairs_module
from tpc.lower.kernels import LoweredKernels
from tpc.lower.lowered import STAGES

Array = NDArray[Any]

CHECK_BLOCKS = 512  # of a kernel that looks for numbers that are not finite
TOGETHER = 8  # arrays or numbers that one kernel looks at


class DeviceBackend:
    """The protocol of tpc/lower/protocol.py; the device is looked for when it is first needed."""

    DTYPES = ("float32",)
    STORAGE = ("float32", "bfloat16", "float16")
    HALVES = False  # matrix products of packed powers
    DEVICE = True
    stages = STAGES
    operations: Mapping[str, str] = OPERATIONS

    def __init__(self, name: str, find: Callable[[], Device]) -> None:
        self.NAME = name
        self._find = find
        self.footprint: Footprint = DeviceFootprint(lambda: self.device, lambda: self._arrays)

    @cached_property
    def device(self) -> Device:
        """Raises UserError where there is none."""
        return self._find()

    @cached_property
    def _arrays(self) -> DeviceArrays:
        return DeviceArrays(self.device)

    @cached_property
    def _runtime(self) -> DeviceRuntime:
        return DeviceRuntime(self.device)

    def compile_module(self, lowered: Lowered) -> ModuleType:
        """The generated module of a limit, ready to call."""
        made = cuda_module(lowered)
        kernel = self.device.build(made.cuda)
        calls: dict[str, Any] = {loop.name: LoopCall(self.device, kernel(loop.name), loop) for loop in made.loops}
        calls |= {g.name: ElementwiseKernel(self.device, kernel(g.name), g) for g in made.groups}
        names = {"native": calls, "np": self.device.xp, "rt": self._runtime}
        return run_source(made.python, lowered.graph.name, False, **names)

    def compile_kernels(self, lowered: LoweredKernels) -> DeviceKernelCode:
        """The generated functions of a kernel limit: NumPy's, with `pairs` on the device."""
        name, names = lowered.graph.name, {"np": self.device.xp, "rt": DeviceKernelRuntime(self.device)}
        pairs = run_source(pairs_module(lowered), name, False, **names)
        return DeviceKernelCode(run_source(kernel_module(lowered), name, False), pairs, self.device)

    def array(self, x: Any, dtype: str) -> Any:
        """x on the device."""
        return self.device.xp.asarray(np.ascontiguousarray(x, dtype=dtype))

    def to_numpy(self, x: Any) -> Array:
        return self.device.to_host(x)

    def inspect(self, numbers: Sequence[Any], arrays: Sequence[Any]) -> tuple[list[float], bool]:
        """All with one copy from the device."""
        device = self.device
        found = device.xp.zeros(len(numbers) + 1, np.float32)
        checked = [device.contiguous(x) for x in arrays if x.size]
        for start in range(0, len(checked), TOGETHER):
            part = checked[start : start + TOGETHER]
            rest, sizes = [0] * (TOGETHER - len(part)), [x.size for x in part]
            blocks = min(-(-max(sizes) // THREADS), CHECK_BLOCKS)
            device.kernels("tpc_check")(blocks, THREADS, (*sizes, *rest, *part, *rest, found))
        there = [(k, x) for k, x in enumerate(numbers) if hasattr(x, "ndim") and not isinstance(x, np.generic)]
        for start in range(0, len(there), TOGETHER):
            picked = there[start : start + TOGETHER]
            rest, places = [0] * (TOGETHER - len(picked)), [k + 1 for k, _ in picked]
            values = [device.contiguous(x) for _, x in picked]
            device.kernels("tpc_pick")(1, TOGETHER, (len(picked), found, *places, *rest, *values, *rest))
        flag, *read = device.to_host(found).tolist()
        known = dict(there)
        return [read[k] if k in known else float(x) for k, x in enumerate(numbers)], flag == 0

    def available(self) -> Available:
        """Memory of the device."""
        return Available(self.device.memory().free, f"free memory of {self.device.name}")

    @property
    def new_atoms(self) -> Callable[..., Atoms]:
        return partial(Atoms, arrays=self._arrays)

    @property
    def restore_atoms(self) -> Callable[..., Atoms]:
        return partial(Atoms.restore, arrays=self._arrays)

    def new_moments(self, *given: Any, storage: str | None = None) -> Moments:
        """Empty folded tensors."""
        make: Callable[..., Moments] = Moments
        return make(*given, arrays=self._arrays)

    def restore_moments(self, *given: Any, storage: str | None = None) -> Moments:
        """Folded tensors from what their `dump` gave."""
        restore: Callable[..., Moments] = Moments.restore
        return restore(*given, arrays=self._arrays)
