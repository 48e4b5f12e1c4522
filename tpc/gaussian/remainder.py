"""Numbers for Mehler series: coefficients of any φ, and remainder bounds by Parseval and Cauchy–Schwarz.

Σ_{k>K} |a_k b_k ρ^k| ≤ |ρ|^{K+1} t_K(φ) t_K(ψ) with t_K(φ)² = E φ(s z)² − Σ_{k≤K} a_k(s)². A δ has no such
tail, but b_k(Ψ') = √(k+1) b_{k+1}(Ψ)/s and a_k(φ) = s a_{k−1}(φ')/√k, so one derivative moves over.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf, sqrt
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from sympy import DiracDelta, Expr

from tpc.gaussian.closed import closed_form
from tpc.gaussian.evaluate import precise
from tpc.gaussian.mehler import coefficients
from tpc.gaussian.numeric import check_domain
from tpc.gaussian.regular import split_delta
from tpc.gaussian.smoothing import HIGHEST, energy, mehler
from tpc.gaussian.symbols import SIGMA, C, P, Q
from tpc.program.functions import X, step

DIGITS = 40


def coefficient_values(phi: Expr, p: float, terms: int) -> list[float]:
    """a_0(√p) … a_terms(√p); 0 where a δ meets a zero vector, as in V."""
    if p == 0 and phi.has(DiracDelta):
        return [0.0] * (terms + 1)
    return [float(a) for a in _coefficients(phi, p, terms)]


@lru_cache(maxsize=512)
def _coefficients(phi: Expr, p: float, terms: int) -> list[Any]:
    closed = coefficients(phi, terms)
    if closed is not None:
        deviation = mpmath.sqrt(p)
        return [precise(a, {SIGMA: deviation}, DIGITS) for a in closed]
    regular, weight = split_delta(phi)
    check_domain(regular, np.array(p), (phi, regular))
    values = [mpmath.mpf(float(a)) for a in mehler(regular, np.array(p), terms, HIGHEST)]
    if weight != 0:
        spike = _coefficients(DiracDelta(X), p, terms)
        values = [a + float(weight) * b for a, b in zip(values, spike, strict=True)]
    return values


def _tail(phi: Expr, p: float, terms: int) -> float:
    """√(E φ(√p z)² − Σ_{k ≤ terms} a_k²), rounded up."""
    if terms < 0:
        taken, energy = mpmath.mpf(0), _energy(phi, p, closed_form(phi).value)
    else:
        taken = sum((a * a for a in _coefficients(phi, p, terms)), mpmath.mpf(0))
        energy = _energy(phi, p, closed_form(phi).value)
    return sqrt(max(float(energy - taken), 0.0) + float(energy) * 4e-16)


def _energy(phi: Expr, p: float, value: Expr | None) -> Any:
    if value is None:
        return mpmath.mpf(float(energy(phi, np.array([p]), HIGHEST)[0]))
    return precise(value, {P: p, Q: p, C: p}, DIGITS)


def remainder_bound(phi: Expr, psi: Expr, terms: int, p: float, q: float, c: float) -> float:
    """A bound on Σ_{k > terms} |a_k(√p) b_k(√q) ρ^k|."""
    if p <= 0 or q <= 0:
        return 0.0
    if any(part.args[1:] for f in (phi, psi) for part in f.atoms(DiracDelta)):
        return inf  # a derivative of δ
    rho = min(abs(c) / sqrt(p) / sqrt(q), 1.0)
    (left, a), (right, b) = split_delta(phi), split_delta(psi)
    bound = 0.0
    if left != 0 and right != 0:
        bound += _tail(left, p, terms) * _tail(right, q, terms)
    if b != 0:
        bound += abs(float(b)) * _one_derivative_over(left, p, q, terms)
    if a != 0:
        bound += abs(float(a)) * _one_derivative_over(right, q, p, terms)
    if a != 0 and b != 0:
        bound = inf
    return bound * rho ** (terms + 1)


def _one_derivative_over(phi: Expr, p: float, q: float, terms: int) -> float:
    """Bound for V[φ, δ]: √2·√(p/q)·t_{K−1}(φ')·t_{K+1}(step)."""
    slope, spike = split_delta(phi.diff(X))
    if spike != 0:
        return inf
    if slope == 0:
        return 0.0
    return float(sp.sqrt(2)) * sqrt(p) / sqrt(q) * _tail(slope, p, terms - 1) * _tail(step(X), q, terms + 1)
