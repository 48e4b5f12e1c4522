"""The convergence report: every limit with its table, its slopes and the command, in a page that asks for nothing."""

import re
from html.parser import HTMLParser

from tpc.report.convergence import write_convergence
from tpc.tasks.convergence import CheckResult, Fit

WIDTHS = (128, 256, 512)
FALLS, STAYS = (tuple(n**slope for n in WIDTHS) for slope in (-0.5, -0.1))
PI = CheckResult("net", "pi", 8, 4, 0.5, WIDTHS, ("step 0", "step 1"), (FALLS, FALLS), (0.0, 0.75))
NTK = CheckResult(
    "net", "ntk", None, 4, 2.0, WIDTHS, ("NTK kernel", "fit"), (FALLS, STAYS), (None, 1.2), fit=Fit(50, 16, 0.035)
)  # fmt: skip


class Reader(HTMLParser):
    """The texts of a page, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.loads = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.loads += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_the_page_has_tables_slopes_verdicts_and_the_command(tmp_path):
    write_convergence([PI, NTK], "tpc check net.py --limit all --widths 128:512", tmp_path / "c.html")
    text = (tmp_path / "c.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert page.loads == []
    assert "url(http" not in text
    for result in (PI, NTK):
        for row in result.cells:
            assert set(filter(None, row)) <= set(page.texts)
    assert page.texts.count("−0.50 ± 0.00") == 3
    assert "−0.10 ± 0.00 !" in page.texts
    assert "every slope lies in [−0.7, −0.3]." in page.texts
    assert "a slope (!) leaves [−0.7, −0.3]." in page.texts
    assert f"{NTK.notes[0]}." in page.texts
    assert "3.5% away from ridgeless regression" in NTK.notes[0]
    assert any("tpc check net.py --limit all --widths 128:512" in t for t in page.texts)
    assert re.findall(r'<section id="(\w+)"', text) == ["pi", "ntk"]
    assert text.count("<svg") == 1
