"""A graph as JSON.

    {"format": "tpc-graph", "version": 1, "title": str,
     "nodes": [{"id": int, "label": str, "op": str, "kind": str, "axes": [str],
                "equation": str, "layer": str}],
     "edges": [{"source": int, "target": int, "position": int or null}]}

`id` numbers the nodes from 0 in the order of the program; `kind` is one of tpc.report.style.LOOKS; `position`
is the place of the source among the arguments of the target.
"""

from __future__ import annotations

import json
from typing import Any

import networkx as nx

FORMAT, VERSION = "tpc-graph", 1
TEXTS = ("label", "op", "kind", "equation", "layer")


def to_record(graph: nx.DiGraph, title: str = "") -> dict[str, Any]:
    """The graph as plain dictionaries and lists, in the schema above."""
    number = {node: i for i, node in enumerate(graph)}
    nodes = [
        {
            "id": number[node],
            **{key: str(data.get(key, "")) for key in TEXTS},
            "axes": [str(a) for a in data.get("axes", ())],
        }
        for node, data in graph.nodes(data=True)
    ]
    edges = [
        {"source": number[a], "target": number[b], "position": data.get("position")}
        for a, b, data in graph.edges(data=True)
    ]
    return {"format": FORMAT, "version": VERSION, "title": title, "nodes": nodes, "edges": edges}


def to_json(graph: nx.DiGraph, title: str = "") -> str:
    """`to_record` as text."""
    return json.dumps(to_record(graph, title), indent=1, ensure_ascii=False) + "\n"


def from_record(record: dict[str, Any]) -> nx.DiGraph:
    """The graph of `to_record`; ValueError when `record` is something else."""
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise ValueError(f"expected a {FORMAT} record of version {VERSION}")
    graph = nx.DiGraph()
    for node in record["nodes"]:
        graph.add_node(node["id"], **{key: node[key] for key in TEXTS}, axes=tuple(node["axes"]))
    for edge in record["edges"]:
        graph.add_edge(edge["source"], edge["target"], position=edge["position"])
    return graph
