"""Kernels without a closed form: what they need of φ and ψ, and the tables that evaluate them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr
from threadpoolctl import threadpool_limits

from tpc.errors import GaussianError
from tpc.gaussian.evaluate import gap
from tpc.gaussian.fitting import (
    HIGH,
    STANDARD,
    Effort,
    exponents,
    fit,
    fit_delta,
    largest_delta_error,
    largest_error,
)
from tpc.gaussian.quadrature import is_resolved, pair, single
from tpc.gaussian.regular import split_delta
from tpc.gaussian.table import Table
from tpc.program.functions import X

Array = NDArray[Any]

FASTEST_GROWTH = 12.0  # E φ² grows no faster than p^12 where a table is tried
TOLERANCE = 1e-10  # relative to √(V[φ,φ](p, p, p) V[ψ,ψ](q, q, q))
DOMAINS = (100.0, 10.0, 1.0)
WITHIN_REACH = 1e-6  # an error that more nodes may still bring below the tolerance


@dataclass(frozen=True)
class NumericKernel:
    """V[φ,ψ] ≈ Σ weight · table, accurate to `error` relative to √(V[φ,φ](p,p,p) V[ψ,ψ](q,q,q)).

    The bound holds for p, q in [1e-3, p_max] and every correlation; outside, the kernel stays finite and
    continues the scaling of φ and ψ.
    """

    parts: tuple[tuple[float, Table], ...]
    p_max: float
    error: float

    def __call__(self, p: Any, q: Any, c: Any) -> Array:
        """Values at arrays of variances and covariances, which broadcast; float32 for a float32 covariance."""
        kind = np.float32 if np.asarray(c).dtype == np.float32 else np.float64
        p, q, c = (np.asarray(x, dtype=kind) for x in (p, q, c))
        total = self.parts[0][1](p, q, c) * kind(self.parts[0][0])
        for weight, table in self.parts[1:]:
            total = total + table(p, q, c) * kind(weight)
        return np.asarray(total)

    def truncated(self, tolerance: float) -> NumericKernel:
        """A cheaper kernel with a relative error of at most `error` + `tolerance`."""
        parts = tuple((weight, table.truncated(tolerance / len(self.parts))) for weight, table in self.parts)
        return NumericKernel(parts, self.p_max, self.error + tolerance)


@lru_cache(maxsize=256)
def numeric_kernel(phi: Expr, psi: Expr) -> NumericKernel:
    """Build the tables of V[φ,ψ] and check them against an independent quadrature.

    Raises `GaussianError` when the kernel cannot be tabulated to `TOLERANCE`.
    """
    error = np.inf
    for p_max in DOMAINS:
        for effort in (STANDARD, HIGH):
            with threadpool_limits(1):  # many small products: threads only wait for each other
                kernel, error = _attempt(phi, psi, p_max, effort)
            if error < TOLERANCE:
                return kernel
            if error > WITHIN_REACH:
                break
    reached = f"got {error:.0e}" if np.isfinite(error) else "but it varies or grows too fast to resolve"
    raise GaussianError(
        f"no accurate kernel for φ = {phi}, ψ = {psi}: expected a relative error below {TOLERANCE:.0e} for "
        f"variances up to 1, {reached}\n  Fix: use a smoother or more slowly varying nonlinearity"
    )


def value_at(phi: Expr, psi: Expr, p: float, q: float, c: float) -> float:
    """V[φ,ψ] at one point, straight from quadrature."""
    (left, a), (right, b) = split_delta(phi), split_delta(psi)
    for f, variance in ((left, p), (right, q)):
        if f.has(X) and variance > 0 and not is_resolved(f, variance):
            raise GaussianError(
                f"no accurate value for φ = {phi}, ψ = {psi}: {f} varies too fast at the variance {variance:g}\n"
                "  Fix: use a smoother or more slowly varying nonlinearity, or a smaller variance"
            )
    root = float(gap(p, q, c))
    angle = float(np.arctan2(root, c))
    rest = float(np.arctan2(root, -c)) if root or c else np.pi  # at a zero vector θ = 0
    total = 0.0
    if left != 0 and right != 0:
        total += pair(left, right, p, q, angle, rest)
    for weight, regular, variance in ((b, left, q), (a, right, p)):
        if weight != 0 and variance > 0:
            given = np.array([root**2 / variance])
            total += float(weight) * float(single(regular, given)[0]) / np.sqrt(2 * np.pi * variance)
    return float(total)


def _attempt(phi: Expr, psi: Expr, p_max: float, effort: Effort) -> tuple[NumericKernel, float]:
    (left, a), (right, b) = split_delta(phi), split_delta(psi)
    varying = [f for f in (left, right) if f.has(X)]
    if any(exponents(f, p_max)[1] > FASTEST_GROWTH or not is_resolved(f, p_max) for f in varying):
        return NumericKernel((), p_max, np.inf), np.inf
    parts: list[tuple[float, Table]] = []
    errors = [0.0]
    if left != 0 and right != 0:
        parts.append((1.0, fit(left, right, p_max, effort)))
        errors.append(largest_error(parts[-1][1], left, right, p_max))
    for weight, regular, mirrored in ((b, left, False), (a, right, True)):
        if weight != 0 and regular != 0:
            table = fit_delta(regular, p_max, effort)
            errors.append(largest_delta_error(table, regular, p_max))
            parts.append((float(weight), table.mirrored() if mirrored else table))
    error = max(errors)
    return NumericKernel(tuple(parts), p_max, max(4 * error, 1e-13)), error if np.isfinite(error) else np.inf
