"""Leave trivial nodes out of a drawing: what only passes its one argument on, or only holds a constant."""

from __future__ import annotations

import networkx as nx

PASSING = frozenset(
    {"view", "reshape", "broadcast", "expand", "identity", "neg", "transpose", "cast", "label"}
)
CONSTANT = frozenset({"const", "constant", "number"})


def collapse_trivial(graph: nx.DiGraph) -> nx.DiGraph:
    """A copy without trivial nodes; edges go round them, and their equations join the tooltip of the user."""
    small = graph.copy()
    for node in list(nx.topological_sort(small)) if nx.is_directed_acyclic_graph(small) else list(small):
        op = str(small.nodes[node].get("op", "")).lower()
        before, after = list(small.predecessors(node)), list(small.successors(node))
        passing = op in PASSING and len(before) == 1 and after
        constant = op in CONSTANT and not before and after
        if not (passing or constant):
            continue
        equation = str(small.nodes[node].get("equation", ""))
        for user in after:
            told = [equation, str(small.nodes[user].get("equation", ""))]
            small.nodes[user]["equation"] = "\n".join(part for part in told if part)
            if passing and before[0] != user and not small.has_edge(before[0], user):
                small.add_edge(before[0], user, **small.edges[node, user])
        small.remove_node(node)
    return small
