"""Layered drawing of a directed graph (Sugiyama's method): layers, order within layers, coordinates, routes.

1. edges that close a cycle are turned round, then vertices are layered by longest path from the sources;
2. an edge across several layers gets a bend in each of them;
3. order: barycentre sweeps, the order with the fewest crossings is kept;
4. coordinates: every vertex is pulled to the mean of its neighbours under the spacing constraints of its
   layer, which is isotonic regression and solved exactly by pooling adjacent violators.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import networkx as nx

Node = Hashable
Point = tuple[float, float]
SWEEPS = 24
CENTRING = 0.12  # of the way to the middle, or a deep graph drifts to one side


@dataclass(frozen=True, eq=False)
class Bend:
    """Where edge `edge` passes layer `layer`; there is one of each, so that identity tells them apart."""

    edge: tuple[Node, Node]
    layer: int


@dataclass(frozen=True)
class Layout:
    """Centres of the nodes, way points of the edges (source, bends, target) and the size of the drawing."""

    centres: Mapping[Node, Point]
    routes: Mapping[tuple[Node, Node], tuple[Point, ...]]
    back_edges: frozenset[tuple[Node, Node]]
    width: float
    height: float


def layout(
    graph: nx.DiGraph,
    size: Mapping[Node, tuple[float, float]],
    gap: tuple[float, float] = (26.0, 52.0),
    margin: float = 24.0,
) -> Layout:
    """Lay out `graph`, top to bottom; `size` gives width and height of every node's box."""
    back = _back_edges(graph)
    dag = nx.DiGraph()
    dag.add_nodes_from(graph.nodes)
    dag.add_edges_from((b, a) if (a, b) in back else (a, b) for a, b in graph.edges if a != b)
    rank = _layers(dag)
    layered, chains = _insert_bends(dag, rank)
    layers = _order(layered)
    widths = {vertex: size[vertex][0] if vertex in size else 2.0 for vertex in layered}
    x = _coordinates(layered, layers, widths, gap[0])
    heights = [max((size[v][1] for v in layer if v in size), default=0.0) for layer in layers]
    tops = [margin + sum(heights[:i]) + gap[1] * i for i in range(len(layers))]
    left = min((x[v] - widths[v] / 2 for v in x), default=0.0) - margin
    right = max((x[v] + widths[v] / 2 for v in x), default=0.0) + margin
    place = {vertex: (x[vertex] - left, tops[i] + heights[i] / 2) for i, layer in enumerate(layers) for vertex in layer}
    routes = {}
    for a, b in graph.edges:
        if a != b:
            chain = chains[b, a][::-1] if (a, b) in back else chains[a, b]
            routes[a, b] = tuple(place[vertex] for vertex in chain)
    height = (tops[-1] + heights[-1] if layers else 0.0) + margin
    return Layout({node: place[node] for node in graph}, routes, frozenset(back), right - left, height)


def _back_edges(graph: nx.DiGraph) -> set[tuple[Node, Node]]:
    """Edges to a vertex still open in a depth-first search; without them no cycle is left."""
    state: dict[Node, int] = {}
    back: set[tuple[Node, Node]] = set()
    roots = [node for node in graph if graph.in_degree(node) == 0] + list(graph)
    for root in roots:
        if root in state:
            continue
        state[root] = 1
        stack = [(root, iter(graph.successors(root)))]
        while stack:
            node, children = stack[-1]
            for child in children:
                if state.get(child) == 1:
                    back.add((node, child))
                elif child not in state:
                    state[child] = 1
                    stack.append((child, iter(graph.successors(child))))
                    break
            else:
                state[node] = 2
                stack.pop()
    return back


def _layers(dag: nx.DiGraph) -> dict[Node, int]:
    """Longest path from a source; then vertices sink to their first use if no edge grows."""
    rank: dict[Node, int] = {}
    order = list(nx.topological_sort(dag))
    for node in order:
        rank[node] = 1 + max((rank[p] for p in dag.predecessors(node)), default=-1)
    for node in reversed(order):
        if dag.out_degree(node) >= max(dag.in_degree(node), 1):
            rank[node] = min(rank[s] for s in dag.successors(node)) - 1
    return rank


