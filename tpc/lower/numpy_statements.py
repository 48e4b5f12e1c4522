"""One tensor outside a loop as lines of NumPy code: a rule per kind of tensor."""

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
from tpc.lower.writer import Line, Writer, indexed, permuted
from tpc.program import tensor
from tpc.program.axes import Axes, union, without
from tpc.program.tensor import Contract, Tensor


@singledispatch
def rule(x: Tensor, w: Writer, name: str) -> Iterator[Line]:
    """Lines that give a tensor its name."""
    raise InternalError(f"NumPy code has no rule for {type(x).__name__}")


def statement(w: Writer, x: Tensor) -> Iterator[Line]:
    """Lines that compute one tensor."""
    yield from rule(x, w, w.target(x))


@rule.register
def _size(x: tensor.Size, w: Writer, name: str) -> Iterator[Line]:
    yield w.line(f"{name} = {w.size(x.axis)}", name)


@rule.register
def _contract(x: Contract, w: Writer, name: str) -> Iterator[Line]:
    if x.over:
        yield w.line(f"{name} = {w.dialect.total(w, x)}", name)
    else:
        yield from inlined(w, x, name)


@rule.register(tensor.Map)
@rule.register(tensor.Add)
def _elementwise(x: Tensor, w: Writer, name: str) -> Iterator[Line]:
    yield from inlined(w, x, name)


@rule.register
def _logsumexp(x: tensor.LogSumExp, w: Writer, name: str) -> Iterator[Line]:
    axis = layout(x.arg.axes).index(x.over)
    yield w.line(f"{name} = rt.logsumexp({w.name(x.arg)}, axis={axis})", name)


@rule.register
def _rename(x: tensor.Rename, w: Writer, name: str) -> Iterator[Line]:
    new = dict(x.pairs)
    renamed = tuple(new.get(a, a) for a in layout(x.arg.axes))
    yield w.line(f"{name} = {permuted(w.name(x.arg), renamed, layout(x.axes))}", name)


@rule.register
def _broadcast(x: tensor.Broadcast, w: Writer, name: str) -> Iterator[Line]:
    shape = ", ".join(str(a.size) if a.size is not None else w.size(a) for a in layout(x.axes))
    yield w.line(f"{name} = np.broadcast_to({w.aligned(w.value(x.arg), x.axes)}, ({shape},))", name)


@rule.register
def _tabulated(x: Tabulated, w: Writer, name: str) -> Iterator[Line]:
    arrays = ", ".join(w.aligned(w.value(t), x.axes, True) for t in (x.p, x.q, x.c))
    yield w.line(f"{name} = {w.table(x)}({arrays})", name)


@rule.register
def _power(x: Power, w: Writer, name: str) -> Iterator[Line]:
    yield w.line(f"{name} = rt.power({w.last(x.arg, x.rank)}, {order_of(x.slot)})", name)


@rule.register
def _half(x: Half, w: Writer, name: str) -> Iterator[Line]:
    yield w.line(f"{name} = {permuted(half(w, x, 'half'), half_layout(x), layout(x.axes))}", name)


@rule.register
def _product(x: Product, w: Writer, name: str) -> Iterator[Line]:
    shared = layout(without(x.axes, (x.slot,)))
    args = ", ".join(w.along(g, shared, x.rank) for g in x.args)
    yield w.line(f"{name} = {permuted(f'rt.product(({args}))', (*shared, x.slot), layout(x.axes))}", name)


@rule.register
def _slope(x: Slope, w: Writer, name: str) -> Iterator[Line]:
    shared = layout(union(without(x.dual.axes, (x.slot,)), without(x.arg.axes, (x.rank,))))
    given = f"{w.aligned(w.value(x.dual), (*shared, x.slot))}, {w.along(x.arg, shared, x.rank)}"
    yield w.line(_contracted(x, f"rt.slope({given}, {order_of(x.slot)})", shared, name), name)


@rule.register
def _opened(x: Opened, w: Writer, name: str) -> Iterator[Line]:
    shared = layout(union(without(x.dual.axes, (x.slot,)), without(x.arg.axes, (x.lower,))))
    given = f"{w.aligned(w.value(x.dual), (*shared, x.slot))}, {w.along(x.arg, shared, x.lower)}"
    yield w.line(_contracted(x, f"rt.opened({given}, {order_of(x.slot)})", shared, name), name)


def _contracted(x: Slope | Opened, made: str, shared: Axes, name: str) -> str:
    return f"{name} = {permuted(made, (*shared, x.rank), layout(x.axes))}"


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
