"""Packed symmetric tensors in NumPy: Φ_n(g) lists the monomials of degree n once each, scaled so that
⟨Φ_n(g), Φ_n(h)⟩ = ⟨g, h⟩ⁿ.

Monomials are ordered by their largest index, then by the rest: those in the first i variables are a prefix, and those
whose largest index is i are g_i times the monomials of degree n - 1 in the first i + 1 variables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import comb, factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.blocks import threads

Array = NDArray[Any]
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
    made = _polynomial(factors)
    made /= weights(factors[0].shape[-1], len(factors)).astype(made.dtype)
    return made


def _polynomial(factors: Sequence[Array]) -> Array:
    """The coefficients of Π ⟨g_i, x⟩."""
    made = factors[0]
    for n, g in enumerate(factors[1:], 2):
        made = _times(made, g, n)
    return made


def _times(q: Array, g: Array, order: int) -> Array:
    """q(x)·⟨g, x⟩ of degree `order`, from the coefficients of q."""
    if order == 1:
        scaled: Array = q * g
        return scaled
    rank = g.shape[-1]
    made = np.empty((*np.broadcast_shapes(q.shape[:-1], g.shape[:-1]), count(rank, order)), g.dtype)
    _fill_times(made, q, g, order, 0, rank)
    return made


def _fill_times(out: Array, q: Array, g: Array, order: int, start: int, stop: int) -> None:
    """The coefficients of q(x)·⟨g, x⟩ whose largest index is start … stop - 1.

    With x_i leading, (q·g)_i = q_i·⟨g, x⟩ + g_i·(q without x_i, x_{i+1}, …), both in the first variables.
    """
    first = count(start, order)
    for i in range(start, stop):
        part = out[..., count(i, order) - first : count(i + 1, order) - first]
        below = count(i, order - 1)
        part[...] = _times(q[..., below : count(i + 1, order - 1)], g[..., : i + 1], order - 1)
        part[..., :below] += g[..., i : i + 1] * q[..., :below]


def opened(dual: Array, lower: Array, order: int) -> Array:
    """⟨dual, T ⊗ ·⟩ for packed tensors of degree `order` and one less, (…, count) and (…, count') → (…, r)."""
    rank = _variables(lower.shape[-1], order - 1)
    shape = np.broadcast_shapes(dual.shape[:-1], lower.shape[:-1])
    total = np.zeros((*shape, rank), dual.dtype)
    scale = weights(rank, order - 1).astype(lower.dtype)
    _add_opened(total, dual / weights(rank, order).astype(dual.dtype), lower * scale, order)
    return total


def _add_opened(total: Array, dual: Array, q: Array, order: int) -> None:
    """total += what _times with q takes dual back to."""
    if order == 1:
        total += dual * q
        return
    for i in range(total.shape[-1]):
        part = dual[..., count(i, order) : count(i + 1, order)]
        below = count(i, order - 1)
        total[..., i] += np.einsum("...i,...i->...", part[..., :below], q[..., :below])
        _add_opened(total[..., : i + 1], part, q[..., below : count(i + 1, order - 1)], order - 1)


@lru_cache(maxsize=16)
def _variables(size: int, order: int) -> int:
    """The rank whose packed tensors of a degree have so many numbers."""
    rank = 1
    while count(rank, order) < size:
        rank += 1
    return rank


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


@lru_cache(maxsize=4)
def _places(rank: int) -> Array:
    """Where the entries of a symmetric matrix are in its packed form, (rank, rank)."""
    i, j = np.indices((rank, rank))
    high, low = np.maximum(i, j), np.minimum(i, j)
    made: Array = high * (high + 1) // 2 + low
    return made


def add_powers(target: Array, a: Array, b: Array, order: int) -> None:
    """target += Σ_m a_m Φ_order(b_m), in place: (k, count), (M, k), (M, r)."""
    if order == 0:
        target += a.sum(axis=0)
        return
    if order == 1:
        target += a.T @ b
        return
    low, scale = _monomials(b, order - 1), weights(b.shape[1], order).astype(b.dtype)

    def fill(part: Array, start: int, stop: int) -> None:
        _fill(part, b, low, order, start, stop)
        part *= scale[count(start, order) : count(stop, order)]

    _add(target, a, b, order, fill)


def add_products(target: Array, a: Array, parts: Sequence[tuple[Array, Sequence[Array]]]) -> None:
    """target += Σ_m a_m Σ_parts c_m g₁ₘ ⊗ … ⊗ g_nₘ, its symmetric part packed: (k, count), (M, k), [((M,), n · (M, r))]."""
    order = len(parts[0][1])
    if order <= 1:
        for c, gs in parts:
            add_powers(target, a * c[:, None], gs[0] if gs else a, order)
        return
    b = parts[0][1][0]
    scale = weights(b.shape[1], order).astype(b.dtype)
    products = [(_polynomial(gs[:-1]) * c[:, None], gs[-1]) for c, gs in parts]

    def fill(part: Array, start: int, stop: int) -> None:
        _fill_times(part, *products[0], order, start, stop)
        more = np.empty_like(part) if len(products) > 1 else part
        for q, g in products[1:]:
            _fill_times(more, q, g, order, start, stop)
            part += more
        part /= scale[count(start, order) : count(stop, order)]

    _add(target, a, b, order, fill)


def _add(target: Array, a: Array, b: Array, order: int, fill: Callable[[Array, int, int], None]) -> None:
    """target += aᵀ T, where `fill` gives the columns of T between two largest indices."""
    a = np.ascontiguousarray(a.T)
    errors = np.geterr()  # which a worker thread would not inherit

    def job(chunks: list[tuple[int, int]]) -> Callable[[], None]:
        def run() -> None:
            with np.errstate(**errors):
                for start, stop in chunks:
                    columns = slice(count(start, order), count(stop, order))
                    part = np.empty((len(b), columns.stop - columns.start), b.dtype)
                    fill(part, start, stop)
                    target[:, columns] += a @ part

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
