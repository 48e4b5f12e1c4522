"""What a compilation is told by: sections that the report of a compilation and that of a run share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from tpc.derivation import Derivation
from tpc.draw.formats import parts
from tpc.draw.page import code, folded, numbered_equation, section, table
from tpc.draw.viewer import details, viewer
from tpc.emit import emit
from tpc.gaussian.kernel import kernel
from tpc.gaussian.mathml import broken
from tpc.gaussian.names import KernelNames
from tpc.limits.mathml import Equations
from tpc.limits.numbering import numbering
from tpc.limits.text import limit_names, update_line
from tpc.program.lines import Names
from tpc.program.program import Program
from tpc.program.text import listing
from tpc.report.kernel_section import kernel_block

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


AXES = (
    "In brackets are axes: that of a layer counts the stored atoms of its weight, r_ with a space is the latent "
    "dimension of the space."
)
KEY = (
    '<p class="note">In types <b class="space">italics</b> are spaces and <b class="axis">underlined names</b> axes; '
    "what stands before a colon is a weight, a vector or a finite tensor.</p>"
)


@dataclass(frozen=True)
class Section:
    """A part of a report: its anchor, its title, and its HTML."""

    key: str
    title: str
    html: str


def make_section(key: str, title: str, note: str, *content: str) -> Section:
    """A section with its heading."""
    return Section(key, title, section(key, title, note, *content))


def compilation(limit: Derivation, source: str, degree: int | None = None, points: int = 0) -> Iterator[Section]:
    """The sections about a compilation of the program `source`, folded to a degree if one is given."""

    def made(key: str, *content: str) -> Section:
        return make_section(key, *TITLES[key], *content)

    if limit.warnings:
        yield made("warnings", "".join(f'<p role="alert">{escape(text)}</p>' for text in limit.warnings))
    yield program_section(limit.program, source)
    derived = "One output and its gradients" if limit.is_kernel else "Show the whole program"
    yield made("backward", folded(derived, linked_listing(limit.trained())))
    graph, numpy = limit.to_networkx(degree, points), emit(limit, "numpy", degree, points)
    yield made("graph", viewer(graph, parts(graph), details(limit, numpy, degree, points)))
    yield made("limit", folded("Show every line", _limit(limit, degree, points)))
    yield made("kernels", *_kernels(limit, degree, points))
    if not limit.is_kernel:
        yield made("update", *_updates(limit, degree, points))
    yield made("cost", _costs(limit))
    yield made("code", folded("Show the module", numbered(numpy, "code")))


# --- programs --------------------------------------------------------------------------------------------------------


def numbered(text: str, anchor: str) -> str:
    """A listing with line numbers that links can lead to."""
    return _lines((f' id="{anchor}-{k}"', f"<i>{k}</i>", line) for k, line in enumerate(text.splitlines(), 1))


def _lines(shown: Iterable[tuple[str, str, str]]) -> str:
    """Lines with attributes and a number each; long ones go on below themselves."""
    return '<pre class="numbered">' + "".join(f"<span{a}>{n}{typed(line)}</span>" for a, n, line in shown) + "</pre>"


def typed(line: str) -> str:
    """A line of a listing with the spaces and axes in its type marked: a weight, a space and an axis share a name."""
    name, colon, rest = line.partition(" : ")
    kind, equals, right = rest.partition(" = ")
    if not colon or not equals or " " in name.strip():
        return escape(line)
    bare, bracket, axes = kind.partition("[")
    matrix = re.fullmatch(r"matrix (\S+) <- (\S+)", bare)
    vector = re.fullmatch(r"([GX]) (\S+)", bare)
    if matrix:
        bare = f"matrix {_space(matrix[1])} &lt;- {_space(matrix[2])}"
    elif vector:
        bare = f"{vector[1]} {_space(vector[2])}"
    names = re.sub(r"[^\s,\]]+", lambda m: f'<b class="axis" title="axis {escape(m[0])}">{escape(m[0])}</b>', axes)
    return f"{escape(name)} : {bare}{bracket}{names} = {escape(right)}"


def _space(name: str) -> str:
    return f'<b class="space" title="space {escape(name)}">{escape(name)}</b>'


def linked_listing(program: Program) -> str:
    """The listing of a program; lines that the user wrote lead to the source."""
    names = Names(program.nodes)
    where = {names[n]: program.where(n) for n in program.nodes if names.is_line(n)}
    shown = []
    for line in listing(program).splitlines():
        place = where.get(line.partition(" : ")[0]) if " : " in line else None
        number = f'<a href="#source-{place.line}">{place.line}</a>' if place is not None else "<i></i>"
        shown.append(("", number, line))
    return _lines(shown)


def program_section(program: Program, source: str) -> Section:
    """A program's text beside its listing."""
    return make_section(
        "program",
        *TITLES["program"],
        f'<div class="columns"><div><h3>Source</h3>{numbered(source, "source")}</div>'
        f"<div><h3>Listing</h3>{linked_listing(program)}{KEY}</div></div>",
    )


def _limit(limit: Derivation, degree: int | None, points: int) -> str:
    """The listing of a limit with the numbers of its equations."""
    graph = limit.graph(degree=degree, points=points)
    names = limit_names(graph)
    numbers = {names[n]: number for n, number in numbering(graph).tensors.items()}
    shown = []
    for line in emit(limit, "limit", degree, points).splitlines():
        number = numbers.get(line.partition(" : ")[0]) if " : " in line else None
        told = "" if number is None else f"({number})"
        shown.append(("" if number is None else f' id="eq-{number}"', f"<i>{told}</i>", line))
    return _lines(shown)


# --- kernels ---------------------------------------------------------------------------------------------------------


def _kernels(limit: Derivation, degree: int | None, points: int) -> Iterator[str]:
    graph = limit.graph(degree=degree, points=points)
    names = KernelNames(graph.kernels)
    for (phi, psi), number in numbering(graph).kernels.items():
        yield kernel_block(kernel(phi, psi), number, names)


# --- parameters ------------------------------------------------------------------------------------------------------


def _updates(limit: Derivation, degree: int | None, points: int) -> Iterator[str]:
    from tpc.summary import parameter

    graph = limit.graph(degree=degree, points=points)
    yield table(("parameter", "how it is stored"), [(weight, parameter(us)) for weight, us in graph.updates])
    yield f'<p class="note">{escape(AXES)}</p>'
    names = limit_names(graph)
    write, numbers = Equations(names), numbering(graph).updates
    for weight, updates in graph.updates:
        for u in updates:
            first, *rest = write.update(u)
            shown = "".join(f"<div>{broken([line])}</div>" for line in rest)
            told = f"<div>{broken([first], update_line(u, names))}</div>{shown}"
            yield f"<h3>{escape(weight)}</h3>{numbered_equation(f'eq-{numbers[u]}', numbers[u], told)}"


def _costs(limit: Derivation) -> str:
    from tpc.summary import costs, entries, folding

    if limit.is_kernel:
        return code("\n".join(entries(limit.graph())))
    told = ["A step, with rank r, batch b and M atoms per kernel matrix:", *costs(limit.graph())]
    return code("\n".join([*told, "", *folding(limit.graph())]))
