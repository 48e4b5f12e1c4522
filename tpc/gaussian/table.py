"""Numeric kernels: V[φ,ψ](p, q, c) as a low-rank Chebyshev table, for functions without a closed form.

V = Σ_k T_k(1 − 2θ/π) Σ_ij core[i, j, k] · left_i(p) · right_j(q), where left_i and right_j are Chebyshev
series in s(p), a map of [0, p_max] to [0, 1], and θ is the angle of the pair. V is analytic in θ on [0, π]
even for kinked φ; a power series in ρ is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from tpc.gaussian.evaluate import NUMPY, rsqrt

Array = NDArray[Any]

BLOCK = 32_768  # entries of V evaluated at once
BEND = 0.1  # in s(p) = (1 + bend)·t/(t + bend), t = √(p/p_max): half of [0, 1] is spent on t < bend


@dataclass(frozen=True)
class Basis:
    """Functions of a variance p: p^(zero/2) (1 + p)^((growth − zero)/2) · Chebyshev series in s(p).

    The prefactor carries the way φ(√p z) scales near p = 0 and for large p, so that the series stays accurate
    relative to it on all of [0, p_max], and beyond p_max, where s stays at 1.
    """

    coefficients: Array  # (rank, degree + 1)
    p_max: float
    zero: float = 0.0
    growth: float = 0.0

    def __call__(self, p: Array) -> Array:
        """(rank, *p.shape)"""
        if self.coefficients.shape == (1, 1):
            return np.broadcast_to(self.coefficients[0, 0], (1, *p.shape))
        value = chebyshev.chebval(2 * coordinate(p, self.p_max) - 1, self.coefficients.T)
        return np.asarray(value * envelope(p, self.zero, self.growth))


def envelope(p: Array, zero: float, growth: float) -> Array:
    """p^(zero/2) (1 + p)^((growth − zero)/2)"""
    return np.asarray(np.asarray(p) ** (zero / 2) * (1 + np.asarray(p)) ** ((growth - zero) / 2))


def coordinate(p: Array, p_max: float) -> Array:
    """s(p) in [0, 1]"""
    deviation = np.sqrt(np.minimum(p, p_max) / p_max)
    return np.asarray((1 + BEND) * deviation / (deviation + BEND))


def variances(count: int, p_max: float) -> Array:
    """The p whose s(p) are the Chebyshev nodes of [0, 1]."""
    s = (nodes(count) + 1) / 2
    return np.asarray(p_max * (BEND * s / (1 + BEND - s)) ** 2)


def nodes(n: int) -> Array:
    return np.asarray(np.cos(np.pi * (np.arange(n) + 0.5) / n))


@dataclass(frozen=True)
class Table:
    """rsqrt(p)^a · rsqrt(q)^b · Σ_k T_{orders k}(1 − 2θ/π) Σ_ij core_ijk left_i(p) right_j(q).

    `roots` holds (a, b).
    """

    left: Basis
    right: Basis
    core: Array  # (left rank, right rank, number of orders)
    orders: Array  # the Chebyshev orders in θ, all of one parity where symmetry says so
    roots: tuple[int, int] = (0, 0)

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
        return self.at_angle(p, q, NUMPY["angle"](p, q, c))

    def at_angle(self, p: Array, q: Array, theta: Array) -> Array:
        """The same with the correlation given as cos θ."""
        x = 1 - theta * np.asarray(2 / np.pi, dtype=theta.dtype)
        left, right = self.left(p).astype(x.dtype), self.right(q).astype(x.dtype)
        stride = int(self.orders[1] - self.orders[0]) if len(self.orders) > 1 else 1
        turn = 2 * x if stride == 1 else 2 * (2 * x * x - 1)  # T_{k+s} = turn·T_k − T_{k−s}
        newer, older = np.zeros_like(x), np.zeros_like(x)
        weights = np.einsum("ijk,i...->kj...", self.core.astype(x.dtype), left)
        for weight in weights[::-1]:
            newer, older = _contract(weight, right) + turn * newer - older, newer
        start, back = self._first_two(x)
        value = newer * start - older * back
        for power, variance in zip(self.roots, (p, q), strict=True):
            value = value * rsqrt(variance) ** power
        return np.asarray(value, dtype=x.dtype)

    def _first_two(self, x: Array) -> tuple[Array, Array]:
        """T at the first order and at the one before it, where Clenshaw's recurrence ends."""
        if len(self.orders) == 1 or self.orders[1] - self.orders[0] == 1:
            return np.ones_like(x), x
        return (x, x) if self.orders[0] == 1 else (np.ones_like(x), 2 * x * x - 1)

    def mirrored(self) -> Table:
        """The table with the roles of p and q exchanged."""
        core = np.swapaxes(self.core, 0, 1)
        return Table(self.right, self.left, core, self.orders, (self.roots[1], self.roots[0]))

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
