"""Mehler series: V[φ,ψ] = Σ_k a_k(√p) b_k(√q) ρ^k with a_k(s) = E[φ(s z) He_k(z)]/√k!, and its remainder.

By Stein's lemma k times, a_k(s) = s^k E φ^(k)(s z)/√k!, which the rules for unary expectations evaluate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import factorial, sqrt
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr

from tpc.gaussian.covariance import Covariance
from tpc.gaussian.factors import Sum, decompose, differentiate
from tpc.gaussian.moments import Derivation
from tpc.gaussian.symbols import RHO, SIGMA, C, P, Q, U
from tpc.gaussian.tidy import collect_terms

if TYPE_CHECKING:
    from tpc.gaussian.kernel import Kernel
    from tpc.gaussian.numeric import Curve


@dataclass(frozen=True)
class MehlerSeries:
    """The Mehler series of a kernel up to degree `terms`.

    `left` and `right` hold a_0 … a_terms and b_0 … b_terms as functions of the standard deviation SIGMA; None
    where no closed form exists, and then `numbers` still evaluates them.
    """

    kernel: Kernel
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
        from tpc.gaussian.remainder import coefficient_values

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
        from tpc.gaussian.numeric import Curve

        return Curve(self.kernel.phi, self.terms), Curve(self.kernel.psi, self.terms)

    def remainder(self, p: float, q: float, c: float) -> float:
        """A bound on |V − partial sum| at a point; inf where the series does not converge absolutely."""
        from tpc.gaussian.remainder import remainder_bound

        return remainder_bound(self.kernel.phi, self.kernel.psi, self.terms, p, q, c)

    def __call__(self, p: float, q: float, c: float) -> float:
        """The partial sum at a point."""
        rho = float(c) / sqrt(p) / sqrt(q) if p > 0 and q > 0 else 0.0
        return float(sum(a * b * rho**k for k, (a, b) in enumerate(self.numbers(p, q)) if rho or k == 0))


@lru_cache(maxsize=512)
def coefficients(phi: Expr, terms: int) -> tuple[Expr, ...] | None:
    """a_0(s) … a_terms(s) in closed form, or None outside the family that has one."""
    derivative: Sum | None = decompose(phi)
    if derivative is None:
        return None
    law = Covariance.of([[SIGMA**2]])
    derivation = Derivation()
    out: list[Expr] = []
    for k in range(terms + 1):
        total: Any = sp.S.Zero
        for weight, factor in derivative:
            value = derivation.moment((factor,), law, (U,))
            if value is None:
                return None
            total += weight * value
        out.append(_tidy(total * SIGMA**k) / sp.sqrt(factorial(k)))
        derivative = differentiate(derivative)
    return tuple(out)


def _tidy(value: Expr) -> Expr:
    """Factor what is rational in s, apart from the exponentials, tails and roots it multiplies."""
    groups: dict[Expr, Expr] = {}
    for term in sp.Add.make_args(collect_terms(value)):
        rational, rest = sp.S.One, sp.S.One
        for factor in sp.Mul.make_args(term):
            base, exponent = factor.as_base_exp()
            whole = exponent if exponent.is_Integer else sp.floor(exponent) if exponent.is_Rational else sp.S.Zero
            if base.is_rational_function(SIGMA) and base.has(SIGMA):
                rational, rest = rational * base**whole, rest * base ** (exponent - whole)
            elif factor.is_rational_function(SIGMA):
                rational *= factor
            else:
                rest *= factor
        groups[rest] = groups.get(rest, sp.S.Zero) + rational
    return sp.Add(*(rest * sp.factor(rational) for rest, rational in groups.items()))
