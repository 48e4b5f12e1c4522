"""How a model folds its old atoms: degree, window, coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tpc.errors import UsageError, UserError
from tpc.gaussian.kernel import kernel
from tpc.limits.fold import Fold, fold_store, least_useful_degree
from tpc.limits.graph import LimitGraph
from tpc.limits.power import packed_size

COEFFICIENTS = ("fitted", "taylor")
TOLERANCE = 0.1
LARGEST_DEGREE = 12
LARGEST_WINDOW = 1 << 40
LARGEST_BLOCK = 512


@dataclass(frozen=True)
class FoldOptions:
    """Atoms beyond the newest `window` are kept as tensors of degree ≤ `degree` (docs/theory.md, folding).

    Without a degree the least one is taken whose Mehler remainder at coinciding latents of unit variance is at most
    `tolerance` of the kernel. "taylor" reads the series as it is; "fitted" lets non-negative weights per degree follow
    the correlations that occur in training.
    """

    degree: int | None = None
    window: int = 512
    coefficients: str = "fitted"
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        bounds = (("degree", self.degree, 1, LARGEST_DEGREE), ("window", self.window, 0, LARGEST_WINDOW))
        for name, value, least, most in bounds:
            if value is None and name == "degree":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
                raise UsageError(f"expected a fold {name} that is a whole number from {least} to {most}, got {value!r}")
            object.__setattr__(self, name, int(value))
        if self.coefficients not in COEFFICIENTS:
            raise UsageError(f"expected fold coefficients among {', '.join(COEFFICIENTS)}, got {self.coefficients!r}")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float) or not self.tolerance > 0:
            raise UsageError(f"expected a positive fold tolerance, got {self.tolerance!r}")

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
    mode: str, degree: int | None, tolerance: float | None, window: int | None, coefficients: str | None
) -> FoldOptions | None:
    """Options as given on the command line or in a configuration; None in mode "exact", which takes none of them."""
    named = {"fold_degree": degree, "fold_tolerance": tolerance, "window": window, "fold_coefficients": coefficients}
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
    for s in graph.stores:
        first = least_useful_degree(s)
        found = [relative_remainder(fold_store(s, d)) for d in range(first, LARGEST_DEGREE + 1)]
        within = [d for d, error in enumerate(found, first) if error <= tolerance]
        if not within:
            raise UserError(
                f"no degree up to {LARGEST_DEGREE} folds {s.fn} within {tolerance:g}: the series of degree "
                f"{LARGEST_DEGREE} leaves {found[-1]:.2g}. Allow more (--fold-tolerance), or set --fold-degree."
            )
        least = max(least, within[0])
    return least


def relative_remainder(f: Fold, rho: float = 1.0) -> float:
    """A bound on |V − series| / V(1, 1, 1) at unit variances and correlation ρ."""
    v = kernel(f.store.function)
    return v.series(f.degree).remainder(1.0, 1.0, rho) / float(v.at(1.0, 1.0, 1.0))


def numbers_stored(f: Fold, rank: int) -> int:
    """How many numbers the tensors of a fold have."""
    outer = 1
    for axis in f.store.coefficients.axes[1:]:
        outer *= rank if axis.role == "rank" else axis.size or 1
    return outer * sum(packed_size(rank, m.order) if m.order else 1 for m in f.moments)
