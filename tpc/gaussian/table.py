"""Numeric kernels: V[φ,ψ](p, q, c) as low-rank Chebyshev tables, for functions without a closed form.

A table holds for variances p and q in a cell, an interval each. There, relative to √(V[φ,φ](p,p,p) V[ψ,ψ](q,q,q)),

    V = Σ_k T_k(x) Σ_ij core[i, j, k] · left_i(p) · right_j(q),

with Chebyshev series left_i and right_j in log p and log q, and x a map of the angle θ of the pair to [−1, 1]. Near
θ = 0 and π, V may change within an angle of about 1/√p; x spreads these ends out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from tpc.gaussian.evaluate import NUMPY

Array = NDArray[Any]

BLOCK = 32_768  # entries of V evaluated at once


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
        scale = chebyshev.chebval(inside, self.size) + (x - inside) * ((self.hi - self.lo) * self.zero / 4)
        value = np.asarray(chebyshev.chebval(inside, self.coefficients.T) * np.exp(scale))
        return np.where(np.asarray(p) > 0, value, 0) if self.zero > 0 else value


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
        if c.ndim == 2 and p.shape[1:] == (1,) and q.shape[:1] == (1,) and c.size > BLOCK:
            width = max(1, BLOCK // c.shape[0])
            starts = range(0, c.shape[1], width)
            return np.concatenate([self._block(p, q[:, k : k + width], c[:, k : k + width]) for k in starts], axis=1)
        return self._block(p, q, c)

    def _block(self, p: Array, q: Array, c: Array) -> Array:
        nearer = NUMPY["angle"](p, q, np.abs(c))
        return self.at(p, q, np.copysign(graded(nearer, self.width), c))

    def at_angle(self, p: Array, q: Array, theta: Array) -> Array:
        """The same with the correlation given as cos θ."""
        nearer = graded(np.minimum(theta, np.pi - theta), self.width)
        return self.at(p, q, np.where(theta <= np.pi / 2, nearer, -nearer))

    def at(self, p: Array, q: Array, x: Array) -> Array:
        """The same at a graded angle."""
        left, right = self.left(p).astype(x.dtype), self.right(q).astype(x.dtype)
        stride = int(self.orders[1] - self.orders[0]) if len(self.orders) > 1 else 1
        turn = 2 * x if stride == 1 else 2 * (2 * x * x - 1)  # T_{k+s} = turn·T_k − T_{k−s}
        newer, older = np.zeros_like(x), np.zeros_like(x)
        weights = np.einsum("ijk,i...->kj...", self.core.astype(x.dtype), left)
        for weight in weights[::-1]:
            newer, older = _contract(weight, right) + turn * newer - older, newer
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
        tails = np.cumsum(size.max(axis=(0, 1))[::-1])[::-1]
        orders = max(1, int(np.sum(tails > tolerance / 2)))
        left = max(1, int(np.sum(np.cumsum(size.max(axis=(1, 2))[::-1])[::-1] > tolerance / 4)))
        right = max(1, int(np.sum(np.cumsum(size.max(axis=(0, 2))[::-1])[::-1] > tolerance / 4)))
        return replace(
            self,
            left=replace(self.left, coefficients=self.left.coefficients[:left]),
            right=replace(self.right, coefficients=self.right.coefficients[:right]),
            core=self.core[:left, :right, :orders],
            orders=self.orders[:orders],
        )


def _contract(weight: Array, right: Array) -> Array:
    """Σ_j weight_j right_j, as one matrix product where p is a column and q a row."""
    if weight.ndim == right.ndim == 3 and weight.shape[2] == right.shape[1] == 1:
        return np.asarray(weight[:, :, 0].T @ right[:, 0, :])
    total: Array = np.einsum("j...,j...->...", weight, right)
    return total
