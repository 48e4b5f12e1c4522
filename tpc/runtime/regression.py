"""Kernel regression with a limit's kernel, at the size of a data set: one matrix, in place, for every ridge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.errors import UsageError
from tpc.runtime.cholesky import BLOCK, Factor, Progress, SingularKernelError
from tpc.runtime.gradient_flow import flow_coefficients

Array = NDArray[Any]
PairKernel = Callable[[Array, Array | None, Array | None], Array]  # K(x1, x2) or K(x1, x1), written to `out` if given
NEARBY = 30.0  # a ridge within this factor of a factored one is reached by conjugate gradients
ROWS = 1024  # of predictions at a time


@dataclass(frozen=True)
class Fit:
    """Coefficients (n, k) of one ridge, relative to the mean diagonal, and how the held-out samples did."""

    ridge: float
    coefficients: Array
    held_out_accuracy: float | None
    iterations: int


def centred_targets(y: Array, classes: int, dtype: Any) -> Array:
    """One row per sample: 1 − 1/classes for its class, −1/classes for the others."""
    made = np.full((len(y), classes), -1.0 / classes, dtype)
    made[np.arange(len(y)), y] += 1.0
    return made


class KernelRegression:
    """f(x) = K(x, X)(K + ridge·I)⁻¹ Y for samples X (n, d) with labels y (n,).

    Takes n² numbers of `dtype` and little more: the matrix in one triangle, its factor in the other. The last
    `held_out` samples, if any, are predicted from the others by the leading part of the same factor, so choosing a
    ridge costs no factorization more than using it. Raises UsageError for sizes that do not fit together.
    """

    def __init__(
        self,
        kernel: PairKernel,
        x: Array,
        y: Array,
        classes: int,
        *,
        held_out: int = 0,
        dtype: str = "float32",
        block: int = BLOCK,
    ) -> None:
        if len(x) != len(y) or not 0 <= held_out < len(x):
            raise UsageError(
                f"expected as many labels as samples, and fewer held out; got {len(x)} samples, {len(y)} labels and "
                f"{held_out} held out"
            )
        self._kernel, self.x, self.y = kernel, x, np.asarray(y)
        self.held_out = held_out
        self.targets = centred_targets(self.y, classes, dtype)
        matrix = np.empty((len(x), len(x)), dtype)
        kernel(x, None, matrix)
        if not np.isfinite(np.diagonal(matrix)).all():
            raise SingularKernelError("the kernel of some samples with themselves is not finite")
        self.factor = Factor(matrix, block)
        self.scale = float(self.factor.diagonal.astype(np.float64).mean())

    def fit(self, ridges: Sequence[float], progress: Progress | None = None) -> list[Fit]:
        """A fit for every ridge, given relative to the mean diagonal, with few factorizations.

        Raises SingularKernelError where the matrix with a ridge is not positive definite.
        """
        if not ridges or any(not r >= 0 for r in ridges):
            raise UsageError(f"expected ridges ≥ 0, got {ridges!r}")
        found = {}
        for ridge in sorted(ridges, reverse=True):
            found[ridge] = self._fit(ridge, progress)
        return [found[ridge] for ridge in ridges]

    def _fit(self, ridge: float, progress: Progress | None) -> Fit:
        wanted, near = ridge * self.scale, self.factor.ridge
        exact = near is None or not (wanted > 0 and max(near / wanted, wanted / near) <= NEARBY)
        if exact and near != wanted:
            self.factor.factor(wanted, progress)
        score, kept = None, len(self.x) - self.held_out
        iterations = 0

        def solved(targets: Array) -> Array:
            nonlocal iterations
            if self.factor.ridge == wanted:
                return self.factor.solve(targets)
            found, k = self.factor.refined(targets, wanted)
            iterations = max(iterations, k)
            return found

        if self.held_out:
            logits = self._from_stored(solved(self.targets[:kept]), kept)
            score = float((logits.argmax(axis=1) == self.y[kept:]).mean())
        return Fit(ridge, solved(self.targets), score, iterations)

    def _from_stored(self, coefficients: Array, kept: int) -> Array:
        """K(held out, kept) c, read from the upper triangle."""
        a = self.factor.matrix
        made = np.zeros((len(self.x) - kept, coefficients.shape[1]), coefficients.dtype)
        for start in range(0, kept, ROWS):
            rows = slice(start, min(start + ROWS, kept))
            made += a[rows, kept:].T @ coefficients[rows]
        return made

    def flow(self, time: float, steps: int = 100) -> tuple[Array, float]:
        """Coefficients after gradient flow for a time, in units of 1/(mean diagonal), and their relative error."""
        if not time > 0:
            raise UsageError(f"expected a time > 0, got {time!r}")
        return flow_coefficients(self.factor.multiply, self.targets, time / self.scale, steps)

    def predict(self, x: Array, coefficients: Array) -> Array:
        """K(x, X) c, (N, d) → (N, k), in blocks of rows."""
        parts = [self._kernel(x[i : i + ROWS], self.x, None) @ coefficients for i in range(0, len(x), ROWS)]
        return np.concatenate(parts) if parts else np.empty((0, coefficients.shape[1]), coefficients.dtype)
