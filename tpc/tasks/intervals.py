"""Slopes and mean deviations with confidence intervals, from the networks of a convergence check.

A network of width n misses its limit by O(n^(−1/2)), with a direction and a size that differ from one network to the
next. Sizes are positive and skewed, so slopes are fitted to their logarithms. Directions average out: the mean over K
networks misses a right limit by 1/√K of that, and a wrong one by what is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc, fdtri, stdtrit

F64 = NDArray[np.float64]
LEVEL = 0.95
TOLERANCE, ROUGH = 0.05, 0.1  # of relative deviations: of averages made for it, of those of networks at random
SMALLEST = 1e-11  # relative errors below it are rounding


@dataclass(frozen=True)
class Slope:
    """d log(error) / d log(width) of a row, least squares over all networks; `scatter` is the std of a log(error).

    Of an error that is zero up to rounding at some width it is nan.
    """

    row: str
    slope: float
    scatter: float
    widths: tuple[int, ...]
    seeds: int

    def half(self, level: float = LEVEL) -> float:
        """Half the confidence interval: Student's t, with what the widths and seeds leave as degrees of freedom."""
        return half_width(self.scatter, self.widths, self.seeds, level)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The confidence interval."""
        return self.slope - self.half(level), self.slope + self.half(level)

    @property
    def exact(self) -> bool:
        """Whether there is no error to fit a slope to."""
        return math.isnan(self.slope)

    def __str__(self) -> str:
        return "exact" if self.exact else f"{self.slope:.2f} ± {self.half():.2f}".replace("-", "−")


def half_width(scatter: float, widths: Sequence[int], seeds: int, level: float = LEVEL) -> float:
    """Half the confidence interval of a slope fitted to `seeds` networks of every width."""
    u = np.log(np.asarray(widths, dtype=np.float64))
    freedom = len(u) * seeds - 2
    spread = seeds * float(np.square(u - u.mean()).sum())
    return float(stdtrit(freedom, (1 + level) / 2)) * scatter / math.sqrt(spread) if freedom > 0 else math.inf


def fit_slope(row: str, widths: Sequence[int], errors: ArrayLike) -> Slope:
    """The slope of relative errors (widths, seeds)."""
    sizes = np.asarray(errors, dtype=np.float64)
    count, seeds = sizes.shape
    if sizes.min() < SMALLEST:
        return Slope(row, math.nan, 0.0, tuple(widths), seeds)
    u, v = np.log(np.asarray(widths, dtype=np.float64)), np.log(sizes)
    u, v = u - u.mean(), v - v.mean()
    slope = float((u @ v).sum() / (seeds * u @ u))
    left = v - slope * u[:, None]
    freedom = max(count * seeds - 2, 1)
    return Slope(row, slope, math.sqrt(float(np.square(left).sum()) / freedom), tuple(widths), seeds)


@dataclass(frozen=True)
class Deviation:
    """How far the mean of networks is from the limit, relative to the root mean square of what is compared.

    `size` is the root mean square of the mean difference and `error` its standard error. With F = (size/error)² it is
    1 + stretch·(F − 1) that has Fisher's distribution with the degrees of `freedom`. A mean of networks of finite width
    is itself off by a `bias`, of the order of their squared error. A limit is told to be right where `bound` is within
    `tolerance`.
    """

    row: str
    size: float
    error: float
    freedom: tuple[float, float]
    stretch: float = 1.0
    bias: float = 0.0
    tolerance: float = TOLERANCE

    @property
    def radius(self) -> float:
        """Of the confidence ball around the mean difference."""
        return self.error * math.sqrt(1 + (float(fdtri(*self.freedom, LEVEL)) - 1) / self.stretch)

    @property
    def bound(self) -> float:
        """What a constant error of the limit is at most, at the confidence level."""
        return self.size + self.radius

    @property
    def chance(self) -> float:
        """Of a mean difference that large if the limit is right."""
        excess = max(self.size - self.bias, 0.0)
        if not self.error:
            return 1.0 if excess <= SMALLEST else 0.0
        return float(fdtrc(*self.freedom, max(0.0, 1 + self.stretch * ((excess / self.error) ** 2 - 1))))

    def __str__(self) -> str:
        return f"{self.size:.2%} ± {self.radius:.2%}"


def mean_deviation(
    row: str, means: F64, scatter: F64, variance: float, freedom: int, size: float, order: int = 1, share: float = 1.0
) -> Deviation:
    """The deviation of a mean difference (m,) from zero, by a test for more numbers than samples (Dempster 1958).

    `scatter` (s, m) has the deviations of single networks from their mean, with so many degrees of freedom, and
    `variance` is that of the mean in parts of theirs: 1/K for the mean of K. The statistic is the squared size of the
    mean difference by its expectation, for Gaussians of covariance Σ a sum of χ² with the eigenvalues of Σ as weights:
    it is taken as the F distribution that has its first three moments (Pearson 1959), tr Σᵏ from the sample. The bias
    allowed for is `share` times the relative variance of a network to the power `order`.
    """
    count = means.size
    products = scatter @ scatter.T / (freedom * count)
    total, squares, cubes = (float(np.trace(np.linalg.matrix_power(products, k))) for k in (1, 2, 3))
    error = math.sqrt(total * variance) / size
    bias = share * (total / size**2) ** order
    scaled = [squares / total**2, cubes / total**3] if total else [1.0, 1.0]
    dimension = max(scaled[0] ** 3 / scaled[1] ** 2, 1.0)
    stretch = 1 / math.sqrt(scaled[0] * dimension)
    length = math.sqrt(float(means @ means) / count) / size
    return Deviation(row, length, error, (dimension, dimension * freedom), stretch, bias)


def of_mean(row: str, differences: F64, size: float) -> Deviation:
    """The deviation of the mean of K networks from the limit, of differences (K, …)."""
    flat = differences.reshape(len(differences), -1)
    mean = flat.mean(axis=0)
    return mean_deviation(row, mean, flat - mean, 1 / len(flat), len(flat) - 1, size)


def extrapolated(row: str, widths: Sequence[int], differences: F64, size: float) -> Deviation:
    """The deviation at infinite width of networks of growing width, of differences (widths, seeds, …).

    The means over seeds are b + c/n + O(1/n²) with variances like 1/n; b is estimated by weighted least squares, and
    the scatter is what the fit leaves.
    """
    n = np.asarray(widths, dtype=np.float64)
    seeds = differences.shape[1]
    flat = differences.reshape(len(n), seeds, -1)
    design = np.stack([np.ones_like(n), 1 / n], axis=1) * np.sqrt(n)[:, None]
    solve = np.linalg.pinv(design)
    scaled = np.sqrt(n)[:, None, None] * flat
    fitted = solve @ scaled.mean(axis=1)
    left = (scaled - (design @ fitted)[:, None]).reshape(len(n) * seeds, -1)
    variance = float(np.square(solve[0]).sum()) / seeds
    leak = abs(float(solve[0] @ n**-1.5))
    found = mean_deviation(row, fitted[0], left, variance, len(n) * seeds - 2, size, order=2, share=leak)
    return replace(found, tolerance=ROUGH)
