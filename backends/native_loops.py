"""Runs one loop over stored atoms natively: fused for small batches, around BLAS for large ones."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
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
SIZES = (4, 2, 2, 8)  # bytes, by kind


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
        loop = self._loop
        count, lanes = len(atoms), -(-batch // LANES) * LANES
        kept = self._kept(count, lanes, given)
        widths = [prod(atoms.widths[c]) if c != "scale" else 1 for c in loop.columns]
        numbers = [batch * (widths[s.column] if s.column is not None else 1) for s in loop.sums]
        bounds = self._bounds(atoms, widths, lanes)
        sums = np.zeros((len(bounds) - 1, sum(numbers)), np.float32)
        if count and batch:
            self._run(atoms, arrays, batch, kept, widths, numbers, bounds, sums)
        total = sums[0]
        for share in sums[1:]:  # always in this order
            total += share
        parts = np.split(total, np.cumsum(numbers)[:-1])
        shaped = [
            _lanes_of(part.reshape(batch, *(atoms.widths[loop.columns[s.column]] if s.column is not None else ())), s)
            for part, s in zip(parts, loop.sums)
        ]
        return (*shaped, *(kept[i] for i in loop.kept))

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

    def _bounds(self, atoms: Atoms, widths: list[int], lanes: int) -> list[int]:
        """Where the threads' ranges of atoms begin and end."""
        count = min(threads().count, max(1, len(atoms) * sum(widths) * lanes // THREAD_WORK))
        return [len(atoms) * i // count for i in range(count + 1)]

    def _run(
        self,
        atoms: Atoms,
        arrays: list[Array],
        batch: int,
        kept: dict[int, Array],
        widths: list[int],
        numbers: list[int],
        bounds: list[int],
        sums: Array,
    ) -> None:
        loop = self._loop
        segments = [np.array(atoms.addresses(c), np.uintp) for c in loop.columns]
        kinds = [_kind(atoms, c) for c in loop.columns]
        longest = max(w * SIZES[k] for w, k in zip(widths, kinds))
        block = max(16, min(128, BLOCK_BYTES // longest)) // 8 * 8
        tables = [
            _table([_address(s) for s in segments]),
            np.array(kinds, np.int64),
            np.array(widths, np.int64),
            _table([_address(a) for a in arrays]),
            np.array([a.shape[-1] if a.ndim else 0 for a in arrays] or [0], np.int64),
            _table([_address(kept[i]) if i in kept else 0 for i in range(len(loop.products))]),
        ]
        offsets = np.cumsum([0, *numbers[:-1]]) * sums.itemsize
        jobs: list[Callable[[], int]] = []
        alive = []  # what the calls point to
        for share, (begin, end) in zip(sums, pairwise(bounds)):
            out = (_address(share) + offsets).astype(np.uintp)
            call = Call(begin, end, atoms.rows, block, batch, *(_address(t) for t in tables), _address(out))
            alive.append((out, call))
            jobs.append(partial(self._fused, ctypes.addressof(call)))
        if any(threads().run(jobs)):
            raise MemoryError(f"no memory for {loop.name}")

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
        self._elements(rows * batch, _address(inputs), _address(outputs))
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


def _kind(atoms: Atoms, column: str) -> int:
    return KINDS[np.dtype(np.float64) if column == "scale" else atoms.stored(column)]


def _address(x: Array) -> int:
    return int(x.__array_interface__["data"][0])


def _table(addresses: list[int]) -> Array:
    return np.array(addresses or [0], np.uintp)


__all__ = ["FUSED_BATCH", "Call", "Loop"]
