"""Find layers that repeat in a graph, by structure alone, and draw one of them with the number of times.

Listings go through a network layer by layer, so equal layers are a tandem repeat in the order of the nodes: the same
forms at a constant distance. The form of a node is its operation with the names taken out, and the forms of what it is
computed from. A repeat counts where its layers have the same edges: to the same places within a layer and the layers
before, and to equal forms outside.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import networkx as nx

_WORD = re.compile(r"[^\W\d][\w.']*")
LEAST_TIMES, LEAST_SAVED = 3, 4
LARGEST_LAYER = 500  # nodes
TIMES = "repeats"  # node attribute: how many layers a node stands for
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

    Edges from one layer to the next are left out, those from and to the outside are those of all layers together.
    """
    order = list(graph)
    image: dict[Hashable, Hashable] = {node: node for node in order}
    layer: dict[Hashable, tuple[int, int]] = {}
    small = nx.DiGraph(**graph.graph)
    for number, repeat in enumerate(repeats(graph)):
        layers = repeat.layers(order)
        for k, nodes in enumerate(layers):
            layer.update(dict.fromkeys(nodes, (number, k)))
            image.update(zip(nodes, layers[0], strict=True))
    for node, data in graph.nodes(data=True):
        if image[node] == node:
            small.add_node(node, **data)
        else:
            kept = small.nodes[image[node]]
            kept[STANDS_FOR] = (*kept.get(STANDS_FOR, (image[node],)), node)
            kept[TIMES] = len(kept[STANDS_FOR])
    for a, b, data in graph.edges(data=True):
        next_layer = a in layer and b in layer and layer[a][0] == layer[b][0] and layer[a][1] != layer[b][1]
        if image[a] != image[b] and not next_layer and not small.has_edge(image[a], image[b]):
            small.add_edge(image[a], image[b], **data)
    return small


def repeats(graph: nx.DiGraph) -> list[Repeat]:
    """Repeats that do not overlap, in order; those that save most nodes are chosen first."""
    order = list(graph)
    forms = _forms(graph)
    place = {node: i for i, node in enumerate(order)}
    before = [sorted(place[p] for p in graph.predecessors(node)) for node in order]
    codes = [forms[node] for node in order]
    largest = min(len(order) // LEAST_TIMES, LARGEST_LAYER)
    found = [r for size in range(1, largest + 1) for r in _tandems(codes, before, size)]
    found.sort(key=lambda r: (-r.saved, r.size, r.first))
    chosen: list[Repeat] = []
    taken = [False] * len(order)
    for r in found:
        span = range(r.first, r.first + r.size * r.times)
        if r.saved >= LEAST_SAVED and not any(taken[i] for i in span):
            chosen.append(r)
            for i in span:
                taken[i] = True
    return sorted(chosen, key=lambda r: r.first)


def _forms(graph: nx.DiGraph) -> dict[Hashable, str]:
    """The form of every node: its own with those of its operands, or of its uses where it has none."""
    axes = {name for _, own in graph.nodes(data="axes", default=()) for name in own}
    names = {str(node) for node in graph} | {str(label) for _, label in graph.nodes(data="label")} | axes
    names |= {name.rpartition(".")[0] for name in names}
    for _, equation in graph.nodes(data="equation", default=""):  # nodes left out of the drawing
        names |= {line.removeprefix("where ").partition(" = ")[0] for line in str(equation).split("\n")[1:]}
    own: dict[Hashable, str] = {}
    for node, data in graph.nodes(data=True):
        equation = _WORD.sub(lambda m: "·" if m[0] in names else m[0], str(data.get("equation", "")))
        own[node] = f"{data.get('kind')} {data.get('op')} {len(data.get('axes', ()))} {equation}"
    found: dict[Hashable, str] = {}
    for node in graph:
        near = sorted(own[p] for p in graph.predecessors(node)) or sorted({own[s] for s in graph.successors(node)})
        found[node] = f"{own[node]} | {near}"
    return found


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
