"""The operations that generated code is made of: three-address code on arrays."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

from tpc.program.axes import Axes


@dataclass(frozen=True)
class Value:
    """An array of known axes, or a number when `number` is set."""

    name: str
    axes: Axes = ()
    number: float | None = None


@dataclass(frozen=True)
class Operation:
    """target = op(args); `op` is one of the keys of `ARITY`."""

    target: Value
    op: str
    args: tuple[Value, ...]


# every operation a printer must know, with its number of arguments
ARITY = {
    "add": 2, "subtract": 2, "multiply": 2, "divide": 2, "power": 2, "negative": 1, "square": 1, "sqrt": 1,
    "reciprocal": 1, "rsqrt": 1, "exp": 1, "log": 1, "sin": 1, "cos": 1, "tanh": 1, "erf": 1, "erfc": 1,
    "abs": 1, "sign": 1, "step": 1, "relu": 1, "arccos": 1, "arcsin": 1, "arctan2": 2, "clip1": 1, "maximum": 2,
    "minimum": 2, "softplus": 1, "sinh": 1, "cosh": 1, "asinh": 1, "log1p": 1, "expm1": 1, "dawson": 1,
    "erfcx": 1, "gap": 3, "inverse": 1, "root_sum": 2,
}  # fmt: skip

# what they give for numbers, where code that is generated need not compute it
FOLD: dict[str, Callable[..., float]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "power": operator.pow, "negative": operator.neg, "sqrt": math.sqrt, "square": lambda x: x * x,
    "reciprocal": lambda x: 1 / x, "rsqrt": lambda x: x**-0.5 if x > 0 else 0.0, "maximum": max, "minimum": min,
    "arctan2": math.atan2, "arccos": math.acos, "arcsin": math.asin, "exp": math.exp, "log": math.log, "erf": math.erf,
    "step": lambda x: float(x > 0), "clip1": lambda x: min(1.0, max(-1.0, x)),
    "inverse": lambda x: 1 / x if x > 0 else 0.0, "root_sum": lambda x, y: math.sqrt(x + y * y),
}  # fmt: skip
