"""Loops over blocks of stored atoms, shared between threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.atoms import Atoms

Array = NDArray[Any]

BLOCK_ELEMENTS = 1 << 16  # batch × atoms of one block: elementwise work stays in the cache
KEEP_SHARE = 0.16  # of the atoms' memory: what a loop may keep for a later one
BLOCK_ROWS = 1024  # so do the rows between two products with them


class _Threads:
    """Worker threads, each with one BLAS thread: those of BLAS would wait for each other at every product."""

    def __init__(self) -> None:
        self.count = 1
        self._controller: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._depth = 0  # of `alone`, over all threads that are in it
        self._limit: Any = None
        self._owner: threading.Thread | None = None  # who set the limit
        chosen = _chosen()
        try:
            from threadpoolctl import ThreadpoolController
        except ImportError:
            return
        self._controller = ThreadpoolController()
        self.set(chosen or _cores())

    def set(self, count: int) -> None:
        """Use `count` workers from now on."""
        self.count = max(1, count)
        self._pool = ThreadPoolExecutor(self.count) if self.count > 1 else None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """BLAS on one thread, until the last of those who asked for it is done; may be nested.

        threadpoolctl listens to one Python thread at a time, so who set the limit lifts it, if need be the next time.
        """
        if self._controller is None:
            yield
            return
        with self._lock:
            if self._limit is None:
                self._owner = threading.current_thread()
                self._limit = self._controller.limit(limits=1, user_api="blas")
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                own = self._owner is threading.current_thread() or not (self._owner and self._owner.is_alive())
                if self._depth == 0 and own:
                    self._limit.restore_original_limits()
                    self._limit = None

    def run(self, jobs: list[Callable[[], Any]]) -> list[Any]:
        """The results of the jobs, in order."""
        with self.alone():
            if self._pool is None or len(jobs) == 1:
                return [job() for job in jobs]
            futures = [self._pool.submit(job) for job in jobs[1:]]
            return [jobs[0](), *(f.result() for f in futures)]


def _chosen() -> int:
    """TPC_THREADS; 0 for all cores."""
    text = os.environ.get("TPC_THREADS", "").strip() or "0"
    if not text.isdecimal():
        from tpc.errors import UsageError  # here, for generated NumPy code needs no compiler

        raise UsageError(f"expected the number of threads in TPC_THREADS, 0 for all cores, got {text!r}")
    return int(text)


def _cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def threads() -> _Threads:
    """The process's worker threads (TPC_THREADS sets their number)."""
    return _Threads()


def ranges(length: int, count: int) -> list[tuple[int, int]]:
    """0 … length − 1 in `count` equal ranges, each from its first number to the one after its last."""
    return list(pairwise(length * k // count for k in range(count + 1)))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=threads.cache_clear)  # threads do not survive a fork


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
    size = min(BLOCK_ROWS, max(256, BLOCK_ELEMENTS // max(1, batch)))
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
