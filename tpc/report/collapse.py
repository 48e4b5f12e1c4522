"""Leave trivial nodes out of a drawing: what only passes its one argument on, or only holds a constant."""

from __future__ import annotations

import networkx as nx

PASSING = frozenset({"Rename", "Broadcast"})
CONSTANT = frozenset({"Constant"})


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
