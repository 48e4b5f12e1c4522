"""The functions that closed forms are written in, chosen so that they stay accurate at every correlation.

A closed form in these and in sqrt, exp, erf, tanh, Abs has no cancellation near |ρ| = 1 and no 0/0 at a
zero vector: with p = 0 (hence c = 0) `gap`, `angle`, `arctan2` and `rsqrt` are all 0.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Function


class gap(Function):
    """gap(p, q, c) = √max(pq − c², 0) = √(pq)·sin θ, without cancellation near |ρ| = 1."""

    nargs = 3

    @classmethod
    def eval(cls, p: Expr, q: Expr, c: Expr) -> Expr | None:
        if p == 1 and q == 1:
            return gap1(c)
        return gap(p, q, -c) if c.could_extract_minus_sign() else None

    def fdiff(self, argindex: int = 1) -> Expr:
        p, q, c = self.args
        return (q / 2, p / 2, -c)[argindex - 1] / self

    def _eval_is_extended_nonnegative(self) -> bool:
        return True

    def _eval_is_extended_real(self) -> bool:
        return True

    def _eval_is_finite(self) -> bool:
        return True


class gap1(Function):
    """gap1(ρ) = √max((1 − ρ)(1 + ρ), 0) = sin θ."""

    nargs = 1

    @classmethod
    def eval(cls, rho: Expr) -> Expr | None:
        if rho.is_Rational:
            return sp.sqrt(sp.Max(1 - rho**2, 0))
        return gap1(-rho) if rho.could_extract_minus_sign() else None

    def fdiff(self, _index: int = 1) -> Expr:
        return -self.args[0] / self

    def _eval_is_extended_nonnegative(self) -> bool:
        return True

    def _eval_is_extended_real(self) -> bool:
        return True

    def _eval_is_finite(self) -> bool:
        return True


class angle(Function):
    """angle(p, q, c) = atan2(gap(p, q, c), c) = θ in [0, π]; 0 where p or q vanishes."""

    nargs = 3

    @classmethod
    def eval(cls, p: Expr, q: Expr, c: Expr) -> Expr | None:
        return angle1(c) if p == 1 and q == 1 else None

    def fdiff(self, argindex: int = 1) -> Expr:
        p, q, c = self.args
        return (c / (2 * p), c / (2 * q), sp.S.NegativeOne)[argindex - 1] / gap(p, q, c)

    def _eval_is_extended_real(self) -> bool:
        return True

    def _eval_is_finite(self) -> bool:
        return True


class angle1(Function):
    """angle1(ρ) = arccos of ρ clipped to [−1, 1]."""

    nargs = 1

    @classmethod
    def eval(cls, rho: Expr) -> Expr | None:
        return sp.acos(sp.Min(sp.Max(rho, -1), 1)) if rho.is_Rational else None

    def fdiff(self, _index: int = 1) -> Expr:
        return -1 / gap1(self.args[0])

    def _eval_is_extended_real(self) -> bool:
        return True

    def _eval_is_finite(self) -> bool:
        return True


class arctan2(Function):
    """arctan2(y, x): the angle of (x, y); 0 at the origin, where sympy's own would divide."""

    nargs = 2

    @classmethod
    def eval(cls, y: Expr, x: Expr) -> Expr | None:
        if y == 0 and x.is_nonnegative:
            return sp.S.Zero
        if y.is_Rational and x.is_Rational:
            return sp.atan2(y, x)
        return -arctan2(-y, x) if y.could_extract_minus_sign() else None

    def fdiff(self, argindex: int = 1) -> Expr:
        y, x = self.args
        return (x, -y)[argindex - 1] / (x**2 + y**2)

    def _eval_is_extended_real(self) -> bool:
        return True

    def _eval_is_finite(self) -> bool:
        return True


class rsqrt(Function):
    """rsqrt(p) = 1/√p where p > 0, else 0: a zero vector has a zero gradient."""

    nargs = 1

    @classmethod
    def eval(cls, p: Expr) -> Expr | None:
        return 1 / sp.sqrt(p) if p.is_Rational and p > 0 else None

    def fdiff(self, _index: int = 1) -> Expr:
        return -(self**3) / 2

    def _eval_is_extended_nonnegative(self) -> bool:
        return True

    def _eval_is_extended_real(self) -> bool:
        return True


