"""Runs one loop over stored atoms natively.

The fused products and sums run at the speed of the multipliers from their caches, for one sample as for a thousand, so
BLAS with the elementwise function in between is not faster for any batch.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import addressof
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import native_workers
from backends.atoms import Atoms
from backends.blocks import KEEP_SHARE
from backends.threads import ranges, threads
from tpc.lower.native_loop import NativeLoop, Sum

Array = NDArray[Any]

BLOCK_BYTES = 1 << 17  # of one column in a block: two such columns and their products stay in a core's own cache
BLOCK_ELEMENTS = 1 << 15  # rows × samples of a block
FUSED_BATCH = 32  # up to which a loop keeps every product for later ones; beyond, KEEP_SHARE of the atoms' memory
THREAD_WORK = 1 << 21  # products of numbers that are worth waking a thread
LANES = 8
KINDS = {np.dtype(np.float32): 0, np.dtype(np.uint16): 1, np.dtype(np.float16): 2, np.dtype(np.float64): 3}


class Call(ctypes.Structure):
    """tpc_call of native_kernels.h"""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("begin", "end", "segment_rows", "block_rows", "batch")),
        *((name, ctypes.c_void_p) for name in ("columns", "kinds", "widths", "captured", "captured_widths")),
        *((name, ctypes.c_void_p) for name in ("kept", "sums")),
    ]


class LoopCall:
    """A loop of a loaded library, there under the name `symbol` if not its own."""

    def __init__(self, library: ctypes.CDLL, loop: NativeLoop, symbol: str = "") -> None:
        self._loop = loop
        self._fused = native_workers.address(library[symbol or loop.name])
        self._rooms = threading.local()
        self._plans: dict[Any, _Plan] = {}
        self._latents = {p.captured for p in loop.products}

    def __call__(self, atoms: Atoms, captured: tuple[Any, ...], *given: Any) -> tuple[Any, ...]:
        """The sums of the loop, then the products it keeps for later ones; `given` are those of earlier loops."""
        arrays = [np.ascontiguousarray(c, dtype=np.float32) for c in captured]
        batch = max((len(a) for i, a in enumerate(arrays) if a.ndim > (i in self._latents)), default=1)
        for i in self._latents:
            if i is not None and arrays[i].ndim == 1:  # one latent for all samples
                arrays[i] = np.ascontiguousarray(np.broadcast_to(arrays[i], (batch, len(arrays[i]))))
        key = (atoms.storage, tuple(atoms.widths.items()), batch, tuple(a.shape for a in arrays))
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = _Plan(self._loop, atoms, arrays, batch)
        count = len(atoms)
        kept = self._kept(atoms, batch, plan.lanes, given)
        workers = min(threads().count, max(1, count * plan.work // THREAD_WORK))
        sums = np.zeros((workers, plan.size), np.float32)
        if count and batch:
            self._run(plan, atoms, arrays, kept, sums)
        total = sums[0]
        for share in sums[1:]:  # always in this order
            total += share
        parts = [_lanes_of(total[a:b].reshape(shape), s) for (a, b, shape), s in zip(plan.parts, self._loop.sums)]
        return (*parts, *(kept[i] for i in self._loop.kept))

    def _kept(self, atoms: Atoms, batch: int, lanes: int, given: tuple[Array | None, ...]) -> dict[int, Array | None]:
        """Products of earlier loops and for later ones; None for those that would take too much memory."""
        found = dict(zip(sorted(self._loop.given), given))
        sizes = {i: len(atoms) * (lanes if self._loop.by_lane(self._loop.products[i]) else 1) for i in self._loop.kept}
        hold = batch <= FUSED_BATCH or 4 * sum(sizes.values()) <= KEEP_SHARE * atoms.nbytes
        return found | {i: self._room(i, size) if hold else None for i, size in sizes.items()}

    def _room(self, product: int, numbers: int) -> Array:
        """Memory for a kept product; a thread's next call writes to the same, which spares it the page faults."""
        rooms = self._rooms.__dict__
        name = str(product)
        if name not in rooms or len(rooms[name]) < numbers:
            rooms[name] = np.empty(numbers + numbers // 4, np.float32)
        room: Array = rooms[name][:numbers]
        return room

    def _run(self, plan: _Plan, atoms: Atoms, arrays: list[Array], kept: dict[int, Array | None], sums: Array) -> None:
        """Threads take contiguous ranges of atoms; every one has sums of its own."""
        segments = [_table(atoms.addresses(c)) for c in self._loop.columns]
        columns = _table([addressof(s) for s in segments])
        captured = _table([_address(a) for a in arrays])
        products = _table([_address(kept.get(i)) for i in range(len(self._loop.products))])
        start = _address(sums)
        calls, outs = [], []  # which have to live as long as the jobs
        for k, (begin, end) in enumerate(ranges(len(atoms), len(sums))):
            outs.append(_table([start + (k * plan.size + a) * sums.itemsize for a, _, _ in plan.parts]))
            tables = (columns, plan.kinds, plan.widths, captured, plan.captured_widths, products, outs[-1])
            calls.append(Call(begin, end, atoms.rows, plan.block, plan.batch, *map(addressof, tables)))
        if native_workers.run(self._fused, calls):
            raise MemoryError(f"no memory for a loop over {len(atoms)} atoms")


def _lanes_of(x: Array, s: Sum) -> Array:
    """A sum with the lanes that the result has."""
    if s.lanes == "kept":
        return x
    return np.asarray(x.sum(axis=0) if s.lanes == "summed" else x[0])


class _Plan:
    """What a fused call needs to know about shapes."""

    def __init__(self, loop: NativeLoop, atoms: Atoms, arrays: list[Array], batch: int) -> None:
        widths = [prod(atoms.widths[c]) if c != "scale" else 1 for c in loop.columns]
        types = [np.dtype(np.float64) if c == "scale" else atoms.stored(c) for c in loop.columns]
        row_bytes = [w * t.itemsize for w, t in zip(widths, types)]
        self.batch = batch
        self.lanes = -(-batch // LANES) * LANES
        self.work = sum(widths) * self.lanes
        self.block = max(16, min(128, BLOCK_BYTES // max(row_bytes), BLOCK_ELEMENTS // self.lanes)) // 8 * 8
        self.kinds = _table([KINDS[t] for t in types])
        self.widths = _table(widths)
        self.captured_widths = _table([a.shape[-1] if a.ndim else 0 for a in arrays])
        self.parts: list[tuple[int, int, tuple[int, ...]]] = []  # of all sums, one after the other
        self.size = 0
        for s in loop.sums:
            shape = (batch, *(atoms.widths[loop.columns[s.column]] if s.column is not None else ()))
            self.parts.append((self.size, self.size + prod(shape), shape))
            self.size += prod(shape)


def _address(x: Array | None) -> int:
    return 0 if x is None else int(x.__array_interface__["data"][0])


def _table(numbers: list[int]) -> ctypes.Array[ctypes.c_int64]:
    """Addresses or other numbers of 64 bits, for C."""
    return (ctypes.c_int64 * max(1, len(numbers)))(*numbers)


__all__ = ["FUSED_BATCH", "Call", "LoopCall"]
