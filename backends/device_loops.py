"""Runs one loop over stored atoms on a device, a chunk of atoms at a time.

Products with latents and sums over atoms are matrix products: every column is read once for all products with it and
once for all sums of it. Between them runs one generated kernel for every atom and sample. Columns of bfloat16 are
multiplied as they are, with both parts of every latent and weight (cuda_kernels.h), so that nothing is rounded but the
atoms; those of float16 are widened chunk by chunk, for weights may lie beyond its range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from backends.atoms import Atoms
from backends.blocks import KEEP_SHARE
from backends.device import THREADS, Device, Kernel
from backends.device_arrays import KINDS
from tpc.lower.native_loop import NativeLoop

ROW_LANE_BYTES = 32  # about what products and weights take for an atom and a sample
KEEP_BYTES = 1 << 26  # of products for a later loop, kept whatever their share
BFLOAT16 = np.dtype(np.uint16)
FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Place:
    """Where the numbers of a product or weight are in the array of a chunk."""

    stride: int
    start: int
    low: int  # how far the second part of a number is from the first; 0 for whole numbers

    @property
    def arguments(self) -> tuple[int, int, int]:
        return self.stride, self.start, self.low


ALONE = Place(1, 0, 0)  # of a product that is the same for all samples


@dataclass(frozen=True)
class Kept:
    """A product of every chunk, for a later loop."""

    chunks: list[Any]
    place: Place


def chunk_rows(device: Device, atoms: Atoms, lanes: int) -> int:
    """Atoms of a chunk: their products and weights stay in the device's cache, and so do rows that are widened."""
    row_bytes = ROW_LANE_BYTES * max(1, lanes)
    if atoms.storage == "float16":
        row_bytes += 4 * max(prod(width) for width in atoms.widths.values())
    return max(1024, device.cache_bytes // row_bytes)


class LoopCall:
    """A loop of a compiled text."""

    def __init__(self, device: Device, kernel: Kernel, loop: NativeLoop) -> None:
        self._device, self._kernel, self._loop = device, kernel, loop
        self._groups: dict[int, list[int]] = {}  # products with latents that are computed here, by column
        for i, p in enumerate(loop.products):
            if p.captured is not None and i not in loop.given:
                self._groups.setdefault(p.column, []).append(i)
        self._sums: dict[int | None, list[int]] = {}
        for j, s in enumerate(loop.sums):
            self._sums.setdefault(s.column, []).append(j)

    def __call__(self, atoms: Atoms, captured: tuple[Any, ...], *given: Kept | None) -> tuple[Any, ...]:
        """The sums of the loop, then the products it keeps for later ones; `given` are those of earlier loops."""
        return _Run(self._device, self._kernel, self._loop, self._groups, self._sums, atoms, captured, given).result()


class _Run:
    """One call of a loop."""

    def __init__(
        self, device: Device, kernel: Kernel, loop: NativeLoop, groups: dict[int, list[int]],
        sums: dict[int | None, list[int]], atoms: Atoms, captured: tuple[Any, ...], given: tuple[Kept | None, ...],
    ) -> None:  # fmt: skip
        self._device, self._xp, self._kernel, self._loop, self._atoms = device, device.xp, kernel, loop, atoms
        latents = {p.captured for p in loop.products}
        self._captured: list[Any] = [
            c if isinstance(c, float | int | np.floating) else device.contiguous(c) for c in captured
        ]
        self._lanes = max(
            (len(c) for i, c in enumerate(self._captured) if hasattr(c, "ndim") and c.ndim > (i in latents)), default=1
        )
        self._given = dict(zip(sorted(loop.given), given))
        self._groups = dict(groups)
        for i, kept in self._given.items():  # an earlier loop found it too large to keep
            if kept is None and loop.products[i].captured is not None:
                column = loop.products[i].column
                self._groups[column] = [*self._groups.get(column, []), i]
        self._places = {i: kept.place for i, kept in self._given.items() if kept is not None}
        self._packed = {column: self._pack(column, members) for column, members in self._groups.items()}
        self._keep: dict[int, list[Any]] = {i: [] for i in loop.kept} if self._hold() else {}
        self._targets, self._totals = self._outputs(sums)
        self._sum_groups = sums

    # --- before the chunks -------------------------------------------------------------------------------------

    def _split(self, column: int | None) -> bool:
        return column is not None and self._atoms.stored(self._loop.columns[column]) == BFLOAT16

    def _pack(self, column: int, members: list[int]) -> Any:
        """The latents of a column's products, (products · lanes, r); of bfloat16 first one part, then the other."""
        xp, lanes = self._xp, self._lanes
        rows = []
        for position, i in enumerate(members):
            latent = self._captured[self._loop.products[i].captured or 0]
            rows.append(latent if latent.ndim == 2 else xp.broadcast_to(latent, (lanes, len(latent))))
            count, split = len(members) * lanes, self._split(column)
            self._places[i] = Place(count * (2 if split else 1), position * lanes, count if split else 0)
        packed = self._device.contiguous(rows[0] if len(rows) == 1 else xp.concatenate(rows))
        if not self._split(column):
            return packed
        parts = xp.empty((2 * len(packed), packed.shape[1]), np.uint16)
        self._device.each("tpc_split", packed.size, packed, parts)
        return parts

    def _hold(self) -> bool:
        """Whether products are kept for later loops: unless they would take much of the atoms' own memory."""
        products = [self._loop.products[i] for i in self._loop.kept]
        columns = {p.column for p in products if p.other is None}
        numbers = sum(len(self._packed[c]) for c in columns) + sum(p.other is not None for p in products)
        size = 4 * numbers * len(self._atoms)
        return size <= max(KEEP_BYTES, KEEP_SHARE * self._atoms.nbytes)

    def _outputs(self, sums: dict[int | None, list[int]]) -> tuple[dict[int, Place], dict[int | None, Any]]:
        places, totals = {}, {}
        for column, members in sums.items():
            count, split = len(members) * self._lanes, self._split(column)
            for position, j in enumerate(members):
                places[j] = Place(count * (2 if split else 1), position * self._lanes, count if split else 0)
            width = 1 if column is None else prod(self._atoms.widths[self._loop.columns[column]])
            shape = (1, count) if column is None else (count * (2 if split else 1), width)
            totals[column] = self._xp.zeros(shape, np.float32)
        return places, totals

    # --- the chunks --------------------------------------------------------------------------------------------

    def result(self) -> tuple[Any, ...]:
        if self._lanes:
            size = chunk_rows(self._device, self._atoms, self._lanes)
            for position, stored in enumerate(self._atoms.stored_blocks(tuple(self._loop.columns), size)):
                self._chunk(position, stored)
        for column, total in self._totals.items():
            if self._split(column):
                self._totals[column] = self._joined(total)
        kept = (Kept(self._keep[i], self._places.get(i, ALONE)) if self._keep else None for i in self._loop.kept)
        return (*(self._sum(j) for j in range(len(self._loop.sums))), *kept)

    def _chunk(self, position: int, stored: tuple[Any, ...]) -> None:
        rows, lanes = len(stored[0]), self._lanes
        wide: dict[int, Any] = {}
        products: dict[int, Any] = {i: k.chunks[position] for i, k in self._given.items() if k is not None}
        for column, members in self._groups.items():
            made = self._xp.empty((rows, len(self._packed[column])), np.float32)
            self._device.gemm(self._rows(column, stored, wide), self._packed[column], made, tb=True)
            products |= dict.fromkeys(members, made)
        for i, p in enumerate(self._loop.products):
            if p.other is not None and i not in products:
                products[i] = self._row_products(stored[p.column], stored[p.other])
        for i, chunks in self._keep.items():
            chunks.append(products[i])
        weights = {
            column: self._xp.empty((rows, self._targets[members[0]].stride), self._weight_type(column))
            for column, members in self._sum_groups.items()
        }
        self._kernel(-(-rows * lanes // THREADS), THREADS, (rows, lanes, *self._arguments(stored, products, weights)))
        for target, w in weights.items():
            if target is None:
                self._device.gemm(self._device.ones(rows), w, self._totals[target], add=True)
            else:
                self._device.gemm(w, self._rows(target, stored, wide), self._totals[target], ta=True, add=True)

    def _weight_type(self, column: int | None) -> np.dtype[Any]:
        return BFLOAT16 if self._split(column) else FLOAT32

    def _arguments(
        self, stored: tuple[Any, ...], products: dict[int, Any], weights: dict[int | None, Any]
    ) -> Iterator[Any]:
        loop = self._loop
        for argument in loop.arguments.values():
            if argument.kind == "product":
                yield products[argument.index]
                if loop.by_lane(loop.products[argument.index]):
                    yield from self._places[argument.index].arguments
            elif argument.kind == "number":
                yield stored[argument.index]
            else:
                value = self._captured[argument.index]
                if hasattr(value, "ndim") and not isinstance(value, np.floating):
                    yield from (value, value.ndim, np.float32(0))
                else:
                    yield from (0, 0, np.float32(value))
        for j, s in enumerate(loop.sums):
            yield weights[s.column]
            yield from self._targets[j].arguments

    def _rows(self, column: int, stored: tuple[Any, ...], wide: dict[int, Any]) -> Any:
        """A column of a chunk as a matrix of float32 or bfloat16."""
        x = stored[column].reshape(len(stored[column]), -1)
        if x.dtype != np.float16:
            return x
        if column not in wide:
            wide[column] = self._xp.empty(x.shape, np.float32)
            self._device.each("tpc_widen", x.size, x, KINDS[x.dtype], wide[column])
        return wide[column]

    def _row_products(self, a: Any, b: Any) -> Any:
        made = self._xp.empty(len(a), np.float32)
        width = prod(a.shape[1:])
        arguments = (len(a), width, a, KINDS[a.dtype], b, KINDS[b.dtype], made)
        self._device.kernels("tpc_row_products")(-(-len(a) // 8), 128, arguments)
        return made

    # --- after the chunks --------------------------------------------------------------------------------------

    def _joined(self, total: Any) -> Any:
        made = self._xp.empty((len(total) // 2, total.shape[1]), np.float32)
        self._device.each("tpc_join", made.size, total, made)
        return made

    def _sum(self, j: int) -> Any:
        s, lanes, place = self._loop.sums[j], self._lanes, self._targets[j]
        total = self._totals[s.column]
        if s.column is None:
            found = total[0, place.start : place.start + lanes]
        else:
            shape = (lanes, *self._atoms.widths[self._loop.columns[s.column]])
            found = total[place.start : place.start + lanes].reshape(shape)
        if s.lanes == "kept":
            return found
        return found.sum(axis=0) if s.lanes == "summed" else found[0]
