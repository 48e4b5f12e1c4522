"""The convergence report: every limit with its table, its slopes and the command, in a page that asks for nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser

from tests.support.checked import result_of
from tpc.report.check_report import write_convergence
from tpc.tasks.convergence import Fit
from tpc.tasks.intervals import Deviation

WIDTHS = (128, 256, 512)
FALLS, STAYS = (tuple(n**slope for n in WIDTHS) for slope in (-0.5, -0.1))
MEAN = Deviation("the initial logits", 0.01, 0.002, (4.0, 28.0))
PI = result_of(WIDTHS, ("step 0", "step 1"), (FALLS, FALLS), moved=(0.0, 0.75), deviations=(replace(MEAN, size=0.001),))
NTK = result_of(
    WIDTHS, ("NTK kernel", "fit"), (FALLS, STAYS), limit="ntk", moved=(None, 1.2), deviations=(MEAN,),
    fit=Fit(50, 16, 0.035),
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
    assert "−0.10 ± 0.00" in page.texts
    assert f"{PI.verdict}." in page.texts
    assert str(PI.verdict).startswith("right: errors fall like width^(−1/2), and means agree to")
    assert f"{NTK.verdict}." in page.texts
    assert str(NTK.verdict).startswith("wrong: the initial logits are off by 1.00% ±")
    assert {"the initial logits", "0.10%", "1.00%", f"{MEAN.bound:.2%}"} <= set(page.texts)
    assert f"{NTK.notes[0]}." in page.texts
    assert "3.5% away from ridgeless regression" in NTK.notes[0]
    assert any("tpc check net.py --limit all --widths 128:512" in t for t in page.texts)
    assert re.findall(r'<section id="(\w+)"', text) == ["pi", "ntk"]
    assert text.count("<svg") == 1
