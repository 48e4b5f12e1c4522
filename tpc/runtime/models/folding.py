"""How a model folds its old atoms: degree, window, coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import factorial, prod
from typing import Any

import numpy as np
import sympy as sp
from sympy import Expr

from tpc.errors import UsageError, UserError
from tpc.gaussian.expectation import expectation
from tpc.gaussian.kernel import kernel
from tpc.gaussian.symbols import gram
from tpc.limits.fold import fold_store, is_folded, least_useful_degree
from tpc.limits.graph import LimitGraph
from tpc.limits.power import packed_size
from tpc.limits.store import Fold
from tpc.program.functions import argument
from tpc.program.ir import theta
from tpc.program.naming import text

COEFFICIENTS = ("fitted", "taylor")
TOLERANCE = 0.1
LARGEST_DEGREE = 12
LARGEST_WINDOW = 1 << 40
LARGEST_POINTS = 1 << 20
LARGEST_BLOCK = 512


@dataclass(frozen=True)
class FoldOptions:
    """Atoms beyond the newest `window` are kept as tensors of degree ≤ `degree` (docs/concepts/folding.md).

    Without a degree the least one is taken whose Mehler remainder at coinciding latents of unit variance is at most
    `tolerance` of the kernel. "taylor" reads the series as it is; "fitted" lets non-negative weights per degree follow
    the correlations that occur in training. What the series leaves out is sampled at `points` points, which needs the
    series as it is. Coefficients are fitted by default, "taylor" with points.
    """

    degree: int | None = None
    window: int = 512
    coefficients: str | None = None
    tolerance: float = TOLERANCE
    points: int = 0

    def __post_init__(self) -> None:
        bounds = (
            ("degree", self.degree, 1, LARGEST_DEGREE),
            ("window", self.window, 0, LARGEST_WINDOW),
            ("points", self.points, 0, LARGEST_POINTS),
        )
        for name, value, least, most in bounds:
            if value is None and name == "degree":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
                what = f"fold {name}" if name != "points" else "number of fold points"
                raise UsageError(f"expected a {what} that is a whole number from {least} to {most}, got {value!r}")
            object.__setattr__(self, name, int(value))
        if self.coefficients is None:
            object.__setattr__(self, "coefficients", "taylor" if self.points else "fitted")
        if self.coefficients not in COEFFICIENTS:
            raise UsageError(f"expected fold coefficients among {', '.join(COEFFICIENTS)}, got {self.coefficients!r}")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float) or not self.tolerance > 0:
            raise UsageError(f"expected a positive fold tolerance, got {self.tolerance!r}")

        if self.points and self.fitted:
            raise UsageError(
                "fitted coefficients stand in for what points sample: leave out fold_points (--fold-points), or take "
                "fold_coefficients taylor (--fold-coefficients taylor)."
            )

    @property
    def rows(self) -> int:
        """Atoms wait for so many others, to be folded together."""
        return min(max(1, int(self.window)), LARGEST_BLOCK)

    @property
    def fitted(self) -> bool:
        return self.coefficients == "fitted"

    def degree_for(self, graph: LimitGraph) -> int:
        """The degree asked for, or the least one within the tolerance. Raises UserError where there is none."""
        return self.degree if self.degree is not None else least_degree(graph, self.tolerance)


def fold_from(
    mode: str,
    degree: int | None,
    tolerance: float | None,
    window: int | None,
    coefficients: str | None,
    points: int | None = None,
) -> FoldOptions | None:
    """Options as given on the command line or in a configuration; None in mode "exact", which takes none of them."""
    named = {
        "fold_degree": degree,
        "fold_tolerance": tolerance,
        "window": window,
        "fold_coefficients": coefficients,
        "fold_points": points,
    }
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if mode == "folded":
        return FoldOptions(**{name.removeprefix("fold_"): value for name, value in given.items()})
    if given:
        name = next(iter(given))
        raise UsageError(f"{name} (--{name.replace('_', '-')}) needs mode folded (--mode folded), got {mode}.")
    return None


def least_degree(graph: LimitGraph, tolerance: float) -> int:
    """The least degree at which no store's relative remainder exceeds the tolerance."""
    least = 1
    for s in filter(is_folded, graph.stores):
        first = least_useful_degree(s)
        error = 0.0
        for degree in range(first, LARGEST_DEGREE + 1):
            if (error := relative_remainder(fold_store(s, degree))) <= tolerance:
                break
        else:
            raise UserError(
                f"no degree up to {LARGEST_DEGREE} folds {text(s.fn)} within {tolerance:g}: the series of degree "
                f"{LARGEST_DEGREE} leaves {error:.2g}. Allow more (--fold-tolerance), or set --fold-degree."
            )
        least = max(least, degree)
    return least


def relative_remainder(f: Fold, rho: float = 1.0) -> float:
    """A bound on |V − series| / V(1, 1, 1) at unit variances and correlation ρ.

    The latents of an atom that has several are taken as orthonormal, each correlated with the other atom's by ρ, and
    parameters as 1: V is then Σ_n ρⁿ t_n with t_n = Σ_{|α|=n} (E ∂^α fn)²/α!.
    """
    if len(f.store.columns) == 1 and not f.store.thetas:
        return _left_out(f.store.function, f.degree, rho)
    size = (len(f.store.columns), len(f.store.thetas))
    whole = _mean(f.store.fn**2, *size)
    kept = sum(_mean(fn, *size) ** 2 / prod(map(factorial, index)) for m in f.moments for index, fn in m.profiles)
    return max(0.0, abs(rho) ** (f.degree + 1) * (whole - kept) / whole)


@lru_cache(maxsize=1024)
def _left_out(phi: Expr, degree: int, rho: float) -> float:
    v = kernel(phi)
    return v.series(degree).remainder(1.0, 1.0, rho) / float(v.at(1.0, 1.0, 1.0))


@lru_cache(maxsize=1024)
def _mean(fn: Expr, columns: int, thetas: int) -> float:
    """E fn at orthonormal latents."""
    variables = [argument(i) for i in range(columns)]
    found = expectation(fn.xreplace({theta(j): sp.Integer(1) for j in range(thetas)}), variables)
    at = {gram(i, j): sp.Integer(i == j) for i in range(len(variables)) for j in range(len(variables))}
    total = 0.0
    for t in found.terms:
        value = float(t.coefficient.xreplace(at))
        if t.kernel is not None and t.variances is not None and value:
            p, q, c = (float(sp.sympify(x).xreplace(at)) for x in (*t.variances, t.covariance))
            value *= float(t.kernel.at(p, q, c))
        total += value
    return total


def numbers_stored(f: Fold, rank: int) -> int:
    """How many numbers the tensors of a fold have, those of its tail included."""
    outer = outer_numbers(f, rank)
    return outer * sum(packed_size(rank, m.order) if m.order else 1 for m in f.moments) + f.points * (outer + rank)


def outer_numbers(f: Fold, rank: int) -> int:
    """How many numbers a coefficient of the folded store has."""
    outer = 1
    for axis in f.store.coefficients.axes[1:]:
        outer *= rank if axis.role == "rank" else axis.size or 1
    return outer
