"""The interactive drawing of a limit graph: our own SVG with a little script; nothing is fetched from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import networkx as nx

from tpc.derivation import Derivation
from tpc.draw.collapse import collapse_trivial, nest_sums
from tpc.draw.repeats import STANDS_FOR, collapse_repeats
from tpc.draw.svg import bare_svg, css, kinds_in, legend_html
from tpc.gaussian.mathml import broken
from tpc.limits.mathml import Equations
from tpc.limits.numbering import numbering
from tpc.limits.text import limit_names
from tpc.limits.view import update_labels

TEXTS = ("label", "op", "kind", "equation", "layer", "instruction", "rule", "step", "stage", "source", "line")
HINT = "drag to move, wheel or + − to zoom, arrows to walk, / to search"


@dataclass(frozen=True)
class Details:
    """What a panel shows besides the attributes of a node: MathML, lines of `code` and equation numbers by node."""

    mathml: Mapping[str, str]
    lines: Mapping[str, Mapping[str, Any]]
    code: Sequence[str] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)


NO_DETAILS = Details({}, {})


@cache
def asset(name: str) -> str:
    """A file of this package's assets."""
    return (files("tpc.draw") / "assets" / name).read_text(encoding="utf-8").strip()


def viewer_css() -> str:
    """The rules of viewers and of their drawings."""
    return css() + "\n" + asset("viewer.css")


def details(limit: Derivation, code: str, degree: int | None = None, points: int = 0) -> Details:
    """Equations and lines of the limit's NumPy `code`, by the names of its graph view."""
    from tpc.lower.code_lines import code_lines

    graph = limit.graph(degree=degree, points=points)
    names = limit_names(graph)
    write = Equations(names)
    mathml = {names[n]: broken(write.pieces(n)) for n in graph.nodes if names.is_line(n)}
    numbered = numbering(graph)
    numbers = {names[n]: number for n, number in numbered.tensors.items()}
    for label, update in update_labels(graph):
        mathml[label] = "".join(f"<div>{broken([line])}</div>" for line in write.update(update))
        numbers[label] = numbered.updates[update]
    lines = {
        names[t]: {"function": c.function, "name": c.name, "lines": c.lines, "joined": c.joined}
        for t, c in code_lines(graph, code).items()
        if names.is_line(t)
    }
    return Details(mathml, lines, code.splitlines(), numbers)


EVERY = 600  # nodes


@dataclass(frozen=True)
class View:
    """One drawing of the viewer; `everything` is the key of the drawing with all layers, where this one has not."""

    key: str
    title: str
    graph: nx.DiGraph
    everything: str = ""


def views(parts: Mapping[str, nx.DiGraph]) -> list[View]:
    """Drawings of graphs by their titles: with repeated layers drawn once, and with all layers, where these differ.

    Of more than `EVERY` nodes, repeated layers are drawn once only: edges from the forward pass to the gradients would
    cross as many layers again.
    """
    found = []
    for k, (title, part) in enumerate(parts.items()):
        whole = nest_sums(part)
        small = collapse_repeats(whole)
        if len(small) < len(whole) and len(whole) > EVERY:
            found.append(View(f"v{k}", title, small))
        elif len(small) < len(whole):
            found.append(View(f"v{k}", title, small, f"v{k}-all"))
            found.append(View(f"v{k}-all", f"{title}, every layer", whole))
        else:
            found.append(View(f"v{k}", title, whole))
    return found


def viewer(graph: nx.DiGraph, parts: Mapping[str, nx.DiGraph], known: Details = NO_DETAILS, whole: bool = False) -> str:
    """The viewer of `graph`; `parts` are the drawings to choose from, the first one shown. `whole`: it fills a page."""
    shown = views(parts)
    chosen = "".join(f'<option value="{v.key}">{escape(v.title)}</option>' for v in shown)
    drawings = "".join(
        bare_svg(v.graph, v.title, v.key, shown=k == 0, everything=v.everything) for k, v in enumerate(shown)
    )
    kinds = kinds_in(graph)
    data = json.dumps(_data(graph, shown, known), ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<div class="viewer" role="region" aria-label="Limit graph"{" data-whole" if whole else ""}>'
        '<div class="bar" role="toolbar" aria-label="Search and zoom">'
        f'<label>Show <select class="views">{chosen}</select></label>'
        '<label>Find <input type="search" class="find" placeholder="name or equation" autocomplete="off" '
        'spellcheck="false"></label><output class="hits" aria-live="polite"></output>'
        '<span><button type="button" class="out" aria-label="Zoom out">−</button> '
        '<button type="button" class="in" aria-label="Zoom in">+</button> '
        f'<button type="button" class="fit">Fit</button></span><span class="hint">{HINT}</span></div>'
        f'<div class="stage">{drawings}</div>'
        '<div class="panel" role="region" aria-label="Node" aria-live="polite" tabindex="0">'
        '<p class="faint">Choose a node to see its equation, its shape, the rule that gave it and its code.</p></div>'
        f'<script type="application/json" class="data">{data}</script></div>{legend_html(kinds)}'
    )


def viewer_script() -> str:
    """The script of all viewers of a page; it stands after them."""
    return f"<script>{asset('viewer.js')}</script>"


def _data(graph: nx.DiGraph, shown: Sequence[View], known: Details) -> dict[str, Any]:
    stands: dict[str, dict[str, list[str]]] = {}  # node -> drawing -> the nodes that it stands for there
    for v in shown:
        for node, group in v.graph.nodes(data=STANDS_FOR):
            if group:
                stands.setdefault(str(node), {})[v.key] = [str(n) for n in group]
    small = collapse_trivial(graph)
    return {"nodes": {str(n): _node(small, n, known, stands) for n in small}, "code": list(known.code)}


def _meaning(axis: Mapping[str, Any]) -> str:
    """What an axis counts: the axis, the space and the weight of a layer have one name."""
    name = str(axis["name"])
    if axis["role"] == "rank":
        return f"latent dimension of the space {name.removeprefix('r_')}"
    return f"stored atoms of the weight {name.rstrip(chr(39))}" if axis["role"] == "atom" else str(axis["role"])


def _node(
    graph: nx.DiGraph, node: str, known: Details, stands: Mapping[str, Mapping[str, list[str]]]
) -> dict[str, Any]:
    data = graph.nodes[node]
    record: dict[str, Any] = {key: str(data.get(key, "")) for key in TEXTS}
    record["label"] = record["label"] or str(node)
    record["axes"] = [{**a, "meaning": _meaning(a)} for a in data.get("shape", ())]
    record["whole"] = bool(data.get("whole"))
    record["before"] = [str(p) for p in graph.predecessors(node)]
    record["after"] = [str(s) for s in graph.successors(node)]
    joined = [line.removeprefix("where ").partition(" = ")[0] for line in record["equation"].split("\n")[1:]]
    record["mathml"] = "".join(known.mathml.get(name, "") for name in (str(node), *joined))
    if str(node) in known.numbers:
        record["number"] = known.numbers[str(node)]
    if (code := known.lines.get(str(node))) is not None:
        record["code"] = {**code, "lines": list(code["lines"])}
    if str(node) in stands:
        record["stands_for"] = dict(stands[str(node)])
    return record
