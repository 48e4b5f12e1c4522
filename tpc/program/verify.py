"""The verifier: every program is checked before and after every pass. A failure is our bug, not the user's."""

from __future__ import annotations

from typing import NoReturn

from tpc.errors import InternalError
from tpc.program import ir, tensor
from tpc.program.axes import union
from tpc.program.functions import argument
from tpc.program.node import Node
from tpc.program.program import Program, axes_in


def verify(program: Program, after: str) -> Program:
    """Return the program unchanged, or raise InternalError naming the pass, the node and the broken rule."""

    def broken(n: Node | None, rule: str) -> NoReturn:
        what = f" at {n!r}" if n is not None else ""
        raise InternalError(f"after {after}, program {program.name}{what}: {rule}")

    names: dict[str, Node] = {}
    sizes: dict[str, tuple[int | None, str]] = {}
    for n in program.nodes:
        for axis in axes_in(n):
            if sizes.setdefault(axis.base, (axis.size, axis.role)) != (axis.size, axis.role):
                broken(n, f"axis {axis} has two sizes or roles")
        if (
            isinstance(n, tensor.Input | tensor.Weight | ir.VectorWeight | ir.MatrixWeight)
            and names.setdefault(n.name, n) is not n
        ):
            broken(n, f"two leaves are named {n.name}")
        _check_scope(n, broken)
        _check_spaces(n, broken)
        _check_function(n, broken)
    outputs = [name for name, _ in program.outputs]
    if len(set(outputs)) != len(outputs):
        broken(None, f"outputs repeat: {outputs}")
    return program


def _check_scope(n: Node, broken: object) -> None:
    """Axes summed over exist in what is summed; renamed axes exist and do not collide."""
    fail = broken
    assert callable(fail)
    if isinstance(n, tensor.Contract) and not set(n.over) <= set(union(*(f.axes for f in n.factors))):
        fail(n, f"sums over {n.over}, which its factors lack")
    if isinstance(n, tensor.LogSumExp) and n.over not in n.arg.axes:
        fail(n, f"reduces {n.over}, which its argument lacks")
    if isinstance(n, ir.LinComb):
        for c, x, over in n.terms:
            if not set(over) <= set(union(c.axes, x.axes)):
                fail(n, f"sums over {over}, which its term lacks")
    if isinstance(n, ir.Outer) and set(n.over) != set(union(n.y.axes, n.x.axes)):
        fail(n, "an outer product sums over all finite axes of its vectors")
    if isinstance(n, tensor.Rename | ir.RenameVector):
        old = [a for a, _ in n.pairs]
        if not set(old) <= set(n.arg.axes):
            fail(n, "renames an axis its argument lacks")
        if len(set(n.axes)) != len(n.axes):
            fail(n, "two axes get one name")
        if any((a.base, a.size) != (b.base, b.size) for a, b in n.pairs):
            fail(n, "an axis may only be renamed to a primed copy of itself")


def _check_spaces(n: Node, broken: object) -> None:
    fail = broken
    assert callable(fail)
    if isinstance(n, ir.MatMul) and n.matrix.inn != n.x.space:
        fail(n, f"multiplies a matrix from {n.matrix.inn} with a vector of {n.x.space}")
    vectors: tuple[ir.Vector, ...] = ()
    if isinstance(n, ir.Nonlin | ir.Moment):
        vectors = n.xs
    elif isinstance(n, ir.LinComb):
        vectors = tuple(x for _, x, _ in n.terms)
    if len({x.space for x in vectors}) > 1:
        fail(n, f"mixes the spaces {', '.join(str(x.space) for x in vectors)}")
    if isinstance(n, ir.MatrixSum) and len({(m.out, m.inn) for m in n.terms}) > 1:
        fail(n, "adds matrices between different spaces")


def _check_function(n: Node, broken: object) -> None:
    fail = broken
    assert callable(fail)
    if isinstance(n, tensor.Map):
        known = {argument(i) for i in range(len(n.args))}
    elif isinstance(n, ir.Nonlin | ir.Moment):
        known = {argument(i) for i in range(len(n.xs))} | {ir.theta(j) for j in range(len(n.thetas))}
    else:
        return
    if not n.fn.free_symbols <= known:
        fail(n, f"its function uses {n.fn.free_symbols - known}, which are not arguments")
