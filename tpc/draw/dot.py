"""A graph in graphviz's dot language."""

from __future__ import annotations

import json

import networkx as nx

from tpc.draw.pretty import node_label
from tpc.draw.style import look
from tpc.draw.svg import tooltip


def to_dot(graph: nx.DiGraph, title: str = "") -> str:
    """The graph as dot text; nodes are numbered in their order, `tooltip` holds the equation."""
    number = {node: f"n{i}" for i, node in enumerate(graph)}
    lines = [
        "digraph limit {",
        f"  graph [label={_quoted(title)}, labelloc=t, rankdir=TB];",
        '  node [style=filled, fontname="monospace", fontsize=11];',
    ]
    for node, data in graph.nodes(data=True):
        style = look(str(data.get("kind", "")))
        fill, line = style.light
        lines.append(
            f"  {number[node]} [label={_quoted(node_label(data, str(node)))}, shape={style.dot}, "
            f"fillcolor={_quoted(fill)}, color={_quoted(line)}, tooltip={_quoted(tooltip(data))}];"
        )
    lines += [f"  {number[a]} -> {number[b]};" for a, b in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
