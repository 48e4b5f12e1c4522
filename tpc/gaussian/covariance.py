"""Means and covariances of the Gaussian sites, and how tilting and conditioning change them.

Covariances are kept as numerators over one common denominator, and for two sites their determinant is kept
as its own entry, so that no rule ever forms pq − c² by subtraction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy as sp
from sympy import Expr

from tpc.gaussian.primitives import gap


@dataclass(frozen=True)
class Covariance:
    """Gaussian law of n sites: covariance `over[i][j] / scale`, means `mean[i]`.

    For n = 2, `minor / scale` is the determinant of the covariance.
    """

    over: tuple[tuple[Expr, ...], ...]
    scale: Expr
    mean: tuple[Expr, ...]
    minor: Expr | None = None

    @classmethod
    def of(cls, entries: list[list[Expr]], root: Expr | None = None) -> Covariance:
        """Zero-mean law with these covariances; `root` is √det for two sites."""
        n = len(entries)
        over = tuple(tuple(row) for row in entries)
        if n == 2:
            root = gap(over[0][0], over[1][1], over[0][1]) if root is None else root
            return cls(over, sp.S.One, (sp.S.Zero,) * n, root**2)
        return cls(over, sp.S.One, (sp.S.Zero,) * n)

    @property
    def size(self) -> int:
        return len(self.over)

    def var(self, i: int) -> Expr:
        return self.over[i][i] / self.scale

    def cov(self, i: int, j: int) -> Expr:
        return self.over[i][j] / self.scale

    def determinant(self, i: int, j: int) -> Expr:
        """scale · (var(i) var(j) − cov(i, j)²), free of cancellation; 0 for i = j."""
        if i == j:
            return sp.S.Zero
        if self.minor is not None:
            return self.minor
        return gap(self.over[i][i], self.over[j][j], self.over[i][j]) ** 2 / self.scale

    def shift(self, i: int, b: Expr) -> tuple[Expr, Covariance]:
        """E[e^{b x_i} F] = factor · E'[F]: the means move by b·Cov."""
        factor = sp.exp(b * self.mean[i] + b**2 * self.var(i) / 2)
        mean = tuple(m + b * self.cov(i, k) for k, m in enumerate(self.mean))
        return factor, replace(self, mean=mean)

    def tilt(self, i: int, a: Expr) -> tuple[Expr, Covariance]:
        """E[e^{−a x_i²/2} F] = factor · E'[F]: the precision of site i grows by a."""
        m, pivot = self.mean[i], self.over[i][i]
        scale = self.scale + a * pivot
        factor = sp.sqrt(self.scale) / sp.sqrt(scale)
        over = [list(row) for row in self.over]
        for j in range(self.size):
            for k in range(self.size):
                if i not in (j, k):
                    over[j][k] += a * self._schur(i, j, k)
        tilted = replace(self, over=tuple(tuple(row) for row in over), scale=scale)
        if m == 0:
            return factor, tilted
        # x = m + y:  −a x²/2 = −a m²/2 − a m y − a y²/2
        factor *= sp.exp(-a * m**2 / 2 + a**2 * m**2 * tilted.var(i) / 2)
        mean = tuple(old - a * m * tilted.cov(i, k) for k, old in enumerate(self.mean))
        return factor, replace(tilted, mean=mean)

    def condition(self, i: int) -> Covariance:
        """The other sites given x_i = 0; their means are E[x_k | x_i = 0]."""
        others = [k for k in range(self.size) if k != i]
        pivot = self.over[i][i]
        over = tuple(tuple(self._schur(i, j, k) for k in others) for j in others)
        mean = tuple(self.mean[k] - self.over[i][k] / pivot * self.mean[i] for k in others)
        law = Covariance(over, pivot, mean)
        if len(others) == 2:
            law = replace(law, minor=(over[0][0] * over[1][1] - over[0][1] ** 2) / pivot)
        return law

    def _schur(self, i: int, j: int, k: int) -> Expr:
        """(over_ii over_jk − over_ij over_ik) / scale"""
        if j == k:
            return self.determinant(i, j)
        over = self.over
        return (over[i][i] * over[j][k] - over[i][j] * over[i][k]) / self.scale
