"""Bytes that generated code needs while it runs, read off the scheduled functions.

Every tensor outside a loop is a variable of its function and lives until the function returns; a tensor over atoms
lives for one block of them, unless a later loop takes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from tpc.limits.nodes import State
from tpc.limits.power import ROLE, Half, Opened, Power, Product, Slope, order_of, packed_size
from tpc.limits.store import Append, Store
from tpc.lower.lowered import Lowered
from tpc.lower.native_loop import native_loop
from tpc.lower.schedule import Function, Loop
from tpc.program import tensor
from tpc.program.axes import SAMPLE, Axes, Axis, without
from tpc.program.tensor import Contract, Tensor
from tpc.runtime.models.backend import load_backend

SAMPLED_ARRAYS = 3  # of rows × points, alive at once while a function is computed
BLOCK_ARRAYS = 8  # of batch × rows, alive at once in a block; exact products take twice the bytes of float32


@dataclass(frozen=True)
class Blocks:
    """How a backend walks through atoms: with how many threads, and whether by native loops where there are rules.

    On a device, `chunk` bytes hold the products and weights of the atoms that go together.
    """

    threads: int
    native: bool
    chunk: int = 0

    @classmethod
    def of(cls, name: str) -> Blocks:
        """Those of a backend on this machine."""
        from backends.threads import threads

        backend: Any = load_backend(name)
        if backend.DEVICE:
            return cls(1, True, backend.device.cache_bytes)
        return cls(threads().count, name == "native")


@dataclass(frozen=True)
class Need:
    """Bytes that are free again after a call, and those of native loops that later calls write to again."""

    passing: int
    lasting: int = 0


@dataclass(frozen=True)
class Lengths:
    """The length of every axis."""

    sizes: Mapping[str, int]
    rank: int
    itemsize: int
    atoms: Mapping[str, int]
    row_bytes: Mapping[str, int]

    def numbers(self, axes: Axes, batch: int) -> int:
        """How many numbers a tensor has."""
        return prod(self.length(a, batch) for a in axes)

    def length(self, axis: Axis, batch: int) -> int:
        """Of one axis; `batch` is that of the samples."""
        if axis.role == "rank":
            return self.rank
        if axis.role == ROLE:
            return packed_size(self.rank, order_of(axis))
        if axis.role == "atom":
            return self.atoms[axis.base]
        if axis.base == SAMPLE.name:
            return batch
        return axis.size if axis.size is not None else self.sizes[axis.base]


def step_bytes(lowered: Lowered, lengths: Lengths, batch: int, blocks: Blocks, norms: bool, fold_rows: int) -> Need:
    """The most that one step takes besides the state: gradients, then their norms, the update, and folding."""
    graph, item = lowered.graph, lengths.itemsize
    gradients = function_bytes(lowered.gradients, lengths, batch, blocks)
    outputs = item * sum(lengths.numbers(t.axes, batch) for _, t in lowered.gradients.outputs)
    largest = max((lengths.numbers(u.state.axes, batch) for u in graph.accumulated), default=0)
    appends = [u for _, changes in graph.updates for u in changes if isinstance(u, Append)]
    appended = sum(item * lengths.numbers(u.batch, batch) * _width(u.store, lengths) for u in appends)
    later, lasting = [3 * item * largest + 2 * appended], gradients.lasting
    if norms:
        measured = function_bytes(lowered.norms, lengths, batch, blocks)
        later.append(measured.passing)
        lasting += measured.lasting
    for f in graph.folds:
        later.append(_folding(f.store, [m.order for m in f.moments], f.points, lengths, fold_rows, blocks))
    return Need(max(gradients.passing, outputs + max(later)), lasting)


def function_bytes(function: Function, lengths: Lengths, batch: int, blocks: Blocks) -> Need:
    """The most that one call takes, its results included."""
    item = lengths.itemsize
    passing = lasting = 0
    inside = [0]
    numbers = sum(lengths.numbers(x.axes, batch) for x in function.inputs if not isinstance(x, State))
    shared = _shared(function)
    for step in function.steps:
        if isinstance(step, Loop):
            sums = sum(lengths.numbers(s.axes, batch) for s in step.sums)
            numbers += sums
            native = blocks.native and native_loop(step, function.name) is not None
            own = [n for n in step.body if shared.get(n) is step]
            kept = _kept(own, step.atom.base, lengths, batch, native, blocks)
            stays = native and not blocks.chunk
            passing, lasting = (passing, lasting + kept) if stays else (passing + kept, lasting)
            inside.append(_blocks(step, item * sums, lengths, batch, blocks))
        else:
            numbers += 0 if isinstance(step, tensor.Rename) else lengths.numbers(step.axes, batch)
            inside.append(item * _inside(step, lengths, batch))
    return Need(item * numbers + passing + max(inside), lasting)


def table_bytes(orders: set[int], rank: int) -> int:
    """Weights and multiplicities of packed powers, which are made once and stay: two numbers of 64 bits each."""
    return sum(16 * packed_size(rank, n) for n in orders if n > 1)


def _width(s: Store, lengths: Lengths) -> int:
    """Numbers of one atom."""
    return sum(lengths.numbers(c.axes[1:], 1) for c in (s.coefficients, *s.columns, *s.thetas))


def _shared(function: Function) -> dict[Tensor, Loop]:
    """Products with atoms that more than one loop needs, and the loop that computes them."""
    first: dict[Tensor, Loop] = {}
    shared: dict[Tensor, Loop] = {}
    for loop in (s for s in function.steps if isinstance(s, Loop)):
        for n in loop.body:
            if isinstance(n, Contract) and n.over:
                if n in first:
                    shared[n] = first[n]
                first.setdefault(n, loop)
    return shared


def _kept(products: list[Tensor], store: str, lengths: Lengths, batch: int, native: bool, blocks: Blocks) -> int:
    """What a loop keeps for later ones: a share of the atoms' memory, or anything in native loops for few samples."""
    from backends.blocks import KEEP_SHARE
    from backends.device_loops import KEEP_BYTES
    from backends.native_loops import FUSED_BATCH, LANES

    lanes = -(-batch // LANES) * LANES if native else batch
    size = lengths.itemsize * sum(lengths.numbers(n.axes, lanes) for n in products)
    share = KEEP_SHARE * lengths.atoms[store] * lengths.row_bytes[store]
    if blocks.chunk:
        parts = 2 * lengths.itemsize * sum(lengths.numbers(n.axes, batch) for n in products)
        return min(parts, int(max(KEEP_BYTES, share)))
    return size if (native and batch <= FUSED_BATCH) or size <= 1.001 * share else 0


def _blocks(loop: Loop, sums: int, lengths: Lengths, batch: int, blocks: Blocks) -> int:
    """A block of atoms per thread: its sums, elementwise work, and rows that are converted from 16 bits."""
    from backends.blocks import BLOCK_ELEMENTS, BLOCK_ROWS

    atoms = max(1, lengths.atoms[loop.atom.base])
    if blocks.chunk:
        return _chunk(loop, 2 * sums, lengths, batch, atoms, blocks.chunk)
    rows = min(BLOCK_ROWS, max(256, BLOCK_ELEMENTS // max(1, batch)), atoms)
    row = lengths.itemsize * sum(lengths.numbers(without(s.axes, (loop.atom,)), batch) for s in loop.states)
    converted = 2 * row if lengths.row_bytes[loop.atom.base] < row else 0
    widest = max((lengths.numbers(without(n.axes, (loop.atom,)), batch) for n in loop.body), default=1)
    return min(blocks.threads, -(-atoms // rows)) * (sums + rows * (BLOCK_ARRAYS * 8 * widest + converted))


def _chunk(loop: Loop, sums: int, lengths: Lengths, batch: int, atoms: int, size: int) -> int:
    """A chunk of atoms on a device: products and weights, and rows that are widened from 16 bits."""
    from backends.device_loops import ROW_LANE_BYTES
    from backends.device_runtime import BLOCK_ELEMENTS

    rows = min(atoms, max(1024, size // (ROW_LANE_BYTES * max(1, batch))))
    row = lengths.itemsize * sum(lengths.numbers(without(s.axes, (loop.atom,)), batch) for s in loop.states)
    widened = row if lengths.row_bytes[loop.atom.base] < row else 0
    if native_loop(loop, "loop") is not None:
        wide = sum(isinstance(n, Contract) and bool(n.over) for n in loop.body) + len(loop.sums)
        return sums + rows * 2 * lengths.itemsize * wide * batch + min(rows * widened, 2 * max(size, 1024 * row))
    rows = min(atoms, max(256, BLOCK_ELEMENTS // max(1, batch)))
    widest = max((lengths.numbers(without(n.axes, (loop.atom,)), batch) for n in loop.body), default=1)
    return sums + rows * (BLOCK_ARRAYS * 8 * widest + widened)


def _inside(x: Tensor, lengths: Lengths, batch: int) -> int:
    """Numbers that computing one tensor takes besides its own."""
    if isinstance(x, Power):
        n, rows = order_of(x.slot), lengths.numbers(without(x.arg.axes, (x.rank,)), batch)
        return rows * _lower(lengths.rank, n) + packed_size(lengths.rank, n)
    if isinstance(x, Product):
        rows, packed = lengths.numbers(without(x.axes, (x.slot,)), batch), packed_size(lengths.rank, order_of(x.slot))
        index = tuple(Counter(x.args).values())
        divisors = [sum(d) for d in product(*(range(n + 1) for n in index))]
        lower = sum(packed_size(lengths.rank, m) for m in divisors if 1 < m < order_of(x.slot))
        return rows * (packed + lower + lengths.rank * len(divisors)) + packed
    if isinstance(x, Opened):
        n = order_of(x.slot)
        packed, lower = packed_size(lengths.rank, n), packed_size(lengths.rank, n - 1)
        dual, arg = (lengths.numbers(t.axes, batch) for t in (x.dual, x.arg))
        return dual + arg + packed + lower + lengths.numbers(x.axes, batch)
    if isinstance(x, Slope):
        n, rows = order_of(x.slot), lengths.numbers(without(x.axes, (x.rank,)), batch)
        packed = packed_size(lengths.rank, n)
        return rows * (packed + 2 * _lower(lengths.rank, n) + lengths.rank) + packed
    if isinstance(x, Half):
        return 2 * lengths.rank**2 + 2 * lengths.numbers(x.arg.axes, batch)
    return lengths.numbers(x.axes, batch)


def _lower(rank: int, order: int) -> int:
    """Monomials of the degrees from 1 to `order` - 1."""
    return sum(packed_size(rank, k) for k in range(1, order))


def _powers_at_once(rows: int, packed: int) -> int:
    from backends.device_arrays import POWER_BYTES

    return min(rows, max(1, POWER_BYTES // (4 * packed))) * packed


def _folding(s: Store, orders: list[int], points: int, lengths: Lengths, rows: int, blocks: Blocks) -> int:
    """Folding one segment: its rows as numbers, the comparison, and the powers of a chunk per thread.

    What atoms are at the points of the tail takes a few arrays of rows × points.
    """
    from backends.moments import PROBES
    from backends.powers import CHUNK

    outer = lengths.numbers(s.coefficients.axes[1:], 1)
    columns, latents = 4 * rows * _width(s, lengths), len(s.columns)
    compared = rows * PROBES * 2 * (3 * len(orders) + latents**2 * BLOCK_ARRAYS)  # in 64 bits
    most = 0
    for n in (n for n in orders if n > 1):
        if blocks.chunk:
            most = max(most, _powers_at_once(rows, packed_size(lengths.rank, n)) + rows * _lower(lengths.rank, n))
            continue
        chunk = max(CHUNK, packed_size(lengths.rank, n - 1))
        lower = sum(packed_size(latents, k) * packed_size(lengths.rank, k) for k in range(1, n))
        parts = rows if latents == 1 else 3 * rows
        powers = rows * lower + blocks.threads * (parts + outer) * chunk
        most = max(most, powers + packed_size(lengths.rank, n))
    sampled = (rows + PROBES) * points * (1 + latents + SAMPLED_ARRAYS) + points * outer
    return lengths.itemsize * (columns + max(compared, most) + (sampled if points else 0))
