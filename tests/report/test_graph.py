"""The formats of `tpc graph`, on a graph with every attribute and awkward text."""

import json
import re
import xml.etree.ElementTree as ET

import networkx as nx
import pytest

from tpc.draw.collapse import collapse_trivial
from tpc.draw.formats import FORMATS, render
from tpc.draw.json_graph import from_record
from tpc.draw.style import LOOKS

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def graph():
    g = nx.DiGraph()
    g.add_node("xi", label="ξ", op="input", kind="input", axes=("batch", "d"), equation="ξ", layer="")
    g.add_node("A", label="embed.A", op="state", kind="state", axes=("d", "r"), equation="", layer="embed")
    g.add_node(
        "g",
        label="g1",
        op="contract",
        kind="contract",
        axes=("batch", "r"),
        equation="g1 = Aᵀ ξ",
        layer="embed",
    )
    g.add_node("view", label="view", op="Rename", kind="map", axes=(), equation="g1' = g1[:, None]", layer="")
    g.add_node(
        "k",
        label='V["<&>"]',
        op="kernel",
        kind="kernel",
        axes=("batch", "M"),
        equation="a < b & c",
        layer="h",
    )
    g.add_node("other", label="", op="?", kind="unheard of", axes=(), equation="", layer="")
    g.add_edge("xi", "g", position=1)
    g.add_edge("A", "g", position=0)
    g.add_edge("g", "view", position=0)
    g.add_edge("view", "k", position=2)
    g.add_edge("k", "other", position=0)
    g.add_edge("k", "A", position=1)  # an update flows back into the state
    return g


def test_svg_is_well_formed_and_tells_every_node(graph):
    root = ET.fromstring(render(graph, "svg", title='a "title" & more'))
    nodes = [
        g for g in root.iter(f"{SVG}g") if g.get("class", "").startswith("node") and g.find(f"{SVG}title") is not None
    ]
    assert len(nodes) == len(graph) - 1
    tips = {node.find(f"{SVG}title").text for node in nodes}
    assert "a < b & c\nwhere g1' = g1[:, None]\nkernel · op kernel · axes (batch, M) · layer h" in tips
    assert any(element.get("class") == "edge back" for element in root.iter(f"{SVG}path"))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert 'V["<&>"]' in texts
    assert 'a "title" & more' in texts


def test_svg_needs_nothing_from_outside(graph):
    text = render(graph, "svg")
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "<script" not in text
    assert "prefers-color-scheme:dark" in text


def test_kinds_differ_in_shape_and_in_colour():
    outlines = {kind: look.outline(80.0, 30.0) for kind, look in LOOKS.items()}
    for values in (outlines, {k: v.light for k, v in LOOKS.items()}, {k: v.dark for k, v in LOOKS.items()}):
        assert len(set(values.values())) == len(LOOKS)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("kind", LOOKS)
def test_labels_are_legible_in_light_and_dark(kind):
    for (fill, line), ink in ((LOOKS[kind].light, "#1c1c1c"), (LOOKS[kind].dark, "#ececec")):
        bright, dim = sorted((luminance(fill), luminance(ink)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5  # WCAG AA
        bright, dim = sorted((luminance(fill), luminance(line)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 3.0


def test_json_round_trip_keeps_every_node(graph):
    record = json.loads(render(graph, "json", title="t"))
    assert (record["format"], record["version"], record["title"]) == ("tpc-graph", 2, "t")
    again = from_record(record)
    assert len(again) == len(graph)
    names = list(graph)
    assert {(names[a], names[b], p) for a, b, p in again.edges.data("position")} == set(graph.edges.data("position"))
    assert again.nodes[2]["equation"] == "g1 = Aᵀ ξ"
    assert again.nodes[2]["axes"] == ("batch", "r")
    first = {**record, "version": 1}
    old = ("id", "label", "op", "kind", "axes", "equation", "layer")
    first["nodes"] = [{key: node[key] for key in old} for node in first["nodes"]]
    assert from_record(first).nodes[2]["axes"] == ("batch", "r")
    with pytest.raises(ValueError, match="tpc-graph"):
        from_record({"format": "other"})


def test_dot_quotes_labels_and_lists_all_edges(graph):
    text = render(graph, "dot", collapse=False)
    assert text.count(" -> ") == graph.number_of_edges()
    assert r'label="V[\"<&>\"]"' in text
    assert text.startswith("digraph")
    assert text.count("{") == text.count("}")


def test_html_is_one_page_around_the_svg(graph):
    text = render(graph, "html", title="t")
    assert text.startswith("<!doctype html>")
    assert "<svg" in text


def test_collapsing_leaves_out_renamings_and_constants(graph):
    graph.add_node("two", label="2", op="Constant", kind="map", equation="2", axes=(), layer="")
    graph.add_edge("two", "k", position=3)
    small = collapse_trivial(graph)
    assert set(graph) - set(small) == {"view", "two"}
    assert small.has_edge("g", "k")
    assert small.edges["g", "k"]["position"] == 2
    assert "view" in graph


def test_unknown_format_is_refused(graph):
    with pytest.raises(ValueError, match=", ".join(FORMATS)):
        render(graph, "png")
