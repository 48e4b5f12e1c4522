"""E φ(u)ψ(v) by what u and v have in common, in one dimension at a time and at every scale.

For a correlation cos θ = ρ ≥ 0 let u = √p(√ρ z + √(1−ρ) w) and v = √q(√ρ z + √(1−ρ) w′) with independent z, w, w′.
Then V[φ,ψ] = E_z Φ(z) Ψ(z) with Φ(z) = E_w φ(u), and for −ρ the same with Ψ(−z). Nodes are graded towards 0, so
that kinks at 0 and functions that bend within any fraction of √p are resolved alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special
from sympy import Expr

from tpc.gaussian.near_zero import careful_sides

Array = NDArray[Any]

LEAST = 1e-11  # the first node, in standard deviations: below it, functions are taken as constant
TAIL = 12.0  # standard deviations beyond which nothing is left
BEYOND = 9.5  # the same, of what is smoothed
CLOSE = 0.1  # a standard deviation within which no function bends that can be tabulated up to a variance of 1


@dataclass(frozen=True)
class Effort:
    """Spacing of nodes near 0, relative to the node, and far from it; the distance from 0, in standard deviations,
    from where so many Gauss–Hermite nodes do.
    """

    near: float = 0.18
    far: float = 0.12
    gauss: int = 32
    apart: float = 8.0


STANDARD, HIGH, HIGHEST = Effort(), Effort(0.13, 0.06, 64, 16.0), Effort(0.1, 0.03, 96, 32.0)


@lru_cache(maxsize=8)
def half_line(effort: Effort) -> tuple[Array, Array]:
    """Nodes and weights for ∫_0^∞ f(x) dx: the trapezoidal rule in t with log x / near + x / far = t."""
    ratio, top = effort.near / effort.far, max(TAIL, effort.apart + BEYOND)
    first = np.log(LEAST) + ratio * LEAST
    t = np.arange(first, np.log(top) + ratio * top, effort.near)
    x = special.wrightomega(t + np.log(ratio)) / ratio
    weight = effort.near * x / (1 + ratio * x)
    weight[0] += effort.near * x[0] / np.expm1(effort.near)  # of all nodes before the first
    return np.asarray(x), np.asarray(weight)


@lru_cache(maxsize=4)
def _gauss(count: int) -> tuple[Array, Array]:
    x, w = np.polynomial.hermite_e.hermegauss(count)
    return x, w / np.sqrt(2 * np.pi)


def density(z: Array) -> Array:
    """Of the standard normal distribution."""
    return np.asarray(np.exp(-z * z / 2) / np.sqrt(2 * np.pi))


def outer(effort: Effort) -> tuple[Array, Array]:
    """Nodes z > 0 and weights for E over z on either side of 0."""
    z, weight = half_line(effort)
    keep = z < TAIL
    return z[keep], weight[keep] * density(z[keep])


def smoothed(phi: Expr, variances: Array, theta: Array, effort: Effort = STANDARD) -> tuple[Array, Array]:
    """The even and the odd part of Φ at (angle, variance, node of `outer`), for angles in [0, π/2]."""
    plus, minus = careful_sides(phi)
    z, _ = outer(effort)
    deviation = np.sqrt(variances)
    even, odd = np.empty((2, len(theta), len(deviation), len(z)))
    for k, angle in enumerate(theta):
        above, below = _smoothed_sides(plus, minus, deviation, float(angle), z, effort)
        even[k], odd[k] = (above + below) / 2, (above - below) / 2
    return even, odd


def _smoothed_sides(plus: Any, minus: Any, deviation: Array, theta: float, z: Array, effort: Effort) -> Any:
    """Φ(z) and Φ(−z) of every standard deviation."""
    spread, common = np.sqrt(2) * np.sin(theta / 2), np.sqrt(max(np.cos(theta), 0.0))
    reach = np.searchsorted(z * common, effort.apart * spread)  # nodes before it see both sides of 0
    above, below = np.empty((2, len(deviation), len(z)))
    if reach:
        y, weight = half_line(effort)
        mean = z[:reach, None] * (common / spread)
        same, other = weight * density(y - mean), weight * density(y + mean)
        x = deviation[:, None] * (spread * y)
        right, left = plus(x), minus(x)
        above[:, :reach] = right @ same.T + left @ other.T
        below[:, :reach] = right @ other.T + left @ same.T
    if reach < len(z):
        close = spread * deviation.max() < CLOSE  # φ hardly bends within
        w, weight = _gauss(min(effort.gauss, STANDARD.gauss) if close else effort.gauss)
        x = np.maximum(common * z[reach:, None] + spread * w, 0)
        x = deviation[:, None, None] * x
        above[:, reach:], below[:, reach:] = plus(x) @ weight, minus(x) @ weight
    return above, below


def products(left: tuple[Array, Array], right: tuple[Array, Array], effort: Effort = STANDARD) -> tuple[Array, Array]:
    """V[φ,ψ] at (angle, p, q) for the angles θ, and for π − θ."""
    _, weight = outer(effort)
    even, odd = (2 * (a * weight) @ b.transpose(0, 2, 1) for a, b in zip(left, right, strict=True))
    return even + odd, even - odd


def single(phi: Expr, variances: Array, effort: Effort = STANDARD) -> Array:
    """E φ(u) for each variance, for regular φ whose kinks are at 0."""
    z, weight = outer(effort)
    x = np.sqrt(np.asarray(variances))[..., None] * z
    plus, minus = careful_sides(phi)
    return np.asarray((plus(x) + minus(x)) @ weight)


def energy(phi: Expr, variances: Array, effort: Effort = STANDARD) -> Array:
    """E φ(u)² for each variance."""
    z, weight = outer(effort)
    x = np.sqrt(np.asarray(variances))[..., None] * z
    return np.asarray(sum(side(x) ** 2 for side in careful_sides(phi)) @ weight)


def mehler(phi: Expr, variances: Array, terms: int, effort: Effort = STANDARD) -> Array:
    """E[φ(√p z) He_k(z)]/√k! for k = 0 … terms (first axis) and each p, for regular φ with kinks at 0."""
    z, weight = outer(effort)
    x = np.sqrt(np.asarray(variances))[..., None] * z
    plus, minus = (side(x) * weight for side in careful_sides(phi))
    older, newer = np.zeros_like(z), np.ones_like(z)
    out = []
    for k in range(terms + 1):  # normalised: h_{k+1} = (z h_k − √k h_{k−1})/√(k+1)
        out.append((plus + minus if k % 2 == 0 else plus - minus) @ newer)
        older, newer = newer, (z * newer - np.sqrt(k) * older) / np.sqrt(k + 1)
    return np.array(out)


def on_diagonal(phi: Expr, variances: Array, effort: Effort = STANDARD) -> Array:
    """V[φ,φ](p, q, ±√(pq))/√(V[φ,φ](p,p,p) V[φ,φ](q,q,q)) at (sign, p, q)."""
    z, weight = outer(effort)
    x = np.sqrt(variances)[:, None] * z
    plus, minus = (side(x) * np.sqrt(weight) for side in careful_sides(phi))
    scale = np.sqrt((plus**2 + minus**2).sum(axis=1))
    plus, minus = plus / scale[:, None], minus / scale[:, None]
    return np.array([plus @ plus.T + minus @ minus.T, plus @ minus.T + minus @ plus.T])
