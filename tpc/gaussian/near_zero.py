"""Functions of x > 0 that keep their relative accuracy near 0, where floats cancel: log(1 + x²), e^x − 1, x − tanh x.

Where a function loses digits it is replaced by its Taylor polynomial, of coefficients computed to many digits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from numpy.typing import NDArray
from sympy import Expr

from tpc.gaussian.evaluate import MPMATH, sides
from tpc.gaussian.regular import on_side
from tpc.program.functions import X

Array = NDArray[Any]
Side = Callable[[Array], Array]

DEGREE = 12
DIGITS = 60
PROBES = (1e-2, 1e-4, 1e-6, 1e-9)
LOST = 1e-14  # a relative error that is more than rounding
REACHES = (0.1, 0.03, 0.01, 0.003, 0.001)


@lru_cache(maxsize=512)
def careful_sides(phi: Expr) -> tuple[Side, Side]:
    """x ↦ φ(x) and x ↦ φ(−x) for x > 0, accurate relative to themselves near 0 too."""
    plus, minus = sides(phi)
    return _careful(plus, on_side(phi, 1)), _careful(minus, on_side(phi, -1))


def _careful(fast: Side, half: Expr) -> Side:
    try:
        exact = sp.lambdify(X, half, modules=[_MPMATH, "mpmath"])
        with mpmath.workdps(DIGITS):
            if _is_exact(fast, exact, PROBES):
                return fast
            taylor = [complex(a) for a in mpmath.taylor(exact, 0, DEGREE)]
            coefficients = np.array([a.real for a in taylor])
            if not np.all(np.isfinite(coefficients)):
                return fast
            series = np.polynomial.Polynomial(coefficients)
            reach = next((r for r in REACHES if _is_exact(series, exact, (r, *(p for p in PROBES if p < r)))), None)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError, NameError, AttributeError):
        return fast  # no expansion there
    if reach is None:
        return fast

    def careful(x: Array) -> Array:
        return np.where(x < reach, series(np.minimum(x, reach)), fast(x))

    return careful


def _is_exact(function: Side, exact: Any, probes: tuple[float, ...]) -> bool:
    for x in probes:
        wanted = exact(mpmath.mpf(x))
        found = mpmath.mpf(float(function(np.array([x]))[0]))
        if abs(found - wanted) > LOST * abs(wanted):
            return False
    return True


_MPMATH: dict[str, Any] = {**MPMATH, "softplus": lambda x: mpmath.log1p(mpmath.exp(x))}
