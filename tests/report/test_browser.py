"""A report in a real browser: search a node, read its equation, walk by keys; no error, no outside request."""

from pathlib import Path

import pytest

import tpc
from tests.support.browser import Browser, chromium
from tpc.report.compile_report import compile_report

PROGRAM = Path(__file__).parents[2] / "programs" / "mlp.py"
needs_browser = pytest.mark.skipif(chromium() is None, reason="needs a Chromium (Debian: apt-get install chromium)")
pytestmark = needs_browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    limit = tpc.compile(tpc.load(PROGRAM, hidden=6))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(compile_report(limit, "mlp", PROGRAM.read_text(encoding="utf-8")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory, report):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(report)
        opened.run("document.querySelector('.viewer').scrollIntoView({block: 'center'})")
        yield opened


def panel(browser, selector):
    return browser.run(f"document.querySelector('.viewer .panel {selector}').textContent")


def box(browser):
    return browser.run("document.querySelector('.stage svg:not([hidden])').getAttribute('viewBox')")


def test_a_node_is_searched_clicked_and_read(browser):
    browser.run("document.querySelector('.find').focus()")
    browser.type("k1")
    assert "found" in browser.run("document.querySelector('.hits').textContent")
    browser.press("Enter", "\r")
    assert panel(browser, "h3") == "k1"
    assert "V" in panel(browser, "math")
    assert "c1" in panel(browser, ".formula + code")
    browser.click('.stage svg:not([hidden]) .node[data-node="g1"]')
    assert panel(browser, "h3") == "g1"
    assert panel(browser, ".formula + code") == "g1 = sum[feature](x, embed.A)"
    assert browser.run("document.querySelector('.panel math').getBoundingClientRect().height > 10")
    assert "mlp.py:17" in panel(browser, "")
    assert "embed_A" in panel(browser, "pre")


def test_enter_goes_through_the_hits(browser):
    browser.run("const f = document.querySelector('.find'); f.value = ''; f.focus()")
    browser.type("gram")
    seen = []
    for _ in range(3):
        browser.press("Enter", "\r")
        seen.append(panel(browser, "h3"))
    assert len(set(seen)) == 3
    assert browser.run("document.querySelector('.hits').textContent").startswith("3 of ")


def test_a_hidden_layer_is_found_in_the_drawing_that_has_it(browser):
    every = browser.run(
        "(() => { const d = JSON.parse(document.querySelector('script.data').textContent);"
        " return Object.values(d.nodes).find(n => n.stands_for && n.stands_for.v0).stands_for.v0; })()"
    )
    browser.run("const s = document.querySelector('.find'); s.value = ''; s.focus()")
    browser.type(every[-1])
    browser.press("Enter", "\r")
    assert panel(browser, "h3").startswith(every[-1])
    assert "every layer" in browser.run("document.querySelector('.views').selectedOptions[0].textContent")
    browser.run("const v = document.querySelector('.views'); v.selectedIndex = 0; v.dispatchEvent(new Event('change'))")


def test_keys_walk_zoom_and_move(browser):
    browser.click('.stage svg:not([hidden]) .node[data-node="g1"]')
    browser.press("ArrowDown")
    assert panel(browser, "h3") not in ("", "g1")
    before = box(browser)
    browser.press("+", "+")
    assert box(browser) != before
    browser.click(".viewer .fit")
    fitted = box(browser)
    browser.click(".viewer .in")
    assert box(browser) != fitted
    names = "[...document.querySelectorAll('.stage svg:not([hidden]) .node[data-node]')]"
    assert browser.run(f"{names}.every(n => n.getAttribute('role') === 'button' && n.getAttribute('aria-label'))")
    assert browser.run(f"{names}.filter(n => n.getAttribute('tabindex') === '0').length") == 1


def test_dragging_moves_the_drawing(browser):
    before = box(browser)
    x, y = browser.run("(() => { const r = document.querySelector('.stage').getBoundingClientRect();"
                       " return [r.x + 20, Math.max(r.y, 0) + 160]; })()")  # fmt: skip
    browser.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 60, y=y - 40, button="left", buttons=1)
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 90, y=y - 60, button="left", buttons=1)
    browser.call("Input.dispatchMouseEvent", type="mouseReleased", x=x + 90, y=y - 60, button="left", clickCount=1)
    assert box(browser) != before


def test_light_and_dark_differ_and_nothing_is_wider_than_the_page(browser, report, tmp_path):
    shades = []
    for dark in (False, True):
        browser.open(report, dark=dark)
        shades.append(browser.run("getComputedStyle(document.body).backgroundColor"))
        assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
        browser.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000
    assert shades[0] != shades[1]


def test_no_error_and_no_outside_request(browser, report):
    assert browser.problems == []
    assert set(browser.requests) == {report.resolve().as_uri()}