def _insert_bends(dag: nx.DiGraph, rank: Mapping[Node, int]) -> tuple[nx.DiGraph, dict[tuple[Node, Node], list[Node]]]:
    layered = nx.DiGraph()
    layered.add_nodes_from((node, {"layer": rank[node]}) for node in dag)
    chains: dict[tuple[Node, Node], list[Node]] = {}
    for edge in dag.edges:
        bends: list[Node] = [Bend(edge, layer) for layer in range(rank[edge[0]] + 1, rank[edge[1]])]
        layered.add_nodes_from((bend, {"layer": bend.layer}) for bend in bends if isinstance(bend, Bend))
        chains[edge] = [edge[0], *bends, edge[1]]
        nx.add_path(layered, chains[edge])
    return layered, chains


def _order(layered: nx.DiGraph) -> list[list[Node]]:
    """Vertices of each layer from left to right with few crossings."""
    count = 1 + max((layer for _, layer in layered.nodes(data="layer")), default=-1)
    layers: list[list[Node]] = [[] for _ in range(count)]
    for node in nx.dfs_preorder_nodes(layered.to_undirected()) if len(layered) else ():
        layers[layered.nodes[node]["layer"]].append(node)
    for node, layer in layered.nodes(data="layer"):  # other connected components
        if node not in layers[layer]:
            layers[layer].append(node)
    best, fewest = [list(layer) for layer in layers], crossings(layered, layers)
    place = {v: i for layer in layers for i, v in enumerate(layer)}
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        neighbours = layered.predecessors if down else layered.successors
        for layer in layers[1:] if down else layers[-2::-1]:
            means = {v: _mean([place[u] for u in neighbours(v)], place[v]) for v in layer}
            layer.sort(key=means.__getitem__)
            place |= {v: i for i, v in enumerate(layer)}
        now = crossings(layered, layers)
        if now < fewest:
            best, fewest = [list(layer) for layer in layers], now
    return best


def crossings(layered: nx.DiGraph, layers: Sequence[Sequence[Node]]) -> int:
    """Number of pairs of edges between neighbouring layers that cross."""
    total = 0
    for upper, lower in pairwise(layers):
        place = {v: i for i, v in enumerate(lower)}
        seen: list[int] = []
        for vertex in upper:
            ends = sorted(place[s] for s in layered.successors(vertex))
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _coordinates(
    layered: nx.DiGraph, layers: Sequence[Sequence[Node]], widths: Mapping[Node, float], gap: float
) -> dict[Node, float]:
    x: dict[Node, float] = {}
    for layer in layers:
        x |= dict(zip(layer, _offsets(layer, widths, gap)))
    for sweep in range(SWEEPS):
        centre = _mean(list(x.values()), 0.0)
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = []
            weights = []
            for vertex in layer:
                up, down = list(layered.predecessors(vertex)), list(layered.successors(vertex))
                if sweep < SWEEPS - 4:  # one side at a time spreads positions; both sides settle them
                    up, down = (up, []) if sweep % 2 == 0 else ([], down)
                mean = _mean([x[u] for u in (*up, *down)], x[vertex])
                wanted.append(mean + CENTRING * (centre - mean))
                # a bend weighs more, which straightens long edges
                weights.append(8.0 if isinstance(vertex, Bend) else 1.0 + len(up) + len(down))
            x |= dict(zip(layer, _spaced(wanted, weights, _offsets(layer, widths, gap))))
    return x


def _offsets(layer: Sequence[Node], widths: Mapping[Node, float], gap: float) -> list[float]:
    """Leftmost positions that keep the boxes of a layer apart."""
    offsets = []
    right = 0.0
    for vertex in layer:
        offsets.append(right + widths[vertex] / 2)
        right += widths[vertex] + gap
    return offsets


def _spaced(wanted: Sequence[float], weights: Sequence[float], offsets: Sequence[float]) -> list[float]:
    """argmin Σ w (x − wanted)² subject to x_{i+1} − x_i ≥ offsets_{i+1} − offsets_i."""
    blocks: list[list[float]] = []  # [mean, weight, length]
    for want, weight, offset in zip(wanted, weights, offsets):
        blocks.append([want - offset, weight, 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, mass, length = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * mass) / (last[1] + mass)
            last[1] += mass
            last[2] += length
    shifts = [mean for mean, _, length in blocks for _ in range(int(length))]
    return [shift + offset for shift, offset in zip(shifts, offsets)]


def _mean(values: Sequence[Any], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
