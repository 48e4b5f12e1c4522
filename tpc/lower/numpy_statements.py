"""One tensor outside a loop as lines of NumPy code: a rule per kind of tensor, which is an expression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import singledispatch

from tpc.errors import InternalError
from tpc.limits.power import Half, Opened, Power, Product, Slope, order_of
from tpc.lower.concretise import Tabulated
from tpc.lower.elementwise import Builder
from tpc.lower.layout import half_layout, layout
from tpc.lower.numpy_operations import INFIX, OPERATIONS
from tpc.lower.operations import Operation
from tpc.lower.places import MomentState
from tpc.lower.sweep import Swept
from tpc.lower.writer import Line, Writer, indexed, is_elementwise, permuted
from tpc.program import tensor
from tpc.program.axes import Axis, union, without
from tpc.program.shift import Shifted, Unshifted
from tpc.program.tensor import Contract, Tensor


def statement(w: Writer, x: Tensor) -> Iterator[Line]:
    """Lines that compute one tensor."""
    name = w.target(x)
    if is_elementwise(x):
        yield from inlined(w, x, name)
    else:
        yield w.line(f"{name} = {expression(x, w)}", name)


@singledispatch
def expression(x: Tensor, w: Writer) -> str:
    """The array of a tensor, as a function of whole arrays."""
    raise InternalError(f"NumPy code has no rule for {type(x).__name__}")


@expression.register
def _size(x: tensor.Size, w: Writer) -> str:
    return w.size(x.axis)


@expression.register
def _contract(x: Contract, w: Writer) -> str:
    return w.dialect.total(w, x)


@expression.register
def _logsumexp(x: tensor.LogSumExp, w: Writer) -> str:
    return f"rt.logsumexp({w.array(x.arg)}, axis={layout(x.arg.axes).index(x.over)})"


@expression.register
def _rename(x: tensor.Rename, w: Writer) -> str:
    new = dict(x.pairs)
    return permuted(w.array(x.arg), tuple(new.get(a, a) for a in layout(x.arg.axes)), layout(x.axes))


@expression.register
def _broadcast(x: tensor.Broadcast, w: Writer) -> str:
    given = layout(x.arg.axes)

    def length(a: Axis) -> str:
        if a.size is not None:
            return str(a.size)
        return f"{w.array(x.arg)}.shape[{given.index(a)}]" if a.role == "rank" and a in given else w.size(a)

    shape = ", ".join(map(length, layout(x.axes)))
    return f"np.broadcast_to({w.aligned(w.value(x.arg), x.axes)}, ({shape},))"


@expression.register
def _tabulated(x: Tabulated, w: Writer) -> str:
    arrays = ", ".join(w.aligned(w.value(t), x.axes, True) for t in (x.p, x.q, x.c))
    return f"{w.table(x)}({arrays})"


@expression.register
def _shifted(x: Shifted, w: Writer) -> str:
    return _windowed("shift", x, x.window.source, x.window.target, w)


@expression.register
def _unshifted(x: Unshifted, w: Writer) -> str:
    return _windowed("unshift", x, x.window.target, x.window.source, w)


@expression.register
def _swept(x: Swept, w: Writer) -> str:
    have, new = layout(x.arg.axes), dict(x.ends)
    moves = ", ".join(f"({have.index(a)}, {v.geometry})" for (a, _), v in zip(x.ends, x.windows))
    return permuted(
        f"rt.sweep({w.array(x.arg)}, ({moves},), {x.back})", tuple(new.get(a, a) for a in have), layout(x.axes)
    )


def _windowed(function: str, x: Shifted | Unshifted, old: Axis, new: Axis, w: Writer) -> str:
    """The places of axes before and after, and the window."""
    have, want, o = layout(x.arg.axes), layout(x.axes), x.window.offset
    before = have.index(old), have.index(o) if o in have else None
    return f"rt.{function}({w.array(x.arg)}, {before}, {(want.index(new), want.index(o))}, {x.window.geometry})"


@expression.register
def _power(x: Power, w: Writer) -> str:
    return f"rt.power({w.last(x.arg, x.rank)}, {order_of(x.slot)})"


@expression.register
def _half(x: Half, w: Writer) -> str:
    return permuted(half(w, x, "half"), half_layout(x), layout(x.axes))


@expression.register
def _product(x: Product, w: Writer) -> str:
    shared = layout(without(x.axes, (x.slot,)))
    args = ", ".join(w.along(g, shared, x.rank) for g in x.args)
    return permuted(f"rt.product(({args}))", (*shared, x.slot), layout(x.axes))


@expression.register
def _slope(x: Slope, w: Writer) -> str:
    return _contracted(x, "slope", x.rank, w)


@expression.register
def _opened(x: Opened, w: Writer) -> str:
    return _contracted(x, "opened", x.lower, w)


def _contracted(x: Slope | Opened, function: str, last: Axis, w: Writer) -> str:
    """A packed tensor, contracted with what has `last` as its own axis; the rank is left."""
    shared = layout(union(without(x.dual.axes, (x.slot,)), without(x.arg.axes, (last,))))
    given = f"{w.aligned(w.value(x.dual), (*shared, x.slot))}, {w.along(x.arg, shared, last)}, {order_of(x.slot)}"
    return permuted(f"rt.{function}({given})", (*shared, x.rank), layout(x.axes))


def half(w: Writer, x: Half, function: str) -> str:
    """A folded matrix with one latent, by a function of the folded atoms."""
    assert isinstance(x.matrix, MomentState)
    return f'state["{x.matrix.store}.folded"].{function}({order_of(x.slot)}, {w.last(x.arg, x.rank)})'


# --- elementwise work ------------------------------------------------------------------------------------------------


def infix(o: Operation, texts: list[str]) -> str:
    """An operation as an expression."""
    if o.op == "reciprocal":  # of a length too, where np.reciprocal would round
        return f"1 / {texts[0]}"
    return f"{texts[0]} {INFIX[o.op]} {texts[1]}" if o.op in INFIX else f"{OPERATIONS[o.op]}({', '.join(texts)})"


def inlined(w: Writer, x: Tensor, name: str) -> Iterator[Line]:
    """Elementwise work as one expression, after lines for what occurs in it more than once."""
    builder = Builder(w.temporary)
    result = w.operations(x, builder)
    often = Counter(a.name for o in builder.operations for a in o.args)
    texts: dict[str, tuple[str, frozenset[str]]] = {}  # with what they use
    for o in builder.operations:
        args, uses = [], set(w.used())
        for a in o.args:
            if a.name not in texts:
                args.append(w.aligned(a, o.target.axes))
                continue
            text, below = texts[a.name]
            uses |= below
            args.append(indexed(f"({text})" if o.op in INFIX or o.op == "reciprocal" else text, a.axes, o.target.axes))
        written, uses = infix(o, args), uses | w.used()
        if often[o.target.name] > 1:
            yield w.line(f"{o.target.name} = {written}", o.target.name, uses=uses)
        else:
            texts[o.target.name] = written, frozenset(uses)
    if result.name in texts:
        text, below = texts[result.name]
        yield w.line(f"{name} = {text}", name, uses=below)
    else:
        yield w.line(f"{name} = {w.aligned(result, x.axes)}", name)
