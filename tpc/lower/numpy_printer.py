"""Scheduled functions as readable NumPy source."""

from __future__ import annotations

from collections.abc import Iterator

from tpc.lower import numpy_sums
from tpc.lower.instructions import Function, Loop
from tpc.lower.numpy_blocks import loop_over_blocks
from tpc.lower.numpy_statements import statement
from tpc.lower.writer import Dialect, Line, Tables, Writer


def in_order(w: Writer) -> Iterator[Line]:
    """Lines that compute everything, step by step."""
    loops = 0
    for s in w.function.steps:
        if isinstance(s, Loop):
            loops += 1
            yield from w.dialect.loop(w, s, loops)
        else:
            yield from (line.commented(s.axes) for line in w.dialect.statement(w, s))


NUMPY = Dialect(
    statement,
    numpy_sums.total,
    numpy_sums.matmul,
    numpy_sums.matvecs,
    numpy_sums.vecmats,
    loop_over_blocks,
    in_order,
)


def numpy_writer(function: Function, tables: Tables | None = None) -> Writer:
    """A function in NumPy."""
    return Writer(function, NUMPY, tables)
