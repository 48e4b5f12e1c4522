"""Build and check the tables of numeric kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sympy as sp
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from sympy import Expr

from tpc.gaussian.evaluate import sides
from tpc.gaussian.quadrature import fast, mehler_coefficients, pair, single
from tpc.gaussian.regular import parity
from tpc.gaussian.table import Basis, Table, envelope, nodes, variances

Array = NDArray[Any]
ONE = sp.S.One

RANK_TOLERANCE = 1e-14  # of singular values and Chebyshev coefficients, relative to √(V[φ,φ]V[ψ,ψ])
PROBES = 24


@dataclass(frozen=True)
class Effort:
    """How many nodes a table is built from."""

    variances: int = 40
    angles: int = 96
    sector: int = 60


STANDARD, HIGH = Effort(), Effort(56, 144, 100)


def fit(phi: Expr, psi: Expr, p_max: float, effort: Effort = STANDARD) -> Table:
    """The table of V[φ,ψ] for regular φ, ψ with kinks at 0 at most; ψ = 1 gives the unary E φ."""
    p = variances(effort.variances, p_max)
    left = _scale(phi, p)
    if psi == ONE:
        return _table(single(phi, p)[None, :, None], left, np.ones(1), phi, psi, p_max)
    values = _sector_sums(phi, psi, p, effort)
    return _table(values, left, _scale(psi, p), phi, psi, p_max)


def fit_delta(phi: Expr, p_max: float, effort: Effort = STANDARD) -> Table:
    """The table of E φ(u)δ(v) = E φ(√(p − c²/q) z)/√(2πq), by conditioning on v = 0."""
    p, theta = variances(effort.variances, p_max), _angles(effort.angles)
    inner = single(phi, p[None, :] * np.sin(theta)[:, None] ** 2) / np.sqrt(2 * np.pi)
    table = _table(inner[:, :, None], _scale(phi, p), np.ones(1), phi, ONE, p_max)
    return Table(table.left, table.right, table.core, table.orders, (0, 1))


def fit_coefficients(phi: Expr, terms: int, p_max: float = 100.0) -> Basis:
    """The Mehler coefficients a_0(√p) … a_terms(√p) of a regular φ with kinks at 0, as functions of p."""
    p = variances(STANDARD.variances, p_max)
    zero, growth = exponents(phi, p_max)
    smooth = mehler_coefficients(phi, p, terms) / envelope(p, zero, growth)
    return Basis(_to_coefficients(smooth, axis=1), p_max, zero, growth)


def largest_error(table: Table, phi: Expr, psi: Expr, p_max: float) -> float:
    """The largest |table − quadrature|/√(V[φ,φ]V[ψ,ψ]) over fixed pseudo-random probes and the corners."""
    rng = np.random.default_rng(20211)
    p = np.exp(rng.uniform(np.log(1e-3), np.log(p_max), (PROBES + 2, 2)))
    p[-4:] = [[1e-3, p_max], [p_max, 1e-3], [1e-6, 1.0], [p_max, p_max]]
    theta = np.concatenate([rng.uniform(0, np.pi, PROBES - 4), [0, np.pi, 1e-5, np.pi - 1e-5, 0.1, 3.0]])
    found = table.at_angle(p[:, 0], p[:, 1], theta)
    right = np.ones(len(p)) if psi == ONE else _scale(psi, p[:, 1])
    if psi == ONE:
        wanted = single(phi, p[:, 0])
    else:
        wanted = np.array([pair(phi, psi, a, b, t) for (a, b), t in zip(p, theta, strict=True)])
    return float(np.max(np.abs(found - wanted) / (_scale(phi, p[:, 0]) * right)))


def largest_delta_error(table: Table, phi: Expr, p_max: float) -> float:
    """The largest error of `fit_delta`'s table for q = 1, relative to √V[φ,φ]."""
    rng = np.random.default_rng(20212)
    p = np.exp(rng.uniform(np.log(1e-3), np.log(p_max), PROBES))
    theta = np.concatenate([rng.uniform(0, np.pi, PROBES - 4), [0, np.pi, 1e-5, np.pi / 2]])
    wanted = single(phi, p * np.sin(theta) ** 2) / np.sqrt(2 * np.pi)
    return float(np.max(np.abs(table.at_angle(p, np.ones(PROBES), theta) - wanted) / _scale(phi, p)))


