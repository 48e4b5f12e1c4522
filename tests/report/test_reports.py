"""Reports are pages that open offline; what they show is what the compiler derived."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import tpc
from tpc.draw.formats import render
from tpc.draw.viewer import details
from tpc.limits.numbering import numbering
from tpc.report.compile_report import compile_report

PROGRAMS = Path(__file__).parents[2] / "programs"
VOID = {"meta", "link", "br", "hr", "img", "input", "source", "wbr", "col"}
LARGEST = 5_000_000


class Page(HTMLParser):
    """Checks that elements are closed in order; collects anchors, addresses, and texts by tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.outside, self.tags, self.texts = [], [], [], [], [], {}
        self.labels = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a" and given.get("href", "").startswith("#"):
            self.links.append(given["href"][1:])
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            if name in given and not given[name].startswith("#"):
                self.outside.append((tag, name, given[name]))
        self.labels.append((tag, given.get("aria-label") or given.get("alttext")))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


@pytest.fixture(scope="module", params=[("mlp", "pi"), ("resmlp", "pi"), ("mlp", "ntk"), ("mlp", "nngp")])
def made(request):
    name, kind = request.param
    path = PROGRAMS / f"{name}.py"
    limit = tpc.compile(tpc.load(path), limit=kind)
    return limit, compile_report(limit, name, path.read_text(encoding="utf-8"))


def test_a_report_is_a_page_without_outside_requests(made):
    _, text = made
    page = Page(text)
    assert page.open == []
    assert len(text.encode()) < LARGEST
    assert page.outside == []
    names = {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<>\\)]+", text)) <= names
    assert not re.search(r"@import|url\((?!#)", text)
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|importScripts|sendBeacon)\b", text)


def test_links_lead_to_places_of_the_page(made):
    page = Page(made[1])
    assert set(page.links) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    wanted = {"program", "backward", "graph", "limit", "kernels", "cost", "code"}
    assert wanted <= set(page.ids)
    assert ("update" in page.ids) == (not made[0].is_kernel)


def test_every_kernel_and_update_has_a_numbered_equation(made):
    limit, text = made
    numbers = numbering(limit.graph())
    ids = Page(text).ids
    for number in (*numbers.kernels.values(), *numbers.updates.values()):
        assert f"eq-{number}" in ids
        assert f">({number})<" in text


def test_the_viewer_knows_every_node(made):
    limit, text = made
    (data,) = re.findall(r'<script type="application/json" class="data">(.*?)</script>', text, re.DOTALL)
    record = json.loads(data)
    drawn = set(re.findall(r'class="node [^"]*" data-node="([^"]*)"', text))
    assert drawn
    assert drawn <= set(record["nodes"])
    assert record["code"] == limit.emit("numpy").splitlines()
    for node in record["nodes"].values():
        assert "<math" in node["mathml"]
        assert node["rule"]
        assert node["instruction"]
        assert set(node["before"]) | set(node["after"]) <= set(record["nodes"])
        if node["kind"] in ("kernel", "gram", "latent", "contract"):
            assert node["code"]["lines"]


def test_controls_and_nodes_are_labelled(made):
    page = Page(made[1])
    labels = dict.fromkeys(tag for tag, label in page.labels if label)
    assert {"div", "svg", "g", "button", "nav", "math"} <= set(labels)
    assert "<html lang=" in made[1]


def test_the_source_is_escaped():
    limit = tpc.compile(tpc.load(PROGRAMS / "mlp.py"))
    text = compile_report(limit, "<mlp>", "x = '</script><b>'\n")
    assert "</script><b>" not in text
    assert "&lt;mlp&gt;" in text


def test_warnings_are_shown(monkeypatch):
    monkeypatch.setattr(tpc.Limit, "warnings", ("E[φ] is infinite",))
    path = PROGRAMS / "mlp.py"
    report = compile_report(tpc.compile(tpc.load(path)), "mlp", path.read_text())
    assert '<p role="alert">E[φ] is infinite</p>' in report


def test_a_folded_limit_has_a_report():
    path = PROGRAMS / "mlp.py"
    text = compile_report(tpc.compile(tpc.load(path)), "mlp", path.read_text(), degree=2)
    assert Page(text).open == []
    assert "folded to degree 2" in text


def test_the_page_of_a_graph_is_self_contained():
    limit = tpc.compile(tpc.load(PROGRAMS / "mlp.py", hidden=6))
    text = render(limit.to_networkx(), "html", "mlp", part="forward", known=details(limit, limit.emit("numpy")))
    page = Page(text)
    assert page.outside == []
    assert "Forward pass, every layer" in text
    assert "stands_for" in text
