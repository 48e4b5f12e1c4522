"""Derivatives of δ beside functions without a closed form: lowered until every kernel that is left can be evaluated.

With u·δ^(k−1)(u) = −(k−1) δ^(k−2)(u), Stein's lemma for E[u δ^(k−1)(u) ψ(v)] gives

    p E δ^(k)(u)ψ(v) = −c E δ^(k−1)(u)ψ'(v) − (k−1) E δ^(k−2)(u)ψ(v).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sympy as sp
from sympy import DiracDelta, Expr

from tpc.gaussian.factors import decompose
from tpc.gaussian.primitives import rsqrt
from tpc.gaussian.regular import delta_weights
from tpc.program.functions import X, step

Part = tuple[Expr, Expr, Expr]  # coefficient · E φ(u)ψ(v)


def slope(phi: Expr) -> Expr:
    """φ', powers of a step being the step: step² δ would count the jump at 0 otherwise than δ = step' does."""

    def is_power(e: Expr) -> bool:
        return bool(e.is_Pow and isinstance(e.base, step) and e.exp.is_Integer and e.exp.is_positive)

    return phi.replace(is_power, lambda e: e.base).diff(X)


def evaluable(phi: Expr, psi: Expr, p: Expr, q: Expr, c: Expr) -> list[Part]:
    """E φ(u)ψ(v) as a sum of kernels with a closed form, or with a δ on one side at most and no derivative of it."""
    if decompose(phi) is not None and decompose(psi) is not None:
        return [(sp.S.One, phi, psi)]
    (left, at_u), (right, at_v) = delta_weights(phi), delta_weights(psi)
    if not (at_u and at_v) and not any((*at_u, *at_v)):
        return [(sp.S.One, phi, psi)]
    out: list[Part] = [(sp.S.One, left, right)] if left != 0 and right != 0 else []
    for j, weight in at_u.items():
        out += _scaled(weight, _lowered(j, right, p, q, c))
        out += [(weight * other, _delta(j), _delta(k)) for k, other in at_v.items()]
    for k, weight in at_v.items():
        out += [(weight * a, f, delta) for a, delta, f in _lowered(k, left, q, p, c)]
    return out


def _lowered(order: int, psi: Expr, p: Expr, q: Expr, c: Expr) -> list[Part]:
    """E δ^(order)(u)ψ(v) for ψ without δ."""
    if psi == 0:
        return []
    if order == 0 or decompose(psi) is not None:
        return [(sp.S.One, _delta(order), psi)]
    inverse = rsqrt(p) ** 2
    out = list(_scaled(-c * inverse, evaluable(_delta(order - 1), slope(psi), p, q, c)))
    if order > 1:
        out += _scaled((1 - order) * inverse, evaluable(_delta(order - 2), psi, p, q, c))
    return out


def _scaled(number: Expr, parts: Iterable[Part]) -> Iterator[Part]:
    return ((number * a, f, g) for a, f, g in parts)


def _delta(order: int) -> Expr:
    return DiracDelta(X, order) if order else DiracDelta(X)
