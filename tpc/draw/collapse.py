"""Leave trivial nodes out of a drawing: what only passes its one argument on, or only holds a constant."""

from __future__ import annotations

import re
from collections.abc import Hashable

import networkx as nx

PASSING = frozenset({"Rename", "Broadcast"})
CONSTANT = frozenset({"Constant"})
_SUM = re.compile(r"^.* = add\((.*)\)$")


def collapse_trivial(graph: nx.DiGraph) -> nx.DiGraph:
    """A copy without trivial nodes; edges go round them, and their equations join those of the user."""
    small = graph.copy()
    for node in list(nx.topological_sort(small)) if nx.is_directed_acyclic_graph(small) else list(small):
        op = small.nodes[node].get("op")
        before, after = list(small.predecessors(node)), list(small.successors(node))
        passing = op in PASSING and len(before) == 1 and after
        constant = op in CONSTANT and not before and after
        if not (passing or constant):
            continue
        equation = str(small.nodes[node].get("equation", ""))
        for user in after:
            own = str(small.nodes[user].get("equation", ""))
            small.nodes[user]["equation"] = f"{own}\nwhere {equation}" if own and equation else own
            if passing and before[0] != user and not small.has_edge(before[0], user):
                small.add_edge(before[0], user, **small.edges[node, user])
        small.remove_node(node)
    return small


def nest_sums(graph: nx.DiGraph) -> nx.DiGraph:
    """A copy where a sum takes an earlier one instead of its terms: a + b + c becomes s + c if s = a + b is there.

    Limits write sums flat, so that the stream of a residual network adds all layers before; drawn so, the edges would
    grow with the square of its depth.
    """
    nested = graph.copy()
    sums: dict[Hashable, tuple[str, ...]] = {}
    place: dict[Hashable, int] = {}
    users: dict[str, list[Hashable]] = {}  # the sums with a term
    for node, data in graph.nodes(data=True):
        match = _SUM.match(str(data.get("equation", "")).partition("\n")[0])
        if match is None or data.get("op") != "Add":
            continue
        terms = tuple(match[1].split(", "))
        near = dict.fromkeys(s for t in terms for s in users.get(t, ()))
        inner = [s for s in near if set(sums[s]) < set(terms) and graph.nodes[s].get("axes") == data.get("axes")]
        if inner:
            largest = max(inner, key=lambda s: (len(sums[s]), -place[s]))
            _nest(nested, node, largest, [t for t in terms if t not in sums[largest]])
        sums[node], place[node] = terms, len(place)
        for t in terms:
            users.setdefault(t, []).append(node)
    return nested


def _nest(graph: nx.DiGraph, node: Hashable, inner: Hashable, rest: list[str]) -> None:
    left, _, right = str(graph.nodes[node]["equation"]).partition(" = ")
    _, newline, more = right.partition("\n")
    graph.nodes[node]["equation"] = f"{left} = add({', '.join([str(inner), *rest])}){newline}{more}"
    for before in list(graph.predecessors(node)):
        if str(before) not in rest:
            graph.remove_edge(before, node)
    graph.add_edge(inner, node, position=0)
