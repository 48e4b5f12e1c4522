"""Reverse-mode differentiation of a program: one rule per instruction.

The cotangent of a finite tensor s is ∂L/∂s. The cotangent of a vector x is dx = n·∂L/∂x, whose coordinates are
Θ(1); that of a matrix is ∂L/∂W = (1/n) Σ dy xᵀ (TP4 §6; docs/concepts/backward.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import singledispatch

import sympy as sp

from tpc.errors import InternalError, SourceLine
from tpc.program import ir, shift, tensor
from tpc.program.axes import Axes, union, without
from tpc.program.functions import argument
from tpc.program.ir import Matrix, Vector
from tpc.program.node import Node, topological
from tpc.program.program import Program
from tpc.program.tensor import FLAT, ONE, Tensor

Flow = Iterator[tuple[Node, Node]]  # (operand, its share of the cotangent)


def backward(program: Program) -> Program:
    """Add the outputs "grad:<weight>" for every weight the loss depends on; their lines are those differentiated."""
    origins: list[tuple[Node, Node]] = []
    cotangents = differentiate(program.tensor("loss"), program.weights, origins)
    grads = [(f"grad:{w.name}", cotangents[w]) for w in program.weights if w in cotangents]
    return replace(program.with_outputs(*grads), sources={**program.sources, **lines_of(program, origins)})


def lines_of(program: Program, origins: Iterable[tuple[Node, Node]]) -> dict[Node, SourceLine]:
    """The user's lines of what differentiation made: (made, instruction that it is the rule of) in order."""
    known = set(program.nodes)
    found: dict[Node, SourceLine] = {}
    for made, instruction in origins:
        where = program.where(instruction)
        stack = [made]
        while stack:
            n = stack.pop()
            if n not in known:
                known.add(n)
                stack.extend(n.operands)
                if where is not None:
                    found[n] = where
    return found


def differentiate(
    loss: Tensor, wanted: Iterable[Node], origins: list[tuple[Node, Node]] | None = None
) -> dict[Node, Node]:
    """The cotangents of `wanted` nodes under a scalar `loss`.

    `origins` gets every node that a rule yields, with the instruction that the rule belongs to.
    """
    wanted = set(wanted)
    order = topological([loss])
    active: set[Node] = set()
    for n in order:
        if n in wanted or (n.differentiable and any(m in active for m in n.operands)):
            active.add(n)
    shares: dict[Node, list[Node]] = {loss: [ONE]}
    found: dict[Node, Node] = {}
    for n in reversed(order):
        if n not in active or n not in shares:
            continue
        total = _sum(n, shares.pop(n))
        if total is None:
            continue
        if n in wanted:
            found[n] = total
        if origins is not None:
            origins.append((total, n))
        for operand, share in vjp(n, total):
            if operand in active:
                shares.setdefault(operand, []).append(share)
                if origins is not None:
                    origins.append((share, n))
    return found


def _sum(n: Node, parts: list[Node]) -> Node | None:
    if isinstance(n, Matrix):
        return ir.matrix_sum([p for p in parts if isinstance(p, Matrix)])
    if isinstance(n, Vector):
        terms: list[tuple[Tensor, Vector, Axes]] = []
        for p in parts:
            assert isinstance(p, Vector)
            flat = isinstance(p, ir.LinComb) and len(parts) > 1 and len(p.terms) <= FLAT
            terms.extend(p.terms if isinstance(p, ir.LinComb) and flat else ((ONE, p, ()),))
        return ir.lincomb(terms)
    assert isinstance(n, Tensor)
    return tensor.broadcast(tensor.add(p for p in parts if isinstance(p, Tensor)), n.axes)


def _summed(share: Tensor | Vector, own: Axes) -> Tensor | Vector:
    """A share summed over what the operand lacks."""
    over = without(share.axes, own)
    if isinstance(share, Tensor):
        return tensor.contract((share,), over)
    return share if not over else ir.LinComb(((ONE, share, over),))


def _over(dy: Axes, others: Axes, own: Axes) -> Axes:
    """The axes a share is summed over: all it has and the operand lacks."""
    return without(union(dy, others), own)


@singledispatch
def vjp(n: Node, dy: Node) -> Flow:
    """The shares of the cotangent `dy` of `n` that flow to its operands."""
    raise InternalError(f"no backward rule for {type(n).__name__}")


@vjp.register(tensor.Input | tensor.Constant | tensor.Size | tensor.Weight | ir.VectorWeight | ir.MatrixWeight)
def _leaf(n: Node, dy: Node) -> Flow:
    return iter(())


@vjp.register
def _add(n: tensor.Add, dy: Tensor) -> Flow:
    # s = Σ tᵢ:  dtᵢ = ds
    for t in n.terms:
        yield t, tensor.contract((dy,), _over(dy.axes, (), t.axes))


@vjp.register
def _contract(n: tensor.Contract, dy: Tensor) -> Flow:
    # s = Σ Π fᵢ:  dfᵢ = Σ ds Π_{j≠i} fⱼ
    for i, f in enumerate(n.factors):
        others = n.factors[:i] + n.factors[i + 1 :]
        axes = union(dy.axes, *(o.axes for o in others))
        share = tensor.contract((dy, *others), without(axes, f.axes))
        yield f, tensor.broadcast(share, f.axes)


