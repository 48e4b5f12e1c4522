"""Instructions of a program in LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from sympy import Expr

from tpc.gaussian.latex import escaped, expression, upright
from tpc.limits.latex import Symbols, renamed, summed, windowed
from tpc.program import ir, tensor
from tpc.program.functions import argument
from tpc.program.naming import named
from tpc.program.node import Node
from tpc.program.shift import ShiftedVector, UnshiftedVector
from tpc.program.tensor import Tensor


class Instructions(Symbols):
    """Writes the lines of a program."""

    def line(self, n: Node) -> str:
        """name = operation"""
        return f"{self.symbol(n)} = {self.operation(n)}"

    def operation(self, n: Node) -> str:
        """The right-hand side of a line."""
        match n:
            case tensor.Weight() | ir.MatrixWeight():
                return self._weight(n.std)
            case ir.VectorWeight():
                return self._weight(n.std, n.role)
            case ir.MatMul():
                return self.product((n.matrix, n.x))
            case ir.Transpose():
                return rf"{self.symbol(n.arg)}^{{\top}}"
            case ir.Outer():
                over = summed(n.over) if n.over else ""
                return rf"\frac{{1}}{{n}} {over} {self.symbol(n.y)}\, {self.symbol(n.x)}^{{\top}}"
            case ir.MatrixSum():
                return " + ".join(self.symbol(t) for t in n.terms)
            case ir.LinComb():
                return " + ".join(
                    (summed(over) if over else "") + self._scaled(coefficient, x) for coefficient, x, over in n.terms
                )
            case ir.Nonlin():
                return self._applied(n.fn, n.xs, n.thetas)
            case ir.Moment():
                return rf"\frac{{1}}{{n}} \sum_{{\alpha}} {self._coordinates(n)}"
            case ir.Project():
                return rf"\Pi\, {self.symbol(n.arg)}"
            case ShiftedVector():
                return self.symbol(n.arg) + windowed(n.window)
            case UnshiftedVector():
                return rf"{self.symbol(n.arg)}^{{\top}}" + windowed(n.window)
            case ir.RenameVector():
                return self.symbol(n.arg) + renamed(n.pairs)
            case ir.StopGradientVector() | ir.Learned():
                return self.symbol(n.arg)
        assert isinstance(n, Tensor)
        return self.finite(n)

    def _scaled(self, coefficient: Tensor, x: ir.Vector) -> str:
        return self.symbol(x) if coefficient is tensor.ONE else self.product((coefficient, x))

    def _applied(self, fn: Expr, xs: Sequence[ir.Vector], thetas: Sequence[Tensor], index: str = "") -> str:
        fn = named(fn)
        names = {argument(i): f"{{{self.symbol(x)}}}{index}" for i, x in enumerate(xs)}
        return expression(fn, names | {ir.theta(i): self.symbol(t) for i, t in enumerate(thetas)})

    def _coordinates(self, n: ir.Moment) -> str:
        """fn of the coordinates α of its vectors."""
        made = self._applied(n.fn, n.xs, n.thetas, r"_{\alpha}")
        return rf"\left( {made} \right)" if n.fn.is_Add else made

    @staticmethod
    def _weight(std: Expr, role: str = "") -> str:
        return f"{upright(f'{role} weight, standard deviation '.lstrip())} {expression(std)}"


def described(n: Node) -> str:
    """What a line is: its kind, space and finite axes, as text."""
    if isinstance(n, ir.Matrix):
        family = f" [{escaped(', '.join(map(str, n.axes)))}]" if n.axes else ""
        return rf"matrix, space {escaped(str(n.inn))} {escaped('→')} space {escaped(str(n.out))}{family}"
    assert isinstance(n, ir.Vector | Tensor)
    axes = escaped(", ".join(map(str, n.axes)))
    if isinstance(n, ir.Vector):
        return f"{n.kind}-vector, space {escaped(str(n.space))} [{axes}]"
    return f"[{axes}]" if axes else "scalar"
