"""Packed symmetric tensors in NumPy: Φ_n(g) lists the monomials of degree n once each, scaled so that
⟨Φ_n(g), Φ_n(h)⟩ = ⟨g, h⟩ⁿ.

Monomials are ordered by their largest index, then by the rest: those in the first i variables are a prefix, and those
whose largest index is i are g_i times the monomials of degree n - 1 in the first i + 1 variables.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from math import comb, factorial, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.threads import threads

Array = NDArray[Any]
Adding = Callable[[Array], Callable[[Array, Array], None]]
Fill = Callable[[Array, int, int], None]
Filling = Callable[[Array, Array, int], Fill]
THREAD_WORK = 1 << 20  # products of numbers that are worth waking threads for
CHUNK = 512  # monomials of one product when atoms are added: a chunk of all atoms stays in the cache


def count(variables: int, order: int) -> int:
    """Monomials of degree `order` in so many variables."""
    return comb(variables + order - 1, order)


@lru_cache(maxsize=16)
def weights(rank: int, order: int) -> Array:
    """The square root of how often each monomial occurs in g^⊗order, (count,)."""
    made: Array = np.sqrt(factorial(order) / _repeats(rank, order))
    made.flags.writeable = False
    return made


@lru_cache(maxsize=16)
def _repeats(rank: int, order: int) -> Array:
    """Π (multiplicity of each index)! for every monomial."""
    exponent = np.ones(rank, dtype=np.int64)  # of the largest index
    product = np.ones(rank, dtype=np.int64)
    for n in range(2, order + 1):
        exponents, products = [], []
        for i in range(rank):
            below, whole = count(i, n - 1), count(i + 1, n - 1)
            exponents += [np.ones(below, dtype=np.int64), exponent[below:whole] + 1]
            products += [product[:below], product[below:whole] * (exponent[below:whole] + 1)]
        exponent, product = np.concatenate(exponents), np.concatenate(products)
    return product


def _monomials(g: Array, order: int) -> Array:
    low = g
    for n in range(2, order + 1):
        made = np.empty((*g.shape[:-1], count(g.shape[-1], n)), g.dtype)
        _fill(made, g, low, n, 0, g.shape[-1])
        low = made
    return low


def _fill(out: Array, g: Array, low: Array, order: int, start: int, stop: int) -> None:
    """The monomials whose largest index is start … stop - 1, from those of one degree less."""
    first = count(start, order)
    for i in range(start, stop):
        a, b = count(i, order) - first, count(i + 1, order) - first
        np.multiply(g[..., i : i + 1], low[..., : b - a], out=out[..., a:b])


def power(g: Array, order: int) -> Array:
    """Φ_order(g), (…, r) → (…, count)."""
    made = _monomials(g, order)
    made *= weights(g.shape[-1], order).astype(g.dtype)
    return made


def slope(dual: Array, g: Array, order: int) -> Array:
    """∂⟨dual, Φ_order(g)⟩/∂g, (…, count) and (…, r) → (…, r)."""
    rank = g.shape[-1]
    lows = [g]
    for n in range(2, order):
        lows.append(np.empty((*g.shape[:-1], count(rank, n)), g.dtype))
        _fill(lows[-1], g, lows[-2], n, 0, rank)
    up = dual * weights(rank, order).astype(g.dtype)
    shape = np.broadcast_shapes(up.shape[:-1], g.shape[:-1])
    total = np.zeros((*shape, rank), g.dtype)
    for n in range(order, 1, -1):
        low = lows[n - 2]
        down = np.zeros((*shape, low.shape[-1]), g.dtype)
        for i in range(rank):
            part = up[..., count(i, n) : count(i + 1, n)]
            below = part.shape[-1]
            total[..., i] += np.einsum("...i,...i->...", part, low[..., :below])
            down[..., :below] += g[..., i : i + 1] * part
        up = down
    total += up
    return total


def product(factors: Sequence[Array]) -> Array:
    """The symmetric part of g₁ ⊗ … ⊗ g_n packed, n arrays (…, r) → (…, count): product([g] * n) is power(g, n).

    In packed form Π ⟨g_i, x⟩ is a polynomial in x; its coefficients are divided by the monomials' scale.
    """
    distinct = list({id(g): g for g in factors}.values())
    index = tuple(sum(g is v for g in factors) for v in distinct)
    scale = weights(factors[0].shape[-1], len(factors)).astype(factors[0].dtype)
    found: Array = _Products(distinct).of(index) / scale
    return found


class _Products:
    """The coefficients of Π_i ⟨g_i, x⟩^β_i for some arrays g_i (…, r) and multi-indices β."""

    def __init__(self, vectors: Sequence[Array]) -> None:
        self._vectors = vectors
        self._known: dict[tuple[int, ...], Array] = {}

    def of(self, index: tuple[int, ...]) -> Array:
        """Those of one product."""
        if sum(index) == 1:
            return self._vectors[index.index(1)]
        if index not in self._known:
            shares, rank, order = self.shares(index), self._vectors[0].shape[-1], sum(index)
            shape = np.broadcast_shapes(*(c.shape[:-1] for terms in shares for c, _ in terms))
            made = np.empty((*shape, count(rank, order)), self._vectors[0].dtype)
            _fill_shares(made, shares, order, 0, rank)
            self._known[index] = made
        return self._known[index]

    def shares(self, index: tuple[int, ...]) -> list[list[tuple[Array, Array | None]]]:
        """What `_fill_shares` puts together: for j = 1, 2, … the terms whose largest variable x_i has the power j.

        In them γ of the factors, j together, give their entry i, and the others a product in the variables before x_i;
        its coefficients come first among those in all variables.
        """
        made: list[list[tuple[Array, Array | None]]] = [[] for _ in range(sum(index))]
        for taken in itertools.product(*(range(n + 1) for n in index)):
            if any(taken):
                often = self._vectors[0].dtype.type(prod(map(comb, index, taken)))
                entry = often * reduce(np.multiply, (v**k for v, k in zip(self._vectors, taken, strict=True) if k))
                left = tuple(n - k for n, k in zip(index, taken, strict=True))
                made[sum(taken) - 1].append((entry, self.of(left) if any(left) else None))
        return made


def _fill_shares(out: Array, shares: list[list[tuple[Array, Array | None]]], order: int, start: int, stop: int) -> None:
    """The coefficients of a product whose largest variables are x_start … x_{stop - 1}."""
    first = count(start, order)
    for i in range(start, stop):
        at = count(i, order) - first
        for j, terms in enumerate(shares, 1):
            size = count(i, order - j) if j < order else 1
            block = out[..., at : at + size]
            for k, (entry, low) in enumerate(terms):
                value = entry[..., i : i + 1] if low is None else entry[..., i : i + 1] * low[..., :size]
                np.add(block, value, out=block) if k else np.copyto(block, value)
            at += size


def opened(dual: Array, lower: Array, order: int) -> Array:
    """⟨dual, T ⊗ ·⟩ for packed tensors of degree `order` and one less, (…, count) and (…, count') → (…, r)."""
    rank = _variables(lower.shape[-1], order - 1)
    shape = np.broadcast_shapes(dual.shape[:-1], lower.shape[:-1])
    total = np.zeros((*shape, rank), dual.dtype)
    scale = weights(rank, order - 1).astype(lower.dtype)
    _add_opened(total, dual / weights(rank, order).astype(dual.dtype), lower * scale, order)
    return total


def _add_opened(total: Array, dual: Array, q: Array, order: int) -> None:
    """total_l += Σ dual(x_l m) q(m) over the monomials m of degree `order` - 1.

    Those m whose largest variable is at most x_l come first in q, and x_l m first among those led by x_l. For the
    others x_l m is led by what leads m: the same sum for one degree less.
    """
    rank = total.shape[-1]
    for i in range(rank):
        part = dual[..., count(i, order) : count(i + 1, order)]
        below = count(i, order - 1)
        total[..., i] += np.einsum("...i,...i->...", part[..., :below], q[..., :below])
        rest = q[..., below : count(i + 1, order - 1)]
        if order == 2:
            total[..., : i + 1] += part * rest
        elif order == 3:  # symmetric matrices, which are small here, times vectors
            total[..., : i + 1] += np.einsum("...ij,...j->...i", part[..., _places(i + 1)], rest)
        else:
            _add_opened(total[..., : i + 1], part, rest, order - 1)


@lru_cache(maxsize=16)
def _variables(size: int, order: int) -> int:
    """The rank whose packed tensors of a degree have so many numbers."""
    rank = 1
    while count(rank, order) < size:
        rank += 1
    return rank


def halves(matrix: Array, g: Array) -> tuple[Array, Array]:
    """⟨M, g ⊗ ·⟩ and, contracted once more, ⟨M, g ⊗ g⟩: `half` and (b, k) or (k,)."""
    made = half(matrix, g)
    return made, np.einsum("bkr,br->bk" if g.ndim == 2 else "kr,r->k", made, g)


def half(matrix: Array, g: Array) -> Array:
    """⟨M, g ⊗ ·⟩ for packed symmetric M, (k, count) and (b, r) or (r,) → (b, k, r) or (k, r)."""
    if g.ndim == 1:
        found: Array = half(matrix, g[None])[0]
        return found
    rank = g.shape[1]
    place = _places(rank)
    scale = np.where(np.eye(rank, dtype=bool), 1, np.sqrt(0.5)).astype(g.dtype)
    made = np.empty((len(g), len(matrix), rank), g.dtype)
    for k, row in enumerate(matrix):
        np.matmul(g, row[place] * scale, out=made[:, k])
    return made


@lru_cache(maxsize=512)
def _places(rank: int) -> Array:
    """Where the entries of a symmetric matrix are in its packed form, (rank, rank)."""
    i, j = np.indices((rank, rank))
    high, low = np.maximum(i, j), np.minimum(i, j)
    made: Array = high * (high + 1) // 2 + low
    return made


def adding(a: Array) -> Callable[[Array, Array], None]:
    """What does target += a b, in place, for (k, M): (k, n), (M, n)."""

    def add(target: Array, b: Array) -> None:
        target += a @ b

    return add


def filling(g: Array, low: Array, order: int) -> Fill:
    """What writes Φ_order(g) between two largest indices, from the monomials of one degree less: (M, r), (M, count)."""
    scale = weights(g.shape[1], order).astype(g.dtype)

    def fill(part: Array, start: int, stop: int) -> None:
        _fill(part, g, low, order, start, stop)
        part *= scale[count(start, order) : count(stop, order)]

    return fill


def add_powers(target: Array, a: Array, b: Array, order: int, add: Adding = adding, filled: Filling = filling) -> None:
    """target += Σ_m a_m Φ_order(b_m), in place: (k, count), (M, k), (M, r). From degree 2 on `add` makes what adds
    products with one matrix, `filled` what writes the powers."""
    if order == 0:
        target += a.sum(axis=0)
        return
    if order == 1:
        target += a.T @ b
        return
    _add(target, a, b, order, filled(b, _monomials(b, order - 1), order), add)


def add_products(
    target: Array,
    a: Array,
    vectors: Sequence[Array],
    parts: Sequence[tuple[Array, tuple[int, ...]]],
    add: Adding = adding,
) -> None:
    """target += Σ_m a_m Σ_parts c_m sym(b₁ₘ^⊗β₁ ⊗ b₂ₘ^⊗β₂ ⊗ …) packed, in place, for parts (c, β) of one degree.

    Shapes (k, count), (M, k), (M, r) of every vector, (M,) of every c. `add` makes what adds
    products with one matrix (degree ≥ 2).
    """
    order = sum(parts[0][1])
    if order <= 1:
        for c, index in parts:
            add_powers(target, a * c[:, None], vectors[index.index(1)] if order else a, order)
        return
    products, b = _Products(vectors), vectors[0]
    shares = [(c[:, None], products.shares(index)) for c, index in parts]
    scale = weights(b.shape[1], order).astype(b.dtype)

    def fill(part: Array, start: int, stop: int) -> None:
        made = part if len(shares) == 1 else np.empty_like(part)
        for k, (c, terms) in enumerate(shares):
            _fill_shares(made, terms, order, start, stop)
            np.multiply(made, c, out=part) if k == 0 else np.add(part, made * c, out=part)
        part /= scale[count(start, order) : count(stop, order)]

    _add(target, a, b, order, fill, add)


def _add(target: Array, a: Array, b: Array, order: int, fill: Fill, add: Adding) -> None:
    """target += aᵀ T, where `fill` gives the columns of T between two largest indices."""
    product = add(np.ascontiguousarray(a.T))
    errors = np.geterr()  # which a worker thread would not inherit

    def job(chunks: list[tuple[int, int]]) -> Callable[[], None]:
        def run() -> None:
            with np.errstate(**errors):
                for start, stop in chunks:
                    columns = slice(count(start, order), count(stop, order))
                    part = np.empty((len(b), columns.stop - columns.start), b.dtype)
                    fill(part, start, stop)
                    product(target[:, columns], part)

        return run

    workers, chunks = threads(), _chunks(b.shape[1], order)
    share = min(workers.count, len(chunks)) if b.size * target.shape[0] >= THREAD_WORK else 1
    workers.run([job(chunks[k::share]) for k in range(share)])


@lru_cache(maxsize=16)
def _chunks(rank: int, order: int) -> list[tuple[int, int]]:
    """Ranges of largest indices with about CHUNK monomials each."""
    made, start = [], 0
    while start < rank:
        stop = start + 1
        while stop < rank and count(stop + 1, order) - count(start, order) <= CHUNK:
            stop += 1
        made.append((start, stop))
        start = stop
    return made
