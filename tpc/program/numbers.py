"""Numbers in programs: exact rationals of a size that floats can compute with."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import sympy as sp

SMALLEST, LARGEST = 1e-100, 1e100  # products of a few such numbers stay within doubles


def exact(value: Any) -> sp.Expr:
    """A real number as a rational. Raises ValueError, saying what was expected, for anything else.

    NaN, the infinities and sizes other than 0 and 1e-100 … 1e100 are refused: code that computes with them in floats
    would overflow or lose them.
    """
    if isinstance(value, bool) or not isinstance(value, Real | sp.Number):
        raise ValueError(f"expected a number, got {type(value).__name__}")
    check_size(value)
    return sp.nsimplify(value, rational=True)


def check_size(value: Any) -> None:
    """Raise ValueError for a number that is not finite, or too large or small to compute with."""
    if value != value or value in (math.inf, -math.inf):
        raise ValueError(f"expected a finite number, got {value}")
    if value != 0 and not SMALLEST <= abs(value) <= LARGEST:
        raise ValueError(f"expected 0 or a size of {SMALLEST:g} to {LARGEST:g}, got {_short(value)}")


def _short(value: Any) -> str:
    return f"{sp.Float(value, 3)}" if len(str(value)) > 24 else str(value)
