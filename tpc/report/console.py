"""Tables and progress on the terminal; plain and wide when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from tpc.data import FileCheck, Holding
from tpc.runtime.training.episodic import FewShotEvaluation
from tpc.runtime.training.evaluation import Evaluation
from tpc.tasks.regress import Regression
from tpc.tasks.table1 import COLUMNS, PUBLISHED, ROWS, Score
from tpc.words import human_bytes

PIPED_WIDTH = 240


def console() -> Console:
    """Standard output; a pipe gets no colour and no wrapping at 80 columns."""
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else PIPED_WIDTH, highlight=False, soft_wrap=not terminal)


def print_evaluation(step: int, evaluation: Evaluation, names: Sequence[str]) -> None:
    """Accuracy, loss and the confusion matrix: a row per true class, with its share of right answers."""
    out = console()
    out.print(f"step {step}: test accuracy {evaluation.accuracy:.2%}, test loss {evaluation.loss:.4f}")
    table = Table(title="true class (rows) and predicted class (columns)", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("right", justify="right")
    for name, row, right in zip(names, evaluation.confusion, np.diag(evaluation.confusion)):
        share = f"{right / row.sum():.1%}" if row.sum() else "–"
        table.add_row(name, *(str(count) if count else "·" for count in row), share)
    out.print(table)


def print_tasks(step: int, split: str, found: FewShotEvaluation) -> None:
    """Accuracy over tasks with its interval, loss, and the accuracy of every alphabet's characters."""
    out = console()
    around = f"{found.accuracy:.2%} ± {found.interval:.2%} over {found.tasks} tasks (95 % interval)"
    out.print(f"step {step}: {split} accuracy {around}, loss {found.loss:.4f}")
    table = Table("alphabet", title="queries by the alphabet of their class", title_justify="left")
    table.add_column("queries", justify="right")
    table.add_column("right", justify="right")
    for name, (right, count) in found.alphabets.items():
        table.add_row(name, str(count), f"{right:.1%}")
    out.print(table)


def print_regression(found: Regression) -> None:
    """A row per ridge; the chosen one is marked."""
    table = Table("ridge", "held-out accuracy", "test accuracy", "test loss", "")
    for score in found.scores:
        mark = "chosen" if score is found.chosen else ""
        numbers = (f"{score.held_out_accuracy:.2%}", f"{score.test_accuracy:.2%}", f"{score.test_loss:.4f}")
        table.add_row(f"{score.ridge:g}", *numbers, mark)
    out = console()
    out.print(table)
    out.print(f"test accuracy {found.chosen.test_accuracy:.2%} after {found.seconds:.0f} s")
    if found.run is not None:
        out.print(f"run: {found.run.path}", markup=False)


def print_table1(scores: Sequence[Score]) -> None:
    """Accuracy of every row and column beside the published one; then the commands."""
    table = Table("", *(f"{c}, {what}" for c in COLUMNS for what in ("here", "published")))
    found = {(s.row, s.column): s for s in scores}
    for row in ROWS:
        cells = []
        for column in COLUMNS:
            score = found.get((row, column))
            around = "" if score is None or score.interval is None else f" ± {100 * score.interval:.2f}"
            cells += ["–" if score is None else f"{100 * score.accuracy:.2f}{around}", f"{PUBLISHED[row, column]:.2f}"]
        table.add_row(row, *cells)
    out = console()
    out.print(table)
    for score in scores:
        told = f"{score.row}, {score.column}: {score.seconds:.0f} s, seed {score.seed}: {score.command}"
        out.print(told, markup=False, soft_wrap=True)


def print_holdings(rows: Sequence[Holding]) -> None:
    """What is on disk of every data set."""
    table = Table("data set", "status", "size", "path")
    for row in rows:
        table.add_row(row.dataset, row.status, human_bytes(row.bytes) if row.bytes else "–", row.path)
    console().print(table)


def print_checks(rows: Sequence[FileCheck]) -> None:
    """One line per file."""
    out = console()
    for row in rows:
        out.print(f"{'ok    ' if row.ok else 'BROKEN'} {row.file}: {row.message}", markup=False)
