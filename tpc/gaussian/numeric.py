"""Kernels without a closed form: tables for the variances that occur, made and checked when they first do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import RLock
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from sympy import Expr

from tpc.errors import GaussianError
from tpc.gaussian.evaluate import NUMPY, rsqrt
from tpc.gaussian.fitting import (
    LARGEST,
    TOLERANCE,
    Unresolved,
    cell_bounds,
    cell_index,
    fit,
    fit_mehler,
    largest_variance,
)
from tpc.gaussian.kept import recall
from tpc.gaussian.regular import split_delta
from tpc.gaussian.smoothing import HIGHEST, products, single, smoothed
from tpc.gaussian.table import Basis, Table
from tpc.program.functions import X
from tpc.program.naming import called, kernel_name

Array = NDArray[Any]
Evaluate = Callable[[Any, Any, Any], Any]
ONE = sp.S.One

LEAST_DOMAIN = 1.0  # a kernel that is not known up to here is refused before anything is computed
_building = RLock()  # threads that need the same table wait for it


def largest_known(phi: Expr, psi: Expr) -> tuple[float, float]:
    """Up to which p and q the kernel of two nonlinearities without a closed form is known."""
    regular = (split_delta(f)[0] for f in (phi, psi))
    p, q = (largest_variance(f) if f.has(X) else np.inf for f in regular)
    return p, q


@dataclass(frozen=True)
class PairTables:
    """V[φ,ψ] of regular φ and ψ: one table for every pair of cells of p and q."""

    phi: Expr
    psi: Expr
    tolerance: float = 0.0
    known: dict[tuple[int, int], Table] = field(default_factory=dict, compare=False, repr=False)

    def table(self, i: int, j: int) -> Table:
        """The table of a pair of cells. Raises GaussianError where none is accurate."""
        if (i, j) not in self.known:
            with _building:
                self.known[i, j] = self._found(i, j).truncated(self.tolerance)
        return self.known[i, j]

    def _found(self, i: int, j: int) -> Table:
        named = (sp.srepr(self.phi), i), (sp.srepr(self.psi), j)
        if named[0] > named[1]:
            return _pair_table(self.psi, self.phi, j, i).mirrored()
        return _pair_table(self.phi, self.psi, i, j)

    def __call__(self, p: Array, q: Array, c: Array) -> Array:
        return np.asarray(over_cells(cells_of(self, p, q), self.table, p, q, c, np))


@dataclass(frozen=True)
class Curve:
    """E φ(u) of a regular φ as a function of the variance: one series for every cell."""

    phi: Expr
    terms: int = 0  # with the Mehler coefficients up to this one
    known: dict[int, Basis] = field(default_factory=dict, compare=False, repr=False)

    def basis(self, i: int) -> Basis:
        """The series of a cell. Raises GaussianError where none is accurate."""
        if i not in self.known:
            with _building:
                self.known[i] = _curve(self.phi, self.terms, i)
        return self.known[i]

    def __call__(self, p: Array) -> Array:
        """(terms + 1, *p.shape), in double precision"""
        p = np.asarray(p, dtype=np.float64)
        check_domain(self.phi, p, (self.phi, ONE))
        index = cell_index(p)
        out = np.empty((self.terms + 1, *p.shape))
        for k in np.unique(index):
            here = index == k
            out[:, here] = self.basis(int(k))(p[here])
        return out


@dataclass(frozen=True)
class NumericKernel:
    """V[φ,ψ] accurate to `error` relative to √(V[φ,φ](p,p,p) V[ψ,ψ](q,q,q)), for p, q up to `largest`.

    Beyond, `GaussianError` says which variance came. At a zero vector the value is the limit p → 0 for θ = 0.
    """

    phi: Expr
    psi: Expr
    pair: PairTables | None
    mean: Curve | None  # of V[φ, 1]
    spikes: tuple[tuple[float, Curve, bool], ...]  # weight · E φ(u)δ(v), and whether u and v change places
    largest: tuple[float, float]
    error: float = TOLERANCE

    def __call__(self, p: Any, q: Any, c: Any) -> Array:
        """Values at arrays of variances and covariances, which broadcast; float32 for a float32 covariance."""
        kind = np.float32 if np.asarray(c).dtype == np.float32 else np.float64
        p, q, c = (np.asarray(x, dtype=kind) for x in (p, q, c))
        if self.mean is not None:
            shape = np.broadcast_shapes(p.shape, q.shape, c.shape)
            return np.broadcast_to(self.mean(p)[0].astype(np.result_type(p, c)), shape)
        parts = [] if self.pair is None else [self.pair(p, q, c)]
        parts += [spike(curve, mirrored, p, q, c) * kind(weight) for weight, curve, mirrored in self.spikes]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return np.asarray(total)

    @property
    def promise(self) -> str:
        """How accurate it is, and where, in words."""
        p, q = self.largest
        if p == q or min(p, q) == np.inf:
            where = f"variances up to {min(p, q):.3g}"
        else:
            where = f"p up to {p:.3g} and q up to {q:.3g}"
        return f"accurate to {self.error:.0e} of √(V[φ,φ] V[ψ,ψ]) for {where}".replace("e+0", "e").replace("e+", "e")

    def truncated(self, tolerance: float) -> NumericKernel:
        """A cheaper kernel with a relative error of at most `error` + `tolerance`."""
        if self.pair is None:
            return self
        pair = PairTables(self.pair.phi, self.pair.psi, tolerance)
        return replace(self, pair=pair, error=self.error + tolerance)

    def mirrored(self) -> NumericKernel:
        """The kernel with the roles of p and q exchanged."""
        pair = None if self.pair is None else PairTables(self.pair.psi, self.pair.phi, self.pair.tolerance)
        spikes = tuple((weight, curve, not flipped) for weight, curve, flipped in self.spikes)
        return NumericKernel(self.psi, self.phi, pair, self.mean, spikes, self.largest[::-1], self.error)


def spike(curve: Curve, mirrored: bool, p: Array, q: Array, c: Array) -> Array:
    """E φ(u)δ(v) = E φ(√(p − c²/q) z)/√(2πq), by conditioning on v = 0."""
    p, q = (q, p) if mirrored else (p, q)
    nearer = NUMPY["angle"](p, q, np.abs(c))
    value = curve(p * np.sin(nearer) ** 2)[0] * rsqrt(q) / np.sqrt(2 * np.pi)
    return np.asarray(value, dtype=c.dtype)


@lru_cache(maxsize=256)
def numeric_kernel(phi: Expr, psi: Expr) -> NumericKernel:
    """The kernel V[φ,ψ], its tables made when they are needed.

    Raises `GaussianError` when it is known for small variances only.
    """
    (left, a), (right, b) = split_delta(phi), split_delta(psi)
    largest = largest_known(phi, psi)
    if min(largest) < LEAST_DOMAIN:
        raise _hardly_known((phi, psi), min(largest))
    if psi == ONE or phi == ONE:
        return NumericKernel(phi, psi, None, Curve(left if psi == ONE else right), (), largest)
    pair = PairTables(left, right) if left != 0 and right != 0 else None
    spikes = [(float(b), Curve(left), False)] if b != 0 and left != 0 else []
    spikes += [(float(a), Curve(right), True)] if a != 0 and right != 0 else []
    return NumericKernel(phi, psi, pair, None, tuple(spikes), largest)


def value_at(phi: Expr, psi: Expr, p: float, q: float, c: float) -> float:
    """V[φ,ψ] at one point, straight from quadrature."""
    (left, a), (right, b) = split_delta(phi), split_delta(psi)
    for f, variance in ((left, p), (right, q)):
        if f.has(X):
            check_domain(f, np.array(variance), (phi, psi))
    nearer = float(NUMPY["angle"](p, q, abs(c)))
    total = 0.0
    if left != 0 and right != 0:
        theta = np.array([nearer])
        first, second = (smoothed(f, np.array([v]), theta, HIGHEST) for f, v in ((left, p), (right, q)))
        same, opposite = products(first, second, HIGHEST)
        total += float((same if c >= 0 else opposite)[0, 0, 0])
    for weight, regular, variance, other in ((b, left, p, q), (a, right, q, p)):
        if weight != 0 and other > 0:
            given = np.array([variance * np.sin(nearer) ** 2])
            total += float(weight) * float(single(regular, given, HIGHEST)[0]) / np.sqrt(2 * np.pi * other)
    return float(total)


# --- cells -----------------------------------------------------------------------------------------------------------


def cells_of(pair: PairTables, p: Any, q: Any) -> tuple[Array, Array]:
    """The cells of variances on the host. Raises GaussianError where one is beyond what is known."""
    for phi, variances in ((pair.phi, p), (pair.psi, q)):
        check_domain(phi, variances, (pair.phi, pair.psi))
    return cell_index(p), cell_index(q)


def check_domain(phi: Expr, variances: Array, shown: tuple[Expr, Expr]) -> None:
    """Raise GaussianError for a variance beyond which no table of φ is made."""
    largest = largest_variance(phi)
    top = float(np.max(variances, initial=0.0, where=np.isfinite(variances)))
    if top <= largest * (1 + 1e-6):
        return
    if largest < LEAST_DOMAIN:
        raise _hardly_known(shown, largest)
    why = "there are no tables" if largest >= LARGEST else f"{called(phi)} varies or grows too fast"
    raise GaussianError(
        f"{kernel_name(*shown)} is known to {TOLERANCE:.0e} for variances of its arguments up to {largest:.3g}, "
        f"got {top:.3g}: beyond, {why}\n"
        f"  Fix: scale the inputs or the weights before it down, by {np.sqrt(largest / top):.2g} or less, or normalise "
        "them"
    )


def _hardly_known(shown: tuple[Expr, Expr], largest: float) -> GaussianError:
    known = f"got one for variances up to {largest:.2g}" if largest else "got none"
    return GaussianError(
        f"no accurate kernel {kernel_name(*shown)}: expected a relative error below {TOLERANCE:.0e} for "
        f"variances up to {LEAST_DOMAIN:g}, {known}: it varies or grows too fast to resolve\n"
        "  Fix: use a smoother or more slowly varying nonlinearity"
    )


def over_cells(
    cells: tuple[Array, Array], table: Callable[[int, int], Evaluate], p: Any, q: Any, c: Any, xp: Any
) -> Any:
    """table(i, j)(p, q, c) where p is in cell i and q in cell j; arrays broadcast, and are those of the library xp."""
    i, j = cells
    if not i.size or not j.size:
        return c + 0 * (p + q)
    if (i == i.flat[0]).all() and (j == j.flat[0]).all():
        return table(int(i.flat[0]), int(j.flat[0]))(p, q, c)
    outer = c.ndim == 2 and c.shape == (p.shape[0], q.shape[-1]) and p.ndim == q.ndim == 2
    outer = outer and p.shape[1] == 1 and q.shape[0] == 1
    out: Any = None
    if outer:
        for (a, rows), (b, columns) in ((x, y) for x in _groups(i) for y in _groups(j)):
            rows, columns = xp.asarray(rows), xp.asarray(columns)
            place = rows[:, None], columns[None, :]
            value = table(a, b)(p[rows], q[:, columns], c[place])
            out = xp.empty(c.shape, value.dtype) if out is None else out
            out[place] = value
        return out
    shape = np.broadcast_shapes(p.shape, q.shape, c.shape)
    p, q, c = (xp.broadcast_to(x, shape).reshape(-1) for x in (p, q, c))
    pairs = np.broadcast_to(i, shape).reshape(-1) * 1000 + np.broadcast_to(j, shape).reshape(-1)
    for pair, places in _groups(pairs):
        places = xp.asarray(places)
        a = round(pair / 1000)
        value = table(a, pair - 1000 * a)(p[places], q[places], c[places])
        out = xp.empty(p.shape, value.dtype) if out is None else out
        out[places] = value
    return out.reshape(shape)


def _groups(index: Array) -> Iterator[tuple[int, Array]]:
    flat = index.reshape(-1)
    for k in np.unique(flat):
        yield int(k), np.nonzero(flat == k)[0]


# --- kept tables -----------------------------------------------------------------------------------------------------


def _pair_table(phi: Expr, psi: Expr, i: int, j: int) -> Table:
    def compute() -> dict[str, Array]:
        first, second = (cell_bounds(k, largest_variance(f)) for k, f in ((i, phi), (j, psi)))
        try:
            table, error = fit(phi, psi, first, second)
        except Unresolved as e:
            raise _refused((phi, psi), (first, second), e.error) from e
        bases = {f"{side}_{k}": v for side in ("left", "right") for k, v in _flat(getattr(table, side)).items()}
        return {"core": table.core, "orders": table.orders, "numbers": np.array([table.width, error]), **bases}

    found = recall(f"pair {sp.srepr(phi)} {sp.srepr(psi)} {i} {j}", compute, kernel_name(phi, psi))
    left, right = (_basis({k: found[f"{side}_{k}"] for k in BASIS}) for side in ("left", "right"))
    return Table(left, right, found["core"], found["orders"], float(found["numbers"][0]))


def _curve(phi: Expr, terms: int, i: int) -> Basis:
    def compute() -> dict[str, Array]:
        cell = cell_bounds(i, largest_variance(phi))
        try:
            basis, _ = fit_mehler(phi, terms, cell)
        except Unresolved as e:
            raise _refused((phi, ONE), (cell,), e.error) from e
        return _flat(basis)

    return _basis(recall(f"mean {sp.srepr(phi)} {terms} {i}", compute, kernel_name(phi, ONE)))


BASIS = ("coefficients", "size", "ends")


def _flat(basis: Basis) -> dict[str, Array]:
    return dict(zip(BASIS, (basis.coefficients, basis.size, np.array([basis.lo, basis.hi, basis.zero])), strict=True))


def _basis(arrays: Any) -> Basis:
    return Basis(arrays["coefficients"], arrays["size"], *map(float, arrays["ends"]))


def _refused(shown: tuple[Expr, Expr], cells: tuple[tuple[float, float], ...], error: float) -> GaussianError:
    where = " and ".join(f"from {np.exp(lo):.1e} to {np.exp(hi):.1e}" for lo, hi in dict.fromkeys(cells))
    reached = f"got {error:.0e}" if np.isfinite(error) else "but it varies or grows too fast to resolve"
    return GaussianError(
        f"no accurate kernel {kernel_name(*shown)} for variances {where}: expected a relative error below "
        f"{TOLERANCE:.0e}, {reached}\n  Fix: scale the inputs or the weights before it, or use a smoother nonlinearity"
    )
