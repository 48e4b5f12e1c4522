"""A Cholesky factorization in place, in blocks, for kernel matrices that fill most of the memory.

LAPACK as SciPy ships it counts with 32 bits and fails beyond 46,340 rows; here it only ever sees one block. The matrix
itself is kept in the upper triangle, the factor is written over the lower one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from tpc.errors import UserError

Array = NDArray[Any]
BLOCK = 2048
Progress = Callable[[int, int], None]


class SingularKernelError(UserError):
    """A kernel matrix that is not positive definite in its number type."""


def mirror(matrix: Array, block: int = BLOCK) -> None:
    """Copy the lower triangle over the upper one."""
    for rows in _blocks(len(matrix), block):
        for columns in _blocks(rows.stop, block):
            if columns.start == rows.start:
                own = matrix[rows, columns]
                own[...] = np.tril(own) + np.tril(own, -1).T
            else:
                matrix[columns, rows] = matrix[rows, columns].T


class Factor:
    """L with L Lᵀ = K + ridge·I, for a symmetric matrix K (n, n) that it takes over.

    K is read from its upper triangle and stays there, its diagonal apart from it, so `factor` may be called again with
    another ridge. `block` rows are factored at a time. float32 or float64.
    """

    def __init__(self, matrix: Array, block: int = BLOCK) -> None:
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"expected a square matrix, got shape {matrix.shape}")
        self.matrix = matrix
        self.block = block
        self.diagonal = np.diagonal(matrix).copy()
        self.ridge: float | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    def factor(self, ridge: float, progress: Progress | None = None) -> Factor:
        """Factor K + ridge·I. Raises SingularKernelError, naming a ridge that helps, if it is not positive definite."""
        self.ridge = None
        n, a = len(self), self.matrix
        np.fill_diagonal(a, self.diagonal + a.dtype.type(ridge))
        blocks = list(_blocks(n, self.block))
        for k, own in enumerate(blocks):
            square = self._restored(own, own)
            for before in blocks[:k]:
                square -= a[own, before] @ a[own, before].T
            try:
                lower = cholesky(square, lower=True, check_finite=False)
            except np.linalg.LinAlgError:
                raise self._singular(ridge) from None
            if not np.isfinite(np.diagonal(lower)).all():
                raise self._singular(ridge)
            for below in blocks[k + 1 :]:
                panel = self._restored(below, own)
                for before in blocks[:k]:
                    panel -= a[below, before] @ a[own, before].T
                a[below, own] = solve_triangular(lower, panel.T, lower=True, check_finite=False).T
            np.copyto(a[own, own], lower, where=_strictly_lower(len(lower)))
            self._set_diagonal(own, np.diagonal(lower))
            if progress is not None:
                progress(own.stop, n)
        self.ridge = ridge
        return self

    def solve(self, y: Array) -> Array:
        """(K + ridge·I)⁻¹ y for y (n, k); with fewer rows, (m, k), that of the first m samples alone.

        The factor of the leading part of a matrix is the leading part of its factor.
        """
        if self.ridge is None:
            raise ValueError("the matrix is not factored")
        x, a = np.array(y, self.matrix.dtype, order="C"), self.matrix
        blocks = list(_blocks(len(y), self.block))
        for k, own in enumerate(blocks):  # L z = y
            x[own] = solve_triangular(np.tril(a[own, own]), x[own], lower=True, check_finite=False)
            for below in blocks[k + 1 :]:
                x[below] -= a[below, own] @ x[own]
        for k, own in reversed(list(enumerate(blocks))):  # Lᵀ x = z
            x[own] = solve_triangular(np.tril(a[own, own]), x[own], lower=True, trans="T", check_finite=False)
            for above in blocks[:k]:
                x[above] -= a[own, above].T @ x[own]
        return x

    def multiply(self, x: Array) -> Array:
        """K x for x (n, k), or that of the first m samples for x (m, k); factored or not."""
        a = self.matrix
        made = self.diagonal[: len(x), None] * x
        blocks = list(_blocks(len(x), self.block))
        for k, own in enumerate(blocks):
            upper = np.triu(a[own, own], 1)
            made[own] += upper @ x[own] + upper.T @ x[own]
            for right in blocks[k + 1 :]:
                made[own] += a[own, right] @ x[right]
                made[right] += a[own, right].T @ x[own]
        return made

    def refined(self, y: Array, ridge: float, tolerance: float = 1e-5, limit: int = 200) -> tuple[Array, int]:
        """As `solve`, with another ridge, by conjugate gradients preconditioned with the factor; also their number.

        The spectrum left to them lies between 1 and the ratio of the two ridges, so nearby ridges are cheap. Raises
        SingularKernelError if the residual does not fall to `tolerance`.
        """
        x = self.solve(y)
        residual = y - self.multiply(x) - ridge * x
        z = self.solve(residual)
        direction, rho = z, _dot(residual, z)
        goal = tolerance * np.sqrt(_dot(y, y))
        for k in range(limit):
            if (np.sqrt(_dot(residual, residual)) <= goal).all():
                return x, k
            image = self.multiply(direction) + ridge * direction
            step = rho / np.maximum(_dot(direction, image), np.finfo(np.float64).tiny)
            x = x + (step * direction).astype(x.dtype)
            residual = residual - (step * image).astype(x.dtype)
            z = self.solve(residual)
            rho, old = _dot(residual, z), rho
            direction = z + ((rho / np.maximum(old, np.finfo(np.float64).tiny)) * direction).astype(x.dtype)
        raise SingularKernelError(
            f"the kernel system with ridge {ridge:.3g} did not converge in {limit} iterations from the factor of ridge "
            f"{self.ridge:.3g}; factor it with a ridge of its own"
        )

    def _restored(self, rows: slice, columns: slice) -> Array:
        """A block of K + ridge·I on or below the diagonal."""
        a = self.matrix
        if rows.start != columns.start:
            return np.ascontiguousarray(a[columns, rows].T)
        upper = np.triu(a[rows, rows], 1)
        made: Array = upper + upper.T
        made[np.diag_indices(len(made))] = a.diagonal()[rows]
        return made

    def _set_diagonal(self, rows: slice, values: Array) -> None:
        index = np.arange(rows.start, rows.stop)
        self.matrix[index, index] = values

    def _singular(self, ridge: float) -> SingularKernelError:
        mean = float(self.diagonal.mean())
        given = ridge / mean
        larger = max(10 * len(self) * float(np.finfo(self.matrix.dtype).eps), 10 * given)
        double = " or float64" if self.matrix.dtype == np.float32 else ""
        kind = self.matrix.dtype
        return SingularKernelError(
            f"the kernel matrix of {len(self)} samples with a ridge of {given:.2g} of its mean diagonal is not "
            f"positive definite in {kind}; take a larger ridge, such as {larger:.2g} of the mean diagonal{double}"
        )


def _dot(a: Array, b: Array) -> Array:
    """Column by column, in 64 bits."""
    found: Array = np.einsum("ij,ij->j", a, b, dtype=np.float64)
    return found


def _strictly_lower(n: int) -> Array:
    return np.tri(n, k=-1, dtype=bool)


def _blocks(n: int, block: int) -> Iterator[slice]:
    return (slice(i, min(i + block, n)) for i in range(0, n, block))
