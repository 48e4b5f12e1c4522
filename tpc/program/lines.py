"""The lines of a listing: one node per line, `name : type = operation`; weights and data first, outputs last.

Numbers are written in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, singledispatch

import sympy as sp

from tpc.errors import InternalError
from tpc.program import ir, naming, shift, tensor
from tpc.program.axes import Axes, Axis
from tpc.program.expression import parse_expression
from tpc.program.node import Node
from tpc.program.tensor import Tensor

JOINS = "joins samples"  # after the name of a network that declares it


def written(
    name: str, nodes: Sequence[Node], axes: Iterable[Axis], outputs: Iterable[tuple[str, Node]], joins_samples: bool
) -> str:
    """A program as text."""
    names = Names(nodes)
    lines = [f"program {name}" + (f" {JOINS}" if joins_samples else "")]
    lines += [f"axis {a.name}" + ("" if a.size is None else f" = {a.size}") for a in axes if a.base == a.name]
    lines += [f"{names[n]} : {type_of(n)} = {operation(n, names)}" for n in nodes if not _inline(n)]
    lines += [f"output {output} = {names[value]}" for output, value in outputs]
    return "\n".join(lines) + "\n"


class Names:
    """Names for the nodes of a listing: weights and data keep theirs, the rest count up by kind."""

    def __init__(self, nodes: Sequence[Node], prefix: Callable[[Node], str] | None = None) -> None:
        prefix = prefix or _prefix
        self._names: dict[Node, str] = {}
        counts: dict[str, int] = {}
        taken = {getattr(n, "name", "") for n in nodes}
        for n in nodes:
            if _inline(n):
                self._names[n] = str(n.value) if isinstance(n, tensor.Constant) else ""
                continue
            name = getattr(n, "name", "")
            while not name or (name in taken and not hasattr(n, "name")):
                letter = prefix(n)
                counts[letter] = counts.get(letter, 0) + 1
                name = f"{letter}{counts[letter]}"
            self._names[n] = name

    def __getitem__(self, n: Node) -> str:
        return self._names[n]

    @staticmethod
    def is_line(n: Node) -> bool:
        """Whether a node has a line of its own; numbers are written in place."""
        return not _inline(n)


def _prefix(n: Node) -> str:
    if isinstance(n, ir.Vector):
        return "h" if n.kind == "G" else "x"
    return "w" if isinstance(n, ir.Matrix) else "s"


def _inline(n: Node) -> bool:
    return isinstance(n, tensor.Constant)


def type_of(n: Node) -> str:
    """The type column of a listing: kind, space and finite axes."""
    if isinstance(n, ir.Vector):
        return f"{n.kind} {n.space}[{_axes(n.axes)}]"
    if isinstance(n, ir.Matrix):
        return f"matrix {n.out} <- {n.inn}" + (f"[{_axes(n.axes)}]" if n.axes else "")
    assert isinstance(n, Tensor)
    return f"scalar[{_axes(n.axes)}]"


def _axes(axes: Axes) -> str:
    return ", ".join(map(str, axes))


def _pairs(pairs: tuple[tuple[Axis, Axis], ...]) -> str:
    return ", ".join(f"{a}->{b}" for a, b in pairs)


@singledispatch
def operation(n: Node, names: Names) -> str:
    """The right-hand side of a line: one rule per instruction."""
    raise InternalError(f"no listing for {type(n).__name__}")


def listed(nodes: Iterable[Node], names: Names) -> str:
    """The names of operands."""
    return ", ".join(names[x] for x in nodes)


@operation.register
def _(n: tensor.Input, names: Names) -> str:
    return "data"


@operation.register
def _(n: tensor.Weight | ir.MatrixWeight, names: Names) -> str:
    return f"weight(std {n.std})"


@operation.register
def _(n: ir.VectorWeight, names: Names) -> str:
    return f"weight({n.role}, std {n.std})"


@operation.register
def _(n: tensor.Size, names: Names) -> str:
    return f"size[{n.axis}]()"


@operation.register
def _(n: tensor.Map, names: Names) -> str:
    return f"map({shown(n.fn)}; {listed(n.args, names)})"


@operation.register
def _(n: tensor.Add | ir.MatrixSum, names: Names) -> str:
    return f"add({listed(n.terms, names)})"


@operation.register
def _(n: tensor.Contract, names: Names) -> str:
    return f"{'sum[' + _axes(n.over) + ']' if n.over else 'mul'}({listed(n.factors, names)})"


@operation.register
def _(n: tensor.LogSumExp, names: Names) -> str:
    return f"logsumexp[{n.over}]({names[n.arg]})"


@operation.register
def _(n: tensor.Rename | ir.RenameVector, names: Names) -> str:
    return f"rename[{_pairs(n.pairs)}]({names[n.arg]})"


@operation.register
def _(n: tensor.Broadcast, names: Names) -> str:
    return f"broadcast[{_axes(n.along)}]({names[n.arg]})"


@operation.register
def _(n: ir.Moment | ir.Nonlin, names: Names) -> str:
    groups = [shown(n.fn), listed(n.xs, names), *([listed(n.thetas, names)] if n.thetas else [])]
    return f"{type(n).__name__.lower()}({'; '.join(groups)})"


@operation.register
def _(n: ir.LinComb, names: Names) -> str:
    terms = [(f"sum[{_axes(over)}] " if over else "") + f"{names[c]} * {names[x]}" for c, x, over in n.terms]
    return f"lincomb({', '.join(terms)})"


@operation.register
def _(n: ir.MatMul, names: Names) -> str:
    return f"matmul({names[n.matrix]}, {names[n.x]})"


@operation.register
def _(n: ir.Transpose, names: Names) -> str:
    return f"transpose({names[n.arg]})"


@operation.register
def _(n: ir.Project, names: Names) -> str:
    return f"project({names[n.arg]})"


@operation.register
def _(n: ir.Learned, names: Names) -> str:
    return f"learned({names[n.arg]})"


@operation.register
def _(n: tensor.StopGradient | ir.StopGradientVector, names: Names) -> str:
    return f"stop_gradient({names[n.arg]})"


@operation.register
def _(n: ir.Outer, names: Names) -> str:
    return f"outer[{_axes(n.over)}]({names[n.y]}, {names[n.x]})"


@operation.register
def _(n: shift.Shifted | shift.ShiftedVector, names: Names) -> str:
    return f"shift[{n.window}]({names[n.arg]})"


@operation.register
def _(n: shift.Unshifted | shift.UnshiftedVector, names: Names) -> str:
    return f"unshift[{n.window}]({names[n.arg]})"


@lru_cache(maxsize=4096)
def shown(fn: sp.Expr) -> str:
    """A function of u0, u1, …, with the names of what has names where the text is read back as the same expression."""
    text = naming.text(fn)
    symbols = {str(s): s for s in fn.free_symbols}
    return text if text == str(fn) or parse_expression(text, symbols) == fn else str(fn)
