"""How limits and models look in a notebook: `_repr_html_` of them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from tpc.draw.graph import forward_part, limit_name, readable
from tpc.draw.svg import to_svg
from tpc.errors import TpcError
from tpc.gaussian.kernel import kernel
from tpc.gaussian.names import KernelNames
from tpc.gaussian.notation import unicode_line
from tpc.report.compile_report import facts
from tpc.runtime.training.progress import human_bytes

if TYPE_CHECKING:
    from tpc.compiler import Limit
    from tpc.runtime.models.model import Model


def limit_html(limit: Limit) -> str:
    """Figures, kernels and the drawing of a limit; what is wrong with it where it does not exist."""
    title = f"{limit_name(limit.kind)} of {limit.program.name}"
    try:
        names = KernelNames(limit.graph().kernels)
        forms = [(names.kernel(*pair), kernel(*pair).plain) for pair in names.pairs]
        drawing = to_svg(readable(forward_part(limit.to_networkx())), title)
    except TpcError as error:
        return f"<p>{escape(title)}: {escape(str(error))}</p>"
    rows = [(f"{name}(p, q, c)", "no closed form" if v is None else unicode_line(v)) for name, v in forms]
    told = "".join(f'<p role="alert">{escape(text)}</p>' for text in limit.warnings)
    figures = table(("", title), list(facts(limit).items()))
    return f'<div class="tpc-limit">{figures}{told}{table(("kernel", "closed form"), rows)}{drawing}</div>'


def model_html(model: Model) -> str:
    """What a model is, and the arrays of its state."""
    rows = [(name, " × ".join(map(str, shape)), kind) for name, shape, kind in model.arrays()]
    told = f"<p>{escape(model.described)}, {human_bytes(model.nbytes)}</p>"
    return f'<div class="tpc-model">{told}{table(("state", "shape", "type"), rows)}</div>'


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table that needs no style sheet; text stands at the left."""
    top = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
