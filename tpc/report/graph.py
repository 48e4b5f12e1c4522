"""The formats of `tpc graph`."""

from __future__ import annotations

from html import escape

import networkx as nx

from tpc.report.collapse import collapse_trivial
from tpc.report.dot import to_dot
from tpc.report.json_graph import to_json
from tpc.report.svg import to_svg

FORMATS = ("svg", "dot", "html", "json")


def limit_name(limit: str) -> str:
    """pi → 'π-limit', ntk → 'NTK limit'."""
    symbols = {"pi": "π-limit", "mu": "μ-limit"}
    return symbols.get(limit, f"{limit.upper()} limit")


def forward_part(graph: nx.DiGraph) -> nx.DiGraph:
    """What the outputs of the network depend on: the limit without loss, gradients and updates."""
    ends = [node for node, kind in graph.nodes(data="kind") if kind == "output"]
    needed = set(ends).union(*(nx.ancestors(graph, end) for end in ends))
    part = graph.copy()  # a subgraph view would go through its nodes in an order that changes from run to run
    part.remove_nodes_from([node for node in graph if node not in needed])
    return part


def render(graph: nx.DiGraph, kind: str, title: str = "", collapse: bool = True) -> str:
    """`graph` in one of FORMATS; drawings leave trivial nodes out if `collapse`, json never."""
    if kind == "json":
        return to_json(graph, title)
    shown = collapse_trivial(graph) if collapse else graph
    if kind == "dot":
        return to_dot(shown, title)
    if kind == "svg":
        return to_svg(shown, title)
    if kind == "html":
        return _page(to_svg(shown, title), title)
    raise ValueError(f"unknown format {kind!r}; expected one of {', '.join(FORMATS)}")


def _page(svg: str, title: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        "<style>body{margin:0}svg{max-width:100%;height:auto;display:block;margin:auto}"
        "@media (prefers-color-scheme:dark){body{background:#16191d}}</style></head>\n"
        f"<body>\n{svg}</body></html>\n"
    )
