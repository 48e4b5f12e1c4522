"""What a store's old atoms are folded into: M_n = Σ_m A_m f_n(|B_m|²) Φ_n(B_m) for every degree n, packed.

Decay multiplies one number for all of them. Each degree is read with a weight: 1 is the Mehler series; fitted weights
w ≥ 0 minimise the squared error of Σ_n w_n s_n, s_n the series' terms, against V over pairs of atoms that were folded
and atoms newer than they. They are read off running sums, so they can follow the distribution of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import powers
from backends.arrays import HOST, Arrays
from backends.atoms import Atoms

Array = NDArray[Any]
PROBES = 64  # the newest atoms that stand for what reads the folded ones
DECAY = 0.98  # of the running sums, per fold
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
        arrays: Arrays = HOST,
    ) -> None:
        self._arrays = arrays
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
        terms = len(self.orders)
        self.weights = np.ones(terms)
        self._sums = np.zeros((terms + 1, terms + 1))  # of products of the terms, and of V in the last place

    def _packed(self, order: int) -> tuple[int, ...]:
        return (powers.count(self.rank, order),) if order else ()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(int(t.nbytes) for t in self._tensors.values())

    # --- reading -----------------------------------------------------------------------------------------------

    def moment(self, order: int) -> Array:
        """M_order without its multiplier, outer axes first."""
        return self._tensors[order]

    def weight(self, order: int) -> Any:
        """What M_order is multiplied by."""
        return self.dtype.type(self.scale * self.weights[self.orders.index(order)])

    @property
    def remainder(self) -> float | None:
        """√(Σ (V − Σ_n w_n s_n)² / Σ V²) over the pairs seen lately; None before the first fold."""
        total = self._sums[-1, -1]
        if total <= 0:
            return None
        w = np.append(-self.weights, 1.0)
        return float(np.sqrt(max(0.0, w @ self._sums @ w) / total))

    # --- changing ----------------------------------------------------------------------------------------------

    def age(self, keep: float) -> None:
        """Weight decay: M ← keep·M."""
        self.scale *= keep
        if not 1e-3 < abs(self.scale) < 1e3:
            for t in self._tensors.values():
                t *= self.dtype.type(self.scale)
            self.scale = 1.0

    def absorb(self, atoms: Atoms, profiles: Callable[..., Any], exact: Callable[..., Any]) -> None:
        """Fold the oldest atoms while more than `window` newer ones stay."""
        columns = []
        while self._due(atoms):
            columns.append(atoms.pop_segment())
        if not columns:
            return
        xp = self._arrays.xp
        a, b = (xp.concatenate([c[name] for c in columns]) for name in "AB")
        found = {int(n): xp.asarray(f, self.dtype) for n, f in profiles(None, b).items()}
        newest = atoms.newest("B", PROBES)
        self._compare(a, b, found, newest if len(newest) else b[-PROBES:], profiles, exact)
        a = a.reshape(len(a), -1) / self.dtype.type(self.scale)
        for n, tensor in self._tensors.items():
            factor = found[n] if found[n].ndim == 0 else found[n][:, None]
            flat = tensor.reshape(a.shape[1], -1) if n else tensor.reshape(-1)
            self._arrays.add_powers(flat, a * factor, b, n)
        self.count += len(b)

    def _due(self, atoms: Atoms) -> bool:
        if len(atoms) - atoms.rows < self.window:
            return False
        return atoms.oldest_velocity() <= float(np.finfo(self.dtype).eps) / SETTLED

    def _compare(
        self, a: Array, b: Array, found: Mapping[int, Array], c: Array, profiles: Callable[..., Any], exact: Any
    ) -> None:
        """Add the pairs of folded atoms b and newer ones c to the running sums; refit the weights."""
        host, xp = self._wide, self._arrays.xp
        read = {int(n): host(f) for n, f in profiles(None, c).items()}
        dot = host(b @ c.T)
        size = host(xp.square(a.reshape(len(a), -1), dtype=np.float64).sum(axis=1))
        values = [dot**n * _rows(host(found[n])) * read[n].reshape(1, -1) / factorial(n) for n in self.orders]
        values.append(host(exact(None, b, c)["V"]))
        if not all(np.isfinite(v).all() for v in values):  # a diverging run is told by its loss
            return
        stacked = np.stack([v * np.sqrt(size)[:, None] for v in values]).reshape(len(values), -1)
        self._sums *= DECAY
        self._sums += stacked @ stacked.T
        if self.fitted:
            self.weights = fit(self._sums)

    def _wide(self, x: Any) -> Array:
        """x as NumPy numbers of 64 bits."""
        return np.asarray(x if isinstance(x, float | int) else self._arrays.to_host(x), np.float64)

    # --- saving ------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, list[Array]]:
        """Everything, by name."""
        stored: dict[str, list[Array]] = {f"M{n}": [self._arrays.view(t)] for n, t in self._tensors.items()}
        numbers = np.array([self.scale, self.count, self.window, self.fitted], dtype=np.float64)
        return stored | {"numbers": [numbers], "weights": [self.weights], "sums": [self._sums]}

    @classmethod
    def restore(
        cls,
        read: Callable[[str], Array],
        outer: tuple[int, ...],
        rank: int,
        orders: Iterable[int],
        dtype: Any,
        arrays: Arrays = HOST,
    ) -> Moments:
        """The inverse of `dump`."""
        scale, count, window, fitted = (float(x) for x in read("numbers"))
        made = cls(outer, rank, orders, dtype, int(window), bool(fitted), arrays)
        made.scale, made.count = scale, int(count)
        for name, target in (
            *((f"M{n}", t) for n, t in made._tensors.items()),
            ("weights", made.weights),
            ("sums", made._sums),
        ):
            value = read(name)
            if value.shape != target.shape:
                raise ValueError(f"expected {name} of shape {target.shape}, got {value.shape}")
            target[...] = value if isinstance(target, np.ndarray) else arrays.xp.asarray(value)
        return made


def _rows(x: Array) -> Array:
    return x.astype(np.float64).reshape(-1, 1)


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
