"""What the suite prints: text while it runs, Markdown at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class Report:
    """Collects headings, lines, tables and targets, and prints each as it comes."""

    def __init__(self, targets: bool = True) -> None:
        self._show_targets = targets
        self._markdown: list[str] = []
        self._targets: list[tuple[str, str, str, str]] = []

    def heading(self, text: str) -> None:
        """A new section."""
        print(f"\n== {text}", flush=True)
        self._markdown += [f"### {text}", ""]

    def line(self, text: str) -> None:
        """A paragraph."""
        print(text, flush=True)
        self._markdown += [text, ""]

    def skipped(self, what: str, why: object) -> None:
        """A row or a section that cannot be measured here."""
        self.line(f"Skipped: {what} ({str(why).splitlines()[0]}).")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; nothing where there are no rows."""
        if not rows:
            return
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        for row in (header, *rows):
            print("  ".join(cell.rjust(width) for cell, width in zip(row, widths)), flush=True)
        lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
        self._markdown += [lines[0], "|" + "---|" * len(header), *lines[1:], ""]

    def target(self, what: str, wanted: str, found: str, met: bool) -> None:
        """A figure that is held against a target at the end."""
        self._targets.append((what, wanted, found, "yes" if met else "no"))

    def finish(self, path: Path | None) -> None:
        """The targets, and everything as Markdown into a file."""
        if self._show_targets and self._targets:
            self.heading("Targets")
            self.table(("target", "wanted", "measured", "met"), self._targets)
        if path is not None:
            path.write_text("\n".join(self._markdown), encoding="utf-8")
            print(f"\nwritten to {path}")


def duration(seconds: float) -> str:
    """Three significant digits, with the unit that suits."""
    unit, size = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e-3)) if seconds >= s), ("µs", 1e-6))
    return f"{seconds / size:.3g} {unit}"


def megabytes(count: float) -> str:
    """10⁶ bytes."""
    return f"{count / 1e6:,.1f} MB"
