"""Traced values: what a network computes with while it is traced.

Operations on traced values record deferred nodes. Spaces are variables that merge when vectors meet;
nodes are built once all of them are known.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, NoReturn, overload

import sympy as sp

from tpc.errors import SourceLine
from tpc.program import ir, tensor
from tpc.program.absent import PAGE, absent
from tpc.program.axes import Axes, union
from tpc.program.context import SpaceVariable, Trace, check_lengths, fail, user_line
from tpc.program.functions import NAMED, argument
from tpc.program.node import Node
from tpc.program.numbers import exact

_ARITHMETIC = "networks have + - * / and ** with a number, and the operations of tpc"


class Traced:
    """Anything a network computes with. Python may not look inside: the program must not depend on values."""

    __array_priority__ = 1000

    def __init__(self, axes: Axes, make: Callable[[], Node], label: str) -> None:
        check_lengths(axes)
        self.axes = axes
        self.label = label
        self.where = user_line()
        self._make = make
        self._nodes: dict[str, Node] = {}

    def build(self) -> Node:
        """The node, made on first use, once spaces are known."""
        return Trace.current().recall(self._nodes, "node", self._built)

    def _built(self, _: str) -> Node:
        made = self._make()
        if self.where is not None:
            self._tell_lines(made, self.where)
        return made

    @staticmethod
    def _tell_lines(made: Node, where: SourceLine) -> None:
        """Record the line of a node, and of those below it that no other traced value stands for."""
        sources = Trace.current().sources
        stack = [made]
        while stack:
            n = stack.pop()
            if n not in sources:
                sources[n] = where
                stack.extend(n.operands)

    def _is_a(self) -> str:
        return f"a {self.label}"

    def _branch(self, *_: Any) -> NoReturn:
        fail(
            f"the program branches on the value of {self._is_a()}, but a traced network has no values yet",
            "branch on settings (keyword arguments) only; for behaviour that depends on data use tpc.relu, tpc.step, …",
        )

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _branch
    __hash__ = object.__hash__

    def _no_value(self, *_: Any, **__: Any) -> NoReturn:
        fail(
            f"expected a traced operation, got Python asking for the value of {self._is_a()}",
            "a network only combines tpc operations; numbers come from settings or data",
        )

    __float__ = __int__ = __index__ = __complex__ = __len__ = __iter__ = __getitem__ = _no_value
    __array__ = _no_value

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> NoReturn:
        own = f"write tpc.{ufunc.__name__}" if ufunc.__name__ in NAMED else "use the operations of tpc"
        fail(
            f"unknown operation numpy.{ufunc.__name__} on {self._is_a()}",
            f"{own}, or tpc.nonlin('expression in x') for a nonlinearity of your own; arrays are data",
        )

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        told = absent(name)
        if told is not None:
            fail(f"unknown operation .{name} on {self._is_a()}: {told[0]}", f"{told[1]}; see {PAGE}")
        fail(f"unknown operation .{name} on {self._is_a()}", "call tpc operations as functions, as in tpc.relu(h)")

    def __matmul__(self, other: Any) -> NoReturn:
        fix = "a matrix product is tpc.dense(x, name=…), of two vectors tpc.moment(q, k)"
        fail(f"unknown operation @ on {self._is_a()}", fix)

    def __mod__(self, other: Any) -> NoReturn:
        fail(f"unknown operation % on {self._is_a()}", _ARITHMETIC)

    def __floordiv__(self, other: Any) -> NoReturn:
        fail(f"unknown operation // on {self._is_a()}", _ARITHMETIC)

    def __rpow__(self, other: Any) -> NoReturn:
        fail(f"unknown operation ** with {self._is_a()} as exponent", _ARITHMETIC)

    def __abs__(self) -> NoReturn:
        fail(f"unknown operation abs() on {self._is_a()}", "tpc.abs(h) is the absolute value of a vector")

    __rmatmul__, __rmod__, __rfloordiv__ = __matmul__, __mod__, __floordiv__


class TracedTensor(Traced):
    """A finite tensor: data, a multiplier, a moment, logits."""

    origin = ""  # "readout" for values computed by the network

    def build_tensor(self) -> tensor.Tensor:
        made = self.build()
        assert isinstance(made, tensor.Tensor)
        return made

    def __add__(self, other: Any) -> TracedTensor:
        if isinstance(other, TracedVector):
            fail_scalar_plus_vector(other)
        b = as_tensor(other)
        return scalar(union(self.axes, b.axes), lambda: tensor.add((self.build_tensor(), b.build_tensor())), self, b)

    __radd__ = __add__

    def __neg__(self) -> TracedTensor:
        return self._times(-1)

    def __sub__(self, other: Any) -> TracedTensor:
        return self + as_tensor(other)._times(-1)

    def __rsub__(self, other: Any) -> TracedTensor:
        difference: TracedTensor = self._times(-1) + other
        return difference

    @overload
    def __mul__(self, other: TracedVector) -> TracedVector: ...

    @overload
    def __mul__(self, other: Any) -> TracedTensor: ...

    def __mul__(self, other: Any) -> TracedTensor | TracedVector:
        return other * self if isinstance(other, TracedVector) else self._times(other)

    def _times(self, other: Any) -> TracedTensor:
        b = as_tensor(other)
        return scalar(
            union(self.axes, b.axes), lambda: tensor.contract((b.build_tensor(), self.build_tensor())), self, b
        )

    __rmul__ = __mul__

    def __pow__(self, exponent: Any) -> TracedTensor:
        if isinstance(exponent, bool) or not isinstance(exponent, Real):
            fail(f"expected a number as exponent, got {type(exponent).__name__}")
        power = _number(exponent)
        return scalar(self.axes, lambda: tensor.elementwise(argument(0) ** power, (self.build_tensor(),)), self)

    def __truediv__(self, other: Any) -> TracedTensor:
        return self * _inverse(other)

    def __rtruediv__(self, other: Any) -> Any:
        return self**-1 * other


class TracedVector(Traced):
    """n values per neuron of a space."""

    def __init__(self, space: SpaceVariable, axes: Axes, make: Callable[[], Node], label: str = "vector") -> None:
        super().__init__(axes, make, label)
        self.space = space

    def build_vector(self) -> ir.Vector:
        made = self.build()
        assert isinstance(made, ir.Vector)
        return made

    def __add__(self, other: Any) -> TracedVector:
        if isinstance(other, TracedTensor):
            fail_scalar_plus_vector(self)
        if isinstance(other, TracedVector):
            self.space.merge(other.space)
            return TracedVector(
                self.space,
                union(self.axes, other.axes),
                lambda: _flat_sum((self.build_vector(), other.build_vector())),
            )
        number = _number(other)
        return apply_nonlin(argument(0) + number, (self,))

    __radd__ = __add__

    def __neg__(self) -> TracedVector:
        return self * -1

    def __sub__(self, other: Any) -> TracedVector:
        negated: Any = -1 * other
        difference: TracedVector = self + negated
        return difference

    def __rsub__(self, other: Any) -> TracedVector:
        difference: TracedVector = self * -1 + other
        return difference

    def __mul__(self, other: Any) -> TracedVector:
        if isinstance(other, TracedVector):
            return apply_nonlin(argument(0) * argument(1), (self, other))
        c = as_tensor(other)
        return TracedVector(
            self.space, union(c.axes, self.axes), lambda: _scaled(c.build_tensor(), self.build_vector())
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> TracedVector:
        if isinstance(other, TracedVector):
            fail("unknown operation: a vector divided by a vector", "divide by a scalar, such as a tpc.moment")
        return self * _inverse(other)

    def __rtruediv__(self, other: Any) -> NoReturn:
        fail("unknown operation: division by a vector", "divide by a scalar, such as a tpc.moment")

    def __pow__(self, exponent: Any) -> TracedVector:
        if isinstance(exponent, bool) or not isinstance(exponent, int) or exponent < 1:
            fail(f"expected a positive whole exponent of a vector, got {exponent!r}", "write tpc.nonlin('…') instead")
        return apply_nonlin(argument(0) ** exponent, (self,))


def _flat_sum(vectors: tuple[ir.Vector, ...]) -> ir.Vector:
    """A sum of scaled vectors is one LinComb, up to `FLAT` terms."""
    terms: list[tuple[tensor.Tensor, ir.Vector, Axes]] = []
    for x in vectors:
        terms.extend(x.terms if isinstance(x, ir.LinComb) and _is_cheap(x) else ((tensor.ONE, x, ()),))
    return ir.LinComb(tuple(terms))


def _scaled(c: tensor.Tensor, x: ir.Vector) -> ir.Vector:
    if isinstance(c, tensor.Constant) and isinstance(x, ir.LinComb) and _is_cheap(x):
        return ir.LinComb(tuple((tensor.contract((c, ci)), xi, over) for ci, xi, over in x.terms))
    return x if c is tensor.ONE else ir.LinComb(((c, x, ()),))


def _is_cheap(x: ir.LinComb) -> bool:
    """Whether repeating x inside another sum repeats additions only, no contraction, and few of them."""
    return len(x.terms) <= tensor.FLAT and not any(over for _, _, over in x.terms)


def fail_scalar_plus_vector(vector: TracedVector) -> NoReturn:
    fail(
        f"expected two vectors or two scalars to add, got a scalar and {vector._is_a()}",
        "a scalar multiplies a vector; a bias of a readout is made after it, with tpc.bias(<its name>)",
    )


def scalar(axes: Axes, make: Callable[[], Node], *parents: TracedTensor) -> TracedTensor:
    """A traced tensor that remembers whether it came out of the network."""
    made = TracedTensor(axes, make, "scalar")
    made.origin = next((p.origin for p in parents if p.origin), "")
    return made


def _number(value: Any) -> sp.Expr:
    if isinstance(value, bool) or not isinstance(value, Real | sp.Number):
        fail(
            f"expected a number or a traced value, got {type(value).__name__}",
            "pass arrays as data to the trained model, not inside the program",
        )
    try:
        return exact(value)
    except ValueError as e:
        fail(str(e))


def as_tensor(value: Any) -> TracedTensor:
    """Numbers become constant tensors."""
    if isinstance(value, TracedTensor):
        return value
    if isinstance(value, TracedVector):
        fail("expected a scalar, got a vector", "use tpc.moment to turn vectors into a scalar")
    number = _number(value)
    return scalar((), lambda: tensor.Constant(number))


def _inverse(value: Any) -> TracedTensor:
    if isinstance(value, Real) and value == 0:
        fail("division by zero")
    return as_tensor(value) ** -1


def as_vector(value: Any, operation: str) -> TracedVector:
    """The argument as a vector, or the error that says what it is instead."""
    if isinstance(value, TracedVector):
        return value
    if isinstance(value, TracedTensor):
        what = "the output of a readout" if value.origin else "a scalar (finite axes only)"
        if operation.startswith("tpc.") and value.origin:
            fix = "put the readout last: apply it once all hidden layers are done"
        else:
            fix = "embed data first: h = tpc.dense(x, name='embed'), then apply the operation to h"
        fail(f"{operation} expects a vector (one value per neuron), got {what}", fix)
    return fail(f"{operation} expects a vector, got {type(value).__name__}", "pass the result of tpc.dense")


def apply_nonlin(fn: sp.Expr, xs: tuple[TracedVector, ...]) -> TracedVector:
    """fn(x₁, …) coordinatewise; the spaces of the arguments become one."""
    for x in xs[1:]:
        xs[0].space.merge(x.space)
    return TracedVector(
        xs[0].space, union(*(x.axes for x in xs)), lambda: ir.nonlin(fn, [x.build_vector() for x in xs])
    )
