"""Build and check the tables of numeric kernels, a cell at a time.

Variances are divided into cells of two decades. What smoothing a function takes (tpc.gaussian.smoothing) is shared by
all tables it is in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr

from tpc.gaussian.regular import parity
from tpc.gaussian.smoothing import (
    HIGH,
    HIGHEST,
    STANDARD,
    Effort,
    energy,
    mehler,
    on_diagonal,
    products,
    single,
    smoothed,
)
from tpc.gaussian.table import Basis, Table, nodes, ungraded

Array = NDArray[Any]
Cell = tuple[float, float]  # of log p

DECADES = 2
LOWEST, HIGHEST_CELL = -11, 4  # cells from 1e-23 to 1e9
LARGEST = 1e9  # the largest variance of all
TOLERANCE = 1e-10  # of a table, relative to √(V[φ,φ](p,p,p) V[ψ,ψ](q,q,q))
RANK_TOLERANCE = 1e-13  # of singular values and Chebyshev coefficients, relative to the same
KEPT = 4e-12  # what a table may leave out, relative to the same
SETTLED = 2e-12  # what the last Chebyshev coefficients may be
WIDTHS = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ANGLES = (0.0, 3e-6, 1e-3, 0.02, 0.1, 0.4, 1.0, 1.5)  # where tables are checked, and at π less these


@dataclass(frozen=True)
class Grid:
    """How many nodes a table is built from, and the rule that evaluates them."""

    variances: int
    angles: int
    effort: Effort
    check: Effort


GRIDS = (
    Grid(28, 128, STANDARD, Effort(0.14, 0.08, 48, 10.0)),
    Grid(48, 160, HIGH, Effort(0.11, 0.045, 72, 20.0)),
    Grid(64, 224, HIGHEST, Effort(0.09, 0.022, 112, 36.0)),
)


def cell_bounds(k: int, largest: float) -> Cell:
    """log p at both ends of cell k, for a function known up to the variance `largest`."""
    low = 10.0 ** (DECADES * k - DECADES // 2)
    return float(np.log(low)), float(np.log(min(low * 10.0**DECADES, largest)))


def cell_index(p: Array) -> Array:
    """The cell of every variance; where there is none, the nearest one, and 0 for what is no number."""
    p = np.asarray(p)
    if p.size > 2:
        ends = np.array([p.min(), p.max()])
        first, last = _cells(ends)
        if first == last and not np.isnan(ends[0]):  # as a rule
            return np.broadcast_to(first, p.shape)
    return _cells(p)


def _cells(p: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        k = np.floor((np.log10(p) + DECADES // 2) / DECADES)
    k = np.clip(np.nan_to_num(k, posinf=HIGHEST_CELL, neginf=LOWEST), LOWEST, HIGHEST_CELL)
    return np.asarray(k, dtype=np.int64)


@lru_cache(maxsize=512)
def largest_variance(phi: Expr) -> float:
    """Up to which variance tables of φ are made: where it oscillates or grows too fast for them, and LARGEST at most.

    0 where no variance from 1e-2 on is resolved.
    """
    tried = 10.0 ** np.arange(-2, np.log10(LARGEST) + 0.25, 0.5)
    with np.errstate(all="ignore"):
        found = energy(phi, tried, HIGHEST)
        growth = np.diff(np.log(found), prepend=np.log(found[:1])) / np.log(10) * 2
        good = np.isfinite(found) & (found > 0) & (growth < FASTEST_GROWTH)
        good &= _resolved(phi, tried, Effort(0.2, 0.06), HIGHEST)
    known = 0.0
    for p, right in zip(tried, good, strict=True):
        k = int(cell_index(np.array(p * 0.9)))
        if not right or _roughness(phi, (cell_bounds(k, LARGEST)[0], float(np.log(p))), GRIDS[-1]) > SETTLED:
            break
        known = float(p)
    return min(known, LARGEST)


def _resolved(phi: Expr, p: Array, effort: Effort, finer: Effort) -> Array:
    """Whether a rule gives E φ and E φ² as well as a finer one does."""
    coarse, fine = (np.array([energy(phi, p, e), single(phi, p, e) ** 2]) for e in (effort, finer))
    return np.asarray(np.abs(coarse - fine).max(axis=0) <= 1e-11 * fine[0])


@lru_cache(maxsize=512)
def _roughness(phi: Expr, cell: Cell, grid: Grid) -> float:
    """The last Chebyshev coefficients of V[φ,φ] in one variance, at ρ = ±1: as a share of its scale."""
    values = on_diagonal(phi, _variances(cell, grid.variances), grid.effort)
    if not np.all(np.isfinite(values)):
        return float("inf")
    return float(np.abs(_to_coefficients(values, axis=1)[:, -grid.variances // 12 :]).max())


FASTEST_GROWTH = 18.0  # E φ² grows no faster than p^18: beyond it, E φ² hangs on values at many standard deviations


class Unresolved(Exception):
    """A cell for which no grid is fine enough; holds the error reached."""

    def __init__(self, error: float) -> None:
        super().__init__(f"error {error:.0e}")
        self.error = error


def fit(phi: Expr, psi: Expr, first: Cell, second: Cell) -> tuple[Table, float]:
    """The table of V[φ,ψ] for regular φ, ψ with kinks at 0 at most, and its error. Raises `Unresolved`."""
    best = np.inf
    for grid in GRIDS:
        if not all(_fits(f, cell, grid) for f, cell in ((phi, first), (psi, second))):
            continue
        table, rest = _flattest(phi, psi, first, second, grid)
        error = max(_largest_error(table, phi, psi, first, second, grid), rest)
        if error < TOLERANCE / 2:
            return table, max(2 * error, 1e-12)
        best = min(best, error)
    raise Unresolved(best)


def _fits(phi: Expr, cell: Cell, grid: Grid) -> bool:
    """Whether the nodes of a grid resolve φ, as far as one dimension tells."""
    with np.errstate(all="ignore"):
        resolved = _resolved(phi, np.exp(np.array([cell[1]])), grid.effort, grid.check)[0]
        return bool(resolved) and _roughness(phi, cell, grid) < SETTLED


def _flattest(phi: Expr, psi: Expr, first: Cell, second: Cell, grid: Grid) -> tuple[Table, float]:
    """The table with the width at which its last coefficients in the angle vanish, from a guess downhill, and those."""
    made: dict[int, tuple[Table, float]] = {}

    def rest(k: int) -> float:
        if not 0 <= k < len(WIDTHS):
            return float("inf")
        if k not in made:
            values = _values(phi, psi, first, second, WIDTHS[k], grid)
            made[k] = _table(values, phi, psi, first, second, WIDTHS[k], grid)
        return made[k][1]

    k = int(np.clip(np.floor(min(first[1], second[1]) / np.log(100)), 0, len(WIDTHS) - 1))
    if rest(k) > SETTLED:
        step = 1 if rest(k + 1) < rest(k) else -1
        while rest(k) > SETTLED and rest(k + step) < rest(k):
            k += step
    return made[k]


def _values(phi: Expr, psi: Expr, first: Cell, second: Cell, width: float, grid: Grid) -> Array:
    """V[φ,ψ]/√(V[φ,φ]V[ψ,ψ]) at (angle, p, q); the angles are those of the Chebyshev nodes."""
    left, right = (_smoothed_cell(f, cell, width, grid) for f, cell in ((phi, first), (psi, second)))
    same, opposite = products(left, right, grid.effort)
    values = np.concatenate([same, opposite[::-1]])
    return np.asarray(values / _scale(phi, first, grid)[:, None] / _scale(psi, second, grid))


@lru_cache(maxsize=48)
def _smoothed_cell(phi: Expr, cell: Cell, width: float, grid: Grid) -> tuple[Array, Array]:
    theta = ungraded(nodes(grid.angles)[: grid.angles // 2], width)
    return smoothed(phi, _variances(cell, grid.variances), theta, grid.effort)


@lru_cache(maxsize=256)
def _scale(phi: Expr, cell: Cell, grid: Grid) -> Array:
    return np.sqrt(energy(phi, _variances(cell, grid.variances), grid.effort))


def _variances(cell: Cell, count: int) -> Array:
    lo, hi = cell
    return np.asarray(np.exp((lo + hi) / 2 + nodes(count) * (hi - lo) / 2))


def _table(
    values: Array, phi: Expr, psi: Expr, first: Cell, second: Cell, width: float, grid: Grid
) -> tuple[Table, float]:
    """Compress values: Chebyshev in the angle, then one orthogonal basis per variance (Tucker).

    Returns the largest of the last coefficients in the angle, too.
    """
    core = _to_coefficients(values, axis=0)
    rest = float(np.abs(core[-grid.angles // 16 :]).max())
    left, right = _directions(np.moveaxis(core, 1, 0)), _directions(np.moveaxis(core, 2, 0))
    core = np.einsum("kpq,pi,qj->ijk", core, left, right, optimize=True)
    size = np.abs(core).max(axis=(0, 1))
    orders = np.arange(1 + int(np.max(np.nonzero(size > RANK_TOLERANCE)[0], initial=0)))
    kinds = parity(phi), parity(psi)
    if kinds[0] is not None and kinds[0] == kinds[1]:
        orders = orders[orders % 2 == kinds[0]] if len(orders) > 1 else np.array([kinds[0]])
    one, other = _basis(phi, left, first, grid), _basis(psi, right, second, grid)
    return Table(one, other, core[:, :, orders], orders, width).truncated(KEPT), rest


def _basis(phi: Expr, directions: Array, cell: Cell, grid: Grid) -> Basis:
    rows = _shortened(_to_coefficients(directions, axis=0).T)
    size = _shortened(_to_coefficients(np.log(_scale(phi, cell, grid)), axis=0)[None])[0]
    return Basis(rows, size, *cell, _degree_at_zero(phi) if cell[0] <= cell_bounds(LOWEST, LARGEST)[0] else 0.0)


@lru_cache(maxsize=256)
def _degree_at_zero(phi: Expr) -> float:
    """z with E φ(√p z)² ~ p^z near p = 0; a whole number to the last digits is one."""
    low, high = np.log(energy(phi, np.array([1e-23, 1e-22])))
    found = float((high - low) / np.log(10))
    return float(round(found)) if abs(found - round(found)) < 1e-6 else found


def fit_rows(rows: Any, phi: Expr, cell: Cell, grid: Grid) -> Basis:
    """The functions of p that `rows` gives at variances, relative to √V[φ,φ], on a cell."""
    p = _variances(cell, grid.variances)
    coefficients = _to_coefficients(rows(p, grid.effort) / _scale(phi, cell, grid), axis=1)
    made = _basis(phi, np.zeros((grid.variances, 1)), cell, grid)
    return Basis(_shortened(coefficients), made.size, made.lo, made.hi, made.zero)


def fit_mehler(phi: Expr, terms: int, cell: Cell) -> tuple[Basis, float]:
    """The Mehler coefficients a_0(√p) … a_terms(√p) of φ as functions of p, and their error. Raises `Unresolved`.

    The first one is E φ.
    """
    best = np.inf
    for grid in GRIDS:
        if not _fits(phi, cell, grid):
            continue
        made = fit_rows(lambda p, effort: mehler(phi, p, terms, effort), phi, cell, grid)
        p = np.exp(cell[0] + (cell[1] - cell[0]) * np.array([0.003, 0.21, 0.58, 0.86, 0.997]))
        wanted = mehler(phi, p, terms, grid.check)
        error = float(np.max(np.abs(made(p) - wanted) / np.sqrt(energy(phi, p, grid.check))))
        if error < TOLERANCE / 2:
            return made, max(2 * error, 1e-12)
        best = min(best, error)
    raise Unresolved(best)


def _largest_error(table: Table, phi: Expr, psi: Expr, first: Cell, second: Cell, grid: Grid) -> float:
    """The largest error of a table between its nodes, found with another rule."""
    left, right = (_probes(f, cell, k, grid.check) for k, (f, cell) in enumerate(((phi, first), (psi, second))))
    same, opposite = products(left[1], right[1], grid.check)
    theta = np.array(ANGLES)[:, None, None]
    p, q = left[0][:, None], right[0]
    scale = left[2][:, None] * right[2]
    errors = (
        np.abs(found - wanted) / scale
        for found, wanted in ((table.at_angle(p, q, theta), same), (table.at_angle(p, q, np.pi - theta), opposite))
    )
    return float(max(e.max() for e in errors))


@lru_cache(maxsize=128)
def _probes(phi: Expr, cell: Cell, k: int, effort: Effort) -> tuple[Array, tuple[Array, Array], Array]:
    """Variances of a cell, what smoothing φ gives there at ANGLES, and √V[φ,φ]."""
    shares = np.array(((0.003, 0.37, 0.71), (0.004, 0.53, 0.996))[k])
    p = np.exp(cell[0] + (cell[1] - cell[0]) * shares)
    return p, smoothed(phi, p, np.array(ANGLES), effort), np.sqrt(energy(phi, p, effort))


def _directions(unfolded: Array) -> Array:
    rows = unfolded.reshape(len(unfolded), -1)
    u, s, _ = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(u[:, : max(1, int(np.sum(s > RANK_TOLERANCE * np.sqrt(rows.shape[1] / len(rows)))))])


def _shortened(rows: Array) -> Array:
    """Rows of Chebyshev coefficients without the last ones that say nothing."""
    size = np.abs(rows).max(axis=0)
    return rows[:, : 1 + int(np.max(np.nonzero(size > 1e-15 * size.max())[0], initial=0))]


def _to_coefficients(values: Array, axis: int) -> Array:
    """Chebyshev coefficients from values at the Chebyshev nodes along an axis."""
    return np.moveaxis(np.tensordot(_inverse(values.shape[axis]), values, (1, axis)), 0, axis)


@lru_cache(maxsize=8)
def _inverse(count: int) -> Array:
    """The discrete cosine transform that takes values at nodes to coefficients."""
    matrix = np.cos(np.pi / count * np.outer(np.arange(count), np.arange(count) + 0.5)) * (2 / count)
    matrix[0] /= 2
    return np.asarray(matrix)
