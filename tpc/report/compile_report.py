"""The report of a compilation: one page that opens offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING

import tpc
from tpc.draw.graph import limit_name
from tpc.draw.page import cards, page
from tpc.draw.viewer import viewer_css, viewer_script
from tpc.limits.nodes import Kernel
from tpc.program.ir import Matrix, Vector
from tpc.report.sections import Section, compilation

if TYPE_CHECKING:
    from tpc.compiler import Limit


def compile_report(limit: Limit, name: str, source: str, degree: int | None = None, points: int = 0) -> str:
    """The page about a limit of the program called `name`, whose text is `source`; folded if a degree is given."""
    title = f"{limit_name(limit.kind)} of {name}"
    told = f"tpc {tpc.__version__}" + (f", folded to degree {degree}" if degree is not None else "")
    told += f" with {points} points" if points else ""
    return document(title, title, told, facts(limit, degree, points), compilation(limit, source, degree, points))


def facts(limit: Limit, degree: int | None = None, points: int = 0) -> dict[str, str]:
    """The sizes of a compilation."""
    nodes, graph = limit.program.nodes, limit.graph(degree=degree, points=points)
    vectors = [n for n in nodes if isinstance(n, Vector)]
    return {
        "lines of the program": str(len(nodes)),
        "G- and X-vectors": f"{sum(n.kind == 'G' for n in vectors)} + {sum(n.kind == 'X' for n in vectors)}",
        "matrices": str(sum(isinstance(n, Matrix) for n in nodes)),
        "spaces": str(len(limit.program.spaces)),
        "lines with gradients": str(len(limit.trained().nodes)),
        "tensors of the limit": str(len(graph.nodes)),
        "kernel evaluations": str(sum(isinstance(n, Kernel) for n in graph.nodes)),
        "different kernels": str(len(graph.kernels)),
    }


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
