"""The formats of `tpc graph`."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import networkx as nx

from tpc.draw.collapse import collapse_trivial, nest_sums
from tpc.draw.dot import to_dot
from tpc.draw.json_graph import to_json
from tpc.draw.page import page
from tpc.draw.repeats import collapse_repeats
from tpc.draw.svg import to_svg
from tpc.draw.viewer import NO_DETAILS, Details, viewer, viewer_css, viewer_script

FORMATS = ("svg", "dot", "html", "json")
DRAWN: dict[str, Callable[[nx.DiGraph, str], str]] = {"svg": to_svg, "dot": to_dot}


def forward_part(graph: nx.DiGraph) -> nx.DiGraph:
    """What the outputs of the network depend on: the limit without loss, gradients and updates."""
    ends = [node for node, kind in graph.nodes(data="kind") if kind == "output"]
    needed = set(ends).union(*(nx.ancestors(graph, end) for end in ends))
    part = graph.copy()  # a subgraph view would go through its nodes in an order that changes from run to run
    part.remove_nodes_from([node for node in graph if node not in needed])
    return part


def readable(graph: nx.DiGraph) -> nx.DiGraph:
    """What drawings show: no trivial nodes, sums nested, and one layer of those that repeat."""
    return collapse_repeats(nest_sums(collapse_trivial(graph)))


def parts(graph: nx.DiGraph) -> dict[str, nx.DiGraph]:
    """The drawings of a limit without trivial nodes, by title; kernel limits have one."""
    whole = collapse_trivial(graph)
    forward = forward_part(whole)
    return {"Forward pass": forward, "Training step": whole} if len(forward) < len(whole) else {"Limit": whole}


def render(
    graph: nx.DiGraph,
    kind: str,
    title: str = "",
    collapse: bool = True,
    part: str = "step",
    known: Details = NO_DETAILS,
) -> str:
    """`graph` in one of FORMATS; `part` is "forward" or "step".

    Drawings are made readable if `collapse`, json never; html has both parts to choose from, `part` first, and shows
    what is `known` about the nodes.
    """
    if kind == "html":
        return _page(graph, title, part, known, collapse)
    shown = forward_part(graph) if part == "forward" else graph
    if kind == "json":
        return to_json(shown, title)
    if kind in DRAWN:
        return DRAWN[kind](readable(shown) if collapse else shown, title)
    raise ValueError(f"unknown format {kind!r}; expected one of {', '.join(FORMATS)}")


def _page(graph: nx.DiGraph, title: str, part: str, known: Details, collapse: bool) -> str:
    drawings = parts(graph) if collapse else {"Everything": graph}
    ordered = dict(reversed(drawings.items())) if part == "step" else drawings
    return page(
        title,
        [f"<h1>{escape(title)}</h1>", viewer(graph, ordered, known, whole=True), viewer_script()],
        extra_css=viewer_css(),
        whole=True,
    )
