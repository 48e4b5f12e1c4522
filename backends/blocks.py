"""Loops over blocks of stored atoms, shared between threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.atoms import Atoms
from backends.threads import ranges, threads

Array = NDArray[Any]

BLOCK_ELEMENTS = 1 << 16  # batch × atoms of one block: elementwise work stays in the cache
LARGE_BLOCK = 1 << 20  # the same at most, but for a few atoms
KEEP_SHARE = 0.16  # of the atoms' memory: what a loop may keep for a later one
BLOCK_ROWS = 1024  # so do the rows between two products with them


def block_rows(batch: int) -> int:
    """Atoms of one block: enough for products with them to be fast, and fewer where a batch is very large."""
    least = min(256, max(8, LARGE_BLOCK // max(1, batch)))
    return min(BLOCK_ROWS, max(least, BLOCK_ELEMENTS // max(1, batch)))


def over_blocks(
    block: Callable[..., tuple[Array, ...]],
    atoms: Atoms,
    columns: tuple[str, ...],
    batch: int,
    keep: int = 0,
    kept: tuple[list[Array] | None, ...] = (),
) -> tuple[Any, ...]:
    """Σ over blocks of block(*columns of the block).

    The last `keep` results of a block are not summed but kept for a later loop over the same atoms, as a list by block,
    or None where they would take more than KEEP_SHARE of the atoms' memory; `kept` hands such lists to that loop.
    Threads take contiguous runs of blocks and the shares are added in a fixed order, so a result depends on the
    number of threads but never on timing.
    """
    size = block_rows(batch)
    parts: list[tuple[Any, ...]] = list(atoms.stored_blocks(columns, size))
    if not parts:
        empty = tuple(np.empty((0, *atoms.widths[c]) if c != "scale" else 0, atoms.dtype) for c in columns)
        return (*block(*empty, *(None for _ in kept))[: -keep or None], *(None for _ in range(keep)))
    given = [[None] * len(parts) if k is None else k for k in kept]
    parts = [(*part, *(k[i] for k in given)) for i, part in enumerate(parts)]
    hold = keep and keep * batch * len(atoms) * atoms.dtype.itemsize <= KEEP_SHARE * atoms.nbytes
    workers = threads()
    count = min(workers.count, len(parts))

    def typed(*part: Any) -> tuple[Array, ...]:
        return block(*atoms.typed(part[: len(columns)]), *part[len(columns) :])

    shares = workers.run([_job(typed, parts[a:b], keep, bool(hold)) for a, b in ranges(len(parts), count)])
    total, lists = shares[0]
    for share, more in shares[1:]:
        for t, s in zip(total, share):
            t += s
        for collected, extra in zip(lists, more):
            collected += extra
    return (*total, *(lists if hold else [None] * keep))


def _job(
    block: Callable[..., tuple[Array, ...]], parts: list[tuple[Any, ...]], keep: int, hold: bool
) -> Callable[[], tuple[list[Array], list[list[Array]]]]:
    errors = np.geterr()  # which a worker thread would not inherit

    def run() -> tuple[list[Array], list[list[Array]]]:
        total: list[Array] = []
        lists: list[list[Array]] = [[] for _ in range(keep)]
        with np.errstate(**errors):
            for part in parts:
                results = block(*part)
                sums = results[: len(results) - keep]
                if not total:
                    total = [np.array(t) for t in sums]
                else:
                    for t, share in zip(total, sums):
                        t += share
                if hold:
                    for collected, value in zip(lists, results[len(sums) :]):
                        collected.append(value)
        return total, lists

    return run
