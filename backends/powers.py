"""Packed symmetric powers in NumPy: Φ_n(g) lists the monomials of degree n once each, scaled so that
⟨Φ_n(g), Φ_n(h)⟩ = ⟨g, h⟩ⁿ.

Monomials are ordered by their largest index, then by the rest: those in the first i variables are a prefix, and those
whose largest index is i are g_i times the monomials of degree n - 1 in the first i + 1 variables.
"""

from __future__ import annotations

from collections.abc import Callable
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
    low, a = _monomials(b, order - 1), np.ascontiguousarray(a.T)
    scale = weights(b.shape[1], order).astype(b.dtype)
    errors = np.geterr()  # which a worker thread would not inherit

    def job(chunks: list[tuple[int, int]]) -> Callable[[], None]:
        def run() -> None:
            with np.errstate(**errors):
                for start, stop in chunks:
                    columns = slice(count(start, order), count(stop, order))
                    part = np.empty((len(b), columns.stop - columns.start), b.dtype)
                    _fill(part, b, low, order, start, stop)
                    part *= scale[columns]
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
