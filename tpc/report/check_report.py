"""The convergence report: distances of finite networks to limits over widths, with slopes, as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tpc.draw.page import figure, page, section, table
from tpc.limits.kinds import READOUTS, LimitKind, limit_kind
from tpc.report import plots
from tpc.runtime.files.whole import write_atomic
from tpc.tasks.convergence import CheckResult
from tpc.version import VERSION

MODEL = (
    "Networks are drawn from one state of the limit and trained on the same batches; errors are of their logits, "
    "relative to the size of the limit's logits."
)
KERNEL = (
    "Kernels of random networks, relative to the limit's; outputs of random networks {which}, relative to how far the "
    "kernel moves them."
)


def _note(kind: LimitKind) -> str:
    """What was compared."""
    if not kind.is_kernel:
        return MODEL
    return KERNEL.format(which="whose readouts train" if kind.learning == READOUTS else "in NTK parametrization")


def write_convergence(results: Sequence[CheckResult], command: str, path: Path) -> None:
    """Write the page, with the command that makes it again."""
    name = f"{results[0].program}: finite networks against {', '.join(limit_kind(r.limit).title for r in results)}"
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="note">tpc {escape(VERSION)}, {escape(command)}</p>',
        "<p>Errors are root mean squares over seeds, held-out samples and classes. A network of width n should miss "
        "its limit by O(n<sup>−1/2</sup>): a slope of −1/2 on log axes; ± is a 95 % confidence interval. "
        "The mean of networks misses a right limit by what chance explains.</p>",
        figure(plots.to_svg(plots.convergence(*results), "convergence")),
    ]
    for result in results:
        told = [str(result.verdict), *result.notes]
        rows = f"<p>{escape(told[0])}.</p>" + table(result.head, result.cells)
        rows += "".join(f"<p>{escape(line)}.</p>" for line in told[1:])
        rows += f"<p>{escape(result.mean_title)}:</p>" + table(result.mean_head, result.mean_cells)
        facts = f"<p>{escape(result.title)}</p>"
        body.append(section(result.limit, limit_kind(result.limit).title, _note(limit_kind(result.limit)), facts, rows))
    write_atomic(path, page(name, body))
