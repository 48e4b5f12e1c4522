"""Mehler series: V[φ,ψ] = Σ_k a_k(√p) b_k(√q) ρ^k with a_k(s) = E[φ(s z) He_k(z)]/√k!, and its remainder.

By Stein's lemma k times, a_k(s) = s^k E φ^(k)(s z)/√k!, which the rules for unary expectations evaluate.
"""

from __future__ import annotations

from functools import lru_cache
from math import factorial
from typing import Any

import sympy as sp
from sympy import Expr

from tpc.gaussian.covariance import Covariance
from tpc.gaussian.factors import Sum, decompose, differentiate
from tpc.gaussian.moments import Reduction
from tpc.gaussian.symbols import SIGMA, U
from tpc.gaussian.tidy import collect_terms


@lru_cache(maxsize=512)
def coefficients(phi: Expr, terms: int) -> tuple[Expr, ...] | None:
    """a_0(s) … a_terms(s) in closed form, or None outside the family that has one."""
    derivative: Sum | None = decompose(phi)
    if derivative is None:
        return None
    law = Covariance.of([[SIGMA**2]])
    derivation = Reduction()
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
