"""Repeated layers are found by structure, whatever they are called."""

import networkx as nx
import pytest

import tpc
from tpc import relu
from tpc.draw.collapse import collapse_trivial, nest_sums
from tpc.draw.formats import forward_part, readable, render
from tpc.draw.repeats import STANDS_FOR, TIMES, Repeat, collapse_repeats, repeats


def chain(layers, names=("a", "b", "c"), odd=None):
    """x → (a → b, a → c, b → c) → next layer …"""
    g = nx.DiGraph()
    g.add_node("x", label="x", op="Input", kind="input", axes=(), equation="x = data")
    last = "x"
    for k in range(layers):
        a, b, c = (f"{name}{k}" for name in names)
        op = "odd" if k == odd else "f"
        g.add_node(a, label=a, op=op, kind="map", axes=(), equation=f"{a} = {op}({last})")
        g.add_node(b, label=b, op="g", kind="map", axes=(), equation=f"{b} = g({a})")
        g.add_node(c, label=c, op="h", kind="map", axes=(), equation=f"{c} = h({a}, {b})")
        g.add_edges_from([(last, a), (a, b), (a, c), (b, c)])
        last = c
    return g


def test_equal_layers_become_one():
    found = repeats(chain(6))
    assert [(r.size, r.times) for r in found] == [(3, 5)]  # the first layer gets x, the next ones what came before
    small = collapse_repeats(chain(6))
    assert len(small) == 1 + 3 + 3
    assert nx.is_directed_acyclic_graph(small)
    groups = [d[STANDS_FOR] for _, d in small.nodes(data=True) if TIMES in d]
    assert sorted(map(len, groups)) == [5, 5, 5]
    assert all(len({name[0] for name in group}) == 1 for group in groups)


def test_names_do_not_matter():
    assert repeats(chain(6, ("p", "q", "r"))) == repeats(chain(6))


@pytest.mark.parametrize("odd", [2, 3])
def test_a_layer_that_differs_ends_the_repeat(odd):
    order = list(chain(8))
    for r in repeats(chain(8, odd=odd)):
        assert all(f"a{odd}" not in nodes for nodes in r.layers(order))


def test_an_edge_that_differs_ends_the_repeat():
    g = chain(7)
    g.remove_edge("b4", "c4")
    g.add_edge("b3", "c4")
    order = list(g)
    assert all("c4" not in nodes for r in repeats(g) for nodes in r.layers(order))


def test_few_layers_stay():
    assert repeats(chain(3)) == []
    assert Repeat(1, 3, 5).saved == 12


def perceptron(depth):
    def network(x):
        h = tpc.dense(x, name="first")
        for k in range(depth):
            h = tpc.dense(relu(h), name=f"w{k}")
        return tpc.readout(relu(h), 3, name="last")

    return tpc.trace(network)


def stream(depth):
    def network(x):
        h = tpc.dense(x, name="first")
        for k in range(depth):
            h = h + tpc.dense(relu(h), name=f"w{k}")
        return tpc.readout(relu(h), 3, name="last")

    return tpc.trace(network)


@pytest.mark.parametrize("network", [perceptron, stream])
def test_a_deep_network_is_drawn_as_large_as_one_less_deep(network):
    sizes = [len(readable(forward_part(tpc.compile(network(d)).to_networkx()))) for d in (6, 9)]
    assert sizes[0] == sizes[1] < 40


def test_a_graph_of_more_than_300_nodes_is_drawn_with_few():
    whole = tpc.compile(perceptron(18)).to_networkx()
    assert len(whole) > 300
    small = readable(whole)
    assert len(small) < 100
    assert nx.is_directed_acyclic_graph(small)
    assert "×18" in render(whole, "svg", part="forward") or "×17" in render(whole, "svg", part="forward")
    assert "×1" not in render(whole, "svg", part="forward", collapse=False)


def test_sums_take_earlier_sums():
    whole = collapse_trivial(tpc.compile(stream(4)).to_networkx())
    nested = nest_sums(forward_part(whole))
    assert max(d for _, d in nested.in_degree()) < max(d for _, d in forward_part(whole).in_degree())
    assert set(nested) == set(forward_part(whole))
    adds = [d["equation"] for _, d in nested.nodes(data=True) if d["op"] == "Add"]
    assert all(equation.count(",") == 1 for equation in adds)


def deep(phi, layers):
    def network(x):
        h = tpc.dense(x, name="embed") + tpc.bias("embed")
        for k in range(1, layers + 1):
            h = tpc.dense(phi(h), name=f"hidden{k}") + tpc.bias(f"hidden{k}")
        return tpc.readout(phi(h), 3, name="readout")

    return tpc.compile(tpc.trace(network)).to_networkx()


@pytest.mark.parametrize("phi", [tpc.relu, tpc.gelu], ids=["relu", "gelu"])
def test_the_layer_that_is_drawn_is_one_layer(phi):
    small = readable(forward_part(deep(phi, 5)))
    shown = {node: data for node, data in small.nodes(data=True) if TIMES in data}
    assert {data[TIMES] for data in shown.values()} == {5}
    layers = {data["layer"] for data in shown.values() if data["kind"] == "state"}
    assert layers == {"hidden1"}
    assert {"hidden1.A", "hidden1.B", "hidden1.bias"} <= set(shown)
    assert {"readout.A", "readout.B", "embed.A"} <= set(small) - set(shown)


@pytest.mark.parametrize("part", [forward_part, lambda graph: graph], ids=["forward", "step"])
def test_shown_layers_have_their_own_edges_and_no_others(part):
    whole = nest_sums(collapse_trivial(part(deep(tpc.gelu, 6))))
    small = collapse_repeats(whole)
    for a, b in small.edges:
        if TIMES in small.nodes[a] and TIMES in small.nodes[b]:
            assert whole.has_edge(a, b), (a, b)
    stands = [node for _, group in small.nodes(data=STANDS_FOR) for node in group or ()]
    assert len(stands) == len(set(stands))
    assert set(stands) | set(small) == set(whole)


def test_twelve_blocks_are_one():
    def network(x):
        h = tpc.dense(x, name="embed")
        for k in range(1, 13):
            h = h + tpc.dense(relu(tpc.rms_norm(h, 1e-5)), name=f"block{k}")
        return tpc.readout(relu(h), 3, name="readout")

    small = readable(forward_part(tpc.compile(tpc.trace(network)).to_networkx()))
    times = {data[TIMES] for _, data in small.nodes(data=True) if TIMES in data}
    assert times == {12}
    assert not any(node.startswith("block") and not node.startswith("block1.") for node in small)
