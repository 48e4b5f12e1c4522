"""Programs with numbers in them: every instruction evaluated at a concrete width n.

A finite tensor is an array with one dimension per axis, in the order of the node's `axes`; a vector has the
width as a further, last dimension. All spaces have one width. Matrices are only ever applied. Arrays are those of a
library (`tpc/runtime/networks/library.py`), of one number type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, singledispatch
from typing import Any, TypeAlias, cast

import numpy as np
import sympy as sp
from numpy.typing import DTypeLike
from sympy import Expr

from tpc.errors import InternalError, UsageError
from tpc.program import ir, shift, tensor
from tpc.program.axes import Axes, Axis, without
from tpc.program.functions import argument
from tpc.program.ir import Vector, theta
from tpc.program.node import Node, topological
from tpc.program.program import Program
from tpc.program.tensor import Input, Tensor
from tpc.program.window import pieces
from tpc.runtime.networks.library import Library, library
from tpc.runtime.networks.matrix import F64, Family, LowRank, MatrixValue, total

WIDTH = Axis("width", role="width")
Value: TypeAlias = F64 | MatrixValue


@dataclass
class Evaluation:
    """One evaluation: weights and data by name, bases of span Ω by space, and the values known so far."""

    program: Program
    width: int
    leaves: Mapping[str, Value]
    bases: Mapping[str, F64]
    arrays: Library
    dtype: DTypeLike = np.float64
    sizes: dict[str, int] = field(default_factory=dict)
    values: dict[Node, Value] = field(default_factory=dict)

    def array(self, n: Tensor | Vector) -> F64:
        return cast(F64, self.values[n])

    def matrix(self, n: ir.Matrix) -> MatrixValue:
        return cast(MatrixValue, self.values[n])

    def size(self, axis: Axis) -> int:
        return axis.size if axis.size is not None else self.sizes[axis.base]

    def shape(self, axes: Axes) -> tuple[int, ...]:
        return tuple(self.width if a == WIDTH else self.size(a) for a in axes)

    def number(self, x: float) -> F64:
        """An array without dimensions."""
        return cast(F64, self.arrays.xp.asarray(x, dtype=self.dtype))

    def evaluate(self, order: Iterable[Node]) -> None:
        """Find the values of nodes, operands first."""
        for n in order:
            if isinstance(n, Input):
                _bind(n, self)
        for n in order:
            self.values[n] = value(n, self)

    def rows(self, n: Tensor | Vector, over: Axes, *more: Axis) -> F64:
        """The array of a node with the dimensions `over` as one, and then `more`."""
        return self.spread(n, (*over, *more)).reshape(-1, *self.shape(more))

    def spread(self, n: Tensor | Vector, want: Axes) -> F64:
        """The array of a node with dimensions `want`, repeated along those that it lacks."""
        return cast(F64, self.arrays.xp.broadcast_to(aligned(self.array(n), dims(n), want), self.shape(want)))


def evaluate(
    program: Program,
    outputs: Iterable[str],
    width: int,
    leaves: Mapping[str, Value],
    bases: Mapping[str, F64],
) -> dict[str, Value]:
    """The named outputs of a program at width `width`.

    `leaves` has an array or matrix for every weight and input that they need; `bases` has Q (n, r) with
    QᵀQ = I and the span of Ω for every space that is projected to. Raises UsageError for data of the wrong
    shape and where a derivative is a Dirac delta, which no finite network has.
    """
    roots = {name: program[name] for name in outputs}
    run = Evaluation(program, width, leaves, bases, library())
    run.evaluate(topological(roots.values()))
    return {name: run.values[n] for name, n in roots.items()}


def _bind(n: Input, run: Evaluation) -> None:
    shape = np.shape(cast(F64, run.leaves[n.name]))
    wanted = [a.size if a.size is not None else run.sizes.get(a.base) for a in n.shape]
    if len(shape) != len(wanted) or any(w not in (None, s) for w, s in zip(wanted, shape)):
        axes = ", ".join(f"{a} = {w}" if w else str(a) for a, w in zip(n.shape, wanted))
        raise UsageError(f"expected {n.name} of shape ({axes}), got {shape}")
    run.sizes.update({a.base: s for a, s in zip(n.shape, shape)})


def dims(n: Tensor | Vector) -> Axes:
    """The axes of the array of a node."""
    return (*n.axes, WIDTH) if isinstance(n, Vector) else n.axes


def places(axes: Axes, at: Mapping[Axis, int | slice]) -> tuple[int | slice, ...]:
    """The index of an array that takes these places of axes, and all of the others."""
    return tuple(at.get(a, slice(None)) for a in axes)


def aligned(x: F64, have: Axes, want: Axes) -> F64:
    """x with dimensions `want`, of length 1 where it lacks one."""
    order = [have.index(a) for a in want if a in have]
    return x.transpose(order)[tuple(slice(None) if a in have else None for a in want)]


def contracted(parts: Sequence[tuple[F64, Axes]], want: Axes, arrays: Library) -> F64:
    """The product of arrays summed over all axes but `want`."""
    if len(parts) == 2:
        return _paired(parts[0], parts[1], want, arrays)
    label = {a: i for i, a in enumerate(dict.fromkeys(a for _, axes in parts for a in axes))}
    operands: list[Any] = []
    for x, axes in parts:
        operands += [x, [label[a] for a in axes]]
    return cast(F64, arrays.xp.einsum(*operands, [label[a] for a in want], optimize=len(parts) > 1))


def _paired(left: tuple[F64, Axes], right: tuple[F64, Axes], want: Axes, arrays: Library) -> F64:
    """The product of two arrays as one matrix product where something is summed, else entry by entry."""
    (x, x_axes), (y, y_axes) = (_summed(*part, {*want, *other[1]}) for part, other in ((left, right), (right, left)))
    inner = tuple(a for a in x_axes if a in y_axes and a not in want)
    if not inner:
        have = tuple(a for a in want if a in x_axes or a in y_axes)
        return aligned(aligned(x, x_axes, have) * aligned(y, y_axes, have), have, want)
    both = tuple(a for a in x_axes if a in y_axes and a in want)
    rows, columns = (tuple(a for a in axes if a not in inner and a not in both) for axes in (x_axes, y_axes))
    size = {**dict(zip(x_axes, x.shape)), **dict(zip(y_axes, y.shape))}

    def grouped(array: F64, axes: Axes, *groups: Axes) -> F64:
        order = [axes.index(a) for group in groups for a in group]
        return array.transpose(order).reshape([math.prod(size[a] for a in group) for group in groups])

    first, second = grouped(x, x_axes, both, rows, inner), grouped(y, y_axes, both, inner, columns)
    found = arrays.xp.matmul(first, second) if both else arrays.product(first[0], second[0])
    have = (*both, *rows, *columns)
    return aligned(found.reshape([size[a] for a in have]), have, want)


def _summed(x: F64, axes: Axes, used: set[Axis]) -> tuple[F64, Axes]:
    """x summed over the axes that nothing else has."""
    gone = tuple(i for i, a in enumerate(axes) if a not in used)
    return (x.sum(axis=gone), tuple(a for a in axes if a in used)) if gone else (x, axes)


@lru_cache(maxsize=4096)
def numeric(fn: Expr, arguments: int, thetas: int, backend: str = "numpy") -> Callable[..., F64]:
    """fn(u0, …, t0, …) on arrays of a backend's library."""
    symbols = [*(argument(i) for i in range(arguments)), *(theta(j) for j in range(thetas))]
    modules = [dict(library(backend).functions), "scipy", "numpy"]
    return cast("Callable[..., F64]", sp.lambdify(symbols, fn, modules=modules))


