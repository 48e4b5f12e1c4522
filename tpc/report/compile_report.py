"""The report of a compilation: one page that opens offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from tpc.derivation import Derivation
from tpc.draw.page import cards, page
from tpc.draw.viewer import viewer_css, viewer_script
from tpc.report.sections import Section, compilation
from tpc.summary import sizes
from tpc.version import VERSION


def compile_report(limit: Derivation, name: str, source: str, degree: int | None = None, points: int = 0) -> str:
    """The page about a limit of the program called `name`, whose text is `source`; folded if a degree is given."""
    title = f"{limit.entry.title} of {name}"
    told = f"tpc {VERSION}" + (f", folded to degree {degree}" if degree is not None else "")
    told += f" with {points} points" if points else ""
    return document(title, title, told, sizes(limit, degree, points), compilation(limit, source, degree, points))


def document(title: str, heading: str, told: str, shown: Mapping[str, str], sections: Iterable[Section]) -> str:
    """A report: heading, figures, links to its sections, the sections."""
    made = list(sections)
    links = " ".join(f'<a href="#{s.key}">{escape(s.title)}</a>' for s in made)
    body = [
        f"<h1>{escape(heading)}</h1>",
        f'<p class="note">{escape(told)}</p>',
        cards(shown),
        f'<nav aria-label="Sections">{links}</nav>',
        *(s.html for s in made),
        viewer_script(),
    ]
    return page(title, body, viewer_css())
