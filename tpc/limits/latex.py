"""The derivation of a limit as a short LaTeX document."""

from __future__ import annotations

import re

import sympy as sp

from tpc.gaussian.kernel import kernel
from tpc.limits.graph import Accumulate, Append, Expectation, Gram, Kernel, LimitGraph, State, Update
from tpc.limits.text import limit_names
from tpc.program import functions as F
from tpc.program import tensor
from tpc.program.axes import Axes
from tpc.program.functions import argument
from tpc.program.tensor import Tensor
from tpc.program.text import Names

_HEAD = r"""\documentclass{article}
\usepackage{amsmath,amssymb}
\allowdisplaybreaks
\begin{document}
\section*{The %s of \texttt{%s}}
"""


def document(graph: LimitGraph) -> str:
    """A complete document: forward pass, kernels, update rules."""
    names = limit_names(graph)
    writer = _Writer(names)
    title = r"$\pi$-limit" if graph.limit == "pi" else f"{graph.limit.upper()} limit"
    lines = [_HEAD % (title, graph.name.replace("_", r"\_"))]
    lines += [r"\subsection*{The graph}", r"\begin{align}"]
    rows = [f"{writer.symbol(n)} &= {writer.right(n)}" for n in graph.nodes if names.is_line(n) and not _is_leaf(n)]
    lines += [" \\\\\n".join(rows), r"\end{align}"]
    lines += [r"\subsection*{Kernels}", r"\begin{align}"]
    lines += [" \\\\\n".join(_kernel(phi, psi) for phi, psi in graph.kernels), r"\end{align}"]
    if graph.updates:
        lines += [r"\subsection*{Update rules}", r"\begin{align}"]
        lines += [" \\\\\n".join(writer.update(u) for _, us in graph.updates for u in us), r"\end{align}"]
    return "\n".join([*lines, r"\end{document}"]) + "\n"


def _is_leaf(n: Tensor) -> bool:
    return isinstance(n, State | tensor.Input)


def _kernel(phi: sp.Expr, psi: sp.Expr) -> str:
    v = kernel(phi, psi)
    form = r"\text{(numeric)}" if v.plain is None else sp.latex(v.plain)
    return rf"V_{{{_function(phi)},\,{_function(psi)}}}(p,q,c) &= {form}"


def _function(phi: sp.Expr) -> str:
    """A nonlinearity of x."""
    text: str = sp.latex(
        phi,
        symbol_names={F.X: "x"},
    )
    return re.sub(r"\\operatorname\{(\w+)\}", r"\\mathrm{\1}", text)


class _Writer:
    def __init__(self, names: Names) -> None:
        self.names = names

    def symbol(self, x: Tensor) -> str:
        if isinstance(x, tensor.Constant):
            return str(sp.latex(x.value))
        name = self.names[x]
        letter = re.fullmatch(r"([a-z]+)(\d+)", name)
        if letter and not _is_leaf(x):
            base = {"g": "g", "s": "s", "c": "c", "k": "K"}.get(letter[1], letter[1])
            return f"{base}_{{{letter[2]}}}"
        return rf"\mathtt{{{name.replace('_', chr(92) + '_')}}}"

    def over(self, axes: Axes) -> str:
        return ",".join(rf"\mathrm{{{a.name}}}".replace("_", r"\_") for a in axes)

    def right(self, x: Tensor) -> str:
        match x:
            case Gram():
                return rf"\langle {self.symbol(x.a)}, {self.symbol(x.b)} \rangle"
            case Kernel():
                arguments = ", ".join(self.symbol(t) for t in (x.p, x.q, x.c))
                return rf"V_{{{_function(x.phi)},\,{_function(x.psi)}}}\left({arguments}\right)"
            case Expectation():
                return rf"\mathbb E\, {sp.latex(x.fn)}"
            case tensor.Contract():
                product = r"\, ".join(self.symbol(f) for f in x.factors)
                return rf"\sum_{{{self.over(x.over)}}} {product}" if x.over else product
            case tensor.Add():
                return " + ".join(self.symbol(t) for t in x.terms)
            case tensor.Map():
                named = {argument(i): sp.Symbol(self.symbol(a)) for i, a in enumerate(x.args)}
                return str(sp.latex(x.fn.xreplace(named)))
            case tensor.LogSumExp():
                return rf"\log \sum_{{{self.over((x.over,))}}} \exp {self.symbol(x.arg)}"
            case tensor.Size():
                return rf"|\mathrm{{{x.axis.name}}}|"
            case tensor.Rename():
                return self.symbol(x.arg) + "'" * all(b == a.primed() for a, b in x.pairs)
            case tensor.Broadcast():
                return self.symbol(x.arg)
        return self.symbol(x)

    def update(self, u: Update) -> str:
        if isinstance(u, Accumulate):
            w = self.symbol(u.state)
            return rf"{w} &\leftarrow (1-\eta\lambda)\, {w} - \eta\, {self.symbol(u.gradient)}"
        return self._append(u)

    def _append(self, u: Append) -> str:
        a = self.symbol(u.store.coefficients)
        value = self.symbol(u.coefficient)
        if u.store.degree:
            power = f"^{u.store.degree}" if u.store.degree > 1 else ""
            value += rf"\,|{self.symbol(u.columns[0])}|{power}"
        columns = "".join(
            rf",\quad {self.symbol(c)} \leftarrow \begin{{bmatrix}} {self.symbol(c)} \\ "
            + (rf"{self.symbol(t)}/|{self.symbol(t)}|" if c.unit else self.symbol(t))
            + r" \end{bmatrix}"
            for c, t in zip(u.store.columns, u.columns)
        )
        return rf"{a} &\leftarrow \begin{{bmatrix}} (1-\eta\lambda)\, {a} \\ -\eta\, {value} \end{{bmatrix}}{columns}"
