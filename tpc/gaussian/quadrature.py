"""Two-dimensional Gaussian expectations in polar coordinates, split where u or v changes sign.

With u = √p·r·sin a and v = √q·r·sin(w − a), the plane is four sectors bounded by the lines u = 0 and v = 0:
two of width π − θ where the signs agree and two of width θ where they differ (cos θ = ρ). A kink at 0 lies on
those lines, so inside a sector the integrand is smooth for kinked and smooth functions alike, at every ρ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr

from tpc.gaussian.evaluate import sides

Array = NDArray[Any]
REACH = 3.2  # log r up to which the radial rule runs: e^{−r²/2} has long vanished


@dataclass(frozen=True)
class Rule:
    """Nodes and weights: radii for ∫ r e^{−r²/2} dr, and shares of a sector's width in (0, 1).

    `rest` is 1 − share, computed apart so that neither end of a sector loses digits.
    """

    radius: Array
    radial_weight: Array
    share: Array
    rest: Array
    share_weight: Array


def _radii(spacing: float) -> tuple[Array, Array]:
    """Double-exponential rule on (0, ∞): r = e^{t − e^{−t}} reaches r = 0 geometrically."""
    t = np.arange(-4.6, REACH, spacing)
    r = np.exp(t - np.exp(-t))
    weight = spacing * r * (1 + np.exp(-t)) * r * np.exp(-r * r / 2)
    keep = weight > 1e-19
    return r[keep], weight[keep]


@lru_cache(maxsize=8)
def fine() -> Rule:
    """Double-exponential in both variables: the rule that checks the others."""
    t = np.arange(-75, 76) * 0.045
    y = np.pi / 2 * np.sinh(t)
    share, rest = 1 / (1 + np.exp(-2 * y)), 1 / (1 + np.exp(2 * y))
    radius, radial = _radii(0.04)
    return Rule(radius, radial, share, rest, 0.045 * np.pi * np.cosh(t) * share * rest)


@lru_cache(maxsize=8)
def fast(nodes: int) -> Rule:
    """Gauss–Legendre with nodes drawn to both ends of a sector: for building tables."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    x, w = (x + 1) / 2, w / 2
    radius, radial = _radii(0.06)
    share = x * x * (3 - 2 * x)
    return Rule(radius, radial, share, share[::-1], w * 6 * x * (1 - x))


def pair(phi: Expr, psi: Expr, p: float, q: float, theta: float, coangle: float | None = None) -> float:
    """E φ(u)ψ(v) for regular φ, ψ (no δ) whose kinks are at 0, with cos θ the correlation.

    Give `coangle` = π − θ where θ is close to π and that difference is known better.
    """
    rule = fine()
    f, g = sides(phi), sides(psi)
    total = 0.0
    agree = np.pi - theta if coangle is None else coangle
    for width, signs in ((agree, ((0, 0), (1, 1))), (theta, ((0, 1), (1, 0)))):
        u = np.sqrt(p) * rule.radius[:, None] * np.sin(width * rule.share)
        v = np.sqrt(q) * rule.radius[:, None] * np.sin(width * rule.rest)
        for s, t in signs:
            total += width * float(rule.radial_weight @ (f[s](u) * g[t](v)) @ rule.share_weight)
    return total / (2 * np.pi)


def single(phi: Expr, variances: Array) -> Array:
    """E φ(u) for each variance, for regular φ whose kinks are at 0."""
    half, weight = _half_line()
    z = np.sqrt(np.asarray(variances))[..., None] * half
    plus, minus = sides(phi)
    return np.asarray((plus(z) + minus(z)) @ weight)


def is_resolved(phi: Expr, variance: float, tolerance: float = 1e-9) -> bool:
    """Whether nodes as far apart as a table's already give E φ(√p z)²: cheap to ask before building one."""
    energies = []
    for half, weight in (_half_line(), _half_line(0.06)):
        energies.append(sum(float(f(np.sqrt(variance) * half) ** 2 @ weight) for f in sides(phi)))
    return abs(energies[0] - energies[1]) <= tolerance * energies[0]


@lru_cache(maxsize=2)
def _half_line(spacing: float = 0.02) -> tuple[Array, Array]:
    """Nodes and weights for ∫_0^∞ · e^{−z²/2} dz / √(2π)."""
    t = np.arange(-4.6, REACH, spacing)
    z = np.exp(t - np.exp(-t))
    weight = spacing * z * (1 + np.exp(-t)) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    keep = weight > 1e-22
    return z[keep], weight[keep]


def mehler_coefficients(phi: Expr, variances: Array, count: int) -> Array:
    """E[φ(√p z) He_k(z)]/√k! for k = 0 … count (first axis) and each p, for regular φ with kinks at 0."""
    half, weight = _half_line()
    plus, minus = (f(np.sqrt(np.asarray(variances))[..., None] * half) * weight for f in sides(phi))
    older, newer = np.zeros_like(half), np.ones_like(half)
    out = []
    for k in range(count + 1):  # normalised: h_{k+1} = (z h_k − √k h_{k−1})/√(k+1)
        out.append((plus + minus if k % 2 == 0 else plus - minus) @ newer)
        older, newer = newer, (half * newer - np.sqrt(k) * older) / np.sqrt(k + 1)
    return np.array(out)
