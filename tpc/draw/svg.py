"""A graph as one SVG file: no other software, no fonts, no scripts; tooltips hold the equations."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import networkx as nx

from tpc.draw.layered import Layout, Point, layout
from tpc.draw.pretty import node_label
from tpc.draw.repeats import LAST, STANDS_FOR, TIMES
from tpc.draw.style import LOOKS, kind_css, look

CHARACTER = 7.0  # pixels of one character of the 12 px monospaced label
LINE = 15.0
SPACE_LINE = 12.0
LABEL_WIDTH = 16  # characters before a label is broken
MOST_LINES = 6
GAP = (14.0, 44.0)
_BREAK = re.compile(r"(?<= = )|(?<=, )|(?<=[\w\]])(?=\()|(?<=·)|(?<= \+ )")
LEGEND_ROW = 26.0
TITLE_HEIGHT = 34.0

# Every rule starts at the class of the drawing: inside an HTML page, style sheets of drawings are shared.
BASE_CSS = """
.tpc text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;
fill:#1c1c1c;text-anchor:middle;dominant-baseline:central}
.tpc .title{font-size:16px;font-weight:600;text-anchor:start}
.tpc .legend text{text-anchor:start;font-size:11px}
.tpc .space{font-size:10px;opacity:.8}.tpc .times{font-size:12px;font-weight:700;text-anchor:end}
.tpc .page{fill:#fff}.tpc .node>path{stroke-width:1.4}
.tpc .edge{fill:none;stroke:#8a8f96;stroke-width:1.2}
.tpc .edge.back{stroke-dasharray:5 4}.tpc .tip{fill:#8a8f96}
.tpc .node:hover>path,.tpc .edge:hover{stroke-width:2.6}
@media (prefers-color-scheme:dark){.tpc text{fill:#ececec}.tpc .page{fill:#16191d}
.tpc .edge{stroke:#7d858e}.tpc .tip{fill:#7d858e}}
""".strip()


def to_svg(graph: nx.DiGraph, title: str = "") -> str:
    """Draw `graph` with its legend and title.

    Nodes carry `label`, `kind`, `op`, `axes`, `shape`, `equation`, `layer` and `repeats`; what is missing is left out.
    """
    lines, size, drawing = _placed(graph)
    kinds = kinds_in(graph)
    legend, legend_height = _legend(kinds, max(drawing.width, 640.0))
    width = max(drawing.width, 640.0)
    shift_x, shift_y = (width - drawing.width) / 2, TITLE_HEIGHT + legend_height
    height = shift_y + drawing.height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tpc" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label={quoteattr(title or "graph")}>',
        f"<title>{escape(title or 'graph')}</title><style>{css()}</style>",
        '<rect class="page" width="100%" height="100%"/>',
        f'<text class="title" x="24" y="22">{escape(title)}</text>',
        legend,
        f'<g transform="translate({shift_x:.1f},{shift_y:.1f})">',
        *_edges(graph, drawing, size),
        *(_node(graph.nodes[node], drawing.centres[node], size[node], lines[node]) for node in graph),
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def bare_svg(graph: nx.DiGraph, title: str, view: str = "", shown: bool = True, everything: str = "") -> str:
    """The drawing alone, for a viewer: every node can be focused and is called by `data-node`.

    `view` names the drawing, `everything` the one where repeated layers are drawn one by one.
    """
    lines, size, drawing = _placed(graph)
    hidden = "" if shown else " hidden"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tpc" data-view={quoteattr(view)} '
        f'data-all={quoteattr(everything)} data-size="{drawing.width:.0f} {drawing.height:.0f}" '
        f'viewBox="0 0 {drawing.width:.0f} {drawing.height:.0f}" role="group" aria-label={quoteattr(title)}{hidden}>',
        *_edges(graph, drawing, size),
        *(
            _node(graph.nodes[node], drawing.centres[node], size[node], lines[node], name=str(node))
            for node in graph
        ),
        "</svg>",
    ])  # fmt: skip


def kinds_in(graph: nx.DiGraph) -> list[str]:
    """The kinds of nodes that a graph has, in the order of the legend."""
    return [kind for kind in LOOKS if any(k == kind for _, k in graph.nodes(data="kind"))]


def legend_html(kinds: Sequence[str]) -> str:
    """The legend as a row of small drawings."""
    each = (
        f'<span><svg class="tpc" width="34" height="21" viewBox="-17 -10.5 34 21" aria-hidden="true">'
        f'<g class="node k-{kind}"><path d="{look(kind).outline(30, 17)}"/></g></svg>'
        f"{escape(kind)}: {escape(look(kind).meaning)}</span>"
        for kind in kinds
    )
    return f'<div class="legend">{"".join(each)}</div>'


def css() -> str:
    """The rules of all drawings."""
    return BASE_CSS + kind_css()


def _placed(graph: nx.DiGraph) -> tuple[dict[Hashable, list[str]], dict[Hashable, tuple[float, float]], Layout]:
    """Lines and size of every box, and where it goes."""
    lines = {node: _label_lines(node_label(data, str(node))) for node, data in graph.nodes(data=True)}
    size = {node: _box(lines[node], graph.nodes[node]) for node in graph}
    return lines, size, layout(graph, size, GAP)


def spaces_of(data: Mapping[str, Any]) -> str:
    """The spaces that a latent, or the rows of a stored array, live in: "space hidden1"."""
    names = [a["name"].removeprefix("r_") for a in data.get("shape", ()) if a["role"] == "rank"]
    return f"space {', '.join(names)}" if names else ""


def tooltip(data: Mapping[str, Any]) -> str:
    """The text shown over a node: equation, then kind, operation, axes and layer."""
    facts = [str(data.get("kind", ""))]
    facts += [f"op {data['op']}"] if data.get("op") else []
    facts += [f"axes ({', '.join(map(str, data['axes']))})"] if data.get("axes") else []
    facts += [f"layer {data['layer']}"] if data.get("layer") else []
    if TIMES in data:
        facts.append(f"stands for {data[TIMES]} equal layers: {', '.join(map(str, data[STANDS_FOR]))}")
    return "\n".join(part for part in (str(data.get("equation", "")), " · ".join(f for f in facts if f)) if part)


def _label_lines(label: str) -> list[str]:
    """The label in lines that end where a formula may."""
    lines: list[str] = [""]
    for piece in _BREAK.split(label):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > LABEL_WIDTH:
            lines.append("")
        lines[-1] += piece
    shown = [line.strip() for line in lines]
    return shown if len(shown) <= MOST_LINES else [*shown[: MOST_LINES - 1], "…"]


def _box(lines: Sequence[str], data: Mapping[str, Any]) -> tuple[float, float]:
    kind = str(data.get("kind", ""))
    slack = 20.0 if kind in ("map", "latent", "output") else 34.0
    space = spaces_of(data)
    characters = max(*(len(line) for line in lines), 0.8 * len(space))
    height = LINE * len(lines) + (17.0 if kind == "state" else 13.0) + (SPACE_LINE if space else 0.0)
    return characters * CHARACTER + slack, height


def _node(
    data: Mapping[str, Any], centre: Point, size: tuple[float, float], lines: Sequence[str], name: str | None = None
) -> str:
    kind = str(data.get("kind", ""))
    css = kind if kind in LOOKS else "other"
    outline, space, times = look(kind).outline(*size), spaces_of(data), data.get(TIMES)
    top = -LINE * (len(lines) - 1) / 2 + (3.0 if kind in ("state", "loss") else 0.0) - (SPACE_LINE / 2 if space else 0)
    text = "".join(f'<text y="{top + LINE * i:.1f}">{escape(line)}</text>' for i, line in enumerate(lines))
    if space:
        text += f'<text class="space" y="{top + LINE * len(lines) - 1:.1f}">{escape(space)}</text>'
    behind = f'<path transform="translate(5,3)" d="{outline}"/>' if times else ""
    last = f", last {escape(str(data[LAST]))}" if LAST in data else ""
    if times:
        text += f'<text class="times" x="{size[0] / 2 + 5:.1f}" y="{-size[1] / 2 - 8:.1f}">×{times}{last}</text>'
    found = ""
    if name is not None:
        told = f"{node_label(data, name)}, {kind}" + (f", stands for {times} equal layers" if times else "")
        found = f' data-node={quoteattr(name)} role="button" tabindex="-1" aria-label={quoteattr(told)}'
    return (
        f'<g class="node k-{css}"{found} transform="translate({centre[0]:.1f},{centre[1]:.1f})">'
        f'<title>{escape(tooltip(data))}</title>{behind}<path d="{outline}"/>{text}</g>'
    )


def _edges(graph: nx.DiGraph, drawing: Layout, size: Mapping[Hashable, tuple[float, float]]) -> list[str]:
    parts = []
    for edge, route in drawing.routes.items():
        back = edge in drawing.back_edges
        down = -1.0 if back else 1.0  # a back edge leaves at the top and arrives at the bottom
        points = list(route)
        for end, side, gap in ((0, 1.0, 0.0), (-1, -1.0, 6.0)):
            node = edge[end]
            x = points[end][0] + _port(graph, drawing, edge, size[node][0], node, below=side == down)
            points[end] = (x, points[end][1] + side * down * (size[node][1] / 2 + gap))
        path, (x, y) = _curve(points), points[-1]
        tip = f"M{x:.1f},{y + 6 * down:.1f} l-4,{-7 * down:.0f} h8 Z"
        names = [str(graph.nodes[node].get("label") or node) for node in edge]
        position = graph.edges[edge].get("position")
        note = f"{names[0]} → {names[1]}" + (f" (argument {position})" if position is not None else "")
        css = "edge back" if back else "edge"
        ends = f"data-from={quoteattr(str(edge[0]))} data-to={quoteattr(str(edge[1]))}"
        parts.append(f'<path class="{css}" {ends} d="{path}"><title>{escape(note)}</title></path>')
        parts.append(f'<path class="tip" d="{tip}"/>')
    return parts


def _port(
    graph: nx.DiGraph,
    drawing: Layout,
    edge: tuple[Hashable, Hashable],
    width: float,
    node: Hashable,
    below: bool,
) -> float:
    """Offset along the side of a box, so that several edges do not share one point."""
    here = []
    for each in [*graph.out_edges(node), *graph.in_edges(node)]:
        leaves = each[0] == node
        if each in drawing.routes and (leaves != (each in drawing.back_edges)) == below:
            here.append((drawing.routes[each][1 if leaves else -2][0], each))
    order = [each for _, each in sorted(here, key=lambda pair: pair[0])]
    step = min(14.0, 0.6 * width / max(len(order), 1))
    return (order.index(edge) - (len(order) - 1) / 2) * step


def _curve(points: Sequence[Point]) -> str:
    """A smooth x(y) through the points: vertical at both ends, and no swing that the points do not have."""
    secants = [(x1 - x0) / (y1 - y0) for (x0, y0), (x1, y1) in pairwise(points)]
    inner = [2 * a * b / (a + b) if a * b > 0 else 0.0 for a, b in pairwise(secants)]  # harmonic: monotone
    slopes = [0.0, *inner, 0.0]
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for ((x0, y0), (x1, y1)), (m0, m1) in zip(pairwise(points), pairwise(slopes)):
        third = (y1 - y0) / (3 if len(points) > 2 else 2)
        path += f" C{x0 + m0 * third:.1f},{y0 + third:.1f} {x1 - m1 * third:.1f},{y1 - third:.1f}"
        path += f" {x1:.1f},{y1:.1f}"
    return path


def _legend(kinds: Sequence[str], width: float) -> tuple[str, float]:
    parts = ['<g class="legend">']
    x, y = 24.0, TITLE_HEIGHT + 12.0
    for kind in kinds:
        text = f"{kind}: {look(kind).meaning}"
        needed = 58 + len(text) * 6.7
        if x + needed > width and x > 24:
            x, y = 24.0, y + LEGEND_ROW
        parts.append(
            f'<g class="node k-{kind}" transform="translate({x + 15:.1f},{y:.1f})">'
            f'<path d="{look(kind).outline(30, 17)}"/><text x="22">{escape(text)}</text></g>'
        )
        x += needed
    return "".join(parts) + "</g>", y + LEGEND_ROW / 2 - TITLE_HEIGHT if kinds else 0.0
