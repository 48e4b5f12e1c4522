"""Loops over atoms as a native function runs them: products with latents, then one elementwise function, then sums.

Every number inside such a loop belongs to an atom, to a lane (one axis besides the atoms: the samples), or to both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tpc.limits.nodes import State
from tpc.lower.c_elementwise import KNOWN
from tpc.lower.elementwise import Builder
from tpc.lower.instructions import Loop
from tpc.lower.layout import layout
from tpc.lower.operations import Operation, Value
from tpc.lower.places import column_of
from tpc.program import tensor
from tpc.program.axes import Axes, Axis, without
from tpc.program.functions import argument
from tpc.program.tensor import Constant, Contract, Tensor


@dataclass(frozen=True)
class RowProduct:
    """⟨row, latent⟩ for every atom and lane, or ⟨row, other row⟩ for every atom."""

    node: Tensor
    column: int
    captured: int | None
    other: int | None


@dataclass(frozen=True)
class Argument:
    """What an argument of the elementwise function is: "product", "number" of an atom or "captured"."""

    kind: str
    index: int


@dataclass(frozen=True)
class Sum:
    """Σ over atoms of weight·row, or of the weight alone; `lanes` is what happens to the lane axis."""

    column: int | None
    lanes: str  # "kept", "summed", or "none": the weight is the same for all


@dataclass
class NativeLoop:
    """One loop; names of arguments, temporaries and results are those of the C text."""

    name: str
    store: str
    columns: list[str] = field(default_factory=list)
    long: set[int] = field(default_factory=set)  # columns of rows that memory takes time to deliver
    captured: list[Tensor] = field(default_factory=list)
    products: list[RowProduct] = field(default_factory=list)
    arguments: dict[str, Argument] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)
    given: frozenset[int] = frozenset()  # products that an earlier loop computed
    kept: tuple[int, ...] = ()  # products that a later loop takes

    def by_lane(self, p: RowProduct) -> bool:
        """Whether a product has a number per lane."""
        return p.captured is not None


class _Unsupported(Exception):
    """A loop has something no native rule covers."""


@dataclass(frozen=True)
class _Rows:
    """A column of rows, times a number."""

    column: int
    axis: Axis
    factor: Value


_ONE = Value("", (), 1.0)
LONG = 64  # numbers in a row; shorter ones come with their neighbours


def native_loop(loop: Loop, name: str) -> NativeLoop | None:
    """The loop for a native function, or None where a rule is missing."""
    try:
        return _Analysis(loop, name).result()
    except _Unsupported:
        return None


class _Analysis:
    def __init__(self, loop: Loop, name: str) -> None:
        self._loop = loop
        self._made = NativeLoop(name, loop.atom.base)
        self._count = 0
        self._builder = Builder(self._temporary)
        self._known: dict[Tensor, Value | _Rows] = {}
        self._named: dict[tuple[str, int], Value] = {}
        self._lane = self._find_lane()

    def _temporary(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def _find_lane(self) -> Axis:
        """The axis that products with latents add to the atoms."""
        wide = {a for s in self._loop.states for a in s.axes}
        lanes = {a for n in self._loop.body for a in n.axes} - wide
        if len(lanes) != 1:
            raise _Unsupported("a loop has one axis besides the atoms")
        return lanes.pop()

    def result(self) -> NativeLoop:
        made = self._made
        for s in self._loop.states:
            self._known[s] = self._state(s)
        for n in self._loop.body:
            self._known[n] = self._body(n)
        for total in self._loop.sums:
            self._sum(total)
        made.operations = self._builder.operations
        unknown = [o for o in made.operations if o.op not in KNOWN]
        outside = [v for v in (*made.results, *(o.target for o in made.operations)) if not self._fits(v.axes)]
        if unknown or outside:
            raise _Unsupported("an operation or an axis without a rule")
        return made

    def _fits(self, axes: Axes) -> bool:
        return set(axes) <= {self._loop.atom, self._lane}

    # --- leaves ------------------------------------------------------------------------------------------------

    def _state(self, s: State) -> Value | _Rows:
        rest = without(s.axes, (self._loop.atom,))
        if len(rest) > 1 or self._loop.atom not in s.axes:
            raise _Unsupported("rows have one axis")
        self._made.columns.append(column_of(s))
        index = len(self._made.columns) - 1
        if rest and (rest[0].size is None or rest[0].size >= LONG):
            self._made.long.add(index)
        return _Rows(index, rest[0], _ONE) if rest else self._argument("number", index, (self._loop.atom,))

    def _argument(self, kind: str, index: int, axes: Axes) -> Value:
        key = (kind, index)
        if key not in self._named:
            prefix = {"product": "q", "number": "a", "captured": "c"}[kind]
            value = Value(f"{prefix}{index + 1}", axes)
            self._named[key] = value
            self._made.arguments[value.name] = Argument(kind, index)
        return self._named[key]

    def _captured(self, x: Tensor) -> int:
        if x not in self._made.captured:
            self._made.captured.append(x)
        return self._made.captured.index(x)

    def _value(self, x: Tensor) -> Value:
        """A number per atom and lane."""
        if isinstance(x, Constant):
            return Value("", (), float(x.value))
        if x in self._known:
            found = self._known[x]
            if isinstance(found, _Rows):
                raise _Unsupported("rows take part in products and sums only")
            return found
        if not set(x.axes) <= {self._lane}:
            raise _Unsupported("a captured array has other axes")
        return self._argument("captured", self._captured(x), x.axes)

    # --- the body ----------------------------------------------------------------------------------------------

    def _body(self, n: Tensor) -> Value | _Rows:
        if isinstance(n, tensor.Map):
            return self._builder.expression(n.fn, {argument(i): self._value(a) for i, a in enumerate(n.args)})
        if isinstance(n, tensor.Add):
            result = self._value(n.terms[0])
            for t in n.terms[1:]:
                result = self._builder.emit("add", result, self._value(t))
            return result
        if isinstance(n, Contract):
            return self._inner(n) if n.over else self._multiplied(n.factors)
        raise _Unsupported(type(n).__name__)

    def _multiplied(self, factors: Sequence[Tensor]) -> Value | _Rows:
        rows = [f for f in (self._known.get(f) for f in factors) if isinstance(f, _Rows)]
        numbers = [f for f in factors if not isinstance(self._known.get(f), _Rows)]
        if len(rows) > 1:
            raise _Unsupported("a product of rows")
        result = rows[0].factor if rows else _ONE
        for f in numbers:
            result = self._times(result, self._value(f))
        return _Rows(rows[0].column, rows[0].axis, result) if rows else result

    def _times(self, a: Value, b: Value) -> Value:
        if a.number == 1.0:
            return b
        return a if b.number == 1.0 else self._builder.emit("multiply", a, b)

    def _inner(self, n: Contract) -> Value:
        """A product of two rows, or of rows and latents, summed over their numbers."""
        if len(n.factors) != 2:
            raise _Unsupported("a sum over a row")
        rows = [self._known.get(f) for f in n.factors]
        first, second = rows if isinstance(rows[0], _Rows) else rows[::-1]
        if not isinstance(first, _Rows) or n.over != (first.axis,):
            raise _Unsupported("a contraction without rows")
        if isinstance(second, _Rows):
            value = self._product(RowProduct(n, first.column, None, second.column), (self._loop.atom,))
            return self._times(self._times(first.factor, second.factor), value)
        latent = n.factors[1] if isinstance(rows[0], _Rows) else n.factors[0]
        if latent in self._known or layout(latent.axes) not in ((self._lane, first.axis), (first.axis,)):
            raise _Unsupported("latents have numbers, and lanes or none")
        axes = (self._loop.atom, self._lane) if self._lane in latent.axes else (self._loop.atom,)
        value = self._product(RowProduct(n, first.column, self._captured(latent), None), axes)
        return self._times(first.factor, value)

    def _product(self, p: RowProduct, axes: Axes) -> Value:
        key = (p.column, p.captured, p.other)
        for i, old in enumerate(self._made.products):
            if (old.column, old.captured, old.other) == key:
                return self._argument("product", i, axes)
        self._made.products.append(p)
        return self._argument("product", len(self._made.products) - 1, axes)

    # --- the sums ----------------------------------------------------------------------------------------------

    def _sum(self, total: Contract) -> None:
        joined = self._multiplied(total.factors)
        weight = joined.factor if isinstance(joined, _Rows) else joined
        rest = without(total.over, (self._loop.atom,))
        if rest not in ((), (self._lane,)):
            raise _Unsupported("a sum over numbers of rows")
        if weight.number is None and not self._fits(weight.axes):
            raise _Unsupported("a weight has other axes")
        lanes = "summed" if rest else "kept" if self._lane in total.axes else "none"
        if rest and self._lane not in weight.axes:
            raise _Unsupported("a sum over lanes that are all the same")
        self._made.results.append(weight)
        self._made.sums.append(Sum(joined.column if isinstance(joined, _Rows) else None, lanes))
