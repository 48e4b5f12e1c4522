"""What generated NumPy code of kernel limits calls: numpy_runtime, in double precision and with a gap that settles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numpy_runtime import (
    clip1,
    dawson,
    erf,
    erfc,
    erfcx,
    inverse,
    logsumexp,
    relu,
    root_sum,
    rsqrt,
    shift,
    softplus,
    step,
    sweep,
    tabulated,
    unshift,
)

Array = NDArray[Any]

SETTLED = 2.0**-48  # 16 rounding errors: the relative error of pq − c² that they explain


def gap(p: Array, q: Array, c: Array, out: Array | None = None) -> Array:
    """√max(pq − c², 0) in double precision, and 0 where that is what rounding errors leave of it.

    Equal samples have |c| = √(pq) up to rounding; without the threshold the angle between them would be its square
    root, 1e-8. The product √(pq − |c|)·√(pq + |c|) neither overflows nor underflows before its factors do.
    """
    root = np.asarray(np.sqrt(p) * np.sqrt(q))
    size = np.abs(c)
    below = np.asarray(root - size)
    below[below <= (SETTLED / 2) * root] = 0
    root += size
    result: Array = np.sqrt(below, out=below)
    result *= np.sqrt(root, out=root)
    return result


__all__ = [
    "SETTLED",
    "clip1",
    "dawson",
    "erf",
    "erfc",
    "erfcx",
    "gap",
    "inverse",
    "logsumexp",
    "relu",
    "root_sum",
    "rsqrt",
    "shift",
    "softplus",
    "step",
    "sweep",
    "tabulated",
    "unshift",
]
