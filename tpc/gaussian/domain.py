"""Does E φ(u) exist for every variance? An interval analysis of φ over the real line.

Each sub-expression gets bounds and a growth class. A pole, a logarithm or root of something that may be
negative, and growth as fast as e^{x²} are the user's mistakes and are named as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy as sp
from sympy import DiracDelta, Expr

from tpc.errors import GaussianError
from tpc.program.functions import X, absolute, relu, sign, softplus, step

INF = math.inf


@dataclass(frozen=True)
class Shape:
    """Bounds of a function of x, whether the lower and upper ones are strict, and how fast |φ| can grow.

    `degree` bounds |φ| by a polynomial of that degree; `exponential` by e^{k|x|} for some k.
    """

    lo: float = -INF
    hi: float = INF
    strict: bool = False  # neither bound is attained
    degree: float = 0.0
    exponential: bool = False

    @property
    def positive(self) -> bool:
        return self.lo > 0 or (self.lo == 0 and self.strict)

    @property
    def negative(self) -> bool:
        return self.hi < 0 or (self.hi == 0 and self.strict)

    def negated(self) -> Shape:
        return Shape(-self.hi, -self.lo, self.strict, self.degree, self.exponential)


def check_finite(phi: Expr) -> None:
    """Raise `GaussianError`, naming the culprit, unless E φ(u)² exists for every variance of u."""
    others = phi.free_symbols - {X}
    if others:
        names = ", ".join(sorted(s.name for s in others))
        raise GaussianError(f"expected a function of x alone, got {phi} with the free symbols {names}")
    if phi.has(sp.I, sp.zoo, sp.nan, sp.oo, -sp.oo):
        raise GaussianError(f"expected a real, finite function of x, got {phi}")
    shape(phi)


@lru_cache(maxsize=4096)
def shape(phi: Expr) -> Shape:
    """Bounds and growth of φ; raises `GaussianError` where E φ does not exist."""
    if phi.is_number:
        value = float(phi)
        return Shape(value, value)
    if phi == X:
        return Shape(degree=1.0)
    if phi.is_Add and phi.is_polynomial(X):
        return _polynomial(sp.Poly(phi, X))
    if phi.is_Add:
        return _sum([shape(a) for a in phi.args])
    if phi.is_Mul:
        return _product([shape(a) for a in phi.args])
    if isinstance(phi, sp.exp):
        return _exp(phi, shape(phi.args[0]))
    if phi.is_Pow:
        return _power(phi, shape(phi.base), shape(phi.exp))
    rule = _RULES.get(phi.func)
    if rule is None:
        raise GaussianError(f"expected functions that tpc knows, got {phi.func.__name__} in {phi}")
    inner = shape(phi.args[0])
    return rule(phi, inner)


def _polynomial(poly: sp.Poly) -> Shape:
    degree = float(poly.degree())
    if poly.degree() % 2 or not (poly.domain.is_QQ or poly.domain.is_ZZ):
        return Shape(degree=degree)
    if poly.count_roots():
        return Shape(degree=degree)
    found = Shape(0.0, INF, strict=True, degree=degree)
    return found if poly.eval(0) > 0 else found.negated()


def _sum(parts: list[Shape]) -> Shape:
    return Shape(
        sum(s.lo for s in parts),
        sum(s.hi for s in parts),
        any(s.strict for s in parts),
        max(s.degree for s in parts),
        any(s.exponential for s in parts),
    )


def _product(parts: list[Shape]) -> Shape:
    total = parts[0]
    for s in parts[1:]:
        corners = [_times(a, b) for a in (total.lo, total.hi) for b in (s.lo, s.hi)]
        total = Shape(
            min(corners),
            max(corners),
            _strict_product(total, s),
            total.degree + s.degree,
            total.exponential or s.exponential,
        )
    return total


def _strict_product(a: Shape, b: Shape) -> bool:
    """A bound of a·b is missed when the signs are fixed and one factor misses its own."""
    if _constant(a) or _constant(b):
        return a.strict or b.strict
    return (a.positive or a.negative) and (b.positive or b.negative) and (a.strict or b.strict)


def _constant(s: Shape) -> bool:
    return s.lo == s.hi != 0


def _times(a: float, b: float) -> float:
    return 0.0 if 0.0 in (a, b) else a * b


def _exp(phi: Expr, s: Shape) -> Shape:
    if s.hi < INF:
        return Shape(_safe_exp(s.lo), _safe_exp(s.hi), s.strict or s.lo == -INF)
    if s.exponential or s.degree > 1:
        raise GaussianError(
            f"E {phi} diverges for large variances: expected growth below e^(k|x|), got the exponent {phi.args[0]}"
        )
    return Shape(_safe_exp(s.lo), INF, strict=s.lo == -INF, exponential=True)


def _safe_exp(x: float) -> float:
    return math.exp(x) if x < 700 else INF


def _power(phi: Expr, base: Shape, exponent: Shape) -> Shape:
    if not phi.exp.is_number:
        raise GaussianError(f"expected a constant exponent, got {phi}")
    power = exponent.lo
    if not phi.exp.is_Integer and base.lo < 0:
        raise GaussianError(f"{phi} is not real where {phi.base} < 0")
    if power < 0:
        if not (base.positive or base.negative):
            raise GaussianError(
                f"E {phi} may not exist: expected a denominator without zeros, but {phi.base} can vanish (a pole)"
            )
        return _reciprocal(_raised(base, phi.exp, -power), base)
    return _raised(base, phi.exp, power)


def _raised(base: Shape, exact: Expr, power: float) -> Shape:
    degree, growth = base.degree * power, base.exponential
    ends = [abs(base.lo) ** power, abs(base.hi) ** power]
    if exact.is_Integer and int(exact) % 2 == 1 and base.lo < 0:
        low = -ends[0]
        high = ends[1] if base.hi > 0 else -ends[1]
        return Shape(low, high, base.strict, degree, growth)
    if base.lo < 0 < base.hi:
        return Shape(0.0, max(ends), False, degree, growth)
    return Shape(min(ends), max(ends), base.strict, degree, growth)


def _reciprocal(s: Shape, base: Shape) -> Shape:
    """1/s for s of one sign; where s decays to 0 without reaching it, the reciprocal grows as s falls."""
    low, high = (1 / s.hi if s.hi else -INF), (1 / s.lo if s.lo else INF)
    vanishing = 0.0 in (s.lo, s.hi)
    return Shape(low, high, s.strict or INF in (abs(s.lo), abs(s.hi)), 0.0, vanishing and not base.degree)


def _log(phi: Expr, s: Shape) -> Shape:
    if not s.positive:
        raise GaussianError(f"{phi} is not defined where {phi.args[0]} ≤ 0")
    low = math.log(s.lo) if s.lo > 0 else -INF
    return Shape(low, math.log(s.hi) if s.hi < INF else INF, s.strict, 1.0)


def _relu(_: Expr, s: Shape) -> Shape:
    return Shape(max(s.lo, 0.0), max(s.hi, 0.0), s.strict and s.lo >= 0, s.degree, s.exponential)


def _absolute(_: Expr, s: Shape) -> Shape:
    if s.lo >= 0:
        return s
    if s.hi <= 0:
        return s.negated()
    return Shape(0.0, max(-s.lo, s.hi), False, s.degree, s.exponential)


def _softplus(_: Expr, s: Shape) -> Shape:
    low = math.log1p(math.exp(s.lo)) if s.lo < 30 else s.lo
    high = math.log1p(math.exp(s.hi)) if s.hi < 30 else s.hi
    return Shape(low, high, True, s.degree, s.exponential)


def _delta(phi: Expr, s: Shape) -> Shape:
    del s
    if phi.args[0].subs(X, 0) != 0 or phi.args[0].as_poly(X) is None or phi.args[0].as_poly(X).degree() != 1:
        raise GaussianError(f"expected a Dirac delta at 0, got {phi}")
    return Shape(0.0, INF)


def _hyperbolic(phi: Expr, s: Shape) -> Shape:
    if s.exponential or s.degree > 1:
        raise GaussianError(f"E {phi} diverges for large variances: the argument grows faster than x")
    return Shape(1.0 if isinstance(phi, sp.cosh) else -INF, INF, False, 0.0, True)


def _step(_: Expr, s: Shape) -> Shape:
    return Shape(1.0 if s.positive else 0.0, 0.0 if s.hi <= 0 else 1.0)


def _sign(_: Expr, s: Shape) -> Shape:
    return Shape(1.0 if s.positive else -1.0, -1.0 if s.negative else 1.0)


_RULES: dict[Any, Callable[[Expr, Shape], Shape]] = {
    relu: _relu,
    absolute: _absolute,
    softplus: _softplus,
    step: _step,
    sign: _sign,
    DiracDelta: _delta,
    sp.log: _log,
    sp.sinh: _hyperbolic,
    sp.cosh: _hyperbolic,
    sp.tanh: lambda _phi, s: Shape(math.tanh(s.lo), math.tanh(s.hi), s.lo == -INF or s.hi == INF),
    sp.erf: lambda _phi, s: Shape(math.erf(s.lo), math.erf(s.hi), s.lo == -INF or s.hi == INF),
    sp.erfc: lambda _phi, s: Shape(math.erfc(s.hi), math.erfc(s.lo), s.hi == INF),
    sp.atan: lambda _phi, s: Shape(math.atan(s.lo), math.atan(s.hi), s.lo == -INF or s.hi == INF),
    sp.sin: lambda _phi, _s: Shape(-1.0, 1.0),
    sp.cos: lambda _phi, _s: Shape(-1.0, 1.0),
}
