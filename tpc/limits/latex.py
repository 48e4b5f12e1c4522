"""Equations of a limit graph in LaTeX: one per tensor, one per array that a step changes; see tpc.limits.mathml."""

from __future__ import annotations

from collections.abc import Sequence

from sympy import Expr

from tpc.gaussian.latex import expression, fenced, name, upright
from tpc.gaussian.names import KernelNames
from tpc.limits.nodes import Expectation, Gram, Kernel, State
from tpc.limits.power import Half, Opened, Power, Product, Slope, order_of
from tpc.limits.store import Accumulate, Append, Update
from tpc.limits.text import LimitNames
from tpc.program import tensor
from tpc.program.axes import Axes, Axis
from tpc.program.functions import argument
from tpc.program.lines import Names
from tpc.program.naming import named
from tpc.program.node import Node
from tpc.program.shift import Shifted, Unshifted
from tpc.program.tensor import Tensor
from tpc.program.window import Window


def kernel_name(phi: Expr, psi: Expr, functions: KernelNames) -> str:
    """V with its two nonlinearities below it."""
    return f"V_{{{expression(functions.shown(phi))},\\,{expression(functions.shown(psi))}}}"


def listed(parts: Sequence[str]) -> str:
    """Commas between, after which a line may end."""
    return r",\allowbreak\, ".join(parts)


def summed(axes: Axes) -> str:
    """A sum over axes, with their names below it."""
    return rf"\sum_{{{listed([upright(a.name) for a in axes])}}} "


def renamed(pairs: Sequence[tuple[Axis, Axis]]) -> str:
    """Axes and their new names."""
    shown = [rf"{upright(a.name)} \to {upright(b.name)}" for a, b in pairs]
    return fenced(listed(shown), "[", "]")


def windowed(w: Window) -> str:
    """A window: the axis along which it slides, where it leads, and its numbers."""
    ends = rf"{upright(w.source.name)} \to {upright(w.target.name)}"
    return fenced(listed([ends, *map(upright, w.details)]), "[", "]")


class Symbols:
    """The names of a listing."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def symbol(self, x: Node) -> str:
        """The name of a node, or a number."""
        return expression(x.value) if isinstance(x, tensor.Constant) else name(self._names[x])

    def symbols(self, nodes: Sequence[Node]) -> str:
        return listed([self.symbol(x) for x in nodes])

    def product(self, factors: Sequence[Node], by: str = r"\,") -> str:
        """Factors in a row."""
        first, *rest = factors
        negative = bool(rest) and isinstance(first, tensor.Constant) and first.value == -1
        return ("-" if negative else "") + f" {by} ".join(self.symbol(f) for f in (rest if negative else factors))

    def finite(self, x: Tensor) -> str:
        """The right-hand side of an operation on finite tensors."""
        match x:
            case tensor.Contract():
                return (summed(x.over) if x.over else "") + self.product(x.factors)
            case tensor.Add():
                return " + ".join(self.symbol(t) for t in x.terms)
            case tensor.Map():
                return expression(named(x.fn), {argument(i): self.symbol(a) for i, a in enumerate(x.args)})
            case tensor.LogSumExp():
                return rf"\log {summed((x.over,))} \exp {self.symbol(x.arg)}"
            case tensor.Size():
                return fenced(upright(x.axis.name), "|", "|")
            case tensor.Rename():
                return self.symbol(x.arg) + renamed(x.pairs)
            case Shifted():
                return self.symbol(x.arg) + windowed(x.window)
            case Unshifted():
                return rf"{self.symbol(x.arg)}^{{\top}}" + windowed(x.window)
            case tensor.Broadcast() | tensor.StopGradient():
                return self.symbol(x.arg)
            case tensor.Input():
                return upright("data")
        return self.symbol(x)


class Equations(Symbols):
    """Writes the equations of a limit."""

    def __init__(self, names: LimitNames) -> None:
        super().__init__(names)
        self._functions = names.functions

    def equation(self, x: Tensor) -> str:
        """name = operation"""
        return f"{self.symbol(x)} = {self.right(x)}"

    def right(self, x: Tensor) -> str:
        """The right-hand side of a tensor's line."""
        match x:
            case State():
                return upright("stored, rows of unit length" if x.unit else "stored")
            case Gram():
                return self._paired(self.symbol(x.a), self.symbol(x.b))
            case Kernel():
                return kernel_name(x.phi, x.psi, self._functions) + fenced(self.symbols((x.p, x.q, x.c)))
            case Expectation():
                law = fenced(self.symbols(x.grams))
                return rf"\mathbb{{E}}{fenced(expression(named(x.fn)), '[', ']')} {law}"
            case Power():
                return self._power(x.slot, x.arg)
            case Product():
                return self.product(x.args, r"\odot")
            case Opened():
                return self._paired(self.symbol(x.dual), self._open(x.arg))
            case Half():
                return self._paired(self.symbol(x.matrix), self._open(x.arg))
            case Slope():
                above = self._paired(self.symbol(x.dual), self._power(x.slot, x.arg))
                return rf"\frac{{\partial {above}}}{{\partial {self.symbol(x.arg)}}}"
        return self.finite(x)

    def update(self, u: Update) -> tuple[str, ...]:
        """What a step does to a weight: one equation per array that changes."""
        if isinstance(u, Accumulate):
            w = name(u.state.name)
            return (rf"{w} \leftarrow {self._kept(w)} - \eta\, {self.symbol(u.gradient)}",)
        return tuple(self._appended(u))

    def _appended(self, u: Append) -> list[str]:
        s = u.store
        value = rf"-\eta\, {self.symbol(u.coefficient)}"
        if s.degree:
            value += rf"\, {self._norm(u.columns[0])}" + (f"^{{{s.degree}}}" if s.degree > 1 else "")
        a = name(s.coefficients.name)
        found = [rf"{a} \leftarrow {_stacked(self._kept(a), value)}"]
        for c, t in zip(s.columns, u.columns, strict=True):
            new = rf"{self.symbol(t)} / {self._norm(t)}" if c.unit else self.symbol(t)
            found.append(rf"{name(c.name)} \leftarrow {_stacked(name(c.name), new)}")
        found += [
            rf"{name(c.name)} \leftarrow {_stacked(name(c.name), self.symbol(t))}"
            for c, t in zip(s.thetas, u.thetas, strict=True)
        ]
        return found

    def _norm(self, x: Tensor) -> str:
        return fenced(self.symbol(x), "|", "|")

    def _open(self, x: Tensor) -> str:
        return rf"{self.symbol(x)} \otimes \cdot"

    def _power(self, slot: Axis, x: Tensor) -> str:
        return rf"\Phi_{{{order_of(slot)}}}{fenced(self.symbol(x))}"

    @staticmethod
    def _paired(a: str, b: str) -> str:
        return fenced(f"{a}, {b}", r"\langle", r"\rangle")

    @staticmethod
    def _kept(w: str) -> str:
        return rf"(1 - \eta\lambda)\, {w}"


def _stacked(above: str, below: str) -> str:
    return rf"\begin{{bmatrix}} {above} \\ {below} \end{{bmatrix}}"
