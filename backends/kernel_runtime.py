"""What generated NumPy code of kernel limits calls: numpy_runtime, with a gap that settles at |ρ| = 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import numpy_runtime
from backends.numpy_runtime import (
    clip1,
    dawson,
    erf,
    erfc,
    erfcx,
    logsumexp,
    relu,
    rsqrt,
    softplus,
    step,
    tabulated,
)

Array = NDArray[Any]

SETTLED = 16  # rounding errors of a covariance, in units of the type's precision


def settled(dtype: np.dtype[Any]) -> float:
    """The relative error of pq − c² that rounding explains."""
    return SETTLED * float(np.finfo(dtype).eps)


def gap(p: Array, q: Array, c: Array, out: Array | None = None) -> Array:
    """√max(pq − c², 0), and 0 where that is what rounding errors leave of it.

    Equal samples have |c| = √(pq) up to rounding; without the threshold the angle between them would be its square
    root, 1e-8 in double precision and 3e-4 in single.
    """
    least = np.asarray(np.sqrt(p) * np.sqrt(q) * np.sqrt(settled(np.asarray(c).dtype)))
    found = np.asarray(numpy_runtime.gap(p, q, c, out))
    found[found <= least] = 0
    return found


__all__ = [
    "SETTLED",
    "clip1",
    "dawson",
    "erf",
    "erfc",
    "erfcx",
    "gap",
    "logsumexp",
    "relu",
    "rsqrt",
    "settled",
    "softplus",
    "step",
    "tabulated",
]
