"""Normal form of a nonlinearity: a sum of coefficient × Factor, closed under products and derivatives.

A Factor is x^k · e^{−a x²/2} · e^{b x} · cos(w x + t) · {1, step, sign} · Π erf(αx + β), or a derivative of
δ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb

import sympy as sp
from sympy import DiracDelta, Expr

from tpc.errors import GaussianError
from tpc.program.functions import X, absolute, relu, sign, step

ZERO, ONE, HALF = sp.S.Zero, sp.S.One, sp.S.Half
PLAIN, STEP, SIGN = 0, 1, 2
MAX_POWER = 24

Sum = tuple[tuple[Expr, "Factor"], ...]


@dataclass(frozen=True)
class Factor:
    """One product of the family; `delta` = j ≥ 0 is the j-th derivative of δ and excludes all the rest."""

    power: int = 0
    quad: Expr = ZERO
    lin: Expr = ZERO
    wave: tuple[Expr, Expr] | None = None
    jump: int = PLAIN
    arcs: tuple[tuple[Expr, Expr], ...] = ()
    delta: int = -1

    def to_expr(self, x: Expr) -> Expr:
        """This factor as a function of x."""
        if self.delta >= 0:
            return DiracDelta(x, self.delta) if self.delta else DiracDelta(x)
        value = x**self.power * sp.exp(-self.quad * x**2 / 2 + self.lin * x)
        value *= {PLAIN: ONE, STEP: step(x), SIGN: sign(x)}[self.jump]
        if self.wave:
            value *= sp.cos(self.wave[0] * x + self.wave[1])
        return value * sp.Mul(*(sp.erf(a * x + b) for a, b in self.arcs))

    @property
    def parity(self) -> int | None:
        """0 even, 1 odd, None neither."""
        if self.delta >= 0:
            return self.delta % 2
        if self.jump == STEP or self.lin != 0 or any(b != 0 for _, b in self.arcs):
            return None
        odd = self.power + (self.jump == SIGN) + len(self.arcs)
        if self.wave and self.wave[1] != 0:
            if sp.cos(self.wave[1]) != 0:
                return None
            odd += 1
        return odd % 2

    @property
    def degree(self) -> int | None:
        """k when the factor is positively homogeneous of degree k."""
        if self.delta >= 0:
            return -1 - self.delta
        flat = self.quad == 0 and self.lin == 0 and self.wave is None and not self.arcs
        return self.power if flat else None

    @property
    def is_polynomial(self) -> bool:
        return self.delta < 0 and self.degree is not None and self.jump == PLAIN

    def at_zero(self) -> Expr:
        """The value at 0, with step(0) = ½ as the product with δ needs (H² = H gives 2Hδ = δ)."""
        if self.power or self.jump == SIGN:
            return ZERO
        value = HALF if self.jump == STEP else ONE
        if self.wave:
            value *= sp.cos(self.wave[1])
        return value * sp.Mul(*(sp.erf(b) for _, b in self.arcs))


UNIT = Factor()


def collect(parts: Iterable[tuple[Expr, Factor]]) -> Sum:
    """Add the coefficients of equal factors and drop zeros."""
    total: dict[Factor, Expr] = {}
    for coefficient, factor in parts:
        total[factor] = total.get(factor, ZERO) + coefficient
    return tuple((c, f) for f, c in total.items() if c != 0)


def multiply(f: Factor, g: Factor) -> Sum:
    """f·g as a sum of factors."""
    if f.delta >= 0 and g.delta >= 0:
        raise GaussianError("the product of two Dirac deltas at the same point is not defined")
    if f.delta >= 0:
        return multiply(g, f)
    if g.delta >= 0:  # f δ^(j) = Σ_i (−1)^i C(j,i) f^(i)(0) δ^(j−i)
        parts = []
        derivative: Sum = ((ONE, f),)
        for i in range(g.delta + 1):
            if any(h.delta >= 0 for _, h in derivative):
                raise GaussianError("a derivative of δ times a function with a jump at 0 is not defined")
            value = sp.Add(*(c * h.at_zero() for c, h in derivative))
            parts.append(((-1) ** i * comb(g.delta, i) * value, Factor(delta=g.delta - i)))
            derivative = differentiate(derivative) if i < g.delta else ()
        return collect(parts)
    if f.power + g.power > MAX_POWER:
        raise GaussianError(f"expected polynomial degree at most {MAX_POWER}, got {f.power + g.power}")
    jump = STEP if STEP in (f.jump, g.jump) else (SIGN if f.jump != g.jump else PLAIN)
    arcs = tuple(sorted(f.arcs + g.arcs, key=lambda arc: (arc[0].sort_key(), arc[1].sort_key())))
    base = Factor(f.power + g.power, f.quad + g.quad, f.lin + g.lin, f.wave or g.wave, jump, arcs)
    if not (f.wave and g.wave):
        return ((ONE, base),)
    (w, s), (z, t) = f.wave, g.wave  # cos a cos b = ½cos(a+b) + ½cos(a−b)
    return collect(one for a, b in ((w + z, s + t), (w - z, s - t)) for one in _wave(HALF, base, a, b))


def _wave(coefficient: Expr, base: Factor, w: Expr, t: Expr) -> Sum:
    """coefficient · base · cos(w x + t) in normal form: w > 0, t reduced modulo 2π."""
    if w == 0:
        return ((coefficient * sp.cos(t), replace(base, wave=None)),)
    if w.could_extract_minus_sign():
        w, t = -w, -t
    if (t / sp.pi).is_Rational:
        t = sp.Mod(t, 2 * sp.pi)
        if t >= sp.pi:
            coefficient, t = -coefficient, t - sp.pi
    return ((coefficient, replace(base, wave=(w, t))),)


def product(left: Sum, right: Sum) -> Sum:
    """The product of two sums."""
    return collect((a * b * c, h) for a, f in left for b, g in right for c, h in multiply(f, g))


def differentiate(terms: Sum) -> Sum:
    """d/dx of a sum of factors."""
    return collect((c * d, h) for c, f in terms for d, h in _derivative(f))


@lru_cache(maxsize=4096)
def _derivative(f: Factor) -> Sum:
    if f.delta >= 0:
        return ((ONE, Factor(delta=f.delta + 1)),)
    parts: list[tuple[Expr, Factor]] = []
    if f.power:
        parts.append((sp.Integer(f.power), replace(f, power=f.power - 1)))
    if f.quad != 0:
        parts.append((-f.quad, replace(f, power=f.power + 1)))
    if f.lin != 0:
        parts.append((f.lin, f))
    if f.wave:
        w, t = f.wave
        parts.extend(_wave(w, f, w, t + sp.pi / 2))
    if f.jump:
        height = ONE if f.jump == STEP else sp.Integer(2)
        parts.extend((height * c, h) for c, h in multiply(replace(f, jump=PLAIN), Factor(delta=0)))
    for i, (a, b) in enumerate(f.arcs):
        rest = f.arcs[:i] + f.arcs[i + 1 :]
        slope = 2 * a / sp.sqrt(sp.pi) * sp.exp(-(b**2))
        parts.append((slope, replace(f, arcs=rest, quad=f.quad + 2 * a**2, lin=f.lin - 2 * a * b)))
    return collect(parts)


@lru_cache(maxsize=4096)
def decompose(phi: Expr) -> Sum | None:
    """The normal form of φ(X), or None when φ is outside the family (tanh, softplus, 1/(1+x²), …).

    Raises `GaussianError` when E φ diverges, as for exp(x²).
    """
    if not phi.has(X):
        return collect([(phi, UNIT)])
    if phi == X:
        return ((ONE, Factor(power=1)),)
    if phi.is_Add or phi.is_Mul:
        total: Sum = () if phi.is_Add else ((ONE, UNIT),)
        for arg in phi.args:
            part = decompose(arg)
            if part is None:
                return None
            total = collect(total + part) if phi.is_Add else product(total, part)
        return total
    if phi.is_Pow and not isinstance(phi, sp.exp) and phi.base != sp.E:
        return _power(phi.base, phi.exp)
    rule = _ATOMS.get(phi.func)
    if rule is None:
        return None
    argument = phi.args[0].as_poly(X)
    if argument is None or argument.degree() > (2 if phi.func is sp.exp else 1):
        return None
    coefficients = [*argument.all_coeffs()[::-1], ZERO, ZERO]
    return rule(phi, *coefficients[:3])


def _power(base: Expr, exponent: Expr) -> Sum | None:
    part = decompose(base)
    if part is None or not (exponent.is_Integer and exponent >= 0):
        return None
    total: Sum = ((ONE, UNIT),)
    for _ in range(int(exponent)):
        total = product(total, part)
    return total


def _kink(phi: Expr, shift: Expr, slope: Expr, _: Expr) -> Sum | None:
    if shift != 0:
        return None
    rising = slope.is_positive
    if isinstance(phi, step):
        up = ((ONE, Factor(jump=STEP)),)
        return up if rising else ((ONE, UNIT), (-ONE, Factor(jump=STEP)))
    if isinstance(phi, relu):
        up = ((slope, Factor(power=1, jump=STEP)),)
        return up if rising else ((slope, Factor(power=1)), (-slope, Factor(power=1, jump=STEP)))
    if isinstance(phi, sign):
        return ((ONE if rising else -ONE, Factor(jump=SIGN)),)
    return ((sp.Abs(slope), Factor(power=1, jump=SIGN)),)


def _delta(phi: Expr, shift: Expr, slope: Expr, _: Expr) -> Sum | None:
    if shift != 0:
        return None
    order = int(phi.args[1]) if len(phi.args) > 1 else 0
    return ((1 / (sp.Abs(slope) * slope**order), Factor(delta=order)),)


def _erf(_phi: Expr, shift: Expr, slope: Expr, _: Expr) -> Sum:
    if slope.could_extract_minus_sign():
        return ((-ONE, Factor(arcs=((-slope, -shift),))),)
    return ((ONE, Factor(arcs=((slope, shift),))),)


def _exp(phi: Expr, shift: Expr, slope: Expr, bend: Expr) -> Sum:
    if not bend.is_nonpositive:
        raise GaussianError(
            f"E {phi} diverges: expected growth slower than a Gaussian decays, got exp of {sp.sstr(bend)}·x²"
        )
    return ((sp.exp(shift), Factor(quad=-2 * bend, lin=slope)),)


def _cos(phi: Expr, shift: Expr, slope: Expr, _: Expr) -> Sum:
    phase = shift if isinstance(phi, sp.cos) else shift - sp.pi / 2
    return _wave(ONE, UNIT, slope, phase)


def _hyperbolic(phi: Expr, shift: Expr, slope: Expr, _: Expr) -> Sum:
    flip = ONE if isinstance(phi, sp.cosh) else -ONE
    return collect([(sp.exp(shift) / 2, Factor(lin=slope)), (flip * sp.exp(-shift) / 2, Factor(lin=-slope))])


def _erfc(_phi: Expr, shift: Expr, slope: Expr, bend: Expr) -> Sum:
    return collect([(ONE, UNIT), *((-c, f) for c, f in _erf(_phi, shift, slope, bend))])


_ATOMS = {
    relu: _kink,
    step: _kink,
    sign: _kink,
    absolute: _kink,
    DiracDelta: _delta,
    sp.erf: _erf,
    sp.erfc: _erfc,
    sp.exp: _exp,
    sp.sin: _cos,
    sp.cos: _cos,
    sp.sinh: _hyperbolic,
    sp.cosh: _hyperbolic,
}
