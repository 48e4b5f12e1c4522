"""What a reader of a report sees at 1400 and 800 pixels, in light and in dark: nothing is cut, covered or repeated."""

from pathlib import Path

import pytest

import tpc
from tests.support.browser import Browser, chromium
from tpc.report.compile_report import compile_report

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs a Chromium (Debian: apt-get install chromium)")

ROOT = Path(__file__).parents[2]
WIDTHS = (1400, 800)
GELU = """
import tpc


def gelu(x):
    h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
    for layer in range(1, 6):
        h = tpc.dense(tpc.gelu(h), name=f"hidden{layer}") + 0.5 * tpc.bias(f"hidden{layer}")
    return tpc.readout(tpc.gelu(h), 10, name="readout") + 0.5 * tpc.bias("readout")
"""
SWIGLU = """
import tpc


def swiglu(x):
    h = tpc.dense(x, name="embed")
    h = h + tpc.dense(tpc.silu(tpc.dense(h, name="gate")) * tpc.dense(h, name="up"), name="down")
    return tpc.readout(tpc.silu(h), 10, name="readout")
"""
RESIDUAL = """
import tpc


def residual(x):
    h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
    for block in range(1, 13):
        h = h + 0.5 * tpc.dense(tpc.relu(tpc.rms_norm(h, 1e-5)), name=f"block{block}")
    return tpc.readout(tpc.relu(h), 10, name="readout")
"""
MADE = {
    "gelu": (GELU, "pi"), "swiglu": (SWIGLU, "pi"), "residual": (RESIDUAL, "pi"),
    "maml": ("", "pi"), "mlp": ("", "ntk"),
}  # fmt: skip

# Boxes of what is drawn, by what it is; text inside of others is part of them.
COVERED = """(() => {
  const box = (e) => e.getBoundingClientRect();
  const meets = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                       && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const found = [];
  for (const each of document.querySelectorAll(".equation, .kernel > .columns > div, .steps tr")) {
    const parts = [...each.querySelectorAll("math, .number")].map((e) => [e, box(e)]).filter(([, r]) => r.width > 0);
    parts.forEach(([a, r], i) => parts.slice(0, i).forEach(([b, s]) => {
      if (!a.contains(b) && !b.contains(a) && meets(r, s)) found.push(a.textContent + " / " + b.textContent);
    }));
  }
  for (const drawing of document.querySelectorAll(".stage svg:not([hidden])")) {
    const nodes = [...drawing.querySelectorAll(".node[data-node] > path:last-of-type")].map((e) => [e, box(e)]);
    nodes.forEach(([a, r], i) => nodes.slice(0, i).forEach(([b, s]) => { if (meets(r, s)) found.push("nodes"); }));
  }
  return found;
})()"""
CUT = """(() => {
  const page = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > page) found.push("the page");
  const wide = ".card, .equation, .formula, math, pre, table, figure, .columns > *, article, nav a, .viewer .bar > *";
  for (const e of document.querySelectorAll(wide)) {
    const r = e.getBoundingClientRect(), around = e.parentElement.getBoundingClientRect();
    if (!r.width) continue;
    if (r.right > Math.min(page, around.right + 1) || r.left < around.left - 1) found.push(e.outerHTML.slice(0, 120));
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline")
      found.push("in " + e.outerHTML.slice(0, 120));
  }
  for (const e of document.querySelectorAll("figure svg text, figure svg g[id^=text]")) {
    const r = e.getBoundingClientRect(), around = e.closest("svg").getBoundingClientRect();
    const wide = r.left < around.left - 1 || r.right > around.right + 1;
    if (wide || r.top < around.top - 1 || r.bottom > around.bottom + 1) found.push("text " + e.textContent);
  }
  return found;
})()"""
GRAPH = """(() => {
  const stage = document.querySelector(".stage"), s = stage.getBoundingClientRect();
  const drawing = stage.querySelector("svg:not([hidden])"), found = [];
  const nodes = [...drawing.querySelectorAll(".node[data-node]")];
  for (const n of nodes) {
    const r = n.getBoundingClientRect();
    if (r.left < s.left - 1 || r.right > s.right + 1 || r.top < s.top - 1 || r.bottom > s.bottom + 1)
      found.push(n.dataset.node + " is out of view");
    const own = n.querySelector("path").getBoundingClientRect();
    for (const t of n.querySelectorAll("text:not(.times)")) {
      const b = t.getBoundingClientRect();
      if (b.left < own.left - 1 || b.right > own.right + 1) found.push("the label of " + n.dataset.node + " is cut");
      if (b.height < (t.classList.contains("space") ? 6 : 8)) found.push(n.dataset.node + " is too small to read");
    }
  }
  if (!nodes.some((n) => n.classList.contains("k-output"))) found.push("no output");
  return found;
})()"""
REPEATED = """(() => {
  const titles = [...document.querySelectorAll("h2, article h3")].map((e) => e.textContent);
  return titles.filter((t, i) => titles.indexOf(t) < i);
})()"""
ROWS = """(() => {
  const rows = {};
  for (const c of document.querySelectorAll(".card")) {
    const r = c.getBoundingClientRect();
    (rows[Math.round(r.top)] ??= []).push(r);
  }
  return Object.values(rows).map((row) => [row[0].left, row[row.length - 1].right]);
})()"""


@pytest.fixture(scope="module", params=MADE)
def report(request, tmp_path_factory):
    text, kind = MADE[request.param]
    path = ROOT / "programs" / f"{request.param}.py"
    if text:
        path = tmp_path_factory.mktemp("program") / f"{request.param}.py"
        path.write_text(text)
    made = tmp_path_factory.mktemp("report") / "report.html"
    made.write_text(compile_report(tpc.compile(tpc.load(path), limit=kind), request.param, path.read_text()))
    return made


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile"), size=(WIDTHS[0], 1000)) as opened:
        yield opened


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_cut_or_covered(browser, report, width, dark):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
    browser.open(report, dark=dark)
    assert browser.run(GRAPH) == []
    for folded in (True, False):
        if not folded:
            browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert browser.run(COVERED) == []
        assert browser.run(CUT) == []
    assert browser.run(REPEATED) == []
    rows = browser.run(ROWS)
    assert all(abs(left - rows[0][0]) < 1 and abs(right - rows[0][1]) < 1 for left, right in rows)
    assert browser.problems == []


@pytest.mark.parametrize("width", WIDTHS)
def test_plots_use_the_width_that_they_have(browser, report, width):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
    browser.open(report)
    shares = browser.run(
        "[...document.querySelectorAll('.kernel figure')].map((f) => f.getBoundingClientRect().width"
        " / f.parentElement.getBoundingClientRect().width * Math.round(f.parentElement.clientWidth / f.clientWidth))"
    )
    assert shares
    assert min(shares) > 0.9
