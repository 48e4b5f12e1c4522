"""A graph as JSON.

    {"format": "tpc-graph", "version": 2, "title": str,
     "nodes": [{"id": int, "label": str, "op": str, "kind": str, "axes": [str],
                "shape": [{"name": str, "role": str, "size": int or null}],
                "equation": str, "layer": str,
                "instruction": str, "whole": bool, "rule": str, "step": str,
                "stage": str, "source": str, "line": str}],
     "edges": [{"source": int, "target": int, "position": int or null}]}

`id` numbers the nodes from 0 in the order of the program; `kind` is one of tpc.draw.style.LOOKS; `position`
is the place of the source among the arguments of the target. The entries from `instruction` on say where a node comes
from (see tpc.limits.view); they and `shape` are new in version 2.
"""

from __future__ import annotations

import json
from typing import Any

import networkx as nx

FORMAT, VERSION = "tpc-graph", 2
TEXTS = ("label", "op", "kind", "equation", "layer")
ORIGIN = ("instruction", "rule", "step", "stage", "source", "line")


def to_record(graph: nx.DiGraph, title: str = "") -> dict[str, Any]:
    """The graph as plain dictionaries and lists, in the schema above."""
    number = {node: i for i, node in enumerate(graph)}
    nodes = [
        {
            "id": number[node],
            **{key: str(data.get(key, "")) for key in (*TEXTS, *ORIGIN)},
            "axes": [str(a) for a in data.get("axes", ())],
            "shape": [dict(a) for a in data.get("shape", ())],
            "whole": bool(data.get("whole")),
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
    """The graph of `to_record`, of version 1, too; ValueError when `record` is something else."""
    if record.get("format") != FORMAT or record.get("version") not in (1, VERSION):
        raise ValueError(f"expected a {FORMAT} record of version 1 or {VERSION}")
    graph = nx.DiGraph()
    for node in record["nodes"]:
        known = {key: node.get(key, "") for key in (*TEXTS, *ORIGIN)}
        shape, whole = tuple(node.get("shape", ())), node.get("whole", False)
        graph.add_node(node["id"], **known, axes=tuple(node["axes"]), shape=shape, whole=whole)
    for edge in record["edges"]:
        graph.add_edge(edge["source"], edge["target"], position=edge["position"])
    return graph
