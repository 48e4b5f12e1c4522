"""What generated NumPy code calls: stored atoms that grow without copying, loops over blocks of them, a few functions.

Needs numpy alone; with threadpoolctl installed, blocks are shared between threads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SEGMENT_BYTES = 1 << 24  # a segment of a column: large enough to stream, small enough not to waste memory
SINGLE_TOLERANCE = 1e-7  # relative error added to tabulated kernels in float32
BLOCK_ELEMENTS = 1 << 16  # batch × atoms of one block: elementwise work stays in the cache
KEEP_SHARE = 0.16  # of the atoms' memory: what a loop may keep for a later one
BLOCK_ROWS = 1024  # so do the rows between two products with them


class Atoms:
    """The atoms of one kernel matrix: columns of rows, in segments that are allocated once and never copied.

    `coefficients` names the column A. Its stored rows are multiplied by `scale`: one number without momentum, or one
    per atom with it (then `velocity` holds each atom's share of the momentum).
    """

    def __init__(self, widths: Mapping[str, tuple[int, ...]], dtype: Any, momentum: bool = False) -> None:
        self.widths = dict(widths)
        self.dtype = np.dtype(dtype)
        self.scale = 1.0
        self.per_atom = momentum
        row_bytes = max(1, sum(math.prod(w) for w in self.widths.values()) * self.dtype.itemsize)
        self.rows = max(256, SEGMENT_BYTES // row_bytes)
        self._segments: list[dict[str, Array]] = []
        self._count = 0
        self._scales: list[Array] = []
        self._velocities: list[Array] = []

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of all stored rows."""
        row = sum(math.prod(w) for w in self.widths.values()) * self.dtype.itemsize
        return int(self._count * (row + (16 if self.per_atom else 0)))

    # --- growing -----------------------------------------------------------------------------------------------

    def extend(self, columns: Mapping[str, Array], scale: float = 1.0, velocity: float = 0.0) -> None:
        """Store rows; arrays may have several batch axes, which are flattened."""
        flat = {n: np.asarray(columns[n]).reshape(-1, *w) for n, w in self.widths.items()}
        total = len(next(iter(flat.values())))
        done = 0
        while done < total:
            used = self._count % self.rows
            if used == 0:
                self._new_segment()
            n = min(self.rows - used, total - done)
            for name, rows in flat.items():
                self._segments[-1][name][used : used + n] = rows[done : done + n]
            if self.per_atom:
                self._scales[-1][used : used + n] = scale
                self._velocities[-1][used : used + n] = velocity
            self._count += n
            done += n

    def append(self, rate: float, clip: float, **columns: Array) -> None:
        """Gradient concatenation: coefficients -rate·clip·A (Yang, Santacroce, Hu 2022, §4)."""
        if self.per_atom:
            self.extend(columns, -rate * clip, clip)
            return
        columns["A"] = columns["A"] * self._typed(-rate * clip / self.scale)
        self.extend(columns)

    def age(self, rate: float, keep: float, momentum: float) -> None:
        """Weight decay and momentum of the atoms already stored: m ← μ m, W ← keep·W - rate·m."""
        if self.per_atom:
            for k, (s, v) in enumerate(zip(self._scales, self._velocities)):
                n = self._filled(k)
                v[:n] *= momentum
                s[:n] *= keep
                s[:n] -= rate * v[:n]
            return
        self.scale *= keep
        if not 1e-3 < abs(self.scale) < 1e3:  # keep stored rows at the size of the real ones
            factor = self._typed(self.scale)
            for k, segment in enumerate(self._segments):
                segment["A"][: self._filled(k)] *= factor
            self.scale = 1.0

    def with_momentum(self) -> None:
        """From one scale for all atoms to one scale and one velocity per atom."""
        if not self.per_atom:
            self.per_atom = True
            self._scales = [np.full(self.rows, self.scale) for _ in self._segments]
            self._velocities = [np.zeros(self.rows) for _ in self._segments]

    def _typed(self, x: float) -> Any:
        return self.dtype.type(x)

    # --- reading -----------------------------------------------------------------------------------------------

    def _filled(self, k: int) -> int:
        return int(min(self.rows, self._count - k * self.rows))

    def blocks(self, columns: tuple[str, ...], size: int) -> list[tuple[Array, ...]]:
        """Views of at most `size` rows of the named columns; "scale" is the per-atom scale."""
        found = []
        for k, segment in enumerate(self._segments):
            for start in range(0, self._filled(k), size):
                rows = slice(start, min(start + size, self._filled(k)))
                found.append(tuple(self._column(segment, k, c)[rows] for c in columns))
        return found

    def _column(self, segment: dict[str, Array], k: int, name: str) -> Array:
        if name != "scale":
            return segment[name]
        return self._scales[k].astype(self.dtype)

    def column(self, name: str) -> Array:
        """One column of all atoms, copied; A with every multiplier applied."""
        parts = [segment[name][: self._filled(k)] for k, segment in enumerate(self._segments)]
        if name == "A":
            parts = [p * self._factor(k, p.ndim) for k, p in enumerate(parts)]
        return np.concatenate(parts) if parts else np.empty((0, *self.widths[name]), self.dtype)

    def _factor(self, k: int, ndim: int) -> Any:
        if not self.per_atom:
            return self._typed(self.scale)
        return self._scales[k][: self._filled(k)].astype(self.dtype).reshape(-1, *([1] * (ndim - 1)))

    def dump(self) -> dict[str, list[Array]]:
        """Everything stored, as views of the segments: `restore` gives the same atoms back bit for bit."""
        filled = [self._filled(k) for k in range(len(self._segments))]
        stored = {
            n: [segment[n][:rows] for segment, rows in zip(self._segments, filled)] or [np.empty((0, *w), self.dtype)]
            for n, w in self.widths.items()
        }
        stored["scale"] = [np.array([self.scale])]
        if self.per_atom:
            for name, parts in (("scales", self._scales), ("velocities", self._velocities)):
                stored[name] = [part[:rows] for part, rows in zip(parts, filled)] or [np.empty(0)]
        return stored

    @classmethod
    def restore(cls, read: Callable[[str], Array | None], widths: Mapping[str, tuple[int, ...]], dtype: Any) -> Atoms:
        """The inverse of `dump`; `read` gives one column at a time, or None for one that was not stored."""
        scales = read("scales")
        made = cls(widths, dtype, momentum=scales is not None)
        for name in widths:
            column = read(name)
            if column is None:
                raise KeyError(name)
            if name == next(iter(widths)):
                made._reserve(len(column))
            for k, segment in enumerate(made._segments):
                segment[name][: made._filled(k)] = column[k * made.rows : (k + 1) * made.rows]
        scale = read("scale")
        made.scale = 1.0 if scale is None else float(scale[0])
        velocities = read("velocities")
        if scales is not None and velocities is not None:
            for k in range(len(made._segments)):
                n = made._filled(k)
                made._scales[k][:n] = scales[k * made.rows : k * made.rows + n]
                made._velocities[k][:n] = velocities[k * made.rows : k * made.rows + n]
        return made

    def _reserve(self, count: int) -> None:
        """Room for `count` atoms, whose rows are still to be written."""
        for _ in range(0, count, self.rows):
            self._new_segment()
        self._count = count

    def _new_segment(self) -> None:
        self._segments.append({n: np.empty((self.rows, *w), self.dtype) for n, w in self.widths.items()})
        if self.per_atom:
            self._scales.append(np.empty(self.rows))
            self._velocities.append(np.empty(self.rows))


# --- loops -----------------------------------------------------------------------------------------------------------


class _Threads:
    """Worker threads, each with one BLAS thread: those of BLAS would wait for each other at every product."""

    def __init__(self) -> None:
        self.count = 1
        self._controller: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._depth = 0
        try:
            from threadpoolctl import ThreadpoolController
        except ImportError:
            return
        self._controller = ThreadpoolController()
        self.set(int(os.environ.get("TPC_THREADS", "0")) or _cores())

    def set(self, count: int) -> None:
        """Use `count` workers from now on."""
        self.count = max(1, count)
        self._pool = ThreadPoolExecutor(self.count) if self.count > 1 else None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """BLAS on one thread; may be nested."""
        if self._controller is None or self._depth:
            yield
            return
        self._depth += 1
        try:
            with self._controller.limit(limits=1, user_api="blas"):
                yield
        finally:
            self._depth -= 1

    def run(self, jobs: list[Callable[[], Any]]) -> list[Any]:
        """The results of the jobs, in order."""
        with self.alone():
            if self._pool is None or len(jobs) == 1:
                return [job() for job in jobs]
            futures = [self._pool.submit(job) for job in jobs[1:]]
            return [jobs[0](), *(f.result() for f in futures)]


def _cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def threads() -> _Threads:
    """The process's worker threads (TPC_THREADS sets their number)."""
    return _Threads()


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
    parts: list[tuple[Any, ...]] = list(atoms.blocks(columns, size))
    if not parts:
        empty = tuple(np.empty((0, *atoms.widths[c]) if c != "scale" else 0, atoms.dtype) for c in columns)
        return (*block(*empty, *(None for _ in kept))[: -keep or None], *(None for _ in range(keep)))
    given = [[None] * len(parts) if k is None else k for k in kept]
    parts = [(*part, *(k[i] for k in given)) for i, part in enumerate(parts)]
    hold = keep and keep * batch * len(atoms) * atoms.dtype.itemsize <= KEEP_SHARE * atoms.nbytes
    workers = threads()
    count = min(workers.count, len(parts))
    bounds = [len(parts) * i // count for i in range(count + 1)]
    shares = workers.run([_job(block, parts[a:b], keep, bool(hold)) for a, b in pairwise(bounds)])
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


# --- updates ---------------------------------------------------------------------------------------------------------


def accumulate(
    state: dict[str, Any], name: str, gradient: Array, rate: float, clip: float, keep: float, momentum: float
) -> None:
    """m ← μ m + clip·∇;  W ← keep·W - rate·m, in place."""
    w = state[name]
    if momentum or f"{name}.velocity" in state:
        m = state.setdefault(f"{name}.velocity", np.zeros_like(w))
        m *= w.dtype.type(momentum)
        m += gradient * w.dtype.type(clip)
        step = m * w.dtype.type(rate)
    else:
        step = gradient * w.dtype.type(rate * clip)
    if keep != 1:
        w *= w.dtype.type(keep)
    w -= step


# --- functions -------------------------------------------------------------------------------------------------------


def rsqrt(x: Array, out: Array | None = None) -> Array:
    """1/√x where x > 0, else 0"""
    x = np.asarray(x)
    root = np.sqrt(x)
    return np.divide(1, root, out=np.zeros_like(root), where=x > 0)


def gap(p: Array, q: Array, c: Array, out: Array | None = None) -> Array:
    """√max(pq − c², 0) from exact products, so that nothing cancels near |c| = √(pq)."""
    p, q, c = np.broadcast_arrays(p, q, c)
    if c.dtype == np.float32:  # products of floats are exact in doubles
        wide = np.multiply(p, q, dtype=np.float64)
        wide -= np.square(c, dtype=np.float64)
        narrow: Array = np.sqrt(np.maximum(wide, 0, out=wide), out=wide).astype(np.float32)
        return narrow
    _, exponent = np.frexp(np.maximum(np.maximum(p, q), np.finfo(np.float64).tiny))
    p, q, c = (np.ldexp(x, -exponent) for x in (p, q, c))  # splitting must not overflow
    (high, low), (square, rest) = _exact_product(p, q), _exact_product(c, c)
    result: Array = np.ldexp(np.sqrt(np.maximum((high - square) + (low - rest), 0)), exponent, out=out)
    return result


def _exact_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a·b as a sum of two doubles (Dekker 1971)."""
    product = a * b
    (a1, a2), (b1, b2) = ((x1, x - x1) for x, x1 in ((x, x * 134217729.0 - (x * 134217729.0 - x)) for x in (a, b)))
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def step(x: Array, out: Array | None = None) -> Array:
    """1 where x > 0, else 0"""
    return (
        np.greater(x, 0, out=out, casting="unsafe")
        if out is not None
        else (np.asarray(x) > 0).astype(np.asarray(x).dtype)
    )


def relu(x: Array, out: Array | None = None) -> Array:
    return np.maximum(x, 0, out=out)


def clip1(x: Array, out: Array | None = None) -> Array:
    """x clipped to [-1, 1]"""
    return np.clip(x, -1, 1, out=out)


def softplus(x: Array, out: Array | None = None) -> Array:
    """log(1 + e^x)"""
    return np.logaddexp(x, np.zeros_like(x), out=out)


def logsumexp(x: Array, axis: int) -> Array:
    top = x.max(axis=axis, keepdims=True)
    result: Array = np.log(np.exp(x - top).sum(axis=axis)) + top.squeeze(axis)
    return result


def _special(name: str) -> Callable[..., Array]:
    def call(x: Array, out: Array | None = None) -> Array:
        import scipy.special

        result: Array = getattr(scipy.special, name)(x, out=out)
        return result

    call.__name__ = name
    return call


erf, erfc, erfcx, dawson = (_special(name) for name in ("erf", "erfc", "erfcx", "dawsn"))


def tabulated(phi: str, psi: str) -> Callable[[Array, Array, Array], Array]:
    """V[phi, psi](p, q, c) for a pair without a closed form; needs tpc."""
    from tpc.gaussian import kernel
    from tpc.program.expression import parse_nonlinearity

    table = kernel(parse_nonlinearity(phi), parse_nonlinearity(psi)).numeric
    if table is None:
        raise ValueError(f"V[{phi}, {psi}] has a closed form and no table")
    single = table.truncated(SINGLE_TOLERANCE)
    flipped = {id(t): replace(t, parts=tuple((w, part.mirrored()) for w, part in t.parts)) for t in (table, single)}

    def evaluate(p: Array, q: Array, c: Array) -> Array:
        dtype = np.result_type(*(x for x in (p, q, c) if isinstance(x, np.ndarray | np.floating)))
        chosen = single if dtype == np.float32 else table
        if (
            np.ndim(p) == 2 and np.shape(p)[0] == 1 and np.shape(q)[0] > 1
        ):  # one matrix product per order this way round
            return flipped[id(chosen)](q, p, c).astype(dtype)
        return chosen(p, q, c).astype(dtype)

    return evaluate