@lru_cache(maxsize=4096)
def without_deltas(fn: Expr) -> Expr:
    """g(u)·δ(u) = g(0)·δ(u): deltas go where g(0) = 0, as in the derivative of (eᵘ − 1)·step(u)."""
    for delta in fn.atoms(sp.DiracDelta):
        if len(delta.args) == 1 and delta.args[0].is_Symbol:
            factor = sp.expand(fn).coeff(delta)
            if factor.subs(delta.args[0], 0) == 0:
                fn = fn.xreplace({delta: sp.Integer(0)})
    return fn


def _elementwise(n: tensor.Map | ir.Nonlin | ir.Moment, run: Evaluation, want: Axes) -> F64:
    fn = without_deltas(n.fn)
    if fn.has(sp.DiracDelta):
        where = run.program.where(n)
        raise UsageError(
            (f"{where}: " if where else "")
            + f"a finite network cannot be trained here: the derivative {fn} has a Dirac delta.\n"
            "  Fix: use a nonlinearity without jumps (in second-order adaptation without kinks, too), or compare the "
            "networks before training (0 steps)."
        )
    arguments: tuple[Tensor | Vector, ...] = n.args if isinstance(n, tensor.Map) else n.xs
    thetas = () if isinstance(n, tensor.Map) else n.thetas
    arrays = [aligned(run.array(a), dims(a), want) for a in (*arguments, *thetas)]
    result = numeric(fn, len(arguments), len(thetas), run.arrays.name)(*arrays)
    if isinstance(result, int | float):
        result = run.number(result)
    return cast(F64, run.arrays.xp.broadcast_to(result, run.shape(want)))


@singledispatch
def value(n: Node, run: Evaluation) -> Value:
    """The value of a node whose operands are in `run.values`: one rule per instruction."""
    raise InternalError(f"program {run.program.name}: no finite-width rule for {type(n).__name__}")


@value.register(tensor.Input | tensor.Weight | ir.VectorWeight | ir.MatrixWeight)
def _leaf(n: Any, run: Evaluation) -> Value:
    return run.leaves[n.name]


@value.register
def _constant(n: tensor.Constant, run: Evaluation) -> Value:
    return run.number(float(n.value))


@value.register
def _size(n: tensor.Size, run: Evaluation) -> Value:
    return run.number(float(run.size(n.axis)))


