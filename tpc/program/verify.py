"""The verifier: every program is checked before and after every pass. A failure is our bug, not the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeAlias

import sympy as sp

from tpc.errors import InternalError
from tpc.program import ir, shift, tensor
from tpc.program.axes import Axis, union, without
from tpc.program.node import Node, fields
from tpc.program.program import Program

Fail: TypeAlias = Callable[[Node | None, str], NoReturn]


def verify(program: Program, after: str) -> Program:
    """Return the program unchanged, or raise InternalError naming the pass, the node and the broken rule."""

    def broken(n: Node | None, rule: str) -> NoReturn:
        what = f" at {n!r}" if n is not None else ""
        raise InternalError(f"after {after}, program {program.name}{what}: {rule}")

    names: dict[str, Node] = {}
    sizes: dict[str, Axis] = {}
    for n in program.nodes:
        check_axes(n, sizes, broken)
        if any((a.base, a.size) != (b.base, b.size) for a, b in n.renames):
            broken(n, "an axis may only be renamed to a primed copy of itself")
        if (
            isinstance(n, tensor.Input | tensor.Weight | ir.VectorWeight | ir.MatrixWeight)
            and names.setdefault(n.name, n) is not n
        ):
            broken(n, f"two leaves are named {n.name}")
        _check_spaces(n, broken)
        check_window(n, broken)
        check_functions(n, broken)
    for name, value in program.outputs:
        w = names.get(name.removeprefix("grad:"))
        if isinstance(value, ir.Matrix) and set(value.axes) != set(w.axes if isinstance(w, ir.MatrixWeight) else ()):
            broken(value, "an outer product sums over all finite axes of its vectors that its weight lacks")
    outputs = [name for name, _ in program.outputs]
    if len(set(outputs)) != len(outputs):
        broken(None, f"outputs repeat: {outputs}")
    return program


def check_axes(n: Node, known: dict[str, Axis], broken: Fail) -> None:
    """Axes of one name are one; those summed over or joined exist; renamed ones exist and do not collide."""
    for axis in n.mentions:
        first = known.setdefault(axis.base, axis)
        if (first.size, first.role) != (axis.size, axis.role):
            broken(n, f"axis {axis} has two sizes or roles")
    for s in n.scopes:
        if missing := without(s.sums, s.joint):
            broken(n, f"sums over {', '.join(map(str, missing))}, which its operands lack")
    given = union(*(s.joint for s in n.scopes))
    if missing := without(n.joins, given):
        broken(n, f"joins {', '.join(map(str, missing))}, which its operands lack")
    if not {a for a, _ in n.renames} <= set(given):
        broken(n, "renames an axis its argument lacks")
    if n.renames and len(set(n.axes)) != len(n.axes):
        broken(n, "two axes get one name")


def check_window(n: Node, broken: Fail) -> None:
    """Windows go along axes of known length, to one that the operand has not already."""
    if isinstance(n, shift.Shifted | shift.ShiftedVector | shift.Unshifted | shift.UnshiftedVector):
        w = n.window
        ends = {w.source, w.target}
        if any(a.size is None for a in (*ends, w.offset)) or w.stride < 1 or w.dilation < 1 or w.offset in ends:
            broken(n, "a window has known lengths, a stride and a dilation")
        if len(ends & set(n.arg.axes)) > 1:
            broken(n, "a window leads to an axis that its operand has already")


def _check_spaces(n: Node, broken: Fail) -> None:
    if isinstance(n, ir.MatMul) and n.matrix.inn != n.x.space:
        broken(n, f"multiplies a matrix from {n.matrix.inn} with a vector of {n.x.space}")
    spaces = [x.space for x in n.operands if isinstance(x, ir.Vector)]
    if len(set(spaces)) > 1 and not isinstance(n, ir.Matrix):
        broken(n, f"mixes the spaces {', '.join(map(str, spaces))}")
    if isinstance(n, ir.MatrixSum) and len({(m.out, m.inn) for m in n.terms}) > 1:
        broken(n, "adds matrices between different spaces")


def check_functions(n: Node, broken: Fail) -> None:
    """The functions of an instruction are written in its arguments."""
    for value in fields(n):
        if isinstance(value, sp.Expr) and not value.free_symbols <= set(n.symbols):
            broken(n, f"its function uses {value.free_symbols - set(n.symbols)}, which are not arguments")
