"""Equations of a limit graph as MathML: one per tensor, one per update."""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from tpc.gaussian.mathml import expression, fenced, listed, name, row, sign
from tpc.gaussian.names import KernelNames
from tpc.limits.nodes import Expectation, Gram, Kernel, State
from tpc.limits.power import Half, Opened, Power, Product, Slope, order_of
from tpc.limits.store import Accumulate, Append, Update
from tpc.limits.text import LimitNames
from tpc.program import tensor
from tpc.program.axes import Axes
from tpc.program.functions import X, argument
from tpc.program.naming import named
from tpc.program.shift import Shifted, Unshifted
from tpc.program.tensor import Tensor

X_SHOWN = {X: "<mi>x</mi>"}


def kernel_name(phi: sp.Expr, psi: sp.Expr, functions: KernelNames) -> str:
    """V with its two nonlinearities below it."""
    shown = [expression(functions.shown(f), X_SHOWN) for f in (phi, psi)]
    return f"<msub><mi>V</mi>{listed(shown)}</msub>"


class Equations:
    """Writes equations with the names of a listing."""

    def __init__(self, names: LimitNames) -> None:
        self._names = names

    def symbol(self, x: Tensor) -> str:
        """The name of a tensor, or a number."""
        return expression(x.value) if isinstance(x, tensor.Constant) else name(self._names[x])

    def equation(self, x: Tensor) -> str:
        """name = operation"""
        return row(self.symbol(x), sign("="), self.right(x))

    def pieces(self, x: Tensor) -> list[str]:
        """The equation in pieces after which a line may end: the terms of a sum, or all of it."""
        if not isinstance(x, tensor.Add):
            return [self.equation(x)]
        first, *rest = x.terms
        return [
            row(self.symbol(x), sign("="), self.symbol(first)),
            *(row(sign("+"), self.symbol(t)) for t in rest),
        ]

    def right(self, x: Tensor) -> str:
        """The right-hand side of a tensor's line."""
        match x:
            case State():
                told = "stored, rows of unit length" if x.unit else "stored"
                return f"<mtext>{told}</mtext>"
            case tensor.Input():
                return "<mtext>data</mtext>"
            case Gram():
                return fenced(listed([self.symbol(x.a), self.symbol(x.b)]), "⟨", "⟩")
            case Kernel():
                arguments = listed([self.symbol(t) for t in (x.p, x.q, x.c)])
                return row(kernel_name(x.phi, x.psi, self._names.functions), sign("\u2061"), fenced(arguments))
            case Expectation():
                law = listed([self.symbol(g) for g in x.grams])
                return row("<mi>𝔼</mi>", fenced(expression(named(x.fn)), "[", "]"), fenced(law))
            case tensor.Contract():
                return row(*([self._sum(x.over)] if x.over else []), self._product(x.factors))
            case tensor.Add():
                parts: list[str] = []
                for t in x.terms:
                    parts += [sign("+"), self.symbol(t)] if parts else [self.symbol(t)]
                return row(*parts)
            case tensor.Map():
                return expression(named(x.fn), {argument(i): self.symbol(a) for i, a in enumerate(x.args)})
            case tensor.LogSumExp():
                return row("<mi>log</mi>", self._sum((x.over,)), "<mi>exp</mi>", self.symbol(x.arg))
            case tensor.Size():
                return fenced(f"<mtext>{x.axis}</mtext>", "|", "|")
            case tensor.Rename():
                pairs = ", ".join(f"{a} → {b}" for a, b in x.pairs)
                return row(self.symbol(x.arg), fenced(f"<mtext>{pairs}</mtext>", "[", "]"))
            case Shifted() | Unshifted():
                return self._windowed(x)
            case tensor.Broadcast() | tensor.StopGradient():
                return self.symbol(x.arg)
            case Power():
                return row(f"<msub><mi>Φ</mi><mn>{order_of(x.slot)}</mn></msub>", fenced(self.symbol(x.arg)))
            case Product():
                return self._product(x.args, "⊙")
            case Opened():
                return fenced(listed([self.symbol(x.dual), row(self.symbol(x.arg), sign("⊗"), sign("·"))]), "⟨", "⟩")
            case Half():
                return fenced(listed([self.symbol(x.matrix), row(self.symbol(x.arg), sign("⊗"), sign("·"))]), "⟨", "⟩")
            case Slope():
                power = row(f"<msub><mi>Φ</mi><mn>{order_of(x.slot)}</mn></msub>", fenced(self.symbol(x.arg)))
                inner = fenced(listed([self.symbol(x.dual), power]), "⟨", "⟩")
                return f"<mfrac>{row(sign('∂'), inner)}{row(sign('∂'), self.symbol(x.arg))}</mfrac>"
        return self.symbol(x)

    def _windowed(self, x: Shifted | Unshifted) -> str:
        shown, w = self.symbol(x.arg), x.window
        if isinstance(x, Unshifted):
            shown = f"<msup>{shown}{sign('⊤')}</msup>"
        told = ", ".join([f"{w.source} → {w.target}", *w.details])
        return row(shown, fenced(f"<mtext>{told}</mtext>", "[", "]"))

    def update(self, u: Update) -> tuple[str, ...]:
        """What a step does to a weight: one equation per array that changes."""
        if isinstance(u, Accumulate):
            w = name(u.state.name)
            return (row(w, sign("←"), self._kept(w), sign("−"), "<mi>η</mi>", sign("\u2062"), self.symbol(u.gradient)),)
        return tuple(self._appended(u))

    def _appended(self, u: Append) -> list[str]:
        s = u.store
        value = [sign("−"), "<mi>η</mi>", sign("\u2062"), self.symbol(u.coefficient)]
        if s.degree:
            length = fenced(self.symbol(u.columns[0]), "|", "|")
            value.append(length if s.degree == 1 else f"<msup>{length}<mn>{s.degree}</mn></msup>")
        a = name(s.coefficients.name)
        found = [row(a, sign("←"), _stacked(self._kept(a), row(*value)))]
        for c, t in zip(s.columns, u.columns):
            g = self.symbol(t)
            new = row(g, sign("/"), fenced(g, "|", "|")) if c.unit else g
            found.append(row(name(c.name), sign("←"), _stacked(name(c.name), new)))
        found += [
            row(name(c.name), sign("←"), _stacked(name(c.name), self.symbol(t))) for c, t in zip(s.thetas, u.thetas)
        ]
        return found

    @staticmethod
    def _kept(w: str) -> str:
        decay = fenced(row("<mn>1</mn>", sign("−"), "<mi>η</mi>", sign("\u2062"), "<mi>λ</mi>"))
        return row(decay, sign("\u2062"), w)

    def _product(self, factors: Sequence[Tensor], by: str = "\u2062") -> str:
        first, *rest = factors
        negative = bool(rest) and isinstance(first, tensor.Constant) and first.value == -1
        parts: list[str] = []
        for f in rest if negative else factors:
            parts += [sign(by), self.symbol(f)] if parts else [self.symbol(f)]
        return row(*([sign("−")] if negative else []), *parts)

    @staticmethod
    def _sum(axes: Axes) -> str:
        return f"<munder>{sign('∑')}<mtext>{', '.join(map(str, axes))}</mtext></munder>"


def _stacked(above: str, below: str) -> str:
    """Old rows with new ones below them, on one line."""
    return fenced(row(above, sign(";"), below), "[", "]")
