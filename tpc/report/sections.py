"""What a compilation is told by: sections that the report of a compilation and that of a run share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import sympy as sp

from tpc.errors import GaussianError
from tpc.gaussian.explain import equation as explained
from tpc.gaussian.kernel import Kernel, kernel
from tpc.gaussian.mathml import expression, fenced, listed, math, row, sign
from tpc.gaussian.moments import Step
from tpc.gaussian.notation import unicode_line
from tpc.gaussian.primitives import textbook
from tpc.gaussian.symbols import C, P, Q
from tpc.limits.mathml import Equations, kernel_name
from tpc.limits.numbering import numbering
from tpc.limits.text import limit_names, update_line
from tpc.program.functions import X
from tpc.program.program import Program
from tpc.program.text import Names, listing
from tpc.report import plots
from tpc.report.graph import parts
from tpc.report.page import code, figure, folded, section, table
from tpc.report.viewer import details, viewer

if TYPE_CHECKING:
    from tpc.compiler import Limit

SERIES = 6  # the highest power of ρ in the curves' series
TITLES = {
    "warnings": ("Warnings", ""),
    "program": (
        "Program",
        "The network as written, and as traced. A number before a traced line leads to the line it was written in.",
    ),
    "backward": ("Backward program", "The loss, the gradients and their projections, as the limit is taken of them."),
    "graph": ("Limit graph", "Choose a node for its equation, its shape, the rule that gave it and its code."),
    "limit": (
        "Limit",
        "Every tensor of the limit, in the latent dimension r. Equations have the numbers of tpc compile --emit latex.",
    ),
    "kernels": ("Kernels", "V[φ,ψ](p, q, c) = E φ(u) ψ(v) for Gaussian u, v with variances p and q, covariance c."),
    "update": (
        "Parameters and updates",
        "η is the learning rate times the multiplier of the weight, λ the weight decay.",
    ),
    "cost": ("Cost and memory", ""),
    "code": ("Generated code", "The NumPy module that computes the limit."),
}


@dataclass(frozen=True)
class Section:
    """A part of a report: its anchor, its title, and its HTML."""

    key: str
    title: str
    html: str


def make_section(key: str, title: str, note: str, *content: str) -> Section:
    """A section with its heading."""
    return Section(key, title, section(key, title, note, *content))


def compilation(limit: Limit, source: str, degree: int | None = None, points: int = 0) -> Iterator[Section]:
    """The sections about a compilation of the program `source`, folded to a degree if one is given."""

    def made(key: str, *content: str) -> Section:
        return make_section(key, *TITLES[key], *content)

    if limit.warnings:
        yield made("warnings", "".join(f'<p role="alert">{escape(text)}</p>' for text in limit.warnings))
    yield program_section(limit.program, source)
    derived = "One output and its gradients" if limit.is_kernel else "Show the whole program"
    yield made("backward", folded(derived, linked_listing(limit.trained())))
    graph = limit.to_networkx(degree, points)
    yield made("graph", viewer(graph, parts(graph), details(limit, degree, points)))
    yield made("limit", folded("Show every line", _limit(limit, degree, points)))
    yield made("kernels", *_kernels(limit, degree, points))
    if not limit.is_kernel:
        yield made("update", *_updates(limit, degree, points))
    yield made("cost", _costs(limit))
    yield made("code", folded("Show the module", numbered(limit.emit("numpy", degree, points), "code")))


# --- programs --------------------------------------------------------------------------------------------------------


def numbered(text: str, anchor: str) -> str:
    """A listing with line numbers that links can lead to."""
    lines = (
        f'<span id="{anchor}-{k}"><i>{k:4}</i>  {escape(line)}</span>' for k, line in enumerate(text.splitlines(), 1)
    )
    return f'<pre class="numbered">{chr(10).join(lines)}</pre>'


def linked_listing(program: Program) -> str:
    """The listing of a program; lines that the user wrote lead to the source."""
    names = Names(program.nodes)
    where = {names[n]: program.where(n) for n in program.nodes if names.is_line(n)}
    shown = []
    for line in listing(program).splitlines():
        place = where.get(line.partition(" : ")[0]) if " : " in line else None
        number = f'<a href="#source-{place.line}">{place.line:4}</a>' if place is not None else " " * 4
        shown.append(f"{number}  {escape(line)}")
    return f'<pre class="numbered">{chr(10).join(shown)}</pre>'


def program_section(program: Program, source: str) -> Section:
    """A program's text beside its listing."""
    return make_section(
        "program",
        *TITLES["program"],
        f'<div class="columns"><div><h3>Source</h3>{numbered(source, "source")}</div>'
        f"<div><h3>Listing</h3>{linked_listing(program)}</div></div>",
    )


def _limit(limit: Limit, degree: int | None, points: int) -> str:
    """The listing of a limit with the numbers of its equations."""
    graph = limit.graph(degree=degree, points=points)
    names = limit_names(graph)
    numbers = {names[n]: number for n, number in numbering(graph).tensors.items()}
    shown = []
    for line in limit.emit("limit", degree, points).splitlines():
        number = numbers.get(line.partition(" : ")[0]) if " : " in line else None
        told = "" if number is None else f"({number})"
        line = f"<i>{told:>6}</i>  {escape(line)}"
        shown.append(line if number is None else f'<span id="eq-{number}">{line}</span>')
    return f'<pre class="numbered">{chr(10).join(shown)}</pre>'


