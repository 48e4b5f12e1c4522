"""The Mehler series of a kernel, in symbols and in numbers, with a bound on what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import sympy as sp
from sympy import Expr

from tpc.gaussian.closed import ClosedForm
from tpc.gaussian.mehler import coefficients
from tpc.gaussian.numeric import Curve
from tpc.gaussian.remainder import coefficient_values, remainder_bound
from tpc.gaussian.symbols import RHO, SIGMA, C, P, Q


@dataclass(frozen=True)
class MehlerSeries:
    """The Mehler series of a kernel up to degree `terms`.

    `left` and `right` hold a_0 … a_terms and b_0 … b_terms as functions of the standard deviation SIGMA; None
    where no closed form exists, and then `numbers` still evaluates them.
    """

    kernel: ClosedForm
    terms: int

    @cached_property
    def left(self) -> tuple[Expr, ...] | None:
        return coefficients(self.kernel.phi, self.terms)

    @cached_property
    def right(self) -> tuple[Expr, ...] | None:
        return coefficients(self.kernel.psi, self.terms)

    @cached_property
    def value(self) -> Expr | None:
        """The partial sum: in RHO for homogeneous φ, ψ (the series of κ), else in p, q and c."""
        if self.left is None or self.right is None:
            return None
        if self.kernel.degrees is not None:
            one = {SIGMA: sp.S.One}
            return sp.Add(*(a.subs(one) * b.subs(one) * RHO**k for k, (a, b) in enumerate(self._pairs())))
        rho = C / sp.sqrt(P * Q)
        at_p, at_q = {SIGMA: sp.sqrt(P)}, {SIGMA: sp.sqrt(Q)}
        return sp.Add(*(a.subs(at_p) * b.subs(at_q) * rho**k for k, (a, b) in enumerate(self._pairs())))

    def _pairs(self) -> list[tuple[Expr, Expr]]:
        return list(zip(self.left or (), self.right or (), strict=True))

    def numbers(self, p: float, q: float) -> list[tuple[float, float]]:
        """(a_k(√p), b_k(√q)) for k = 0 … terms."""
        return list(
            zip(
                coefficient_values(self.kernel.phi, p, self.terms),
                coefficient_values(self.kernel.psi, q, self.terms),
                strict=True,
            )
        )

    def tabulated(self) -> tuple[Curve, Curve]:
        """p ↦ a_k(√p) and q ↦ b_k(√q) as Chebyshev series with one row per degree, for any regular φ and ψ.

        They raise `GaussianError` for variances beyond what is known of φ and ψ.
        """
        return Curve(self.kernel.phi, self.terms), Curve(self.kernel.psi, self.terms)

    def remainder(self, p: float, q: float, c: float) -> float:
        """A bound on |V − partial sum| at a point; inf where the series does not converge absolutely."""
        return remainder_bound(self.kernel.phi, self.kernel.psi, self.terms, p, q, c)

    def __call__(self, p: float, q: float, c: float) -> float:
        """The partial sum at a point."""
        rho = float(c) / sqrt(p) / sqrt(q) if p > 0 and q > 0 else 0.0
        return float(sum(a * b * rho**k for k, (a, b) in enumerate(self.numbers(p, q)) if rho or k == 0))
