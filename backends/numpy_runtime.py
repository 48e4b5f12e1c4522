"""What generated NumPy code calls: stored atoms, loops over blocks of them, updates, a few functions.

Needs numpy alone; with threadpoolctl installed, blocks are shared between threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.atoms import Atoms
from backends.blocks import over_blocks
from backends.large import matmul, matvecs, outer_sum, over_rows, square, vecmats
from backends.powers import opened, power, product, slope
from backends.threads import threads
from backends.windows import shift, sweep, unshift

Array = NDArray[Any]

SINGLE_TOLERANCE = 1e-7  # relative error added to tabulated kernels in float32


# --- updates ---------------------------------------------------------------------------------------------------------


def accumulate(
    state: dict[str, Any], name: str, gradient: Array, rate: float, clip: float, keep: float, momentum: float
) -> None:
    """m ← μ m + clip·∇;  W ← keep·W - rate·m, in place."""
    w = state[name]
    typed = w.dtype.type
    moving = momentum or f"{name}.velocity" in state
    m = state.setdefault(f"{name}.velocity", np.zeros_like(w)) if moving else w

    def change(rows: Any) -> None:
        step = gradient[rows]
        if moving:
            m[rows] *= typed(momentum)
            m[rows] += step * typed(clip)
            step = m[rows] * typed(rate)
        else:
            step = step * typed(rate * clip)
        if keep != 1:
            w[rows] *= typed(keep)
        w[rows] -= step

    over_rows(w, change)


# --- functions -------------------------------------------------------------------------------------------------------


def rsqrt(x: Array, out: Array | None = None) -> Array:
    """1/√x where x > 0, else 0"""
    x = np.asarray(x)
    root = np.sqrt(x)
    return np.divide(1, root, out=np.zeros_like(root), where=x > 0)


def gap(p: Array, q: Array, c: Array, out: Array | None = None) -> Array:
    """√max(pq − c², 0) from exact products, so that nothing cancels near |c| = √(pq)."""
    p, q, c = np.broadcast_arrays(p, q, c)
    if c.dtype == np.float32:  # products of floats are exact in doubles
        wide = np.multiply(p, q, dtype=np.float64)
        wide -= np.square(c, dtype=np.float64)
        narrow: Array = np.sqrt(np.maximum(wide, 0, out=wide), out=wide).astype(np.float32)
        return narrow
    one, other = (np.frexp(x)[1] // 2 for x in (p, q))  # powers of four taken out: nothing leaves its range
    p, q, c = np.ldexp(p, -2 * one), np.ldexp(q, -2 * other), np.ldexp(np.ldexp(c, -one), -other)
    (high, low), (square, rest) = exact_product(p, q), exact_product(c, c)
    root = np.sqrt(np.maximum((high - square) + (low - rest), 0))
    result: Array = np.ldexp(root, one + other, out=out)
    return result


def inverse(x: Array, out: Array | None = None) -> Array:
    """1/x where x > 0, else 0"""
    x = np.asarray(x)
    return np.divide(1, x, out=np.zeros_like(x), where=x > 0)


def root_sum(x: Array, y: Array, out: Array | None = None) -> Array:
    """√(x + y²) for x, y ≥ 0 without overflow on the way"""
    kinds = [v.dtype for v in (x, y) if isinstance(v, np.ndarray | np.generic)]
    kind = np.result_type(*kinds) if kinds else np.dtype(np.float64)
    x, y = np.asarray(x, dtype=kind), np.asarray(y, dtype=kind)  # a number takes the type of the array beside it
    if kind == np.float32:  # whose squares do not overflow in doubles
        wide: Array = np.square(y, dtype=np.float64) + x
        return np.sqrt(wide, out=wide).astype(np.float32)
    unit = np.maximum(y, 1)
    ratio = y / unit
    ratio *= ratio
    root: Array = np.sqrt(x / unit / unit + ratio)
    return np.multiply(root, unit, out=root)


def exact_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a·b as a sum of two doubles (Dekker 1971)."""
    product = a * b
    (a1, a2), (b1, b2) = ((x1, x - x1) for x, x1 in ((x, x * 134217729.0 - (x * 134217729.0 - x)) for x in (a, b)))
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def step(x: Array, out: Array | None = None) -> Array:
    """1 where x > 0, else 0"""
    return (
        np.greater(x, 0, out=out, casting="unsafe")
        if out is not None
        else (np.asarray(x) > 0).astype(np.asarray(x).dtype)
    )


def relu(x: Array, out: Array | None = None) -> Array:
    return np.maximum(x, 0, out=out)


def clip1(x: Array, out: Array | None = None) -> Array:
    """x clipped to [-1, 1]"""
    return np.clip(x, -1, 1, out=out)


def softplus(x: Array, out: Array | None = None) -> Array:
    """log(1 + e^x)"""
    return np.logaddexp(x, np.zeros_like(x), out=out)


def logsumexp(x: Array, axis: int) -> Array:
    top = x.max(axis=axis, keepdims=True)
    result: Array = np.log(np.exp(x - top).sum(axis=axis)) + top.squeeze(axis)
    return result


def _special(name: str) -> Callable[..., Array]:
    def call(x: Array, out: Array | None = None) -> Array:
        import scipy.special

        result: Array = getattr(scipy.special, name)(x, out=out)
        return result

    call.__name__ = name
    return call


erf, erfc, erfcx, dawson = (_special(name) for name in ("erf", "erfc", "erfcx", "dawsn"))


def tabulated(phi: str, psi: str) -> Callable[[Array, Array, Array], Array]:
    """V[phi, psi](p, q, c) for a pair without a closed form; needs tpc."""
    from tpc.gaussian import kernel
    from tpc.program.expression import parse_nonlinearity

    table = kernel(parse_nonlinearity(phi), parse_nonlinearity(psi)).numeric
    if table is None:
        raise ValueError(f"V[{phi}, {psi}] has a closed form and no table")
    single = table.truncated(SINGLE_TOLERANCE)
    flipped = {id(t): t.mirrored() for t in (table, single)}

    def evaluate(p: Array, q: Array, c: Array) -> Array:
        dtype = np.result_type(*(x for x in (p, q, c) if isinstance(x, np.ndarray | np.floating)))
        chosen = single if dtype == np.float32 else table
        if (
            np.ndim(p) == 2 and np.shape(p)[0] == 1 and np.shape(q)[0] > 1
        ):  # one matrix product per order this way round
            return flipped[id(chosen)](q, p, c).astype(dtype)
        return chosen(p, q, c).astype(dtype)

    return evaluate


__all__ = [
    "Array",
    "Atoms",
    "accumulate",
    "clip1",
    "dawson",
    "erf",
    "erfc",
    "erfcx",
    "exact_product",
    "gap",
    "inverse",
    "logsumexp",
    "matmul",
    "matvecs",
    "opened",
    "outer_sum",
    "over_blocks",
    "power",
    "product",
    "relu",
    "root_sum",
    "rsqrt",
    "shift",
    "slope",
    "softplus",
    "square",
    "step",
    "sweep",
    "tabulated",
    "threads",
    "unshift",
    "vecmats",
]
