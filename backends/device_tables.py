"""Kernels without a closed form on a device: the Chebyshev tables of tpc.gaussian.table, evaluated there.

Which tables a block needs is decided on the host, from the variances of its rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.gaussian.numeric import Curve, NumericKernel, PairTables, cells_of, over_cells
from tpc.gaussian.table import Basis, Table

Array = NDArray[Any]
Angle = Callable[[Any, Any, Any], Any]
Host = Callable[[Any], Array]


def on_device(
    kernel: NumericKernel, xp: Any, angle: Angle, to_host: Host, real: type[np.floating[Any]] = np.float32
) -> Angle:
    """The kernel as a function of device arrays p, q, c that broadcast; all work is in the type `real`."""
    parts: list[tuple[float, Angle]] = []
    if kernel.mean is not None:
        curve = kernel.mean
        parts.append((1.0, lambda p, q, c: _curve(curve, p, xp, to_host).astype(real) + 0 * (q + c)))
    if kernel.pair is not None:
        parts.append((1.0, _tables(kernel.pair, xp, angle, to_host, real)))
    parts += [(weight, _spike(curve, mirrored, xp, angle, to_host, real)) for weight, curve, mirrored in kernel.spikes]

    def evaluate(p: Any, q: Any, c: Any) -> Any:
        p, q, c = (xp.asarray(x, dtype=real) for x in (p, q, c))
        total = parts[0][1](p, q, c) * real(parts[0][0])
        for weight, part in parts[1:]:
            total = total + part(p, q, c) * real(weight)
        return total

    return evaluate


def _tables(pair: PairTables, xp: Any, angle: Angle, to_host: Host, real: type[np.floating[Any]]) -> Angle:
    known: dict[tuple[int, int], Angle] = {}

    def table(i: int, j: int) -> Angle:
        if (i, j) not in known:
            known[i, j] = _table(pair.table(i, j), xp, angle, real)
        return known[i, j]

    def evaluate(p: Any, q: Any, c: Any) -> Any:
        cells = cells_of(pair, to_host(p), to_host(q))
        return over_cells(cells, table, p, q, c, xp)

    return evaluate


def _spike(curve: Curve, mirrored: bool, xp: Any, angle: Angle, to_host: Host, real: type[np.floating[Any]]) -> Angle:
    """E φ(u)δ(v) as in tpc.gaussian.numeric."""

    def evaluate(p: Any, q: Any, c: Any) -> Any:
        p, q = (q, p) if mirrored else (p, q)
        given = p * xp.sin(angle(p, q, xp.abs(c))) ** 2
        root = xp.where(q > 0, 1 / xp.sqrt(xp.where(q > 0, q, 1)), 0)
        return (_curve(curve, given, xp, to_host) * (root / float(np.sqrt(2 * np.pi)))).astype(real)

    return evaluate


def _curve(curve: Curve, p: Any, xp: Any, to_host: Host) -> Any:
    return xp.asarray(curve(to_host(p))[0])


def _table(table: Table, xp: Any, angle: Angle, real: type[np.floating[Any]]) -> Angle:
    """The table as a function of p, q and c."""
    core = xp.asarray(table.core.astype(real))
    left, right = _basis(table.left, xp, real), _basis(table.right, xp, real)
    stride = int(table.orders[1] - table.orders[0]) if len(table.orders) > 1 else 1

    def evaluate(p: Any, q: Any, c: Any) -> Any:
        x = xp.copysign(_graded(angle(p, q, xp.abs(c)), table.width, xp, real), c + real(0))  # −0 is no angle of π
        turn = 2 * x if stride == 1 else 2 * (2 * x * x - 1)  # T_{k+s} = turn·T_k − T_{k−s}
        weights = xp.einsum("ijk,i...->kj...", core, left(p))
        values = right(q)
        newer, older = xp.zeros_like(x), xp.zeros_like(x)
        for k in range(len(table.orders) - 1, -1, -1):
            newer, older = _contracted(weights[k], values, xp) + turn * newer - older, newer
        start, back = _first_two(table, x, xp)
        return (newer * start - older * back).astype(real, copy=False)

    return evaluate


def _graded(t: Any, width: float, xp: Any, real: type[np.floating[Any]]) -> Any:
    """As tpc.gaussian.table.graded."""
    share = t * real(2 / np.pi)
    if width == 1:
        return 1 - share
    return xp.log(2 / (share * real(1 - width) + real(width)) - 1) * real(1 / np.log(2 / width - 1))


def _basis(basis: Basis, xp: Any, real: type[np.floating[Any]]) -> Callable[[Any], Any]:
    """p ↦ (rank, *p.shape); the logarithm and the series are in double precision, of one axis' numbers."""
    coefficients, size = xp.asarray(basis.coefficients), xp.asarray(basis.size[None])
    low, high = basis.lo, basis.hi

    def evaluate(p: Any) -> Any:
        log = xp.log(xp.maximum(p.astype(np.float64), np.finfo(np.float64).tiny))
        x = (2 * log - (low + high)) / (high - low)
        inside = xp.maximum(x, -1)
        scale = _series(size, inside, xp)[0] + (x - inside) * ((high - low) * basis.zero / 4)
        value = _series(coefficients, inside, xp) * xp.exp(scale)
        return (xp.where(p > 0, value, 0) if basis.zero > 0 else value).astype(real)

    return evaluate


def _series(coefficients: Any, x: Any, xp: Any) -> Any:
    """Chebyshev series of every row of coefficients: (rows, *x.shape)"""
    shape = (len(coefficients), *[1] * x.ndim)
    newer, older = (xp.zeros((len(coefficients), *x.shape)) for _ in range(2))
    for k in range(coefficients.shape[1] - 1, 0, -1):
        newer, older = coefficients[:, k].reshape(shape) + 2 * x * newer - older, newer
    return coefficients[:, 0].reshape(shape) + x * newer - older


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
    if len(table.orders) > 1 and table.orders[1] - table.orders[0] == 1:
        return xp.ones_like(x), x
    return (x, x) if table.orders[0] == 1 else (xp.ones_like(x), 2 * x * x - 1)
