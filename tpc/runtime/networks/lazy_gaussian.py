"""Gaussian matrices that are drawn where they are applied, so that wide networks need no n² numbers.

What W does to the vectors it has met is known; what it does to a new direction q is, given that, independent of it but
for qᵀWᵀp at the directions p that Wᵀ has met (Bolthausen 2014; Yang, Tensor Programs III, §F).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tpc.runtime.networks.matrix import F64

DEPENDENT = 1e-10  # of a vector's norm, below which what is left of it is rounding


@dataclass(eq=False)
class _Side:
    """Orthonormal directions (m, n) that a matrix has met, and what it made of them (m, n')."""

    met: F64
    images: F64

    def add(self, met: F64, images: F64) -> None:
        self.met = np.concatenate([self.met, met])
        self.images = np.concatenate([self.images, images])


@dataclass(eq=False)
class _Core:
    """A matrix with independent N(0, std²) entries, as far as it is known."""

    std: float
    rng: np.random.Generator
    sides: list[_Side] = field(default_factory=list)

    def apply(self, x: F64, side: int) -> F64:
        """W x for the rows of x (k, n) on side 0, Wᵀ x on side 1."""
        here, there = self.sides[side], self.sides[1 - side]
        known = x @ here.met.T
        new = _directions(x - known @ here.met, np.linalg.norm(x, axis=1))
        if len(new):
            new = _directions(new - (new @ here.met.T) @ here.met, np.ones(len(new)))  # twice is enough
            drawn = self.std * self.rng.standard_normal((len(new), there.met.shape[1]))
            drawn += (new @ there.images.T - drawn @ there.met.T) @ there.met
            here.add(new, drawn)
        return np.asarray((x @ here.met.T) @ here.images)


def _directions(rows: F64, sizes: F64) -> F64:
    """Orthonormal rows that span those of `rows` which are more than rounding."""
    _, values, vectors = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(vectors[values > DEPENDENT * max(float(sizes.max(initial=0.0)), np.finfo(float).tiny)])


@dataclass(frozen=True, eq=False)
class LazyGaussian:
    """A view of a square matrix with independent N(0, std²) entries: its multiple, transposed or not."""

    core: _Core
    side: int = 0
    factor: float = 1.0

    def apply(self, x: F64) -> F64:
        """W x for x of shape (…, n)."""
        rows = x.reshape(-1, x.shape[-1])
        return self.factor * self.core.apply(rows, self.side).reshape(*x.shape[:-1], -1)

    def transposed(self) -> LazyGaussian:
        """Wᵀ"""
        return LazyGaussian(self.core, 1 - self.side, self.factor)

    def scaled(self, factor: float) -> LazyGaussian:
        """factor · W"""
        return LazyGaussian(self.core, self.side, factor * self.factor)


def lazy_gaussian(width: int, std: float, rng: np.random.Generator) -> LazyGaussian:
    """A matrix (width, width) with independent N(0, std²) entries."""
    empty = np.zeros((0, width))
    return LazyGaussian(_Core(std, rng, [_Side(empty, empty), _Side(empty, empty)]))