class dawson(Function):
    """dawson(x) = e^{−x²} ∫_0^x e^{t²} dt"""

    nargs = 1

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        if x == 0:
            return x
        return -dawson(-x) if x.could_extract_minus_sign() else None

    def fdiff(self, _index: int = 1) -> Expr:
        return 1 - 2 * self.args[0] * self

    def _eval_is_extended_real(self) -> bool:
        return True


class erfcx(Function):
    """erfcx(x) = e^{x²} erfc(x), for x ≥ 0 where the product would be ∞·0"""

    nargs = 1

    def fdiff(self, _index: int = 1) -> Expr:
        x = self.args[0]
        return 2 * x * self - 2 / sp.sqrt(sp.pi)

    def _eval_is_extended_real(self) -> bool:
        return True


def join_exponentials(term: Expr) -> Expr:
    """One exp per product, and exp(a)·erfc(z) = exp(a − z²)·erfcx(z) for z known to be nonnegative."""
    factors = sp.Mul.make_args(term)
    exponents = [f.args[0] for f in factors if isinstance(f, sp.exp)]
    tails = [f.args[0] for f in factors if isinstance(f, sp.erfc) and f.args[0].is_nonnegative]
    if not exponents or (len(exponents) == 1 and not tails):
        return term
    taken = {sp.exp(a) for a in exponents} | {sp.erfc(z) for z in tails}
    rest = sp.Mul(*(f for f in factors if f not in taken))
    power = sp.Add(*exponents, *(-(z**2) for z in tails))
    return rest * sp.exp(power) * sp.Mul(*(erfcx(z) for z in tails))


def guard_zero(value: Expr, sites: tuple[tuple[Expr, tuple[Expr, ...]], ...]) -> Expr:
    """Write negative powers of what vanishes at a zero vector with `rsqrt`.

    `sites` holds, per site, its variance and its covariances with the others.
    """

    def vanishes(base: Expr) -> bool:
        if isinstance(base, gap) or not base.has(*(variance for variance, _ in sites)):
            return False
        return any(_at_zero_vector(base, variance, covariances) == 0 for variance, covariances in sites)

    def is_inverse(e: Expr) -> bool:
        return bool(e.is_Pow and e.exp.is_negative and (2 * e.exp).is_Integer and vanishes(e.base))

    return value.replace(is_inverse, lambda e: rsqrt(e.base) ** (-2 * e.exp))


def _at_zero_vector(base: Expr, variance: Expr, covariances: tuple[Expr, ...]) -> Expr:
    flat = base.replace(lambda e: isinstance(e, gap) and variance in e.args, lambda _: sp.S.Zero)
    return flat.xreplace({variance: sp.S.Zero, **dict.fromkeys(covariances, sp.S.Zero)})


def textbook(value: Expr) -> Expr:
    """The same expression in sqrt, acos and asin, as a book would print it."""

    def opening(p: Expr, q: Expr, c: Expr) -> Expr:
        if c.could_extract_minus_sign():
            return sp.pi - opening(p, q, -c)
        return sp.acos(c / (sp.sqrt(p) * sp.sqrt(q)))

    def sine(y: Expr, x: Expr) -> Expr:
        if x.could_extract_minus_sign():
            return sp.pi - sine(y, -x)
        return sp.asin(y / sp.sqrt(sp.factor(sp.expand(x**2 + y**2))))

    value = value.replace(rsqrt, lambda p: 1 / sp.sqrt(p))
    value = value.replace(erfcx, lambda x: sp.exp(x**2) * sp.erfc(x))
    value = value.replace(angle, opening)
    value = value.replace(angle1, lambda rho: opening(sp.S.One, sp.S.One, rho))
    value = value.replace(gap, lambda p, q, c: sp.sqrt(p * q - c**2))
    value = value.replace(gap1, lambda rho: sp.sqrt(1 - rho**2))
    return value.replace(arctan2, sine)
