"""Collect like terms of a derived value without expanding any denominator, root or exponent."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from tpc.gaussian.primitives import join_exponentials


def collect_terms(value: Expr) -> Expr:
    """Σ part·polynomial, one term per distinct non-polynomial part (a root, an angle, a denominator)."""
    groups: dict[Expr, Expr] = {}
    for term in sp.Add.make_args(distribute(value)):
        coefficient, rest = join_exponentials(term).as_coeff_Mul()
        smooth = [f for f in sp.Mul.make_args(rest) if _is_polynomial(f)]
        part = rest / sp.Mul(*smooth)
        groups[part] = groups.get(part, sp.S.Zero) + coefficient * sp.Mul(*smooth)
    return sp.Add(*(part * _share(total) for part, total in groups.items()))


def distribute(value: Expr) -> Expr:
    """Multiply sums out of numerators only."""
    if value.is_Add:
        return sp.Add(*(distribute(a) for a in value.args))
    if not value.is_Mul:
        return value
    terms = [sp.S.One]
    for factor in value.args:
        parts = sp.Add.make_args(distribute(factor))
        terms = [a * b for a in terms for b in parts]
    return sp.Add(*terms)


def _is_polynomial(factor: Expr) -> bool:
    base, exponent = factor.as_base_exp()
    return bool(base.is_Symbol and exponent.is_Integer and exponent > 0)


def _share(total: Expr) -> Expr:
    """Pull out the numeric content, as 2x + 2y = 2(x + y)."""
    content, rest = total.as_content_primitive()
    return content * rest if rest.is_Add else total