@lru_cache(maxsize=512)
def exponents(phi: Expr, p_max: float) -> tuple[float, float]:
    """(z, g) with E φ(√p z)² ~ p^z near p = 0 and ~ p^g for large p, or at p_max where φ outgrows powers."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        energy = single(phi**2, np.array([1e-12, 4e-12, p_max, 4 * p_max, 1e8, 4e8]))
        zero, near, far = np.diff(np.log(energy))[::2] / np.log(4)
    growth = far if np.isfinite(far) else near
    return float(np.round(np.nan_to_num(zero))), float(np.clip(np.nan_to_num(growth, posinf=24), -2, 24))


def _scale(phi: Expr, p: Array) -> Array:
    return np.sqrt(single(phi**2, p))


def _angles(count: int) -> Array:
    """θ at the Chebyshev nodes x = 1 − 2θ/π"""
    return np.asarray(np.pi * (1 - nodes(count)) / 2)


def _sector_sums(phi: Expr, psi: Expr, p: Array, effort: Effort) -> Array:
    """V[φ,ψ] on the grid (angle, p, q = p); one sector width serves the angles θ and π − θ."""
    f, g = list(sides(phi)), list(sides(psi))
    mirror = parity(phi) if parity(phi) == parity(psi) else None  # φ(−x) = ±φ(x) halves the work
    if mirror is not None:
        f, g = f[:1], g[:1]
    rule, theta, count = fast(effort.sector), _angles(effort.angles), len(p)
    values = np.zeros((len(theta), count, count))
    reach = np.sqrt(p)[:, None, None] * rule.radius[:, None]
    weight = np.outer(rule.radial_weight, rule.share_weight) / (2 * np.pi)
    for k, width in enumerate(theta):
        u = reach * np.sin(width * rule.share)
        left = [side(u) for side in f]
        right = [x[:, :, ::-1] for x in left] if phi == psi else [side(u[:, :, ::-1]) for side in g]
        left = [(x * (weight * width)).reshape(count, -1) for x in left]
        right = [x.reshape(count, -1).T for x in right]
        if mirror is None:
            values[len(theta) - 1 - k] += left[0] @ right[0] + left[1] @ right[1]
            values[k] += left[0] @ right[1] + left[1] @ right[0]
        else:
            agree = 2 * left[0] @ right[0]
            values[len(theta) - 1 - k] += agree
            values[k] += agree if mirror == 0 else -agree
    return values


def _table(values: Array, left: Array, right: Array, phi: Expr, psi: Expr, p_max: float) -> Table:
    """Compress values[angle, p, q]: Chebyshev in θ, then one orthogonal basis per variance (Tucker)."""
    scaled = values / left[:, None] / right
    core = _to_coefficients(scaled, axis=0)
    left_basis = _directions(np.moveaxis(core, 1, 0))
    right_basis = _directions(np.moveaxis(core, 2, 0))
    core = np.einsum("kpq,pi,qj->ijk", core, left_basis, right_basis)
    size = np.abs(core).max(axis=(0, 1))
    orders = np.arange(1 + int(np.max(np.nonzero(size > RANK_TOLERANCE * size.max()), initial=0)))
    for first in (0, 1):
        if len(orders) > 2 and np.all(size[1 - first : len(orders) : 2] < RANK_TOLERANCE * size.max()):
            orders = orders[first::2]
    bases = _basis(left, left_basis, phi, p_max), _basis(right, right_basis, psi, p_max)
    return Table(*bases, core[:, :, orders], orders)


def _basis(scale: Array, directions: Array, phi: Expr, p_max: float) -> Basis:
    if phi == ONE:
        return Basis(directions[:1, :1], p_max)
    zero, growth = exponents(phi, p_max)
    smooth = scale / envelope(variances(len(scale), p_max), zero, growth)
    return Basis(_to_coefficients(smooth[:, None] * directions, axis=0).T, p_max, zero, growth)


def _directions(unfolded: Array) -> Array:
    rows = unfolded.reshape(len(unfolded), -1)
    u, s, _ = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(u[:, : max(1, int(np.sum(s > RANK_TOLERANCE * s[0])))])


def _to_coefficients(values: Array, axis: int) -> Array:
    """Chebyshev coefficients from values at the Chebyshev nodes along an axis."""
    count = values.shape[axis]
    inverse = np.linalg.inv(chebyshev.chebvander(nodes(count), count - 1))
    return np.moveaxis(np.tensordot(inverse, values, (1, axis)), 0, axis)
