"""Sums of products of at most two tensors as matmul, sum, tensordot or einsum."""

from __future__ import annotations

from string import ascii_letters

from tpc.errors import InternalError
from tpc.lower.layout import layout
from tpc.lower.writer import Writer, permuted
from tpc.program.axes import Axes, union
from tpc.program.tensor import Contract, Tensor


def total(w: Writer, x: Contract) -> str:
    """The sum as an expression."""
    if len(x.factors) == 1:
        (f,) = x.factors
        places = tuple(layout(f.axes).index(a) for a in x.over)
        return f"{w.array(f)}.sum(axis={places[0] if len(places) == 1 else places})"
    if len(x.factors) != 2:
        raise InternalError("contractions are planned two by two")
    a, b = x.factors
    shared = [axis for axis in a.axes if axis in b.axes]
    want = layout(x.axes)
    if set(shared) == set(x.over) and shared:
        return _matrices(w, x, a, b, tuple(shared))
    batched = _batched(w, x, a, b, want)
    if batched:
        return batched
    letters = {axis: ascii_letters[k] for k, axis in enumerate(union(a.axes, b.axes))}
    spec = ",".join("".join(letters[i] for i in layout(t.axes)) for t in (a, b))
    return f'np.einsum("{spec}->{"".join(letters[i] for i in want)}", {w.array(a)}, {w.array(b)})'


def _matrices(w: Writer, x: Contract, a: Tensor, b: Tensor, shared: Axes) -> str:
    """A product whose factors share what is summed and nothing else."""
    want = layout(x.axes)
    left = [axis for axis in layout(a.axes) if axis not in shared]
    right = [axis for axis in layout(b.axes) if axis not in shared]
    if want and (want[0] in right or (not left and right)):
        a, b, left, right = b, a, right, left
    if len(shared) == 1 and len(left) <= 1 and len(right) <= 1:
        if shared[0].role == "power" and len(left) == len(right) == 1:  # many times faster this way round
            return f"({w.array(b)} @ {w.array(a)}.T).T"
        first = permuted(w.array(a), layout(a.axes), (*left, *shared))
        second = permuted(w.array(b), layout(b.axes), (*shared, *right))
        return w.dialect.matmul(x, first, second)
    summed = [[layout(t.axes).index(axis) for axis in shared] for t in (a, b)]
    whole = f"np.tensordot({w.array(a)}, {w.array(b)}, {summed})"
    return permuted(whole, (*left, *right), want)


def _batched(w: Writer, x: Contract, a: Tensor, b: Tensor, want: Axes) -> str:
    """A matrix times a vector for every index of a shared axis, where the arrays lie so."""
    matrix, vector = (a, b) if len(a.axes) == 3 else (b, a)
    rows, columns, over = layout(matrix.axes), layout(vector.axes), x.over
    if len(rows) != 3 or len(columns) != 2 or len(over) != 1 or rows[0] != columns[0] or columns[1] != over[0]:
        return ""
    if over[0] == rows[2]:
        return w.dialect.matvecs(x, w.array(matrix), w.array(vector)) if want == rows[:2] else ""
    return w.dialect.vecmats(x, w.array(vector), w.array(matrix)) if want == (rows[0], rows[2]) else ""


def matmul(x: Contract, first: str, second: str) -> str:
    """(…, n) and (n, …)"""
    return f"{first} @ {second}"


def matvecs(x: Contract, matrices: str, vectors: str) -> str:
    """(b, n, m) and (b, m) → (b, n)"""
    return f"({matrices} @ {vectors}[:, :, None])[:, :, 0]"


def vecmats(x: Contract, vectors: str, matrices: str) -> str:
    """(b, n) and (b, n, m) → (b, m)"""
    return f"({vectors}[:, None, :] @ {matrices})[:, 0]"