@vjp.register
def _map(n: tensor.Map, dy: Tensor) -> Flow:
    # s = f(t₁, …):  dtᵢ = ds ∂ᵢf
    for i, t in enumerate(n.args):
        slope = tensor.elementwise(sp.diff(n.fn, argument(i)), n.args)
        yield t, tensor.contract((dy, slope), _over(dy.axes, slope.axes, t.axes))


@vjp.register
def _logsumexp(n: tensor.LogSumExp, dy: Tensor) -> Flow:
    # s = log Σ exp t:  dt = ds exp(t - s)
    weight = tensor.elementwise(sp.exp(argument(0) - argument(1)), (n.arg, n))
    yield n.arg, tensor.contract((dy, weight))


@vjp.register
def _rename(n: tensor.Rename, dy: Tensor) -> Flow:
    yield n.arg, tensor.rename(dy, {b: a for a, b in n.pairs})


@vjp.register
def _broadcast(n: tensor.Broadcast, dy: Tensor) -> Flow:
    yield n.arg, tensor.contract((dy,), n.along)


@vjp.register
def _moment(n: ir.Moment, dy: Tensor) -> Flow:
    # s = (1/n) Σ f(x₁, …; θ):  dxᵢ = n·∂L/∂xᵢ = ds ∂ᵢf(x; θ),  dθ = ds (1/n) Σ ∂_θ f
    for i, x in enumerate(n.xs):
        slope = sp.diff(n.fn, argument(i))
        if slope == 0:
            continue
        factor, slope = slope.as_coeff_Mul()
        y = ir.nonlin(slope, n.xs, n.thetas)
        coefficient = tensor.contract((tensor.Constant(factor), dy))
        share = ir.lincomb([(coefficient, y, _over(dy.axes, y.axes, x.axes))])
        if share is not None:
            yield x, share
    for j, t in enumerate(n.thetas):
        slope = ir.moment(sp.diff(n.fn, ir.theta(j)), n.xs, n.thetas)
        yield t, tensor.contract((dy, slope), _over(dy.axes, slope.axes, t.axes))


@vjp.register
def _nonlin(n: ir.Nonlin, dy: Vector) -> Flow:
    # y = f(x₁, …; θ):  dxᵢ = ∂ᵢf ⊙ dy,  dθ = (1/n) Σ ∂_θ f · dy
    w = argument(len(n.xs))
    for i, x in enumerate(n.xs):
        slope = sp.diff(n.fn, argument(i))
        if slope == 0:
            continue
        y = ir.nonlin(slope * w, (*n.xs, dy), n.thetas)
        share = ir.lincomb([(ONE, y, without(y.axes, x.axes))])
        if share is not None:
            yield x, share
    for j, t in enumerate(n.thetas):
        s = ir.moment(sp.diff(n.fn, ir.theta(j)) * w, (*n.xs, dy), n.thetas)
        yield t, tensor.contract((s,), without(s.axes, t.axes))


@vjp.register
def _lincomb(n: ir.LinComb, dy: Vector) -> Flow:
    # y = Σ cᵢ xᵢ:  dxᵢ = cᵢ dy,  dcᵢ = ∂L/∂cᵢ = (1/n) ⟨xᵢ, dy⟩
    for c, x, _ in n.terms:
        share = ir.lincomb([(c, dy, _over(dy.axes, c.axes, x.axes))])
        if share is not None:
            yield x, share
        if not isinstance(c, tensor.Constant | tensor.Input):
            s = ir.moment(ir.PRODUCT, (x, dy))
            yield c, tensor.contract((s,), without(s.axes, c.axes))


@vjp.register
def _rename_vector(n: ir.RenameVector, dy: Vector) -> Flow:
    yield n.arg, ir.rename_vector(dy, {b: a for a, b in n.pairs})


@vjp.register(shift.Shifted | shift.ShiftedVector)
def _shifted(n: shift.Shifted | shift.ShiftedVector, dy: Tensor | Vector) -> Flow:
    yield n.arg, _summed(shift.unshift(dy, n.window), n.arg.axes)


@vjp.register(shift.Unshifted | shift.UnshiftedVector)
def _unshifted(n: shift.Unshifted | shift.UnshiftedVector, dy: Tensor | Vector) -> Flow:
    yield n.arg, _summed(shift.shift(dy, n.window), n.arg.axes)


@vjp.register
def _matmul(n: ir.MatMul, dy: Vector) -> Flow:
    # y = W x:  dx = Wᵀ dy,  dW = (1/n) Σ dy xᵀ, for each of a family
    yield n.x, _summed(ir.MatMul(ir.transpose(n.matrix), dy), n.x.axes)
    dy = ir.spread(dy, without(n.matrix.axes, n.x.axes))
    yield n.matrix, ir.Outer(dy, n.x, without(union(dy.axes, n.x.axes), n.matrix.axes))


@vjp.register
def _transpose(n: ir.Transpose, dy: Matrix) -> Flow:
    parts = dy.terms if isinstance(dy, ir.MatrixSum) else (dy,)
    for part in parts:
        if not isinstance(part, ir.Outer):
            raise InternalError(f"the cotangent of a matrix is a {type(part).__name__}, not an outer product")
        yield n.arg, ir.Outer(part.x, part.y, part.over)


@vjp.register
def _project(n: ir.Project, dy: Vector) -> Flow:
    # Π is symmetric
    yield n.arg, ir.Project(dy)


@vjp.register
def _learned(n: ir.Learned, dy: Vector) -> Flow:
    # as Π, which a limit may put in its place
    yield n.arg, ir.Learned(dy)
