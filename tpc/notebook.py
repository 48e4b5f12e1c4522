"""How a limit looks in a notebook."""

from __future__ import annotations

from html import escape

from tpc.derivation import Derivation
from tpc.draw.formats import forward_part, readable
from tpc.draw.svg import to_svg
from tpc.errors import TpcError
from tpc.gaussian.kernel import kernel
from tpc.gaussian.names import KernelNames
from tpc.gaussian.notation import unicode_line
from tpc.summary import sizes
from tpc.words import html_table


def limit_html(limit: Derivation) -> str:
    """Figures, kernels and the drawing of a limit; what is wrong with it where it does not exist."""
    title = f"{limit.entry.title} of {limit.program.name}"
    try:
        names = KernelNames(limit.graph().kernels)
        forms = [(names.kernel(*pair), kernel(*pair).plain) for pair in names.pairs]
        drawing = to_svg(readable(forward_part(limit.to_networkx())), title)
    except TpcError as error:
        return f"<p>{escape(title)}: {escape(str(error))}</p>"
    rows = [(f"{name}(p, q, c)", "no closed form" if v is None else unicode_line(v)) for name, v in forms]
    told = "".join(f'<p role="alert">{escape(text)}</p>' for text in limit.warnings)
    figures = html_table(("", title), list(sizes(limit).items()))
    return f'<div class="tpc-limit">{figures}{told}{html_table(("kernel", "closed form"), rows)}{drawing}</div>'
