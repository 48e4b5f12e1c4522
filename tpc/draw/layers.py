"""Equal layers of a graph in step with each other: which node of a layer corresponds to which node of another.

A repeat in the order of the nodes gives the first correspondence; what layers read and what reads them extends it, as
far as the forms agree. A drawing of one layer then has nodes of that layer only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

LEAST_TIMES = 3

Node = Hashable
Members = dict[int, Node]  # layer -> node


@dataclass
class Layers:
    """Groups of nodes that correspond: `groups[g][k]` is the node of group g in layer k."""

    groups: list[Members] = field(default_factory=list)
    place: dict[Node, tuple[int, int]] = field(default_factory=dict)  # node -> (group, layer)

    def add(self, members: Members) -> None:
        """A new group."""
        self.place |= {node: (len(self.groups), k) for k, node in members.items()}
        self.groups.append(members)

    @property
    def shown(self) -> int:
        """The layer that most groups have a node in; of several the first."""
        count = Counter(k for members in self.groups for k in members)
        return min(count, key=lambda k: (-count[k], k))

    def representative(self, group: int) -> Node:
        """The node of the shown layer, or of the layer next to it that has one."""
        members = self.groups[group]
        return members[min(members, key=lambda k: (abs(k - self.shown), k))]


def in_step(graph: nx.DiGraph, layers: Sequence[Sequence[Node]], forms: Mapping[Node, str], taken: set[Node]) -> Layers:
    """The correspondence that starts with `layers`, extended along edges to nodes that are not `taken`."""
    found = Layers()
    own = [set(nodes) for nodes in layers]
    for nodes in zip(*layers, strict=True):
        if len(layers[0]) == 1 or any(set(nx.all_neighbors(graph, n)) & own[k] for k, n in enumerate(nodes)):
            found.add(dict(enumerate(nodes)))  # what only other layers use is in step with those, and found there
    group = 0
    while group < len(found.groups):
        for members in _around(graph, found, group, forms):
            free = {k: n for k, n in members.items() if n not in taken and n not in found.place}
            kept = _different(free)
            if len(kept) >= LEAST_TIMES:
                found.add(kept)
        group += 1
    return found


def _around(graph: nx.DiGraph, found: Layers, group: int, forms: Mapping[Node, str]) -> Iterator[Members]:
    """What the nodes of a group read, and what reads them: one candidate for each form and place."""
    members = found.groups[group]
    for near in (_operands, _uses):
        by_layer = {k: near(graph, node, forms, found) for k, node in members.items()}
        keys = dict.fromkeys(key for keyed in by_layer.values() for key in keyed)
        for key in keys:
            yield {k: keyed[key] for k, keyed in by_layer.items() if key in keyed}


def _operands(graph: nx.DiGraph, node: Node, forms: Mapping[Node, str], found: Layers) -> dict[tuple[str, int], Node]:
    return _keyed(sorted(graph.predecessors(node), key=lambda p: _position(graph, p, node)), forms, found)


def _uses(graph: nx.DiGraph, node: Node, forms: Mapping[Node, str], found: Layers) -> dict[tuple[str, int], Node]:
    keyed = _keyed(list(graph.successors(node)), forms, found)
    count = Counter(form for form, _ in keyed)
    return {key: n for key, n in keyed.items() if count[key[0]] == 1}  # of several uses of one form none is the same


def _keyed(nodes: Sequence[Node], forms: Mapping[Node, str], found: Layers) -> dict[tuple[str, int], Node]:
    """Nodes that have no place yet, by their form and their rank among those of that form."""
    count: Counter[str] = Counter()
    keyed = {}
    for n in nodes:
        if n not in found.place:
            keyed[forms[n], count[forms[n]]] = n
            count[forms[n]] += 1
    return keyed


def _position(graph: nx.DiGraph, a: Node, b: Node) -> int:
    position = graph.edges[a, b].get("position")
    return 0 if position is None else int(position)


def _different(members: Members) -> Members:
    """The members that are not those of another layer, too."""
    count = Counter(members.values())
    return {k: n for k, n in members.items() if count[n] == 1}
