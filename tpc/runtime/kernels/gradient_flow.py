"""Gradient flow on the squared loss in a kernel limit, at infinite and at finite time.

The prediction at time t is K(x, X) c with c = K⁻¹(1 − e^{−tK}) y: the network of width ∞ after training at rate 1 on
½ Σ (f − y)² for a time t, mean over initializations (Jacot et al. 2018; Lee et al. 2019, eq. 14).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.errors import UsageError
from tpc.runtime.models.divergence import DivergedError

Array = NDArray[Any]


def flow_coefficients(
    multiply: Callable[[Array], Array], y: Array, time: float, steps: int = 100
) -> tuple[Array, float]:
    """c = φ(K) y with φ(λ) = (1 − e^{−tλ})/λ for targets y (n, k), and an estimate of its relative error.

    Lanczos' method, column by column but with one product K·(n, k) for all of them per step; K itself is only
    multiplied with. The basis is kept orthogonal in full, so it takes `steps`·n·k numbers. The error is how much the
    last tenth of the steps still changed.
    """
    if not np.isfinite(y).all():
        raise UsageError("expected finite targets of gradient flow, got NaN or infinity")
    n, k = y.shape
    steps = min(steps, n)
    size = np.linalg.norm(y.astype(np.float64), axis=0)
    basis = np.zeros((steps, n, k), y.dtype)
    basis[0] = y / np.where(size > 0, size, 1)
    alpha, beta = np.zeros((steps, k)), np.zeros((steps, k))
    for j in range(steps):
        w = multiply(basis[j]).astype(np.float64)
        alpha[j] = np.einsum("nk,nk->k", w, basis[j])
        for _ in range(2):  # twice is enough (Parlett)
            for q in basis[: j + 1]:
                w -= q * np.einsum("nk,nk->k", q, w)
        beta[j] = np.linalg.norm(w, axis=0)
        if j + 1 < steps:
            basis[j + 1] = w / np.where(beta[j] > 0, beta[j], 1)
    if not (np.isfinite(alpha).all() and np.isfinite(beta).all()):
        raise DivergedError(
            f"gradient flow for a time {time:g} is not finite: the products with the kernel matrix leave the range of "
            f"{y.dtype}; take float64, or scale the inputs down",
            quantity="coefficients",
        )
    found, before = (
        _combined(basis, alpha[:m], beta[:m], size, time) for m in (steps, max(1, steps - max(1, steps // 10)))
    )
    scale = max(float(np.linalg.norm(found)), np.finfo(np.float64).tiny)
    return found.astype(y.dtype), float(np.linalg.norm(found - before)) / scale


def _combined(basis: Array, alpha: Array, beta: Array, size: Array, time: float) -> Array:
    """Σ_j basis_j · (φ(T) e₁)_j · |y| with the tridiagonal T of each column."""
    m, k = alpha.shape
    made = np.zeros(basis.shape[1:])
    for column in range(k):
        t = np.diag(alpha[:, column]) + np.diag(beta[: m - 1, column], 1) + np.diag(beta[: m - 1, column], -1)
        values, vectors = np.linalg.eigh(t)
        weights = vectors @ (flow(values, time) * vectors[0])
        made[:, column] = size[column] * np.tensordot(weights, basis[:m, :, column], 1)
    return made


def flow(values: Array, time: float) -> Array:
    """(1 − e^{−tλ})/λ, t at λ = 0."""
    positive = np.maximum(values, 0)
    small = positive * time < 1e-12
    safe = np.where(small, 1.0, positive)
    found: Array = np.where(small, time, -np.expm1(-time * safe) / safe)
    return found
