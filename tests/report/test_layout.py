"""The drawing: boxes apart, edges downwards, few crossings."""

from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpc.draw.layered import layout


def random_graph(edges, count):
    graph = nx.DiGraph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from((a % count, b % count) for a, b in edges)
    return graph


GRAPHS = st.builds(
    random_graph, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40), st.integers(1, 20)
)


@settings(max_examples=60, deadline=None)
@given(GRAPHS)
def test_boxes_never_overlap_and_stay_inside(graph):
    size = {node: (30.0 + 7 * (node % 5), 20.0 + 5 * (node % 3)) for node in graph}
    drawing = layout(graph, size)
    boxes = [(*drawing.centres[node], *size[node]) for node in graph]
    for i, (x, y, w, h) in enumerate(boxes):
        assert w / 2 <= x <= drawing.width - w / 2
        assert h / 2 <= y <= drawing.height - h / 2
        for x2, y2, w2, h2 in boxes[:i]:
            assert abs(x - x2) >= (w + w2) / 2 - 1e-6 or abs(y - y2) >= (h + h2) / 2 - 1e-6


@settings(max_examples=60, deadline=None)
@given(GRAPHS)
def test_edges_point_down_unless_they_close_a_cycle(graph):
    drawing = layout(graph, dict.fromkeys(graph, (30.0, 20.0)))
    for edge in graph.edges:
        if edge[0] == edge[1]:
            continue
        ys = [y for _, y in drawing.routes[edge]]
        assert ys == sorted(ys, reverse=edge in drawing.back_edges)
        assert len(set(ys)) == len(ys)
    remaining = graph.edge_subgraph([e for e in graph.edges if e not in drawing.back_edges])
    assert nx.is_directed_acyclic_graph(remaining)


def crossings(graph, drawing):
    """Crossings of straight pieces between neighbouring layers, counted from the coordinates."""
    pieces = [piece for route in drawing.routes.values() for piece in pairwise(route)]
    return sum(
        (a[0] - c[0]) * (b[0] - d[0]) < 0
        for i, (a, b) in enumerate(pieces)
        for c, d in pieces[:i]
        if a[1] == c[1] and b[1] == d[1]
    )


@pytest.mark.parametrize(
    "graph",
    [
        nx.balanced_tree(3, 3, create_using=nx.DiGraph),
        nx.path_graph(40, create_using=nx.DiGraph),
        nx.DiGraph([(0, "d"), (1, "c"), (2, "b"), (3, "a")]),
        nx.DiGraph([("s", "a"), ("s", "b"), ("s", "c"), ("a", "t"), ("b", "t"), ("c", "t"), ("s", "t")]),
    ],
    ids=["tree", "path", "reversed pairs", "fan with a long edge"],
)
def test_planar_layerings_are_drawn_without_crossings(graph):
    drawing = layout(graph, dict.fromkeys(graph, (30.0, 20.0)))
    assert crossings(graph, drawing) == 0


def test_a_path_is_a_straight_line():
    graph = nx.path_graph(30, create_using=nx.DiGraph)
    drawing = layout(graph, {node: (30.0 + node, 20.0) for node in graph})
    xs = [x for x, _ in drawing.centres.values()]
    assert max(xs) - min(xs) < 1.0


def test_a_source_sits_just_above_its_first_use():
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 3), ("state", 3)])
    drawing = layout(graph, dict.fromkeys(graph, (30.0, 20.0)))
    assert drawing.centres["state"][1] == drawing.centres[2][1]


def test_an_empty_graph_and_a_lone_node():
    assert layout(nx.DiGraph(), {}).centres == {}
    graph = nx.DiGraph()
    graph.add_node("a")
    graph.add_edge("a", "a")
    assert set(layout(graph, {"a": (10.0, 10.0)}).centres) == {"a"}