@value.register
def _map(n: tensor.Map, run: Evaluation) -> Value:
    return _elementwise(n, run, n.axes)


@value.register
def _add(n: tensor.Add, run: Evaluation) -> Value:
    return _sum([aligned(run.array(t), t.axes, n.axes) for t in n.terms])


@value.register
def _contract(n: tensor.Contract, run: Evaluation) -> Value:
    return contracted([(run.array(f), f.axes) for f in n.factors], n.axes, run.arrays)


@value.register
def _logsumexp(n: tensor.LogSumExp, run: Evaluation) -> Value:
    x, axis, xp = run.array(n.arg), n.arg.axes.index(n.over), run.arrays.xp
    top = x.max(axis=axis, keepdims=True)
    return cast(F64, xp.log(xp.exp(x - top).sum(axis=axis)) + xp.squeeze(top, axis))


@value.register(tensor.Rename | ir.RenameVector | tensor.StopGradient | ir.StopGradientVector | ir.Learned)
def _rename(n: Any, run: Evaluation) -> Value:
    return run.array(n.arg)


@value.register
def _broadcast(n: tensor.Broadcast, run: Evaluation) -> Value:
    x = aligned(run.array(n.arg), n.arg.axes, n.axes)
    return cast(F64, run.arrays.xp.broadcast_to(x, run.shape(n.axes)))


@value.register
def _moment(n: ir.Moment, run: Evaluation) -> Value:
    if n.fn == ir.PRODUCT:  # without the array of all products
        return contracted([(run.array(x), dims(x)) for x in n.xs], n.axes, run.arrays) / run.width
    return cast(F64, _elementwise(n, run, (*n.axes, WIDTH)).mean(axis=-1))


@value.register
def _nonlin(n: ir.Nonlin, run: Evaluation) -> Value:
    return _elementwise(n, run, dims(n))


@value.register
def _lincomb(n: ir.LinComb, run: Evaluation) -> Value:
    terms = []
    for c, x, over in n.terms:
        have = tuple(a for a in dict.fromkeys((*c.axes, *dims(x))) if a not in over)
        scaled = contracted([(run.array(c), c.axes), (run.array(x), dims(x))], have, run.arrays)
        terms.append(aligned(scaled, have, dims(n)))
    return _sum(terms)


@value.register
def _matmul(n: ir.MatMul, run: Evaluation) -> Value:
    matrix = run.matrix(n.matrix)
    if not n.matrix.axes:
        return matrix.apply(run.array(n.x))
    assert isinstance(matrix, Family)
    made = run.arrays.xp.empty(run.shape(dims(n)), dtype=run.dtype)
    for place, member in matrix.members.items():
        at = dict(zip(matrix.axes, place))
        made[places(dims(n), at)] = member.apply(run.array(n.x)[places(dims(n.x), at)])
    return cast(F64, made)


@value.register(shift.Shifted | shift.ShiftedVector | shift.Unshifted | shift.UnshiftedVector)
def _windowed(n: Any, run: Evaluation) -> Value:
    w, back = n.window, isinstance(n, shift.Unshifted | shift.UnshiftedVector)
    before, after = (w.target, w.source) if back else (w.source, w.target)
    made = run.arrays.xp.zeros(run.shape(dims(n)), dtype=run.dtype)
    x, have, rest = run.array(n.arg), dims(n.arg), without(dims(n), (w.offset,))
    axes = tuple(after if a == before else a for a in have if a != w.offset)
    for o, p, q in pieces(*w.geometry):
        seen, to = (p, q) if back else (q, p)
        part = x[places(have, {before: seen, w.offset: o})]
        made[places(dims(n), {after: to, w.offset: o})] += aligned(part, axes, rest)
    return cast(F64, made)


@value.register
def _project(n: ir.Project, run: Evaluation) -> Value:
    # Π = Ω(ΩᵀΩ)⁻¹Ωᵀ = Q Qᵀ
    q = run.bases[n.space.name]
    return (run.array(n.arg) @ q) @ q.T


@value.register
def _transpose(n: ir.Transpose, run: Evaluation) -> Value:
    return run.matrix(n.arg).transposed()


@value.register
def _outer(n: ir.Outer, run: Evaluation) -> Value:
    if not n.axes:
        return LowRank(run.rows(n.y, n.over, WIDTH), run.rows(n.x, n.over, WIDTH))
    left, right = (run.spread(v, (*n.axes, *n.over, WIDTH)) for v in (n.y, n.x))
    flat = (-1, run.width)
    found = {p: LowRank(left[p].reshape(flat), right[p].reshape(flat)) for p in np.ndindex(run.shape(n.axes))}
    return Family(n.axes, found)


@value.register
def _matrix_sum(n: ir.MatrixSum, run: Evaluation) -> Value:
    return total(run.matrix(t) for t in n.terms)


def _sum(terms: Sequence[F64]) -> F64:
    result = terms[0]
    for t in terms[1:]:
        result = result + t
    return result
