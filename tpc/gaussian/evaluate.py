"""Evaluate symbolic functions and closed forms: on arrays with NumPy, or to many digits with mpmath."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy import special
from sympy import Expr, Symbol

from tpc.gaussian.regular import on_side
from tpc.program.functions import X

Array = NDArray[Any]


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a·b as an unevaluated sum of two doubles (Dekker's product with Veltkamp's splitting)."""
    product = a * b
    a_high, b_high = (x * 134217729.0 - (x * 134217729.0 - x) for x in (a, b))
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def gap(p: Any, q: Any, c: Any) -> Array:
    """√max(pq − c², 0): exact products, so near |ρ| = 1 only the final rounding is left."""
    single = all(np.asarray(x).dtype == np.float32 for x in (p, q, c))
    p, q, c = (np.asarray(x, dtype=np.float64) for x in (p, q, c))
    if single:  # products of floats are exact in doubles
        return np.asarray(np.sqrt(np.maximum(p * q - c * c, 0.0)), dtype=np.float32)
    one, other = (np.frexp(x)[1] // 2 for x in (p, q))  # powers of four taken out: nothing leaves its range
    p, q, c = np.ldexp(p, -2 * one), np.ldexp(q, -2 * other), np.ldexp(np.ldexp(c, -one), -other)
    high, low = _two_product(p, q)
    square, rest = _two_product(c, c)
    return np.asarray(np.ldexp(np.sqrt(np.maximum((high - square) + (low - rest), 0.0)), one + other))


def gap1(rho: Any) -> Array:
    """√max((1 − ρ)(1 + ρ), 0)"""
    rho = np.asarray(rho)
    return np.asarray(np.sqrt(np.maximum((1 - rho) * (1 + rho), 0)))


def rsqrt(p: Any) -> Array:
    """1/√p where p > 0, else 0"""
    p = np.asarray(p)
    positive = p > 0
    return np.asarray(np.where(positive, 1 / np.sqrt(np.where(positive, p, 1)), 0))


NUMPY: dict[str, Callable[..., Any]] = {
    "gap": gap,
    "gap1": gap1,
    "angle": lambda p, q, c: np.arctan2(gap(p, q, c), np.asarray(c) + 0.0),
    "angle1": lambda rho: np.arccos(np.clip(rho, -1, 1)),
    "arctan2": lambda y, x: np.arctan2(np.asarray(y) + 0.0, np.asarray(x) + 0.0),
    "rsqrt": rsqrt,
    "dawson": special.dawsn,
    "erfcx": special.erfcx,
    "erf": special.erf,
    "erfc": special.erfc,
    "relu": lambda x: np.maximum(x, 0),
    "step": lambda x: (np.asarray(x) > 0) * 1.0,
    "sign": np.sign,
    "absolute": np.abs,
    "softplus": lambda x: np.logaddexp(0, x),
}


def vectorised(value: Expr, symbols: Sequence[Symbol]) -> Callable[..., Array]:
    """A NumPy function of arrays with the arguments' broadcast shape."""
    function = sp.lambdify(list(symbols), value, modules=[NUMPY, "numpy"], cse=True)

    def call(*args: Any) -> Array:
        with np.errstate(over="ignore", under="ignore"):
            out = np.asarray(function(*args))
        return np.broadcast_to(out, np.broadcast_shapes(out.shape, *(np.shape(a) for a in args)))

    return call


@lru_cache(maxsize=512)
def sides(phi: Expr) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """x ↦ φ(x) and x ↦ φ(−x) as NumPy functions of x > 0, free of the kinks at 0."""
    return vectorised(on_side(phi, 1), (X,)), vectorised(on_side(phi, -1), (X,))


def _mp_rsqrt(p: Any) -> Any:
    return 1 / mpmath.sqrt(p) if p > 0 else mpmath.mpf(0)


def _mp_gap(p: Any, q: Any, c: Any) -> Any:
    return mpmath.sqrt(max(p * q - c * c, mpmath.mpf(0)))


def _mp_atan2(y: Any, x: Any) -> Any:
    return mpmath.mpf(0) if x == y == 0 else mpmath.atan2(y, x)


MPMATH: dict[str, Callable[..., Any]] = {
    "gap": _mp_gap,
    "gap1": lambda rho: _mp_gap(1, 1, rho),
    "angle": lambda p, q, c: _mp_atan2(_mp_gap(p, q, c), c),
    "angle1": lambda rho: mpmath.acos(min(max(rho, -1), 1)),
    "arctan2": _mp_atan2,
    "rsqrt": _mp_rsqrt,
    "dawson": lambda x: mpmath.sqrt(mpmath.pi) / 2 * mpmath.exp(-x * x) * mpmath.erfi(x),
    "erfcx": lambda x: mpmath.exp(x * x) * mpmath.erfc(x),
    "Abs": abs,
}


def precise(value: Expr, at: dict[Symbol, float], digits: int = 60) -> Any:
    """A closed form at a point, as an mpmath number: exact to the last digit of a double."""
    symbols = list(at)
    function = sp.lambdify(symbols, value, modules=[MPMATH, "mpmath"])
    with mpmath.workdps(digits):
        return function(*(mpmath.mpf(at[s]) for s in symbols))