# --- kernels ---------------------------------------------------------------------------------------------------------


def _kernels(limit: Limit, degree: int | None, points: int) -> Iterator[str]:
    graph = limit.graph(degree=degree, points=points)
    for (phi, psi), number in numbering(graph).kernels.items():
        yield kernel_block(kernel(phi, psi), number)


def kernel_block(v: Kernel, number: int) -> str:
    """Formula, conditions, derivation and curve of one kernel."""
    name = f"V[{unicode_line(v.phi)}, {unicode_line(v.psi)}]"
    left = row(kernel_name(v.phi, v.psi), sign("\u2061"), fenced(listed([expression(s) for s in (P, Q, C)])))
    if v.plain is None:
        value = "<mtext>no closed form: computed from a table, to 1e-10 of √(V[φ,φ] V[ψ,ψ])</mtext>"
    else:
        value = expression(v.plain)
    formula = math(row(left, sign("="), value), block=True, label=f"{name} = {_plain(v)}")
    told = [f'<div class="equation" id="eq-{number}"><div>{formula}</div><span class="number">({number})</span></div>']
    if v.degrees is not None and v.kappa is not None:
        told.append(f'<div class="equation"><div>{_homogeneous(v)}</div></div>')
    told.append("<p>Valid for " + escape("; ".join(v.conditions) or "all p, q ≥ 0 with c² ≤ pq") + ".</p>")
    trace = ""
    if v.rules:
        steps = "".join(
            f"<tr><th>{k}</th><td>{escape(s.rule)}</td><td>{_step(s)}</td></tr>" for k, s in enumerate(v.rules, 1)
        )
        count = "1 step" if len(v.rules) == 1 else f"{len(v.rules)} steps"
        trace = folded(f"Derivation, {count}", f'<div class="wide"><table>{steps}</table></div>')
    body = f'<div class="columns"><div>{"".join(told)}</div>{_curve(v)}</div>{trace}'
    return f'<article class="kernel"><h3>{escape(name)}</h3>{body}</article>'


def _plain(v: Kernel) -> str:
    return "no closed form" if v.plain is None else unicode_line(v.plain)


def _homogeneous(v: Kernel) -> str:
    assert v.degrees is not None
    assert v.kappa is not None
    scale = P ** sp.Rational(v.degrees[0], 2) * Q ** sp.Rational(v.degrees[1], 2)
    shown = [expression(scale), sign("\u2062")] if scale != 1 else []
    kappa = row("<mi>κ</mi>", fenced("<mi>ρ</mi>"))
    rho = row("<mi>ρ</mi>", sign("="), expression(C / sp.sqrt(P * Q)))
    lines = (
        row("<mi>V</mi>", sign("="), *shown, kappa, sign(","), "<mspace width='1em'/>", rho),
        row(kappa, sign("="), expression(textbook(v.kappa))),
    )
    return "".join(math(line, block=True) for line in lines)


def _step(s: Step) -> str:
    """left = right, and the law of new expectations."""
    shown = [math(row(expression(s.left), sign("="), expression(textbook(s.right))), label=explained(s))]
    for what, value in s.law:
        shown.append(math(row(f"<mtext>{escape(what)}</mtext>", sign("="), expression(sp.factor(textbook(value))))))
    return f"<div>{shown[0]}</div>" + (f"<div class=law>where {', '.join(shown[1:])}</div>" if s.law else "")


def _curve(v: Kernel) -> str:
    if not v.phi.has(X) or not v.psi.has(X):
        return ""  # no correlation to draw it over
    try:
        with np.errstate(all="ignore"):
            drawn = plots.kernel_curve(v, 1.0, 1.0, SERIES)
    except GaussianError as error:
        return f"<p>{escape(str(error))}</p>"
    return figure(plots.to_svg(drawn, f"{v.phi},{v.psi}"))


# --- parameters ------------------------------------------------------------------------------------------------------


def _updates(limit: Limit, degree: int | None, points: int) -> Iterator[str]:
    from tpc.emit import parameter

    graph = limit.graph(degree=degree, points=points)
    yield table(("parameter", "how it is stored"), [(weight, parameter(us)) for weight, us in graph.updates])
    names = limit_names(graph)
    write, numbers = Equations(names), numbering(graph).updates
    for weight, updates in graph.updates:
        for u in updates:
            lines = write.update(u)
            first = math(lines[0], block=True, label=update_line(u, names))
            rest = "".join(math(line, block=True) for line in lines[1:])
            number = numbers[u]
            yield (
                f'<h3>{escape(weight)}</h3><div class="equation" id="eq-{number}"><div>{first}{rest}</div>'
                f'<span class="number">({number})</span></div>'
            )


def _costs(limit: Limit) -> str:
    from tpc.emit import costs, entries, folding

    if limit.is_kernel:
        return code("\n".join(entries(limit.graph())))
    told = ["A step, with rank r, batch b and M atoms per kernel matrix:", *costs(limit.graph())]
    return code("\n".join([*told, "", *folding(limit.graph())]))
