"""Numeric kernels: V[φ,ψ](p, q, c) as low-rank Chebyshev tables, for functions without a closed form.

A table holds for variances p and q in a cell, an interval each. There, relative to √(V[φ,φ](p,p,p) V[ψ,ψ](q,q,q)),

    V = Σ_k T_k(x) Σ_ij core[i, j, k] · left_i(p) · right_j(q),

with Chebyshev series left_i and right_j in log p and log q, and x a map of the angle θ of the pair to [−1, 1]. Near
θ = 0 and π, V may change within an angle of about 1/√p; x spreads these ends out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.gaussian.evaluate import NUMPY

Array = NDArray[Any]

BLOCK = 65_536  # bytes of V evaluated at once: its recurrence stays in the cache


@dataclass(frozen=True)
class Basis:
    """Functions of a variance p: exp(a Chebyshev series, of the scale) · Chebyshev series, in log p on [lo, hi].

    Below lo, where φ is homogeneous of degree `zero` to the last digit, they go on as p^(zero/2).
    """

    coefficients: Array  # (rank, degree + 1)
    size: Array  # (degree + 1,): of log √V[φ,φ]
    lo: float = 0.0
    hi: float = 0.0
    zero: float = 0.0

    @property
    def constant(self) -> bool:
        """Whether it is the 1 that stands for ψ = 1."""
        return self.lo == self.hi

    def __call__(self, p: Array) -> Array:
        """(rank, *p.shape), in double precision"""
        if self.constant:
            return np.broadcast_to(self.coefficients[0, 0], (1, *np.shape(p)))
        log = np.log(np.maximum(np.asarray(p, dtype=np.float64), np.finfo(np.float64).tiny))
        x = (2 * log - (self.lo + self.hi)) / (self.hi - self.lo)
        inside = np.maximum(x, -1)
        rank, degrees = self.coefficients.shape
        polynomials = _polynomials(inside.reshape(-1), max(degrees, len(self.size)))
        scale = (self.size @ polynomials[: len(self.size)]).reshape(x.shape)
        scale += (x - inside) * ((self.hi - self.lo) * self.zero / 4)
        value = (self.coefficients @ polynomials[:degrees]).reshape(rank, *x.shape)
        value *= np.exp(scale)
        return np.where(np.asarray(p) > 0, value, 0) if self.zero > 0 else value

    def truncated(self, weights: Array, tolerance: float) -> Basis:
        """Shorter series; Σ_i weights_i |value_i| changes by at most `tolerance`, relative to the scale.

        The scale changes by a factor of at most 1 + `tolerance`.
        """
        coefficients = self.coefficients[:, : _length(weights @ np.abs(self.coefficients), tolerance)]
        return replace(self, coefficients=coefficients, size=self.size[: _length(np.abs(self.size), tolerance)])


def _polynomials(x: Array, count: int) -> Array:
    """T_0(x) … T_{count−1}(x), doubling their number: T_{m+k} = 2 T_m T_k − T_{m−k}"""
    found = np.empty((count, x.size))
    found[0] = 1
    found[1:2] = x
    known = 2
    while known < count:
        m = known - 1
        new = min(m, count - known)
        np.multiply(found[1 : new + 1], 2 * found[m], out=found[known : known + new])
        found[known : known + new] -= found[m - new : m][::-1]
        known += new
    return found


def _length(size: Array, tolerance: float) -> int:
    """How many of the leading numbers to keep, so that the others add up to at most `tolerance`."""
    return max(1, int(np.sum(np.cumsum(size[::-1])[::-1] > tolerance)))


def graded(t: Array, width: float) -> Array:
    """x in [0, 1] of an angle t in [0, π/2] to the nearer end: 1 − 2t/π for width 1, else stretched where t < width."""
    share = t * np.asarray(2 / np.pi, dtype=t.dtype)
    if width == 1:
        return np.asarray(1 - share)
    near = share * np.asarray(1 - width, dtype=t.dtype) + np.asarray(width, dtype=t.dtype)
    return np.asarray(np.log(2 / near - 1) * np.asarray(1 / np.log(2 / width - 1), dtype=t.dtype))


def ungraded(x: Array, width: float) -> Array:
    """The angle whose `graded` is x."""
    if width == 1:
        return np.asarray((1 - x) * (np.pi / 2))
    near = 2 / (1 + np.exp(x * np.log(2 / width - 1)))
    return np.asarray(np.clip((near - width) / (1 - width), 0, 1) * (np.pi / 2))


def nodes(n: int) -> Array:
    """The Chebyshev nodes of [−1, 1], from the last to the first."""
    return np.asarray(np.cos(np.pi * (np.arange(n) + 0.5) / n))


@dataclass(frozen=True)
class Table:
    """V on one cell; `orders` are the Chebyshev orders in x, all of one parity where symmetry says so."""

    left: Basis
    right: Basis
    core: Array  # (left rank, right rank, number of orders)
    orders: Array
    width: float = 1.0

    def __call__(self, p: Array, q: Array, c: Array) -> Array:
        """Broadcasts; p of shape (b, 1) and q of shape (1, M) go through in blocks that fit the cache.

        The result has the type of c; the work is done in it too.
        """
        if c.ndim == 2 and p.shape == (c.shape[0], 1) and q.shape == (1, c.shape[1]):
            return self._outer(p, q, c)
        return self.at(p, q, self._graded(p, q, c))

    def _graded(self, p: Array, q: Array, c: Array) -> Array:
        return np.copysign(graded(NUMPY["angle"](p, q, np.abs(c)), self.width), c + 0.0)  # −0 is no angle of π

    def at_angle(self, p: Array, q: Array, theta: Array) -> Array:
        """The same with the correlation given as cos θ."""
        nearer = graded(np.minimum(theta, np.pi - theta), self.width)
        return self.at(p, q, np.where(theta <= np.pi / 2, nearer, -nearer))

    def at(self, p: Array, q: Array, x: Array) -> Array:
        """The same at a graded angle."""
        left, right = self.left(p).astype(x.dtype), self.right(q).astype(x.dtype)
        weights = np.tensordot(self.core.astype(x.dtype).T, left, 1)  # (orders, right rank, *p.shape)
        return self._series(x, (np.einsum("j...,j...->...", w, right) for w in weights[::-1]))

    def _outer(self, p: Array, q: Array, c: Array) -> Array:
        """For a column p and a row q: one matrix product for every order, the core contracted on the shorter side."""
        left, right = self.left(p[:, 0]).T.astype(c.dtype), self.right(q[0]).astype(c.dtype)
        core = np.ascontiguousarray(self.core.transpose(2, 0, 1), dtype=c.dtype)
        out, most = np.empty_like(c), BLOCK // c.itemsize
        if len(left) > right.shape[1]:
            weights, step = np.matmul(core, right), max(1, most // max(1, c.shape[1]))
            for k in range(0, len(c), step):
                rows = slice(k, k + step)
                terms = _products(left[rows], weights, out[rows])
                out[rows] = self._series(self._graded(p[rows], q, c[rows]), terms)
            return out
        weights, step = np.matmul(left, core), max(1, most // max(1, len(c)))
        for k in range(0, c.shape[1], step):
            columns = slice(k, k + step)
            x = self._graded(p, q[:, columns], c[:, columns])
            out[:, columns] = self._series(x, _products(weights, right[:, columns], np.empty_like(x)))
        return out

    def _series(self, x: Array, terms: Iterator[Array]) -> Array:
        """Σ_k term_k T_k(x) by Clenshaw's recurrence; the last term comes first."""
        stride = int(self.orders[1] - self.orders[0]) if len(self.orders) > 1 else 1
        turn = 2 * x if stride == 1 else 2 * (2 * x * x - 1)  # T_{k+s} = turn·T_k − T_{k−s}
        first = next(terms)
        newer = np.array(np.broadcast_to(first, np.broadcast_shapes(x.shape, first.shape)))
        older, turned = np.zeros_like(newer), np.empty_like(newer)
        for term in terms:
            np.multiply(turn, newer, out=turned)
            np.subtract(turned, older, out=older)
            older += term
            newer, older = older, newer
        start, back = self._first_two(x)
        return np.asarray(newer * start - older * back, dtype=x.dtype)

    def _first_two(self, x: Array) -> tuple[Array, Array]:
        """T at the first order and at the one before it, where Clenshaw's recurrence ends."""
        if len(self.orders) > 1 and self.orders[1] - self.orders[0] == 1:
            return np.ones_like(x), x
        return (x, x) if self.orders[0] == 1 else (np.ones_like(x), 2 * x * x - 1)

    def mirrored(self) -> Table:
        """The table with the roles of p and q exchanged."""
        return replace(self, left=self.right, right=self.left, core=np.swapaxes(self.core, 0, 1))

    def truncated(self, tolerance: float) -> Table:
        """A cheaper table whose error relative to √(V[φ,φ]V[ψ,ψ]) grows by at most `tolerance`."""
        size = np.abs(self.core)
        orders = _length(size.max(axis=(0, 1)), tolerance / 2)
        left = _length(size.max(axis=(1, 2)), tolerance / 8)
        right = _length(size.max(axis=(0, 2)), tolerance / 8)
        cut = replace(
            self,
            left=replace(self.left, coefficients=self.left.coefficients[:left]),
            right=replace(self.right, coefficients=self.right.coefficients[:right]),
            core=self.core[:left, :right, :orders],
            orders=self.orders[:orders],
        )
        one, other = cut._weights()
        return replace(
            cut, left=cut.left.truncated(one, tolerance / 16), right=cut.right.truncated(other, tolerance / 16)
        )

    def _weights(self) -> tuple[Array, Array]:
        """How much the kernel changes, at most, with every function of `left`, and with every one of `right`."""
        size = np.abs(self.core).sum(axis=2)
        left, right = (np.abs(b.coefficients).sum(axis=1) for b in (self.left, self.right))
        return size @ right, left @ size


def _products(left: Array, right: Array, out: Array) -> Iterator[Array]:
    """left_k right_k, or left right_k or left_k right, of the last k to the first, each in the same memory `out`."""
    count = len(left if left.ndim == 3 else right)
    for k in range(count - 1, -1, -1):
        yield np.matmul(left[k] if left.ndim == 3 else left, right[k] if right.ndim == 3 else right, out=out)
