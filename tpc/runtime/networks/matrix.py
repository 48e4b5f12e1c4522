"""Matrices between spaces of width n, by entries or kept as factors, and only ever applied to vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tpc.errors import InternalError
from tpc.program.axes import Axes

F64: TypeAlias = NDArray[np.float64]


class MatrixValue(Protocol):
    """A linear map between two spaces, known by what it does."""

    def apply(self, x: F64) -> F64:
        """W x for x of shape (…, n)."""

    def transposed(self) -> MatrixValue:
        """Wᵀ"""

    def scaled(self, factor: float) -> MatrixValue:
        """factor · W"""


@dataclass(frozen=True, eq=False)
class LowRank:
    """(1/n) Σ_k left_k right_kᵀ, both factors of shape (k, n)."""

    left: F64
    right: F64

    def apply(self, x: F64) -> F64:
        return np.asarray((x @ self.right.T) @ self.left / self.right.shape[1])

    def transposed(self) -> LowRank:
        return LowRank(self.right, self.left)

    def scaled(self, factor: float) -> LowRank:
        return LowRank(factor * self.left, self.right)


@dataclass(frozen=True, eq=False)
class Dense:
    """The entries (n', n) of a matrix, and what multiplies arrays of two dimensions."""

    entries: F64
    product: Callable[[F64, F64], F64]

    def apply(self, x: F64) -> F64:
        rows = x.reshape(-1, x.shape[-1])  # one product for all finite axes
        return self.product(rows, self.entries.T).reshape(*x.shape[:-1], -1)

    def transposed(self) -> Dense:
        return Dense(self.entries.T, self.product)

    def scaled(self, factor: float) -> Dense:
        return Dense(factor * self.entries, self.product)


@dataclass(frozen=True, eq=False)
class Total:
    """A sum of matrices of different kinds."""

    terms: tuple[MatrixValue, ...]

    def apply(self, x: F64) -> F64:
        return np.asarray(sum(t.apply(x) for t in self.terms))

    def transposed(self) -> Total:
        return Total(tuple(t.transposed() for t in self.terms))

    def scaled(self, factor: float) -> Total:
        return Total(tuple(t.scaled(factor) for t in self.terms))


@dataclass(frozen=True, eq=False)
class Family:
    """A matrix for every place of finite axes, and the names of these."""

    axes: Axes
    members: Mapping[tuple[int, ...], MatrixValue]

    def apply(self, x: F64) -> F64:
        """There is none: which member meets which vectors is told by the names of axes."""
        raise InternalError("a family of matrices is applied member by member")

    def transposed(self) -> Family:
        return self._with(lambda m: m.transposed())

    def scaled(self, factor: float) -> Family:
        return self._with(lambda m: m.scaled(factor))

    def _with(self, image: Callable[[MatrixValue], MatrixValue]) -> Family:
        return Family(self.axes, {place: image(m) for place, m in self.members.items()})

    def ordered(self, axes: Axes) -> Family:
        """The same family with its axes in another order."""
        order = [self.axes.index(a) for a in axes]
        return Family(axes, {tuple(place[i] for i in order): m for place, m in self.members.items()})


def dense(entries: F64, axes: Axes, product: Callable[[F64, F64], F64]) -> MatrixValue:
    """A matrix by its entries (n', n), or a family of them, with `axes` before."""
    if not axes:
        return Dense(entries, product)
    return Family(axes, {place: Dense(entries[place], product) for place in np.ndindex(entries.shape[:-2])})


def total(matrices: Iterable[MatrixValue]) -> MatrixValue:
    """The sum of matrices; low-rank terms are joined into one. Families are added member by member."""
    given = tuple(matrices)
    families = [m for m in given if isinstance(m, Family)]
    if families:
        axes = families[0].axes
        parts = [m.ordered(axes) for m in families]
        return Family(axes, {place: total(p.members[place] for p in parts) for place in parts[0].members})
    flat = [t for m in given for t in (m.terms if isinstance(m, Total) else (m,))]
    low = [t for t in flat if isinstance(t, LowRank)]
    terms = [t for t in flat if not isinstance(t, LowRank)]
    if low:
        joined = LowRank(np.concatenate([t.left for t in low]), np.concatenate([t.right for t in low]))
        terms.append(low[0] if len(low) == 1 else joined)
    return terms[0] if len(terms) == 1 else Total(tuple(terms))
