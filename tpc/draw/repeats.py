"""Find layers that repeat in a graph, by structure alone, and draw one of them with the number of times.

Listings go through a network layer by layer, so equal layers are a tandem repeat in the order of the nodes: the same
forms at a constant distance. The form of a node is its operation with the names taken out, and the forms of what it is
computed from. A repeat counts where its layers have the same edges: to the same places within a layer and the layers
before, and to equal forms outside.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

from tpc.draw.layers import LEAST_TIMES, Layers, in_step

_WORD = re.compile(r"[^\W\d][\w.']*")
LEAST_SAVED = 4
LARGEST_LAYER = 500  # nodes
TIMES = "repeats"  # node attribute: how many layers a node stands for
LAST = "last"  # node attribute: the one of the last layer, that the rest of the network reads
STANDS_FOR = "stands_for"  # node attribute: the nodes it stands for, itself first


@dataclass(frozen=True)
class Repeat:
    """Nodes first, …, first + size·times − 1 of the order are `times` layers of `size` nodes."""

    first: int
    size: int
    times: int

    @property
    def saved(self) -> int:
        return self.size * (self.times - 1)

    def layers(self, order: Sequence[Hashable]) -> list[Sequence[Hashable]]:
        """The nodes of every layer."""
        return [order[self.first + k * self.size :][: self.size] for k in range(self.times)]


def collapse_repeats(graph: nx.DiGraph) -> nx.DiGraph:
    """A copy with one layer of every repeat, whose nodes carry `repeats` and `stands_for`.

    All nodes that stand for others are of the same layer. Edges from one layer to the next are left out, those from and
    to the outside are those of all layers together.
    """
    families = _families(graph)
    image: dict[Hashable, Hashable] = {node: node for node in graph}
    place: dict[Hashable, tuple[int, int]] = {}
    stands: dict[Hashable, tuple[Hashable, ...]] = {}
    for number, found in enumerate(families):
        for group, members in enumerate(found.groups):
            kept = found.representative(group)
            image |= dict.fromkeys(members.values(), kept)
            place |= {node: (number, k) for k, node in members.items()}
            stands[kept] = (kept, *(node for _, node in sorted(members.items()) if node != kept))
    small = nx.DiGraph(**graph.graph)
    for node, data in graph.nodes(data=True):
        if image[node] == node:
            more = {STANDS_FOR: stands[node], TIMES: len(stands[node])} if node in stands else {}
            small.add_node(node, **data, **more)
    own = [e for e in graph.edges if image[e[0]] == e[0] and image[e[1]] == e[1]]
    small.add_edges_from((a, b, graph.edges[a, b]) for a, b in own)
    for a, b, data in graph.edges(data=True):
        if a in place and a != image[a] and b not in place:
            small.nodes[image[a]][LAST] = str(graph.nodes[a].get("label") or a)
        if image[a] == image[b] or small.has_edge(image[a], image[b]) or _between_layers(a, b, place):
            continue
        if not nx.has_path(small, image[b], image[a]):
            small.add_edge(image[a], image[b], **data)
    return small


def _between_layers(a: Hashable, b: Hashable, place: Mapping[Hashable, tuple[int, int]]) -> bool:
    """Whether an edge leads from one layer to another, or between repeats, whose shown layers have their own edges."""
    return a in place and b in place and place[a] != place[b]


def _families(graph: nx.DiGraph) -> list[Layers]:
    """Repeats that do not overlap, each with all that is in step with it; those that save most nodes come first."""
    order = [node for node in graph if graph.in_degree(node)]  # arrays stand anywhere in a listing
    names = _names(graph)
    forms = {node: _own_form(data, names) for node, data in graph.nodes(data=True)}
    found: list[Layers] = []
    taken: set[Hashable] = set()
    for r in sorted(repeats(graph, order), key=lambda r: (-r.saved, r.first)):
        layers = _extended(graph, order, r, forms)
        if any(node in taken for nodes in layers for node in nodes):
            continue
        family = in_step(graph, layers, forms, taken)
        taken |= set(family.place)
        found.append(family)
    return found


def repeats(graph: nx.DiGraph, order: Sequence[Hashable] | None = None) -> list[Repeat]:
    """Repeats in an order of nodes that do not overlap, in order; those that save most nodes are chosen first."""
    order = list(graph) if order is None else order
    forms = _forms(graph)
    place = {node: i for i, node in enumerate(order)}
    before = [sorted(place[p] for p in graph.predecessors(node) if p in place) for node in order]
    codes = [forms[node] for node in order]
    largest = min(len(order) // LEAST_TIMES, LARGEST_LAYER)
    found = [r for size in range(1, largest + 1) for r in _tandems(codes, before, size)]
    found.sort(key=lambda r: (-r.saved, _mixed(graph, r.layers(order)), r.size, r.first))
    chosen: list[Repeat] = []
    taken = [False] * len(order)
    for r in found:
        span = range(r.first, r.first + r.size * r.times)
        if r.saved >= LEAST_SAVED and not any(taken[i] for i in span):
            chosen.append(r)
            for i in span:
                taken[i] = True
    return sorted(chosen, key=lambda r: r.first)


def _mixed(graph: nx.DiGraph, layers: Sequence[Sequence[Hashable]]) -> int:
    """How many spaces the latents of one layer live in."""
    shapes = [graph.nodes[node].get("shape", ()) for node in layers[0]]
    return len({axis["name"] for shape in shapes for axis in shape if axis["role"] == "rank"})


def _forms(graph: nx.DiGraph) -> dict[Hashable, str]:
    """The form of every node: its own with those of its operands, or of its uses where it has none."""
    names = _names(graph)
    own = {node: _own_form(data, names) for node, data in graph.nodes(data=True)}
    found: dict[Hashable, str] = {}
    for node in graph:
        near = sorted(own[p] for p in graph.predecessors(node)) or sorted({own[s] for s in graph.successors(node)})
        found[node] = f"{own[node]} | {near}"
    return found


def _extended(
    graph: nx.DiGraph, order: Sequence[Hashable], r: Repeat, forms: Mapping[Hashable, str]
) -> list[Sequence[Hashable]]:
    """The layers of a repeat, and one before or after that is equal but for what it reads or is read by."""
    layers = r.layers(order)
    for start, place in ((r.first - r.size, 0), (r.first + r.size * r.times, len(layers))):
        nodes = order[max(start, 0) : start + r.size]
        alike = [forms[n] for n in nodes] == [forms[n] for n in layers[0]]
        if alike and _inner_edges(graph, nodes) == _inner_edges(graph, layers[0]):
            layers.insert(place, nodes)
    return layers


def _inner_edges(graph: nx.DiGraph, nodes: Sequence[Hashable]) -> set[tuple[int, int]]:
    return {(i, j) for i, a in enumerate(nodes) for j, b in enumerate(nodes) if graph.has_edge(a, b)}


def _names(graph: nx.DiGraph) -> set[str]:
    """The names of nodes, of layers and of axes."""
    axes = {name for _, own in graph.nodes(data="axes", default=()) for name in own}
    names = {str(node) for node in graph} | {str(label) for _, label in graph.nodes(data="label")} | axes
    names |= {name.rpartition(".")[0] for name in names}
    for _, equation in graph.nodes(data="equation", default=""):  # nodes left out of the drawing
        names |= {line.removeprefix("where ").partition(" = ")[0] for line in str(equation).split("\n")[1:]}
    return names


def _own_form(data: Mapping[str, Any], names: set[str]) -> str:
    equation = _WORD.sub(lambda m: "·" if m[0] in names else m[0], str(data.get("equation", "")))
    return f"{data.get('kind')} {data.get('op')} {len(data.get('axes', ()))} {equation}"


def _tandems(codes: Sequence[str], before: Sequence[Sequence[int]], size: int) -> list[Repeat]:
    """Runs of layers of `size` nodes, from every node that starts one."""
    same = [0] * (len(codes) + 1)  # how many nodes from here on have the form of the one a layer later
    for i in range(len(codes) - size - 1, -1, -1):
        same[i] = same[i + 1] + 1 if codes[i] == codes[i + size] else 0
    found = []
    counts = [1] * len(codes)
    for start in range(len(codes)):
        most = same[start] // size + 1
        # a layer later has at least what is left of the repeat from here on
        times = max(1, counts[start - size] - 1) if start >= size else 1
        while times < most and _is_next(before, start, size, times):
            times += 1
        counts[start] = times
        if times >= LEAST_TIMES:
            found.append(Repeat(start, size, times))
    return found


def _is_next(before: Sequence[Sequence[int]], start: int, size: int, times: int) -> bool:
    """Whether the layer after `times` of them, whose forms agree, has their edges, too."""
    here = start + size * times
    least = here if times == 1 else start + size  # what layers get from those before, the first may get from outside
    return all(
        [p + size for p in before[i - size] if p + size >= least] == [p for p in before[i] if p >= least]
        for i in range(here, here + size)
    )
