"""Kernels of a limit as numbers: blocks of rows and columns, shared between threads, in bounded memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.derivation import Derivation
from tpc.errors import UsageError
from tpc.lower.instructions import Function
from tpc.lower.kernels import LoweredKernels, lower_kernels
from tpc.lower.layout import layout
from tpc.program.axes import SAMPLE, Axes, Axis
from tpc.program.tensor import Tensor
from tpc.runtime.models.arguments import as_array
from tpc.runtime.models.backend import load_backend

Array = NDArray[Any]
Progress = Callable[[int, int], None]  # entries done, entries in all

DTYPES = ("float32", "float64")
CHUNK = 4096  # samples of one call of `points`, which works in float64
SCALE = "divide the data by a number, or multiply the first layer by a small one"


class KernelCode(Protocol):
    """The generated functions of a limit, on some backend; see `tpc.lower.kernels`."""

    ROWS: int
    COLUMNS: int

    def points(self, x: Array) -> dict[str, Array]:
        """What pairs need to know of every sample."""

    def diagonal(self, x: Array) -> dict[str, Array]:
        """The kernels at equal samples."""

    def pairs(self, first: Sequence[Array], second: Sequence[Array], out: Mapping[str, Array]) -> None:
        """Compute in double precision the kernels of every row with every column; write them to the arrays of `out`."""

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Do the jobs in threads."""

    def threads(self) -> int:
        """How many jobs run at a time."""


