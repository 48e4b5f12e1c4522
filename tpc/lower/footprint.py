"""Bytes that generated code needs while it runs, read off the scheduled functions.

Every tensor outside a loop is a variable of its function and lives until the function returns; a tensor over atoms
lives for one block of them, unless a later loop takes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from tpc.limits.nodes import State
from tpc.limits.power import Half, Opened, Power, Product, Slope, order_of, packed_size
from tpc.limits.store import Fold, Store
from tpc.lower.instructions import AccumulateGradient, AppendAtoms, Function, Loop, Lowered
from tpc.lower.lengths import Lengths
from tpc.program import tensor
from tpc.program.axes import without
from tpc.program.tensor import Tensor

SAMPLED_ARRAYS = 3  # of rows × points, alive at once while a function is computed
BLOCK_ARRAYS = 8  # of batch × rows, alive at once in a block; exact products take twice the bytes of float32
WIDE = ("float32", "float64")
MULTIPLIERS = 16  # bytes of an atom's factor and of its share of the momentum


@dataclass(frozen=True)
class Need:
    """Bytes that are free again after a call, and those of native loops that later calls write to again."""

    passing: int
    lasting: int = 0


class Footprint(ABC):
    """What a backend takes for atoms, for a block of a loop over them, and for a batch."""

    probes: int  # atoms that folded ones are compared with

    # --- what backends differ in -------------------------------------------------------------------------------------

    @abstractmethod
    def atoms(self, count: int, row_bytes: int, segment: int | None = None) -> int:
        """Of a store with so many atoms, in segments of so many rows if their number is fixed."""

    @abstractmethod
    def copied(self, storage: str | None, matrices: int, rank: int) -> int:
        """Kept beside so many folded matrices when atoms are stored as `storage`."""

    @abstractmethod
    def kept(self, loop: Loop, lengths: Lengths, batch: int) -> Need:
        """What a loop keeps for later ones."""

    @abstractmethod
    def block(self, loop: Loop, sums: int, lengths: Lengths, batch: int) -> int:
        """Of the atoms that go together, with `sums` bytes of results."""

    @abstractmethod
    def powers(self, order: int, rows: int, latents: int, outer: int, rank: int) -> int:
        """Numbers that adding the packed powers of so many rows to a folded tensor takes."""

    # --- what they have in common ------------------------------------------------------------------------------------

    def columns(self, widths: Iterable[int], itemsize: int, storage: str | None) -> list[int]:
        """Of one atom in each column: single numbers keep the dtype."""
        narrow = itemsize if storage in (None, *WIDE) else 2
        return [w * (narrow if w > 1 else itemsize) for w in widths]

    def atom(self, widths: Iterable[int], itemsize: int, storage: str | None, momentum: bool) -> int:
        """Of one atom."""
        return sum(self.columns(widths, itemsize, storage)) + (MULTIPLIERS if momentum else 0)

    def step(self, lowered: Lowered, lengths: Lengths, batch: int, norms: bool, fold_rows: int) -> Need:
        """The most that one step takes besides the state: gradients, then their norms, the update, and folding."""
        item = lengths.itemsize
        gradients = self.function(lowered.gradients, lengths, batch)
        outputs = item * sum(lengths.numbers(t.axes, batch) for _, t in lowered.gradients.outputs)
        accumulated = (c.state for c in lowered.changes if isinstance(c, AccumulateGradient))
        largest = max((lengths.numbers(s.axes, batch) for s in accumulated), default=0)
        appends = [c for c in lowered.changes if isinstance(c, AppendAtoms)]
        appended = sum(item * lengths.numbers(c.batch, batch) * _width(c.store, lengths) for c in appends)
        later, lasting = [3 * item * largest + 2 * appended], gradients.lasting
        if norms:
            measured = self.function(lowered.norms, lengths, batch)
            later.append(measured.passing)
            lasting += measured.lasting
        later += [self._folding(f.fold, lengths, fold_rows) for f in lowered.folds]
        return Need(max(gradients.passing, outputs + max(later)), lasting)

    def function(self, function: Function, lengths: Lengths, batch: int) -> Need:
        """The most that one call takes, its results included."""
        item = lengths.itemsize
        passing = lasting = 0
        inside = [0]
        numbers = sum(lengths.numbers(x.axes, batch) for x in function.inputs if not isinstance(x, State))
        for step in function.steps:
            if isinstance(step, Loop):
                sums = sum(lengths.numbers(s.axes, batch) for s in step.sums)
                numbers += sums
                kept = self.kept(step, lengths, batch)
                passing, lasting = passing + kept.passing, lasting + kept.lasting
                inside.append(self.block(step, item * sums, lengths, batch))
            else:
                numbers += 0 if isinstance(step, tensor.Rename) else lengths.numbers(step.axes, batch)
                inside.append(item * _inside(step, lengths, batch))
        return Need(item * numbers + passing + max(inside), lasting)

    def _folding(self, f: Fold, lengths: Lengths, rows: int) -> int:
        """Folding one segment: its rows as numbers, the comparison, and the powers of a chunk per thread.

        What atoms are at the points of the tail takes a few arrays of rows × points.
        """
        s, orders = f.store, [m.order for m in f.moments]
        outer = lengths.numbers(s.coefficients.axes[1:], 1)
        columns, latents = 4 * rows * _width(s, lengths), len(s.columns)
        compared = rows * self.probes * 2 * (3 * len(orders) + latents**2 * BLOCK_ARRAYS)  # in 64 bits
        powers = [self.powers(n, rows, latents, outer, lengths.rank) for n in orders if n > 1]
        sampled = (rows + self.probes) * f.points * (1 + latents + SAMPLED_ARRAYS) + f.points * outer
        return lengths.itemsize * (columns + max([compared, *powers]) + (sampled if f.points else 0))


def table_bytes(orders: set[int], rank: int) -> int:
    """Weights and multiplicities of packed powers, which are made once and stay: two numbers of 64 bits each."""
    return sum(16 * packed_size(rank, n) for n in orders if n > 1)


def row_bytes(loop: Loop, lengths: Lengths, batch: int) -> int:
    """Of the rows of one atom that a loop reads, as numbers of the dtype."""
    return lengths.itemsize * sum(lengths.numbers(without(s.axes, (loop.atom,)), batch) for s in loop.states)


def widest(loop: Loop, lengths: Lengths, batch: int) -> int:
    """The most numbers of one atom that a loop computes at once."""
    return max((lengths.numbers(without(n.axes, (loop.atom,)), batch) for n in loop.body), default=1)


def lower_powers(rank: int, order: int) -> int:
    """Monomials of the degrees from 1 to `order` - 1."""
    return sum(packed_size(rank, k) for k in range(1, order))


def _width(s: Store, lengths: Lengths) -> int:
    """Numbers of one atom."""
    return sum(lengths.numbers(c.axes[1:], 1) for c in (s.coefficients, *s.columns, *s.thetas))


def _inside(x: Tensor, lengths: Lengths, batch: int) -> int:
    """Numbers that computing one tensor takes besides its own."""
    if isinstance(x, Power):
        n, rows = order_of(x.slot), lengths.numbers(without(x.arg.axes, (x.rank,)), batch)
        return rows * lower_powers(lengths.rank, n) + packed_size(lengths.rank, n)
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
        return rows * (packed + 2 * lower_powers(lengths.rank, n) + lengths.rank) + packed
    if isinstance(x, Half):
        return 2 * lengths.rank**2 + 2 * lengths.numbers(x.arg.axes, batch)
    return lengths.numbers(x.axes, batch)
