"""What a store's old atoms are folded into: M_n = Σ_m A_m ⊗ T_n(m) for every degree n, packed.

T_n = E∇ⁿx = Σ_{|α|=n} n!/α! f_α sym(b₁^⊗α₁ ⊗ b₂^⊗α₂ ⊗ …) for an atom x = fn(⟨z,b₁⟩, ⟨z,b₂⟩, …), f_α = E ∂^α fn; for one
latent that is f_n(|b|²) Φ_n(b).

Decay multiplies one number for all of them. Each degree is read with a weight: 1 is the Mehler series; fitted weights
w ≥ 0 minimise the squared error of Σ_n w_n s_n, s_n the series' terms, against V over pairs of atoms that were folded
and atoms newer than they. They are read off running sums, so they can follow the distribution of the pairs.

What the atoms are beyond the last degree can be kept at N fixed points z_i ~ N(0, I), T_i = (1/N) Σ_m A_m x_m(z_i).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from itertools import combinations_with_replacement
from math import factorial, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import powers
from backends.arrays import HOST, Arrays
from backends.atoms import Atoms

Array = NDArray[Any]
Index = tuple[int, ...]
PROBES = 64  # the newest atoms that stand for what reads the folded ones
DECAY = 0.98  # of the running sums, per fold
RANGE = 1e-6  # of the largest number: what one fold may add, so that many of them stay below it
SETTLED = 64.0  # atoms whose velocity is below 1/SETTLED of rounding have their final coefficient


class Moments:
    """The folded atoms of one store; every tensor has the axes `outer` and, from degree 1 on, a packed one."""

    def __init__(
        self,
        outer: tuple[int, ...],
        rank: int,
        orders: Iterable[int],
        dtype: Any,
        window: int,
        fitted: bool,
        points: int = 0,
        arrays: Arrays = HOST,
        halves: Callable[[Array, Array], tuple[Array, Array]] = powers.halves,
    ) -> None:
        self._arrays, self._halves = arrays, halves
        self.orders = tuple(orders)
        self.dtype = np.dtype(dtype)
        self.window = window
        self.fitted = fitted
        self.rank = rank
        self.scale = 1.0
        self.count = 0
        self._outer = outer
        self._tensors: dict[int, Array] = {
            n: arrays.xp.zeros((*outer, *self._packed(n)), self.dtype) for n in self.orders
        }
        xp = arrays.xp
        self.points = xp.asarray(draw(points, rank), self.dtype)
        self.tail = xp.zeros((points, *outer), self.dtype)
        self.weights = np.ones(len(self.orders))
        terms = len(self.orders) + bool(points)
        self._sums = np.zeros((terms + 1, terms + 1))  # of products of the terms, and of V in the last place

    def _packed(self, order: int) -> tuple[int, ...]:
        return (powers.count(self.rank, order),) if order else ()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(int(t.nbytes) for t in (*self._tensors.values(), self.points, self.tail))

    # --- reading -----------------------------------------------------------------------------------------------

    def moment(self, order: int) -> Array:
        """M_order without its multiplier, outer axes first."""
        return self._tensors[order]

    def half(self, order: int, g: Array) -> Array:
        """⟨M_order, g ⊗ ·⟩ without the multiplier, for degree 2: (…, r) → (…, k, r)."""
        return self.halves(order, g)[0]

    def halves(self, order: int, g: Array) -> tuple[Array, Array]:
        """`half` and ⟨M_order, g ⊗ g⟩, (…, k), of one pass over the tensor."""
        m = self._tensors[order]
        if m.ndim == 2 and g.ndim <= 2:
            return self._halves(m, g)
        one, both = self._halves(m.reshape(-1, m.shape[-1]), g.reshape(-1, g.shape[-1]))
        shape = (*g.shape[:-1], *m.shape[:-1])
        return one.reshape(*shape, g.shape[-1]), both.reshape(shape)

    def weight(self, order: int) -> Any:
        """What M_order is multiplied by."""
        return self.dtype.type(self.scale * self.weights[self.orders.index(order)])

    @property
    def sums(self) -> Array:
        """Running sums over pairs of atoms of products of the terms, and of V in the last place."""
        return self._sums

    @property
    def remainder(self) -> float | None:
        """√(Σ (V − Σ_n w_n s_n)² / Σ V²) over the pairs seen lately; None before the first fold."""
        total = self._sums[-1, -1]
        if total <= 0:
            return None
        w = np.ones(len(self._sums))  # V, less the terms with their weights, less the sampled ones
        w[:-1] = -1.0
        w[: len(self.weights)] = -self.weights
        return float(np.sqrt(max(0.0, w @ self._sums @ w) / total))

    # --- changing ----------------------------------------------------------------------------------------------

    def age(self, keep: float) -> None:
        """Weight decay: M ← keep·M."""
        self.scale *= keep
        if not 1e-3 < abs(self.scale) < 1e3:
            for t in (*self._tensors.values(), self.tail):
                self._arrays.multiply(t, self.dtype.type(self.scale))
            self.scale = 1.0

    def absorb(
        self,
        atoms: Atoms,
        profiles: Callable[..., Any],
        exact: Callable[..., Any],
        sampled: Callable[..., Any] | None = None,
    ) -> None:
        """Fold the oldest atoms while more than `window` newer ones stay.

        Raises OverflowError, and folds nothing, where the tensors would leave the range of their numbers.
        `profiles` gives f_α of atoms under the name "α₁,α₂,…", `exact` E x x' under "V" for two sets of atoms,
        `sampled` under "T" what atoms are beyond the last degree at given points.
        """
        segments: list[Mapping[str, Array]] = []
        while self._due(atoms, len(segments)):
            segments.append(atoms.full_segment(len(segments)))
        if not segments:
            return
        xp = self._arrays.xp
        names = [name for name in atoms.widths if name != "A"]
        a, *given = (xp.concatenate([s[name] for s in segments]) for name in ("A", *names))

        def rows(columns: Sequence[Array]) -> _Rows:
            beyond = None if sampled is None else xp.asarray(sampled(None, *columns, self.points)["T"], self.dtype)
            return _Rows(columns, self._indexed(profiles(None, *columns)), beyond)

        old = rows(given)
        self._check_range(a, old)
        atoms.drop_segments(len(segments))
        if names:  # constants are folded without any error
            newest = [atoms.newest(name, PROBES) for name in names]
            newer = newest if len(newest[0]) else [x[-PROBES:] for x in given]
            self._compare(a, old, rows(newer), exact)
        a = a.reshape(len(a), -1) / self.dtype.type(self.scale)
        for n, tensor in self._tensors.items():
            flat = tensor.reshape(a.shape[1], -1) if n else tensor.reshape(-1)
            parts = [(index, f) for index, f in old.profiles.items() if sum(index) == n]
            if len(old.latents) == 1:
                ((_, f),) = parts
                self._arrays.add_powers(flat, a * (f[:, None] if f.ndim else f), old.latents[0], n)
            else:
                numbers = (xp.broadcast_to(self._often(index) * f, len(a)) for index, f in parts)
                self._arrays.add_products(flat, a, old.latents, [(c, index) for c, (index, _) in zip(numbers, parts)])
        if old.beyond is not None:
            flat = self.tail.reshape(len(self.tail), -1)
            self._arrays.add_outer(flat, old.beyond, a / self.dtype.type(len(flat)))
        self.count += len(a)

    def _indexed(self, found: Mapping[str, Any]) -> dict[Index, Array]:
        xp = self._arrays.xp
        named = {tuple(int(n) for n in name.split(",") if n): f for name, f in found.items()}
        return {index: xp.asarray(f, self.dtype) for index, f in named.items()}

    def _often(self, index: Index) -> Any:
        """n!/α!"""
        return self.dtype.type(factorial(sum(index)) / prod(map(factorial, index)))

    def _check_range(self, a: Array, old: _Rows) -> None:
        """No entry of Σ_m a_m f_α b₁^⊗α₁ ⊗ … exceeds Σ_m |a_m| |f_α| |b₁|^α₁ …"""
        xp, host = self._arrays.xp, self._wide
        with np.errstate(all="ignore"):
            size = host(abs(a.reshape(len(a), -1)).max(axis=1)) / abs(self.scale) if len(a) else np.zeros(0)
            lengths = [np.sqrt(host(xp.square(b, dtype=np.float64).sum(axis=1))) for b in old.latents]
            most = RANGE * float(np.finfo(self.dtype).max)
            for index, f in old.profiles.items():
                each = size * np.abs(host(f)) * np.prod([v**n for v, n in zip(lengths, index)], axis=0)
                bound = float(np.sum(each) * self._often(index))
                if not bound < most:
                    raise OverflowError(f"degree {sum(index)} would reach {bound:.3g} in {self.dtype}")
            if old.beyond is not None and not np.isfinite(host(old.beyond)).all():
                raise OverflowError(f"what is left out of the series is not finite in {self.dtype}")

    def _due(self, atoms: Atoms, taken: int) -> bool:
        """Whether a segment after so many others is to be folded."""
        if len(atoms) - (taken + 1) * atoms.rows < self.window:
            return False
        return atoms.oldest_velocity(taken) <= float(np.finfo(self.dtype).eps) / SETTLED

    def _compare(self, a: Array, old: _Rows, newer: _Rows, exact: Callable[..., Any]) -> None:
        """Add the pairs of folded atoms and newer ones to the running sums; refit the weights."""
        host, xp = self._wide, self._arrays.xp
        size = host(xp.square(a.reshape(len(a), -1), dtype=np.float64).sum(axis=1))
        values = [self._term(old, newer, n) for n in self.orders]
        if old.beyond is not None and newer.beyond is not None:
            values.append(host(old.beyond @ newer.beyond.T) / len(self.points))
        values.append(host(exact(None, *old.columns, *newer.columns)["V"]))
        if not all(np.isfinite(v).all() for v in values):  # a diverging run is told by its loss
            return
        stacked = np.stack([v * np.sqrt(size)[:, None] for v in values]).reshape(len(values), -1)
        self._sums *= DECAY
        self._sums += stacked @ stacked.T
        if self.fitted:
            self.weights = fit(self._sums)

    def _term(self, one: _Rows, other: _Rows, order: int) -> Array:
        """1/n! ⟨T_n, T_n'⟩ of every pair of atoms, (M, M'): Σ f_α f_β' Π_ij ⟨b_i, c_j⟩^N_ij / N_ij! over the matrices
        N of natural numbers with sum n, where α and β are the sums of their rows and columns.
        """
        host = self._wide
        dots = [[host(b @ c.T) for c in other.latents] for b in one.latents]
        total = np.zeros((len(one.columns[0]), len(other.columns[0])))
        for matrix in _matrices(len(dots), len(dots[0]), order):
            alpha, beta = tuple(map(sum, matrix)), tuple(map(sum, zip(*matrix, strict=True)))
            if alpha in one.profiles and beta in other.profiles:
                f, g = host(one.profiles[alpha]), host(other.profiles[beta])
                made = f.reshape(-1, 1) * g.reshape(1, -1) / prod(factorial(n) for row in matrix for n in row)
                for row, entries in zip(dots, matrix, strict=True):
                    for dot, n in zip(row, entries, strict=True):
                        made = made * dot**n if n else made
                total += made
        return total

    def _wide(self, x: Any) -> Array:
        """x as NumPy numbers of 64 bits."""
        return np.asarray(x if isinstance(x, float | int) else self._arrays.to_host(x), np.float64)

    # --- saving ------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, list[Array]]:
        """Everything, by name."""
        stored: dict[str, list[Array]] = {f"M{n}": [self._arrays.view(t)] for n, t in self._tensors.items()}
        numbers = np.array([self.scale, self.count, self.window, self.fitted], dtype=np.float64)
        if len(self.points):
            stored |= {"Z": [self._arrays.view(self.points)], "T": [self._arrays.view(self.tail)]}
        return stored | {"numbers": [numbers], "weights": [self.weights], "sums": [self._sums]}

    @classmethod
    def restore(
        cls,
        read: Callable[[str], Array],
        outer: tuple[int, ...],
        rank: int,
        orders: Iterable[int],
        dtype: Any,
        points: int = 0,
        arrays: Arrays = HOST,
        halves: Callable[[Array, Array], tuple[Array, Array]] = powers.halves,
    ) -> Moments:
        """The inverse of `dump`."""
        scale, count, window, fitted = (float(x) for x in read("numbers"))
        made = cls(outer, rank, orders, dtype, int(window), bool(fitted), points, arrays, halves)
        made.scale, made.count = scale, int(count)
        tail = (("Z", made.points), ("T", made.tail)) if points else ()
        for name, target in (
            *((f"M{n}", t) for n, t in made._tensors.items()),
            *tail,
            ("weights", made.weights),
            ("sums", made._sums),
        ):
            value = read(name)
            if value.shape != target.shape:
                raise ValueError(f"expected {name} of shape {target.shape}, got {value.shape}")
            target[...] = value if isinstance(target, np.ndarray) else arrays.xp.asarray(value)
        return made


@dataclass(frozen=True)
class _Rows:
    """Some atoms: their latents (M, r), then their parameters (M,), and f_α of them, (M,) or a number.

    `beyond` (M, N) is what they are at the points of the tail.
    """

    columns: Sequence[Array]
    profiles: Mapping[Index, Array]
    beyond: Array | None

    @property
    def latents(self) -> list[Array]:
        return [x for x in self.columns if x.ndim == 2]


def draw(points: int, rank: int) -> Array:
    """Points z ~ N(0, I), (points, rank), the same in every run: orthogonal in blocks, of independent lengths.

    Orthogonal points have less error than independent ones (Yu et al., NeurIPS 2016).
    """
    rng = np.random.default_rng([points, rank])
    made = np.empty((points, rank))
    for start in range(0, points, max(1, rank)):
        turned, r = np.linalg.qr(rng.standard_normal((rank, rank)))
        lengths = np.sqrt(rng.chisquare(rank, rank))
        made[start : start + rank] = (turned * np.sign(np.diag(r)) * lengths).T[: points - start]
    return made


@lru_cache(maxsize=64)
def _matrices(rows: int, columns: int, total: int) -> list[tuple[Index, ...]]:
    """The matrices of natural numbers with a sum."""
    places = combinations_with_replacement(range(rows * columns), total)
    flat = ([chosen.count(k) for k in range(rows * columns)] for chosen in places)
    return [tuple(tuple(f[i * columns : (i + 1) * columns]) for i in range(rows)) for f in flat]


def fit(sums: Array) -> Array:
    """The w ≥ 0 that minimise wᵀ S w − 2 wᵀ t for sums = [[S, t], [tᵀ, ·]]; 1 where S tells nothing."""
    optimize: Any = import_module("scipy.optimize")
    s, t = sums[:-1, :-1], sums[:-1, -1]
    size = np.sqrt(np.diag(s))
    if not (size > 0).all():
        return np.ones(len(t))
    values, vectors = np.linalg.eigh(s / np.outer(size, size))
    root = np.sqrt(np.maximum(values, values[-1] * 1e-14))
    solved = optimize.nnls(root[:, None] * vectors.T, (vectors.T @ (t / size)) / root)
    made: Array = solved[0] / size
    return made
