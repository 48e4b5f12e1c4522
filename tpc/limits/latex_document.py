"""The derivation of a limit as a short LaTeX document: the program, its gradients, the limit of every line, kernels,
updates. Equations have the numbers of the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import sympy as sp

from tpc.gaussian.definitions import Definition, definitions
from tpc.gaussian.explain import named_step
from tpc.gaussian.kernel import Kernel, kernel
from tpc.gaussian.latex import escaped, expression, function_name, name, upright
from tpc.gaussian.names import KernelNames
from tpc.gaussian.primitives import textbook
from tpc.gaussian.symbols import C, P, Q
from tpc.limits.graph import LimitGraph
from tpc.limits.kinds import limit_kind
from tpc.limits.latex import Equations, kernel_name
from tpc.limits.latex_program import Instructions, described
from tpc.limits.latex_rules import explained
from tpc.limits.numbering import Numbering, numbering
from tpc.limits.origin import SCALAR, Origin, origins, stages_of
from tpc.limits.store import Append, Update
from tpc.limits.text import limit_names
from tpc.program.lines import Names
from tpc.program.program import Program

_HEAD = r"""\documentclass{article}
\usepackage{amsmath,amssymb,multicol}
\usepackage[margin=25mm]{geometry}
\setlength{\parindent}{0pt}\setlength{\multicolsep}{2pt}
\setlength{\lineskip}{3pt}\setlength{\lineskiplimit}{3pt}
% number, formula, remark: long formulas go on in the next line, number and remark end the last one
\newcommand{\entry}[3]{\par{\rightskip=0pt plus 12em\hangindent=3em\hangafter=1
  \interlinepenalty=10000\relpenalty=100\binoppenalty=200
  $#2$\unskip\nobreak\hfil\penalty50\hskip1em\hbox{}\nobreak\hfil{\footnotesize #3}%
  \ifx\relax#1\relax\else\makebox[3em][r]{(#1)}\fi\parfillskip=0pt\finalhyphendemerits=0\par}}
% the rule, and the line of the program that the next equations are the limit of
\newcommand{\limitof}[2]{\par\addvspace{6pt plus 2pt}{\small\textbf{#1}\quad \ensuremath{#2}}\par\nobreak}
\newcommand{\compact}{\setlength{\itemsep}{2pt}\setlength{\parskip}{0pt}\raggedright\relpenalty=100\binoppenalty=200 }
\begin{document}
"""
_STAGES = {
    "network": "The network",
    "loss": "The loss",
    "gradient": "Gradients",
    "gradient norm": "Squared norms of gradients",
}


def document(graph: LimitGraph, program: Program) -> str:
    """A complete document about `graph`, the limit of `program` (a network with its loss and its gradients)."""
    return _HEAD + "\n".join(_Document(graph, program).lines()) + "\n\\end{document}\n"


class _Document:
    def __init__(self, graph: LimitGraph, program: Program) -> None:
        self.graph = graph
        self.program = program
        self.numbers: Numbering = numbering(graph)
        self.origins = origins(graph, program)
        self.names = limit_names(graph)
        self.equations = Equations(self.names)
        self.instructions = Instructions(Names(program.nodes))

    def lines(self) -> Iterator[str]:
        what = limit_kind(self.graph.limit).title.replace("π", r"$\pi$")
        yield rf"\section*{{The {what} of \texttt{{{escaped(self.graph.name)}}}}}"
        yield from self._program()
        yield from self._rules()
        yield from self._limit()
        yield from self._kernels()
        if self.graph.updates:
            yield from self._updates()

    # --- program -----------------------------------------------------------------------------------------------------

    def _program(self) -> Iterator[str]:
        """The lines of the program, by what they are needed for."""
        stages = stages_of(self.program)
        lines = [n for n in self.program.nodes if Names.is_line(n)]
        yield r"\subsection*{Program}"
        yield (
            "On the right: G-vectors are Gaussian, X-vectors functions of such vectors, with their space and finite "
            "axes in brackets; the rest are finite tensors."
        )
        for stage, title in _STAGES.items():
            own = [n for n in lines if stages[n] == stage]
            if own:
                yield rf"\begin{{multicols}}{{2}}[\subsubsection*{{{title}}}]\small"
                yield from (_entry(self.instructions.line(n), described(n), display=False) for n in own)
                yield r"\end{multicols}"

    # --- limit -------------------------------------------------------------------------------------------------------

    def _rules(self) -> Iterator[str]:
        used = (self.origins[n] for n in self.numbers.tensors)
        found = dict.fromkeys(rule for origin in used for rule in (origin.rule, origin.step))
        yield r"\subsection*{Rules}"
        yield r"\begin{description}\compact"
        yield from (rf"\item[{escaped(rule.name)}] {explained(rule)}" for rule in found)
        yield r"\end{description}"

    def _limit(self) -> Iterator[str]:
        yield r"\subsection*{Limit}"
        yield (
            "In the latent dimension $r$: $g$ are latents, $c$ covariances, $k$ expectations, $s$ finite tensors; "
            "$A$, $B$ and biases are stored. Numbers after a letter are not those of the program. On the right the "
            r"axes; \texttt{r\_} and a space are its latent dimension, a layer its stored rows."
        )
        stage = ""
        before: object = None
        for n, number in self.numbers.tensors.items():
            origin = self.origins[n]
            if origin.stage != stage:
                stage, before = origin.stage, None
                yield rf"\subsubsection*{{{_STAGES[stage]}}}"
            here = SCALAR if origin.rule is SCALAR else origin.node
            if here != before:
                before = here
                yield self._heading(origin)
            axes = escaped(", ".join(map(str, n.axes)))
            yield _entry(self.equations.equation(n), f"[{axes}]" if n.axes else "", number)
        yield from self._results()

    def _heading(self, origin: Origin) -> str:
        if origin.rule is SCALAR:
            return rf"\limitof{{{escaped(SCALAR.name)}}}{{}}"
        return rf"\limitof{{{escaped(origin.rule.name)}}}{{{self.instructions.line(origin.node)}}}"

    def _results(self) -> Iterator[str]:
        yield r"\subsubsection*{Results}"
        for what, t in self.graph.outputs:
            yield _entry(f"{upright(what)} = {self.equations.symbol(t)}", "", self.numbers.tensors.get(t))
        for weight, t in self.graph.norms:
            norm = rf"\left| \nabla\, {name(weight)} \right|^{{2}}"
            yield _entry(f"{norm} = {self.equations.symbol(t)}", "", self.numbers.tensors.get(t))

    # --- kernels -----------------------------------------------------------------------------------------------------

    def _kernels(self) -> Iterator[str]:
        yield r"\subsection*{Kernels}"
        yield (
            r"$V_{\phi,\psi}(p, q, c) = \mathbb{E}\, \phi(u)\, \psi(v)$ for Gaussian $u$, $v$ with mean 0, variances "
            "$p$, $q$ and covariance $c$."
        )
        for (phi, psi), number in self.numbers.kernels.items():
            yield r"\par\medskip"
            yield from _kernel(kernel(phi, psi), number, self.names.functions)

    # --- updates -----------------------------------------------------------------------------------------------------

    def _updates(self) -> Iterator[str]:
        yield r"\subsection*{Updates}"
        yield (
            r"$\eta$ is the learning rate times the multiplier of the weight, $\lambda$ the weight decay. "
            "An array in two rows has new rows appended, one for every sample of the batch."
        )
        for u, number in self.numbers.updates.items():
            yield from self._update(u, number)

    def _update(self, u: Update, number: int) -> Iterator[str]:
        first, *more = self.equations.update(u)
        told = ""
        if isinstance(u, Append):
            told = f"for each {escaped(', '.join(map(str, u.batch)))}"
        yield _entry(first, told, number)
        yield from (_entry(line, "") for line in more)


def _entry(formula: str, told: str, number: int | None = None, display: bool = True) -> str:
    shown = rf"\displaystyle {formula}" if display else formula
    return rf"\entry{{{'' if number is None else number}}}{{{shown}}}{{{told}}}"


def _kernel(v: Kernel, number: int, names: KernelNames) -> Iterator[str]:
    """Definitions, derivation, formula and conditions."""
    called = rf"{kernel_name(v.phi, v.psi, names)}(p, q, c)"
    yield from _derivation(v, names)
    value = upright("no closed form: a table") if v.plain is None else expression(v.plain)
    yield _entry(rf"{called} = {value}", "hence" if v.rules else "", number)
    if v.degrees is not None and v.kappa is not None:
        scale = P ** sp.Rational(v.degrees[0], 2) * Q ** sp.Rational(v.degrees[1], 2)
        shown = f"{expression(scale)}\\, " if scale != 1 else ""
        rho = expression(C / sp.sqrt(P * Q))
        yield _entry(
            rf"V = {shown}\kappa(\rho),\quad \kappa(\rho) = {expression(textbook(v.kappa))},\quad \rho = {rho}", ""
        )
    yield f"Valid for {escaped('; '.join(v.conditions) or 'all p, q ≥ 0 with c² ≤ pq')}."


def _defined(d: Definition) -> str:
    """What a function is, in one line."""
    parts = [f"{function_name(d.name)}(x)", *([upright(d.meaning)] if d.meaning else [])]
    return " = ".join([*parts, *([] if d.value is None else [expression(d.value)])])


def _derivation(v: Kernel, names: KernelNames) -> Iterator[str]:
    yield from (_entry(_defined(d), "") for d in definitions(v, names))
    lines = []
    for s in map(named_step, v.rules):
        law = ", ".join(f"${_law(what)} = {expression(sp.factor(textbook(value)))}$" for what, value in s.law)
        lines.append(
            rf"\item {escaped(s.rule)}: $\displaystyle {expression(s.left)} = {expression(textbook(s.right))}$"
            + (f", where {law}" if law else "")
        )
    if lines:
        yield "\n".join([r"\begin{enumerate}\compact\small", *lines, r"\end{enumerate}"])


def _law(what: str) -> str:
    """Var1 u, Cov1(u, v) or E1 u as a formula."""
    match = re.fullmatch(r"(Var|Cov|E)(\d*)(.*)", what)
    if match is None:
        return upright(what)
    called = r"\mathbb{E}" if match[1] == "E" else rf"\mathrm{{{match[1]}}}"
    return f"{called}{f'_{{{match[2]}}}' if match[2] else ''}{match[3].replace(' ', chr(92) + ', ')}"
