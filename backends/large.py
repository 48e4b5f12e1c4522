"""Large arrays outside the loops over atoms, shared between the worker threads: products, and sums of outer products.

Every product is cut in the same way for the same number of threads, so that a result never depends on timing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.threads import ranges, threads

Array = NDArray[Any]
THREAD_NUMBERS = 1 << 19  # numbers of an array that are worth waking a thread
CHUNK_BYTES = 1 << 18  # of an array's rows that are changed several times in a core's own cache
FEW = 64  # rows: fewer are multiplied faster by a slice of the inner axis than by the whole of it


class OuterSum:
    """Σ_s x_s ⊗ y_s as its factors x (b, m) and y (b, n): for few samples s they tell everything faster than (m, n).

    Reads like an array: `np.asarray` computes all of it, a slice some of its rows.
    """

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y
        self.shape, self.ndim, self.dtype = (x.shape[1], y.shape[1]), 2, np.result_type(x, y)

    def __getitem__(self, place: Any) -> Any:
        return self.x[:, place].T @ self.y if isinstance(place, slice) else np.asarray(self)[place]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        made: Array = self[:]
        return made if dtype is None else made.astype(dtype, copy=False)

    def square(self) -> Any:
        """The sum of all squares: Σ_st ⟨x_s, x_t⟩ ⟨y_s, y_t⟩."""
        return np.vdot(self.x @ self.x.T, self.y @ self.y.T)

    def largest(self) -> float:
        """What no magnitude exceeds."""
        x, y = (float(abs(v).max(initial=0)) for v in (self.x, self.y))
        return len(self.x) * x * y

    def finite(self) -> bool:
        """Whether every number is."""
        bound = float(_squares(self.x)) ** 0.5 * float(_squares(self.y)) ** 0.5  # no number is larger (Cauchy, Schwarz)
        return bound < float(np.finfo(self.dtype).max) / 2 or is_finite(np.asarray(self))


def outer_sum(x: Array, y: Array) -> Any:
    """Σ_s x_s ⊗ y_s for (b, m) and (b, n): as factors where `square` is computed faster from them, else (m, n)."""
    (batch, m), n = x.shape, y.shape[1]
    return OuterSum(x, y) if batch * (m + n) <= m * n else matmul(x.T, y)


def square(x: Any) -> Any:
    """The sum of the squares of an array or of an `OuterSum`."""
    return x.square() if isinstance(x, OuterSum) else _squares(x)


def is_finite(x: Any) -> bool:
    """Whether all numbers of an array or of an `OuterSum` are finite."""
    if isinstance(x, OuterSum):
        return x.finite()
    return bool(np.isfinite(_squares(x)) or np.isfinite(x).all())  # squares may overflow, but only of finite numbers


def _squares(x: Array) -> Any:
    return np.vdot(x, x)


def matmul(a: Array, b: Array) -> Array:
    """a @ b for two matrices: threads share the rows of the result, or the sum where the rows are few."""
    rows, inner = a.shape
    count = workers(max(a.size, b.size))
    if count == 1:
        made: Array = a @ b
        return made
    if rows >= FEW * count:
        made = np.empty((rows, b.shape[1]), np.result_type(a, b))
        _each(rows, count, lambda part: np.matmul(a[part], b, out=made[part]))
        return made
    if inner < FEW * count:
        made = np.empty((rows, b.shape[1]), np.result_type(a, b))
        _each(b.shape[1], count, lambda part: np.matmul(a, b[:, part], out=made[:, part]))
        return made
    total, *shares = _each(inner, count, lambda part: a[:, part] @ b[part])
    for share in shares:
        total += share
    return np.asarray(total)


def matvecs(matrices: Array, vectors: Array) -> Array:
    """A matrix times a vector for every sample, (b, k, r) and (b, r) → (b, k)."""
    return _by_sample("bkr,br->bk", matrices, vectors)


def vecmats(vectors: Array, matrices: Array) -> Array:
    """A vector times a matrix for every sample, (b, k) and (b, k, r) → (b, r)."""
    return _by_sample("bkr,bk->br", matrices, vectors)


def _by_sample(spec: str, matrices: Array, vectors: Array) -> Array:
    """An einsum over samples, which multiplies matrices that are read once faster than BLAS does."""
    count = min(workers(matrices.size), len(vectors))
    shares = _each(len(vectors), max(1, count), lambda part: np.einsum(spec, matrices[part], vectors[part]))
    return shares[0] if len(shares) == 1 else np.concatenate(shares)


def over_rows(w: Array, change: Callable[[Any], None]) -> None:
    """Run change(rows) for ranges of rows of `w`, shared between threads; for all at once if they are few."""
    if w.nbytes <= CHUNK_BYTES:
        change(...)
        return
    rows = len(w)
    step = max(1, CHUNK_BYTES * rows // w.nbytes)

    def share(part: slice) -> None:
        for start in range(part.start, part.stop, step):
            change(slice(start, min(start + step, part.stop)))

    _each(rows, min(workers(w.size), rows), share)


def workers(numbers: int) -> int:
    """Threads that are worth waking for arrays of so many numbers."""
    return max(1, min(threads().count, numbers // THREAD_NUMBERS))


def _each(length: int, count: int, run: Callable[[slice], Any]) -> list[Any]:
    """What `run` makes of as many equal ranges of 0 … length - 1, in order."""
    if count == 1:
        return [run(slice(0, length))]
    errors = np.geterr()  # which a worker thread would not inherit

    def job(first: int, last: int) -> Any:
        with np.errstate(**errors):
            return run(slice(first, last))

    return threads().run([partial(job, *ends) for ends in ranges(length, count)])
