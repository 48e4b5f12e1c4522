"""Kernels without a closed form on a device: the Chebyshev tables of tpc.gaussian.table, evaluated there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tpc.gaussian.numeric import NumericKernel
from tpc.gaussian.table import BEND, Basis, Table

Angle = Callable[[Any, Any, Any], Any]


def on_device(kernel: NumericKernel, xp: Any, angle: Angle, real: type[np.floating[Any]] = np.float32) -> Angle:
    """The kernel as a function of device arrays p, q, c that broadcast; all work is in the type `real`."""
    parts = [(real(weight), _table(table, xp, real)) for weight, table in kernel.parts]

    def evaluate(p: Any, q: Any, c: Any) -> Any:
        p, q, c = (xp.asarray(x, dtype=real) for x in (p, q, c))
        x = 1 - angle(p, q, c) * real(2 / np.pi)
        total = parts[0][1](p, q, x) * parts[0][0]
        for weight, table in parts[1:]:
            total = total + table(p, q, x) * weight
        return total

    return evaluate


def _table(table: Table, xp: Any, real: type[np.floating[Any]]) -> Angle:
    """The table as a function of p, q and 1 − 2θ/π."""
    core = xp.asarray(table.core.astype(real))
    left, right = _basis(table.left, xp, real), _basis(table.right, xp, real)
    stride = int(table.orders[1] - table.orders[0]) if len(table.orders) > 1 else 1

    def evaluate(p: Any, q: Any, x: Any) -> Any:
        turn = 2 * x if stride == 1 else 2 * (2 * x * x - 1)  # T_{k+s} = turn·T_k − T_{k−s}
        weights = xp.einsum("ijk,i...->kj...", core, left(p))
        values = right(q)
        newer, older = xp.zeros_like(x), xp.zeros_like(x)
        for k in range(len(table.orders) - 1, -1, -1):
            newer, older = _contracted(weights[k], values, xp) + turn * newer - older, newer
        start, back = _first_two(table, x, xp)
        value = newer * start - older * back
        for power, variance in zip(table.roots, (p, q), strict=True):
            for _ in range(power):
                value = value * xp.where(variance > 0, 1 / xp.sqrt(variance), 0)
        return value.astype(real, copy=False)

    return evaluate


def _basis(basis: Basis, xp: Any, real: type[np.floating[Any]]) -> Callable[[Any], Any]:
    """p ↦ (rank, *p.shape): an envelope times Chebyshev series in s(p)."""
    coefficients = xp.asarray(basis.coefficients.T.astype(real))  # (degree + 1, rank)
    constant = basis.coefficients.shape == (1, 1)

    def evaluate(p: Any) -> Any:
        shape = (coefficients.shape[1], *[1] * p.ndim)
        if constant:
            return xp.broadcast_to(coefficients[0].reshape(shape), (1, *p.shape))
        deviation = xp.sqrt(xp.minimum(p, real(basis.p_max)) / real(basis.p_max))
        x = 2 * (1 + BEND) * deviation / (deviation + BEND) - 1
        newer, older = xp.zeros((1, *p.shape), real), xp.zeros((1, *p.shape), real)
        for k in range(len(coefficients) - 1, 0, -1):
            newer, older = coefficients[k].reshape(shape) + 2 * x * newer - older, newer
        value = coefficients[0].reshape(shape) + x * newer - older
        return value * p ** (basis.zero / 2) * (1 + p) ** ((basis.growth - basis.zero) / 2)

    return evaluate


def _contracted(weight: Any, right: Any, xp: Any) -> Any:
    """Σ_j weight_j right_j, as one matrix product where one is a column and the other a row."""
    if weight.ndim == right.ndim == 3:
        if weight.shape[1] == right.shape[2] == 1:
            return right[:, :, 0].T @ weight[:, 0, :]
        if weight.shape[2] == right.shape[1] == 1:
            return weight[:, :, 0].T @ right[:, 0, :]
    return (weight * right).sum(axis=0)


def _first_two(table: Table, x: Any, xp: Any) -> tuple[Any, Any]:
    """T at the first order and at the one before it, where Clenshaw's recurrence ends."""
    if len(table.orders) == 1 or table.orders[1] - table.orders[0] == 1:
        return xp.ones_like(x), x
    return (x, x) if table.orders[0] == 1 else (xp.ones_like(x), 2 * x * x - 1)
