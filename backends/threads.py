"""Worker threads of this process, each with one BLAS thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any


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
