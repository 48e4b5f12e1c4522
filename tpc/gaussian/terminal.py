"""Moments without polynomial factors: characteristic functions and orthant probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from itertools import product as choices

import sympy as sp
from sympy import Expr

from tpc.gaussian.covariance import Covariance
from tpc.gaussian.factors import STEP, Factor
from tpc.gaussian.primitives import angle, arctan2, dawson

Wave = tuple[int, Expr, Expr]  # site, frequency, phase


@dataclass(frozen=True)
class Threshold:
    """sign or erf as the sign of κ·x_site + mean + √noise·n, with n an independent standard normal."""

    site: int
    kappa: Expr
    noise: Expr
    mean: Expr


def thresholds(factors: Sequence[Factor], law: Covariance) -> tuple[list[Threshold], list[int]]:
    """The sign-like factors, and which of them (by position) are steps, step = (1 + sign)/2."""
    found: list[Threshold] = []
    steps: list[int] = []
    for i, f in enumerate(factors):
        if f.jump:
            if f.jump == STEP:
                steps.append(len(found))
            found.append(Threshold(i, sp.S.One, sp.S.Zero, law.mean[i]))
        for a, b in f.arcs:  # erf(t) = E sign(t√2 + n)
            root = sp.sqrt(2)
            found.append(Threshold(i, root * a, sp.S.One, root * (a * law.mean[i] + b)))
    return found, steps


def orthant(found: list[Threshold], steps: list[int], law: Covariance) -> Expr | None:
    """E of the product of sign-like factors (the arcsine law), for as many as have a closed form."""
    if len(found) == len(steps) == 2 and all(t.mean == 0 for t in found):
        return opening(law, found[0].site, found[1].site) / (2 * sp.pi)
    if len(found) == len(steps) == 1 and found[0].mean != 0:  # P(x + mean > 0), accurate in both tails
        return sp.erfc(-_ratio(found[0], law)) / 2
    signs = [t for k, t in enumerate(found) if k not in steps]
    total: Expr = sp.S.Zero
    for size in range(len(steps) + 1):
        for chosen in combinations(steps, size):
            value = _signs([*signs, *(found[k] for k in chosen)], law)
            if value is None:
                return None
            total += value
    return total / 2 ** len(steps)


def opening(law: Covariance, i: int, j: int) -> Expr:
    """π − θ, the angle of the quadrant x_i > 0, x_j > 0 seen in whitened coordinates."""
    if law.scale == 1:
        return angle(law.over[i][i], law.over[j][j], -law.over[i][j])
    root = sp.sqrt(law.scale) * sp.sqrt(law.determinant(i, j))
    return sp.pi / 2 + arctan2(law.over[i][j], root)


def _signs(signs: list[Threshold], law: Covariance) -> Expr | None:
    if not signs:
        return sp.S.One
    if len(signs) == 1:
        return sp.erf(_ratio(signs[0], law))
    if any(t.mean != 0 for t in signs):
        return None
    if len(signs) % 2:
        return sp.S.Zero
    return _arcsine(signs[0], signs[1], law) if len(signs) == 2 else None


def _ratio(t: Threshold, law: Covariance) -> Expr:
    """mean / √(2 Var) of the thresholded variable"""
    spread = t.kappa**2 * law.over[t.site][t.site] + t.noise * law.scale
    return t.mean * sp.sqrt(law.scale) / sp.sqrt(2 * spread)


def _arcsine(s: Threshold, t: Threshold, law: Covariance) -> Expr:
    """(2/π) arcsin of the correlation, as arctan2(cov, √(var var − cov²)), the root free of cancellation."""
    i, j = s.site, t.site
    square = (
        s.kappa**2 * t.kappa**2 * law.determinant(i, j)
        + s.kappa**2 * t.noise * law.over[i][i]
        + t.kappa**2 * s.noise * law.over[j][j]
        + s.noise * t.noise * law.scale
    )
    return 2 / sp.pi * arctan2(s.kappa * t.kappa * law.over[i][j], sp.sqrt(law.scale) * sp.sqrt(square))


def waves(found: list[Wave], law: Covariance) -> Expr:
    """E Π cos(w_k x_k + t_k)"""
    moved = [(i, w, t + w * law.mean[i]) for i, w, t in found]
    if len(moved) == 2:
        return _two_waves(moved[0], moved[1], law)
    total: Expr = sp.S.Zero
    for frequencies, phase in _sums(moved, law.size):
        total += sp.cos(phase) * sp.exp(-_spread(frequencies, law) / 2)
    return total / 2 ** (len(moved) - 1)


def _two_waves(first: Wave, second: Wave, law: Covariance) -> Expr:
    """e^{−S}(cos s cos t cosh x + sin s sin t sinh x), written without overflow:
    e^{|x|−S}·(A + B·tanh x)/(1 + tanh|x|)."""
    (i, w, s), (j, z, t) = first, second
    x = w * z * law.cov(i, j)
    spread = (w**2 * law.var(i) + z**2 * law.var(j)) / 2
    even, odd = sp.cos(s) * sp.cos(t), sp.sin(s) * sp.sin(t)
    return sp.exp(sp.Abs(x) - spread) * (even + odd * sp.tanh(x)) / (1 + sp.tanh(sp.Abs(x)))


def wave_and_sign(found: list[Wave], sign: Threshold, law: Covariance) -> Expr | None:
    """E[sign(y) Π cos(…)] by E[sign(y) sin L] = e^{−Var L/2} erfi(Cov(y, L)/√(2 Var y))."""
    if sign.mean != 0:
        return None
    total: Expr = sp.S.Zero
    variance = sign.kappa**2 * law.var(sign.site) + sign.noise
    for frequencies, phase in _sums([(i, w, t + w * law.mean[i]) for i, w, t in found], law.size):
        cov = sp.Add(*(w * law.cov(k, sign.site) for k, w in enumerate(frequencies)))
        ratio = sign.kappa * cov / sp.sqrt(2 * variance)
        decay = sp.exp(ratio**2 - _spread(frequencies, law) / 2)
        total -= sp.sin(phase) * decay * 2 / sp.sqrt(sp.pi) * dawson(ratio)
    return total / 2 ** (len(found) - 1)


def _sums(found: list[Wave], size: int) -> list[tuple[list[Expr], Expr]]:
    """Π cos(a_k) as an average of cos(a_1 ± a_2 ± …): the frequencies per site and the phase of each."""
    out: list[tuple[list[Expr], Expr]] = []
    for signs in choices((1, -1), repeat=len(found) - 1):
        frequencies: list[Expr] = [sp.S.Zero] * size
        phase: Expr = sp.S.Zero
        for flip, (i, w, t) in zip((1, *signs), found):
            frequencies[i] += flip * w
            phase += flip * t
        out.append((frequencies, phase))
    return out


def _spread(frequencies: list[Expr], law: Covariance) -> Expr:
    pairs = choices(range(law.size), repeat=2)
    return sp.Add(*(frequencies[a] * frequencies[b] * law.cov(a, b) for a, b in pairs))
