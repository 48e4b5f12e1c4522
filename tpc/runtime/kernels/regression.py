"""Kernel regression with a limit's kernel, at the size of a data set: one matrix, in place, for every ridge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.errors import UsageError
from tpc.runtime.kernels.cholesky import BLOCK, Factor, Progress, SingularKernelError
from tpc.runtime.kernels.gradient_flow import flow_coefficients
from tpc.runtime.models.arguments import as_array, real_array
from tpc.runtime.models.targets import class_numbers, r_squared, read_targets

Array = NDArray[Any]
PairKernel = Callable[[Array, Array | None, Array | None], Array]  # K(x1, x2) or K(x1, x1), written to `out` if given
NEARBY = 30.0  # a ridge within this factor of a factored one is reached by conjugate gradients
ROWS = 1024  # of predictions at a time


@dataclass(frozen=True)
class Fit:
    """Coefficients (n, k) of one ridge, relative to the mean diagonal, and how the held-out samples did.

    That is an accuracy where targets are class numbers, R² where they are real values.
    """

    ridge: float
    coefficients: Array
    held_out_accuracy: float | None
    iterations: int
    held_out_r2: float | None = None


def centred_targets(y: ArrayLike, classes: int, dtype: Any) -> Array:
    """One row per sample: 1 − 1/classes for its class, −1/classes for the others.

    Raises UsageError for anything but class numbers 0 … classes − 1.
    """
    labels = class_numbers(y, classes)
    made = np.full((len(labels), classes), -1.0 / classes, dtype)
    made[np.arange(len(labels)), labels] += 1.0
    return made


def regression_targets(y: ArrayLike, n: int, classes: int | None, dtype: Any) -> tuple[Array, Array | None]:
    """What a kernel is fitted to, (n, k), and the class numbers that it should tell apart; None for real values.

    With `classes` ≥ 2, class numbers are centred; rows (n, classes) are real values, as all targets are without it.
    Raises UsageError for targets that do not fit.
    """
    if classes is None:
        given = as_array(y, "targets")
        outputs = int(given.shape[1]) if given.ndim == 2 else 1
        return read_targets(given, n, outputs).rows.astype(dtype), None
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer) or classes < 2:
        raise UsageError(f"expected two classes or more, or classes=None for real-valued targets, got {classes!r}")
    found = read_targets(y, n, int(classes))
    if found.classes is None:
        return found.rows.astype(dtype), None
    return centred_targets(found.classes, int(classes), dtype), found.classes


class KernelRegression:
    """f(x) = K(x, X)(K + ridge·I)⁻¹ Y for samples X (n, d) with targets y.

    With `classes`, y holds class numbers (n,), of which Y has centred rows. Without it, or as rows (n, classes), y
    holds real values, (n,) or (n, k), and Y is y as it is: R² takes the place of accuracy then.

    Takes n² numbers of `dtype` and little more: the matrix in one triangle, its factor in the other. The last
    `held_out` samples, if any, are predicted from the others by the leading part of the same factor, so choosing a
    ridge costs no factorization more than using it. Raises UsageError for sizes that do not fit together.
    """

    def __init__(
        self,
        kernel: PairKernel,
        x: ArrayLike,
        y: ArrayLike,
        classes: int | None = None,
        *,
        held_out: int = 0,
        dtype: str = "float32",
        block: int = BLOCK,
    ) -> None:
        rows = _samples(x)
        given = as_array(y, "targets")
        if not len(rows) or given.ndim == 0 or len(rows) != len(given) or not 0 <= held_out < len(rows):
            raise UsageError(
                f"expected as many labels as samples, one at least, and fewer held out; got {len(rows)} samples, "
                f"{len(given) if given.ndim else 'no'} labels and {held_out} held out"
            )
        self.targets, self.classes = regression_targets(given, len(rows), classes, dtype)
        self._kernel, self.x, self.y = kernel, rows, given
        self.held_out = held_out
        matrix = np.empty((len(rows), len(rows)), dtype)
        kernel(rows, None, matrix)
        _require_finite(matrix, rows)
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
        accuracy = r2 = None
        kept = len(self.x) - self.held_out
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
            if self.classes is not None:
                accuracy = float((logits.argmax(axis=1) == self.classes[kept:]).mean())
            else:
                r2 = r_squared(logits, self.targets[kept:])
        coefficients = solved(self.targets)
        if not np.isfinite(coefficients).all():
            raise SingularKernelError(
                f"the coefficients for ridge {ridge:g} are not finite in {coefficients.dtype}: take a larger ridge, or "
                "float64"
            )
        return Fit(ridge, coefficients, accuracy, iterations, r2)

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

    def predict(self, x: ArrayLike, coefficients: Array) -> Array:
        """K(x, X) c, (N, d) → (N, k), in blocks of rows."""
        x = _samples(x)
        parts = [self._kernel(x[i : i + ROWS], self.x, None) @ coefficients for i in range(0, len(x), ROWS)]
        return np.concatenate(parts) if parts else np.empty((0, coefficients.shape[1]), coefficients.dtype)


def _samples(x: ArrayLike) -> Array:
    rows = real_array(x, "samples")
    if rows.ndim != 2:
        raise UsageError(f"expected samples of shape (N, features), got {rows.shape}")
    return rows


def _require_finite(matrix: Array, x: Array) -> None:
    """Raise SingularKernelError where entries are not finite, with the samples concerned."""
    for start in range(0, len(matrix), ROWS):
        finite = np.isfinite(matrix[start : start + ROWS])
        if not finite.all():
            i, j = np.argwhere(~finite)[0]
            sizes = ", ".join(f"{np.linalg.norm(x[k].astype(np.float64)):.3g}" for k in (start + i, j))
            raise SingularKernelError(
                f"the kernel of samples {start + i} and {j} is {matrix[start + i, j]} in {matrix.dtype} (their lengths "
                f"are {sizes}): scale the inputs down, or take float64"
            )
