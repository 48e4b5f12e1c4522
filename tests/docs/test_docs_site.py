"""The documents build as a site: strictly, with every public name, and with nothing that is fetched from elsewhere."""

import os
import re
import subprocess
import sys

import pytest

import tpc
import tpc.data
import tpc.gaussian
from tests.support.docs_blocks import ROOT
from tpc.program.functions import NAMED

FETCHED = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\s(?:src|href)=[\"']?(?:\w+:)?//[^>]*>")  # by a browser
MISREAD = re.compile(r"<em>[^<]*[_^⟨]|<(?:weight|layer|name|program)>")  # mathematics and placeholders as markup


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return out


def test_pages_fetch_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        assert FETCHED.findall(page.read_text(encoding="utf-8")) == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_reference_has_every_public_name(site):
    text = "\n".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    ids = set(re.findall(r'id="(tpc[\w.]*)"', text))
    for module in (tpc, tpc.data, tpc.gaussian):
        for name in module.__all__:  # a function that is called like its file is there under its full name
            home = getattr(getattr(module, name), "__module__", "")
            assert {f"{module.__name__}.{name}", f"{home}.{name}"} & ids, f"{module.__name__}.{name}"


def test_every_operation_has_its_docstring(site):
    page = (site / "api" / "programs.html").read_text(encoding="utf-8")
    assert "max(x, 0), coordinatewise on a vector." in page
    assert page.count("coordinatewise on a vector.") == len(NAMED)


def test_mathematics_and_placeholders_are_not_read_as_markup(site):
    for page in site.rglob("*.html"):
        assert not MISREAD.search(page.read_text(encoding="utf-8")), page.name


def test_links_to_source_files_lead_to_their_text(site):
    page = (site / "concepts" / "pi_limit.html").read_text(encoding="utf-8")
    assert 'href="../source/tpc/limits/pi.py.html"' in page
    assert "pi_limit" in (site / "source" / "tpc" / "limits" / "pi.py.html").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation_once():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", text, flags=re.MULTILINE)
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted([*pages, "project/CONTRIBUTING.md", "project/CHANGELOG.md"])
