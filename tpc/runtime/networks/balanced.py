"""Gaussian points that fill space evenly: scrambled Sobol' sequences, for networks whose averages are nearly exact.

Every point is N(0, I), as independent ones are, so that a network drawn from them has the same limit. Averages over n
points miss their expectation by less than n^(−1/2): by about n^(−3/4) over the functions of networks (Owen 1997).
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

F64 = NDArray[np.float64]
LARGEST_DIMENSION = 21201  # of the direction numbers known


def balanced_gaussian(space: str, rank: int, width: int, seed: int) -> F64:
    """Ω (width, rank) of a space; most even where the width is a power of two. More dimensions are independent."""
    from scipy.stats.qmc import Sobol

    rng = np.random.default_rng([seed, width, zlib.crc32(space.encode()), 1])
    even = min(rank, LARGEST_DIMENSION)
    points = Sobol(even, scramble=True, rng=rng).random_base2((width - 1).bit_length())[:width]
    tiny = np.finfo(np.float64).tiny
    gaussian = ndtri(np.clip(points, tiny, 1 - np.finfo(np.float64).epsneg))
    return np.concatenate([gaussian, rng.standard_normal((width, rank - even))], axis=1)
