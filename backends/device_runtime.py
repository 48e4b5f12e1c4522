"""What generated device code calls besides its kernels: updates, functions of whole arrays, blocks of array operations.

Blocks are for loops without a rule (tpc/lower/native_loop.py): they run on the device, one array operation at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backends.atoms import Atoms
from backends.blocks import KEEP_SHARE
from backends.device import Device
from backends.device_powers import powers
from backends.device_tables import on_device
from backends.numpy_runtime import SINGLE_TOLERANCE
from tpc.gaussian.numeric import NumericKernel

TOTAL_WIDTH = 4096  # numbers that one block of threads adds up
BLOCK_ELEMENTS = 1 << 22  # batch × atoms of one block


class DeviceRuntime:
    """The `rt` of generated code. Functions return new arrays; `out` is a hint that NumPy code gives."""

    def __init__(self, device: Device) -> None:
        self._device, self._xp = device, device.xp
        made = powers(device)
        self.power, self.slope = made.power, made.slope
        self.product, self.opened = made.product, made.opened

    # --- updates -------------------------------------------------------------------------------------------------

    def accumulate(
        self, state: dict[str, Any], name: str, gradient: Any, rate: float, clip: float, keep: float, momentum: float
    ) -> None:
        """m ← μ m + clip·∇;  W ← keep·W - rate·m, in place."""
        w = state[name]
        m: Any = 0
        if momentum or f"{name}.velocity" in state:
            m = state.setdefault(f"{name}.velocity", self._xp.zeros_like(w))
        numbers = (np.float32(v) for v in (rate, clip, keep, momentum))
        self._device.each("tpc_accumulate", w.size, w, m, self._device.contiguous(gradient), *numbers)

    # --- functions -----------------------------------------------------------------------------------------------

    def rsqrt(self, x: Any, out: Any = None) -> Any:
        """1/√x where x > 0, else 0"""
        x = self._xp.asarray(x)
        positive = x > 0
        return self._xp.where(positive, 1 / self._xp.sqrt(self._xp.where(positive, x, 1)), 0).astype(x.dtype)

    def gap(self, p: Any, q: Any, c: Any, out: Any = None) -> Any:
        """√max(pq − c², 0) from exact products."""
        xp = self._xp
        p, q, c = (xp.asarray(x, dtype=np.float64) for x in (p, q, c))
        return xp.sqrt(xp.maximum(p * q - c * c, 0)).astype(np.float32)

    def inverse(self, x: Any, out: Any = None) -> Any:
        """1/x where x > 0, else 0"""
        x = self._xp.asarray(x)
        positive = x > 0
        return self._xp.where(positive, 1 / self._xp.where(positive, x, 1), 0).astype(x.dtype)

    def root_sum(self, x: Any, y: Any, out: Any = None) -> Any:
        """√(x + y²) for x, y ≥ 0 without overflow on the way"""
        unit = self._xp.maximum(y, 1)
        return unit * self._xp.sqrt(x / unit / unit + self._xp.square(y / unit))

    def step(self, x: Any, out: Any = None) -> Any:
        """1 where x > 0, else 0"""
        return (self._xp.asarray(x) > 0).astype(np.float32)

    def relu(self, x: Any, out: Any = None) -> Any:
        return self._xp.maximum(x, 0)

    def clip1(self, x: Any, out: Any = None) -> Any:
        """x clipped to [-1, 1]"""
        return self._xp.clip(x, -1, 1)

    def softplus(self, x: Any, out: Any = None) -> Any:
        """log(1 + e^x)"""
        return self._xp.logaddexp(x, self._xp.zeros_like(x))

    # --- sums outside loops --------------------------------------------------------------------------------------

    def row_sums(self, kept: int, a: Any, b: Any = None) -> Any:
        """Σ a·b over all axes but the first `kept`."""
        shape = a.shape[:kept]
        out = self._xp.empty(shape, np.float32)
        a, b = self._factors(a, b)
        if out.size:
            width = a.size // out.size
            self._device.kernels("tpc_row_sums")(out.size, 128, (a.size, width, a, b, out))
        return out

    def column_sums(self, summed: int, a: Any, b: Any = None) -> Any:
        """Σ a·b over the first `summed` axes."""
        out = self._xp.empty(a.shape[summed:], np.float32)
        a, b = self._factors(a, b)
        self._device.each("tpc_column_sums", out.size, a.size // max(1, out.size), a, b, out)
        return out

    def total(self, a: Any, b: Any = None) -> Any:
        """Σ a·b over all axes, in two rounds where there are many numbers."""
        a, b = self._factors(a, b)
        while True:
            out = self._xp.empty(-(-a.size // TOTAL_WIDTH) or 1, np.float32)
            self._device.kernels("tpc_row_sums")(out.size, 128, (a.size, TOTAL_WIDTH, a, b, out))
            if out.size == 1:
                return out.reshape(())
            a, b = out, 0

    def _factors(self, a: Any, b: Any) -> tuple[Any, Any]:
        return self._device.contiguous(a), 0 if b is None else self._device.contiguous(b)

    def matmul(self, a: Any, b: Any, ta: bool = False, tb: bool = False) -> Any:
        """The product of two matrices, transposed if so asked, or of a matrix and a vector."""
        a, b = self._factors(a, b)
        left, right = a.shape[-1 if ta else 0], b.shape[0 if tb else -1]
        shape = (*([left] if a.ndim == 2 else []), *([right] if b.ndim == 2 else []))
        a, b = a.reshape(1, -1) if a.ndim == 1 else a, b.reshape(-1, 1) if b.ndim == 1 else b
        out = self._xp.empty((a.shape[1 if ta else 0], b.shape[0 if tb else 1]), np.float32)
        self._device.gemm(a, b, out, ta=ta, tb=tb)
        return out.reshape(shape)

    def logsumexp(self, x: Any, axis: int) -> Any:
        if x.ndim == 2 and axis == 1:
            out = self._xp.empty(len(x), np.float32)
            self._device.each("tpc_logsumexp", len(x), x.shape[1], self._device.contiguous(x), out)
            return out
        top = x.max(axis=axis, keepdims=True)
        return self._xp.log(self._xp.exp(x - top).sum(axis=axis)) + top.squeeze(axis)

    def erf(self, x: Any, out: Any = None) -> Any:
        return self._device.special("erf", x)

    def erfc(self, x: Any, out: Any = None) -> Any:
        return self._device.special("erfc", x)

    def erfcx(self, x: Any, out: Any = None) -> Any:
        return self._device.special("erfcx", x)

    def dawson(self, x: Any, out: Any = None) -> Any:
        """On the host: no device library has it."""
        import scipy.special

        return self._xp.asarray(scipy.special.dawsn(self._device.to_host(x)), dtype=np.float32)

    def tabulated(self, phi: str, psi: str) -> Callable[[Any, Any, Any], Any]:
        """V[phi, psi](p, q, c) for a pair without a closed form."""
        return on_device(self.numeric(phi, psi).truncated(SINGLE_TOLERANCE), self._xp, self.angle, self._device.to_host)

    def numeric(self, phi: str, psi: str) -> NumericKernel:
        """The table of a pair without a closed form."""
        from tpc.gaussian import kernel
        from tpc.program.expression import parse_nonlinearity

        found = kernel(parse_nonlinearity(phi), parse_nonlinearity(psi)).numeric
        if found is None:
            raise ValueError(f"V[{phi}, {psi}] has a closed form and no table")
        return found

    def angle(self, p: Any, q: Any, c: Any) -> Any:
        """Between vectors of squared lengths p and q with the inner product c."""
        return self._xp.arctan2(self.gap(p, q, c), c + c.dtype.type(0))

    # --- loops ---------------------------------------------------------------------------------------------------

    def over_blocks(
        self,
        block: Callable[..., tuple[Any, ...]],
        atoms: Atoms,
        columns: tuple[str, ...],
        batch: int,
        keep: int = 0,
        kept: tuple[list[Any] | None, ...] = (),
    ) -> tuple[Any, ...]:
        """Σ over blocks of block(*columns of the block); `keep` and `kept` as in backends/blocks.py."""
        size = max(256, BLOCK_ELEMENTS // max(1, batch))
        parts = atoms.stored_blocks(columns, size)
        if not parts:
            shapes = [(0, *atoms.widths[c]) if c != "scale" else (0,) for c in columns]
            empty = (self._xp.empty(shape, atoms.dtype) for shape in shapes)
            return (*block(*empty, *(None for _ in kept))[: -keep or None], *(None for _ in range(keep)))
        hold = keep and keep * batch * len(atoms) * atoms.dtype.itemsize <= KEEP_SHARE * atoms.nbytes
        totals: list[Any] = []
        lists: list[list[Any]] = [[] for _ in range(keep)]
        for i, part in enumerate(parts):
            results = block(*atoms.typed(part), *(None if k is None else k[i] for k in kept))
            sums = results[: len(results) - keep]
            totals = [t + s for t, s in zip(totals, sums)] if totals else list(sums)
            if hold:
                for collected, value in zip(lists, results[len(sums) :]):
                    collected.append(value)
        return (*totals, *(lists if hold else [None] * keep))
