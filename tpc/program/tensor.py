"""Finite tensors: what NETSOR⊤⁺ calls scalars, with named finite axes, broadcast by name.

Programs use them for data, multipliers, moments, logits and losses. Limit graphs are made of nothing else.
The lower-case functions build nodes and apply the identities that keep listings short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import sympy as sp
from sympy import Expr

from tpc.program.axes import Axes, Axis, after, effective, ordered, union, without
from tpc.program.functions import argument
from tpc.program.node import Node, Scope, node


class Tensor(Node):
    """A value with finite axes only."""

    __slots__ = ()


@node
class Input(Tensor):
    """Data: one array per call."""

    name: str
    shape: Axes

    @property
    def introduces(self) -> Axes:
        return self.shape


@node
class Weight(Tensor):
    """A trained tensor without a width axis, such as the bias of a readout; starts as N(0, std²)."""

    name: str
    shape: Axes
    std: Expr

    @property
    def introduces(self) -> Axes:
        return self.shape


@node
class Constant(Tensor):
    """A number."""

    value: Expr


@node
class Size(Tensor):
    """The length of an axis."""

    axis: Axis

    @property
    def counts(self) -> Axes:
        return (self.axis,)


@node
class Map(Tensor):
    """fn(args) elementwise; fn is written in u0, u1, …"""

    fn: Expr
    args: tuple[Tensor, ...]

    @property
    def symbols(self) -> tuple[Expr, ...]:
        return tuple(argument(i) for i in range(len(self.args)))

    @classmethod
    def build(cls, *fields: Any) -> Tensor:
        return elementwise(*fields)


@node
class Add(Tensor):
    """A sum of tensors."""

    terms: tuple[Tensor, ...]

    @classmethod
    def build(cls, *fields: Any) -> Tensor:
        return add(*fields)


@node
class Contract(Tensor):
    """The product of the factors, summed over the axes `over`."""

    factors: tuple[Tensor, ...]
    over: Axes

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (Scope(self.factors, self.over),)

    @classmethod
    def build(cls, *fields: Any) -> Tensor:
        return contract(*fields)


@node
class LogSumExp(Tensor):
    """log Σ exp over one axis."""

    arg: Tensor
    over: Axis

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (Scope((self.arg,), (self.over,)),)

    @classmethod
    def build(cls, *fields: Any) -> Tensor:
        return log_sum_exp(*fields)


@node
class Rename(Tensor):
    """The same values under other axis names."""

    arg: Tensor
    pairs: tuple[tuple[Axis, Axis], ...]

    @property
    def renames(self) -> tuple[tuple[Axis, Axis], ...]:
        return self.pairs

    @classmethod
    def build(cls, arg: Tensor, pairs: tuple[tuple[Axis, Axis], ...]) -> Tensor:
        return rename(arg, dict(pairs))


@node
class Broadcast(Tensor):
    """The same values, repeated along further axes."""

    arg: Tensor
    along: Axes

    @property
    def introduces(self) -> Axes:
        return self.along

    @classmethod
    def build(cls, *fields: Any) -> Tensor:
        return broadcast(*fields)


@node
class StopGradient(Tensor):
    """The same values, taken as constant by differentiation."""

    differentiable: ClassVar[bool] = False
    arg: Tensor

    @classmethod
    def build(cls, *fields: Any) -> Tensor:
        return stop_gradient(*fields)


# terms of a sum and factors of a product that are written out in another; longer ones are shared, as otherwise the sums
# that run through a deep network would take the square of its depth
FLAT = 16

ZERO = Constant(sp.Integer(0))
ONE = Constant(sp.Integer(1))


def constant(value: Any) -> Constant:
    """A number as an exact rational where it has a short one (0.1 → 1/10)."""
    return Constant(sp.nsimplify(value, rational=True))


def size(axis: Axis) -> Tensor:
    """The length of an axis, as a number where it is known."""
    return Size(axis) if axis.size is None else Constant(sp.Integer(axis.size))


def is_number(x: Node, value: int) -> bool:
    return isinstance(x, Constant) and bool(x.value == value)


def add(terms: Iterable[Tensor]) -> Tensor:
    """Σ terms; flat up to `FLAT` terms, without zeros, equal terms counted, numbers together."""
    flat: list[Tensor] = []
    for t in terms:
        flat.extend(t.terms if isinstance(t, Add) and len(t.terms) <= FLAT else (t,))
    number: Expr = sp.Integer(0)
    counts: dict[Tensor, int] = {}
    for t in flat:
        if isinstance(t, Constant):
            number += t.value
        else:
            counts[t] = counts.get(t, 0) + 1
    out = [t if n == 1 else contract((Constant(sp.Integer(n)), t)) for t, n in counts.items()]
    if number != 0 or not out:
        out.append(Constant(number))
    return out[0] if len(out) == 1 else Add(tuple(out))


def contract(factors: Iterable[Tensor], over: Iterable[Axis] = ()) -> Tensor:
    """Σ_over Π factors, as outside · Σ_over inside: factors that the sum does not touch leave it.

    Plain products are flat up to `FLAT` factors, numbers come first, and a sum over an absent axis is its size.
    """
    over = tuple(dict.fromkeys(over))
    flat: list[Tensor] = []
    for f in factors:
        short = isinstance(f, Contract) and not f.over and len(f.factors) <= FLAT
        flat.extend(f.factors if isinstance(f, Contract) and short else (f,))
    for i, f in enumerate(flat):  # a factor need not be repeated along axes that others have
        if isinstance(f, Broadcast) and set(f.along) <= set(union(*(g.axes for g in flat[:i] + flat[i + 1 :]))):
            flat[i] = f.arg
    present = union(*(f.axes for f in flat))
    flat.extend(size(axis) for axis in over if axis not in present)
    over = tuple(axis for axis in over if axis in present)
    if over:
        inside = [f for f in flat if set(f.axes) & set(over)]
        outside = [f for f in flat if not set(f.axes) & set(over)]
        if len(inside) == 1 and isinstance(inside[0], Contract):
            inner = inside[0]  # Σ_i Σ_j x = Σ_ij x
            summed: Tensor = Contract(inner.factors, inner.over + over)
        else:
            summed = Contract(tuple(inside), over)
        flat = [*outside, summed]
    number: Expr = sp.Integer(1)
    rest: list[Tensor] = []
    for f in flat:
        if isinstance(f, Constant):
            number *= f.value
        else:
            rest.append(f)
    if number == 0:
        return ZERO
    if number != 1 or not rest:
        rest.insert(0, Constant(number))
    return rest[0] if len(rest) == 1 else Contract(tuple(rest), ())


def elementwise(fn: Expr, args: Sequence[Tensor]) -> Tensor:
    """Map with unused arguments dropped and constants folded."""
    used = [i for i in range(len(args)) if fn.has(argument(i))]
    values = {argument(i): args[i].value for i in used if isinstance(args[i], Constant)}  # type: ignore[attr-defined]
    used = [i for i in used if argument(i) not in values]
    fn = (fn.subs(values) if values else fn).xreplace({argument(i): argument(k) for k, i in enumerate(used)})
    if not used:
        return Constant(fn)
    if fn == argument(0):
        return args[used[0]]
    return Map(fn, tuple(args[i] for i in used))


def log_sum_exp(x: Tensor, over: Axis) -> Tensor:
    """LogSumExp; along an axis that x lacks, x plus the logarithm of its length."""
    if over in x.axes:
        return LogSumExp(x, over)
    return add((x, elementwise(sp.log(argument(0)), (size(over),))))


def rename(x: Tensor, pairs: Mapping[Axis, Axis]) -> Tensor:
    """Rename axes; renamings merge and vanish where they change nothing."""
    pairs = effective(pairs, x.axes)
    if not pairs:
        return x
    if isinstance(x, Rename):
        return rename(x.arg, after(x.pairs, pairs))
    return Rename(x, ordered(pairs))


def broadcast(x: Tensor, axes: Axes) -> Tensor:
    """x repeated along those of `axes` that it lacks."""
    missing = without(axes, x.axes)
    return Broadcast(x, missing) if missing else x


def stop_gradient(x: Tensor) -> Tensor:
    """StopGradient; numbers are constant anyway."""
    return x if isinstance(x, Constant | Input | StopGradient) else StopGradient(x)
