"""Runs one loop over stored atoms natively: fused for small batches, around BLAS for large ones."""

from __future__ import annotations

import ctypes
import threading
from ctypes import addressof
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.atoms import Atoms
from backends.blocks import over_blocks, threads
from tpc.lower.native_loop import NativeLoop, Product, Sum

Array = NDArray[Any]

FUSED_BATCH = 32  # above, BLAS is faster than the fused products: it keeps a tile of both operands in registers
BLOCK_BYTES = 1 << 17  # of one column in a block: two such columns and their products stay in a core's own cache
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


class Loop:
    """A loop of a loaded library."""

    def __init__(self, library: ctypes.CDLL, loop: NativeLoop) -> None:
        self._loop = loop
        self._fused = library[loop.name]
        self._fused.argtypes, self._fused.restype = [ctypes.c_void_p], ctypes.c_int
        self._elements = library[f"{loop.name}_elements"]
        self._elements.argtypes, self._elements.restype = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p], None
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
        if batch > FUSED_BATCH:
            return self._around_blas(atoms, arrays, batch, given)
        return self._whole(atoms, arrays, batch, given)

    # --- fused -------------------------------------------------------------------------------------------------

    def _whole(self, atoms: Atoms, arrays: list[Array], batch: int, given: tuple[Any, ...]) -> tuple[Any, ...]:
        key = (atoms.storage, tuple(atoms.widths.items()), batch, tuple(a.shape for a in arrays))
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = _Plan(self._loop, atoms, arrays, batch)
        count = len(atoms)
        kept = self._kept(count, plan.lanes, given)
        workers = min(threads().count, max(1, count * plan.work // THREAD_WORK))
        sums = np.zeros((workers, plan.size), np.float32)
        if count and batch:
            self._run(plan, atoms, arrays, kept, sums)
        total = sums[0]
        for share in sums[1:]:  # always in this order
            total += share
        parts = [_lanes_of(total[a:b].reshape(shape), s) for (a, b, shape), s in zip(plan.parts, self._loop.sums)]
        return (*parts, *(kept[i] for i in self._loop.kept))

    def _kept(self, count: int, lanes: int, given: tuple[Any, ...]) -> dict[int, Array]:
        found = dict(zip(sorted(self._loop.given), given))
        for i in self._loop.kept:
            by_lane = self._loop.by_lane(self._loop.products[i])
            room = self._room(i, count * lanes if by_lane else count)
            found[i] = room.reshape(count, lanes) if by_lane else room
        return found

    def _room(self, product: int, numbers: int) -> Array:
        """Memory for a kept product; a thread's next call writes to the same, which spares it the page faults."""
        rooms = self._rooms.__dict__
        name = str(product)
        if name not in rooms or len(rooms[name]) < numbers:
            rooms[name] = np.empty(numbers + numbers // 4, np.float32)
        room: Array = rooms[name][:numbers]
        return room

    def _run(self, plan: _Plan, atoms: Atoms, arrays: list[Array], kept: dict[int, Array], sums: Array) -> None:
        """Threads take contiguous ranges of atoms; every one has sums of its own."""
        segments = [_table(atoms.addresses(c)) for c in self._loop.columns]
        columns = _table([addressof(s) for s in segments])
        captured = _table([_address(a) for a in arrays])
        products = _table([_address(kept[i]) if i in kept else 0 for i in range(len(self._loop.products))])
        start = _address(sums)
        calls, outs = [], []  # which have to live as long as the jobs
        for k in range(len(sums)):
            begin, end = (len(atoms) * i // len(sums) for i in (k, k + 1))
            outs.append(_table([start + (k * plan.size + a) * sums.itemsize for a, _, _ in plan.parts]))
            tables = (columns, plan.kinds, plan.widths, captured, plan.captured_widths, products, outs[-1])
            calls.append(Call(begin, end, atoms.rows, plan.block, plan.batch, *map(addressof, tables)))
        if any(threads().run([partial(self._fused, addressof(call)) for call in calls])):
            raise MemoryError(f"no memory for a loop over {len(atoms)} atoms")

    # --- around BLAS -------------------------------------------------------------------------------------------

    def _around_blas(self, atoms: Atoms, arrays: list[Array], batch: int, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Products and sums by BLAS, the elementwise function natively, on blocks of rows."""
        loop = self._loop
        taken = dict(zip(sorted(loop.given), range(len(given))))

        def block(*parts: Array) -> tuple[Array, ...]:
            columns, old = parts[: len(loop.columns)], parts[len(loop.columns) :]
            products = [
                _product(p, columns, arrays, old[taken[i]] if i in taken else None) for i, p in enumerate(loop.products)
            ]
            weights = self._weights(columns, arrays, products, batch)
            sums = [_summed(w, s, columns) for w, s in zip(weights, loop.sums)]
            return (*sums, *(products[i] for i in loop.kept))

        columns = tuple(loop.columns)
        return over_blocks(block, atoms, columns, batch, len(loop.kept), tuple(given))

    def _weights(
        self, columns: tuple[Array, ...], arrays: list[Array], products: list[Array], batch: int
    ) -> list[Array]:
        sources = {"product": products, "number": columns, "captured": arrays}
        rows = len(columns[0])
        values = []
        for a in self._loop.arguments.values():
            x = sources[a.kind][a.index]
            x = x[:, None] if a.kind != "captured" and x.ndim == 1 else x
            values.append(np.ascontiguousarray(np.broadcast_to(x, (rows, batch)), dtype=np.float32))
        weights = [np.empty((rows, batch), np.float32) for _ in self._loop.results]
        inputs, outputs = _table([_address(v) for v in values]), _table([_address(w) for w in weights])
        self._elements(rows * batch, addressof(inputs), addressof(outputs))
        return weights


def _product(p: Product, columns: tuple[Array, ...], arrays: list[Array], old: Array | None) -> Array:
    if old is not None:
        return old
    if p.captured is not None:
        found: Array = columns[p.column] @ arrays[p.captured].T
        return found
    assert p.other is not None
    squares: Array = np.einsum("ab,ab->a", columns[p.column], columns[p.other])
    return squares


def _summed(weight: Array, s: Sum, columns: tuple[Array, ...]) -> Array:
    """One block's share of a sum."""
    return _lanes_of(weight.sum(axis=0) if s.column is None else weight.T @ columns[s.column], s)


def _lanes_of(x: Array, s: Sum) -> Array:
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
        self.block = max(16, min(128, BLOCK_BYTES // max(row_bytes))) // 8 * 8
        self.kinds = _table([KINDS[t] for t in types])
        self.widths = _table(widths)
        self.captured_widths = _table([a.shape[-1] if a.ndim else 0 for a in arrays])
        self.parts: list[tuple[int, int, tuple[int, ...]]] = []  # of all sums, one after the other
        self.size = 0
        for s in loop.sums:
            shape = (batch, *(atoms.widths[loop.columns[s.column]] if s.column is not None else ()))
            self.parts.append((self.size, self.size + prod(shape), shape))
            self.size += prod(shape)


def _address(x: Array) -> int:
    return int(x.__array_interface__["data"][0])


def _table(numbers: list[int]) -> ctypes.Array[ctypes.c_int64]:
    """Addresses or other numbers of 64 bits, for C."""
    return (ctypes.c_int64 * max(1, len(numbers)))(*numbers)


__all__ = ["FUSED_BATCH", "Call", "Loop"]