class KernelFunction:
    """The kernels of a limit on one backend, compiled once; made by `Limit.kernel`.

    `names` are those of the kernels it computes.
    """

    def __init__(self, limit: Derivation, backend: str = "numpy", only: Iterable[str] = ()) -> None:
        self.lowered: LoweredKernels = lower_kernels(limit.graph(), only)
        self.names = tuple(name for name, _ in self.lowered.pairs.outputs)
        self._code: KernelCode = load_backend(backend).compile_kernels(self.lowered)

    def __call__(
        self,
        x1: ArrayLike,
        x2: ArrayLike | None = None,
        *,
        dtype: str = "float64",
        out: Mapping[str, Array] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Array]:
        """The kernels of all rows of x1 with all rows of x2; see `Limit.kernel`."""
        first = self._samples(x1, "x1", dtype)
        second = first if x2 is None else self._samples(x2, "x2", dtype)
        if first.shape != second.shape:
            left, right = (", ".join(map(str, s.shape)) for s in (first, second))
            raise UsageError(f"expected x1 and x2 with as many features, got {left} and {right}")
        shape = (first.count, second.count)
        results = self._rooms(out, shape, np.dtype(dtype))
        tall, wide = self._block(first)
        blocks = list(_blocks(*shape, x2 is None, tall, wide))
        meter = _Meter(progress, sum(len(r) * len(c) for r, c in blocks))

        def compute(rows: range, columns: range) -> None:
            block = {name: k[rows.start : rows.stop, columns.start : columns.stop] for name, k in results.items()}
            a, b = (slice(r.start, r.stop) for r in (rows, columns))
            self._code.pairs(first.of(self.lowered.first, a), second.of(self.lowered.second, b), block)
            for name, k in block.items():
                _check_numbers(name, k, rows, columns, "x1" if x2 is None else "x2")
            if x2 is None and rows != columns:
                for name, k in results.items():
                    k[b, a] = block[name].T
            meter.add(len(rows) * len(columns))

        self._work(blocks, compute)
        if x2 is None:
            for name, k in results.items():
                np.fill_diagonal(k, first.diagonal[name])
                _mirror(k, tall)
        return results

    def diagonal(self, x: ArrayLike, *, dtype: str = "float64") -> dict[str, Array]:
        """The kernels of every row of x with itself, shape (N,)."""
        return dict(self._samples(x, "x", dtype).diagonal)

    def _block(self, x: _Samples) -> tuple[int, int]:
        """Rows and columns of a block; with positions, such that its many sums stay in the cache, too."""
        tall, wide = self._code.ROWS, self._code.COLUMNS
        entries = x.entries(self.lowered.pairs)
        if entries == 1:
            return tall, wide
        side = math.isqrt(max(1, tall * wide // (4 * entries)))
        return min(tall, side), min(wide, side)

    def _work(self, blocks: Sequence[tuple[range, range]], compute: Callable[[range, range], None]) -> None:
        left, lock, failed = iter(blocks), threading.Lock(), threading.Event()

        def job() -> None:
            try:
                while not failed.is_set():
                    with lock:
                        block = next(left, None)
                    if block is None:
                        return
                    compute(*block)
            except BaseException:
                failed.set()  # so that others stop, too
                raise

        self._code.run([job] * max(1, min(self._code.threads(), len(blocks))))

    def _samples(self, x: ArrayLike, name: str, dtype: str) -> _Samples:
        if dtype not in DTYPES:
            raise UsageError(f"expected a dtype among {', '.join(DTYPES)}, got {dtype!r}")
        rows = as_array(x, name)
        axes = self.lowered.points.inputs[0].axes
        if not _fits(rows, axes) or rows.dtype.kind not in "fiub" or not rows.size:
            raise UsageError(f"expected {name} of shape {_named(axes)}, got {rows.dtype} of shape {rows.shape}")
        if not np.isfinite(rows).all():
            raise UsageError(f"expected finite numbers in {name}, got nan or infinity")
        flat = rows.reshape(len(rows), -1)
        with np.errstate(over="ignore"):
            squares = np.einsum("ij,ij->i", flat, flat, dtype=np.float64, casting="unsafe")
        if not np.isfinite(squares).all():
            row = int(np.argmin(np.isfinite(squares)))
            raise UsageError(f"expected rows whose squared length is a number, got {name}[{row}] beyond 1e154: {SCALE}")
        return _Samples(self.lowered, self._code, rows, np.dtype(dtype))

    def _rooms(self, out: Mapping[str, Array] | None, shape: tuple[int, int], dtype: np.dtype[Any]) -> dict[str, Array]:
        for name in out or {}:
            if name not in self.names:
                raise UsageError(f"expected arrays for {', '.join(self.names)}, but out has {name!r}")
        found: dict[str, Array] = {}
        for name in self.names:
            room = None if out is None else out.get(name)
            if room is None:
                room = np.empty(shape, dtype)
            elif room.shape != shape or room.dtype != dtype or room.strides[1] != dtype.itemsize:
                got = f"{room.shape}, {room.dtype}, strides {room.strides}"
                raise UsageError(f"expected out[{name!r}] of shape {shape}, {dtype}, contiguous rows; got {got}")
            found[name] = room
        return found


class _Samples:
    """Data as it was given, with what `points` says of it, and the diagonals of its kernels in the results' type."""

    def __init__(self, lowered: LoweredKernels, code: KernelCode, x: Array, dtype: np.dtype[Any]) -> None:
        axes = lowered.points.inputs[0].axes
        self.count, self.shape = len(x), x.shape[1:]
        self._lengths = dict(zip((a.base for a in axes[1:]), self.shape))
        x = x.transpose([axes.index(a) for a in layout(axes)])
        points, diagonal = [], []
        chunk_size = max(1, CHUNK // max(self.entries(f) for f in (lowered.points, lowered.diagonal)))
        for k in range(0, len(x), chunk_size):
            chunk = np.asarray(x[k : k + chunk_size], np.float64)
            points.append(code.points(chunk))
            diagonal.append(code.diagonal(chunk))
        self._sampled = {"x", *(name for name, t in lowered.points.outputs if SAMPLE in t.axes)}
        self._known: dict[str, Array] = {"x": x}
        for name, value in points[0].items():
            parts = [p[name] for p in points]
            self._known[name] = np.concatenate(parts) if name in self._sampled else np.asarray(value, np.float64)
        with np.errstate(over="ignore"):
            self.diagonal = {name: np.concatenate([d[name] for d in diagonal]).astype(dtype) for name in diagonal[0]}

    def entries(self, function: Function) -> int:
        """How many numbers the largest step of a function has for each of its samples, where these have positions."""
        return max(
            (math.prod(self._length(a) for a in t.axes) for t in function.steps if isinstance(t, Tensor)), default=1
        )

    def _length(self, axis: Axis) -> int:
        return 1 if axis.base == SAMPLE.name else axis.size or self._lengths.get(axis.base, 1)

    def of(self, names: Iterable[str], rows: slice) -> list[Array]:
        """The named arrays of some rows; what has no sample axis is the same for all."""
        return [self._known[name][rows] if name in self._sampled else self._known[name] for name in names]


def _fits(x: Array, axes: Axes) -> bool:
    """Whether an array has these axes, with their lengths where they are known."""
    return x.ndim == len(axes) and all(a.size in (None, n) for a, n in zip(axes, x.shape))


def _named(axes: Axes) -> str:
    names = [f"{a}s" if a.size is None else f"{a} = {a.size}" for a in axes]
    return f"({', '.join(names)})"


class _Meter:
    """Counts entries for a progress bar."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()

    def add(self, entries: int) -> None:
        if self._progress is not None:
            with self._lock:
                self._done += entries
                self._progress(self._done, self._total)


def _blocks(rows: int, columns: int, half: bool, tall: int, wide: int) -> Iterator[tuple[range, range]]:
    """Blocks that cover a matrix, or its upper triangle with the squares on the diagonal."""
    for i in range(0, rows, tall):
        band = range(i, min(i + tall, rows))
        if half:
            yield band, range(i, band.stop)
        for j in range(band.stop if half else 0, columns, wide):
            yield band, range(j, min(j + wide, columns))


def _check_numbers(name: str, k: Array, rows: range, columns: range, other: str) -> None:
    """Raise UsageError for a block with NaN: what it is computed from left the range of double precision."""
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isnan(k.sum()):
            return
    wrong = np.argwhere(np.isnan(k))
    if len(wrong):
        i, j = (r[int(n)] for r, n in zip((rows, columns), wrong[0]))
        what = f"the {name} kernel of x1[{i}] and {other}[{j}]"
        raise UsageError(f"{what} is the difference or quotient of numbers beyond double precision: {SCALE}")


def _mirror(k: Array, tall: int) -> None:
    """Make the squares on the diagonal symmetric to the last digit."""
    for i in range(0, len(k), tall):
        square = k[i : i + tall, i : i + tall]
        square[...] = np.triu(square) + np.triu(square, 1).T
