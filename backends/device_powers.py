"""Packed symmetric powers (backends/powers.py) on a device: a kernel per degree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import comb, factorial, prod
from typing import Any

import numpy as np

from backends import powers as host
from backends.device import Device


@lru_cache(maxsize=4)
def powers(device: Device) -> DevicePowers:
    """Those of a device."""
    return DevicePowers(device)


class DevicePowers:
    """Φ_n and its derivative, for latents in float32."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._tables: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._weights: dict[tuple[int, int], Any] = {}

    @staticmethod
    def count(rank: int, order: int) -> int:
        """Monomials of a degree."""
        return host.count(rank, order)

    def _table(self, rank: int, order: int) -> tuple[Any, Any]:
        """The largest index of every monomial, and where those of each largest index begin."""
        key = (rank, order)
        if key not in self._tables:
            first = np.array([host.count(i, order) for i in range(rank + 1)], np.int64)
            largest = np.repeat(np.arange(rank, dtype=np.int32), np.diff(first))
            asarray = self._device.xp.asarray
            self._tables[key] = asarray(largest), asarray(first[:-1].copy())
        return self._tables[key]

    def _weight(self, rank: int, order: int) -> Any:
        key = (rank, order)
        if key not in self._weights:
            self._weights[key] = self._device.xp.asarray(host.weights(rank, order).astype(np.float32))
        return self._weights[key]

    def _monomials(self, g: Any, order: int, weighted: bool) -> list[Any]:
        """Monomials of the degrees 1 … order, (samples, count) each; the last ones with their weights if so asked."""
        samples, rank = g.shape
        made = [g]
        for n in range(2, order + 1):
            largest, first = self._table(rank, n)
            weight = self._weight(rank, n) if weighted and n == order else 0
            size, low = host.count(rank, n), host.count(rank, n - 1)
            out = self._device.xp.empty((samples, size), np.float32)
            threads = 256
            blocks = -(-samples * size // threads)
            if blocks:
                arguments = (samples, size, low, rank, g, made[-1], largest, first, weight, out)
                self._device.kernels("tpc_monomials")(blocks, threads, arguments)
            made.append(out)
        return made

    def power(self, g: Any, order: int) -> Any:
        """Φ_order(g), (…, r) → (…, count)."""
        flat = self._device.contiguous(g).reshape(-1, g.shape[-1])
        return self._monomials(flat, order, True)[-1].reshape(*g.shape[:-1], -1)

    def slope(self, dual: Any, g: Any, order: int) -> Any:
        """∂⟨dual, Φ_order(g)⟩/∂g, (…, count) and (…, r) → (…, r)."""
        device, xp = self._device, self._device.xp
        rank = g.shape[-1]
        shape = np.broadcast_shapes(dual.shape[:-1], g.shape[:-1])
        g = device.contiguous(xp.broadcast_to(g, (*shape, rank))).reshape(-1, rank)
        up = device.contiguous(xp.broadcast_to(dual, (*shape, dual.shape[-1]))).reshape(len(g), -1)
        up = up * self._weight(rank, order)
        lows, samples = self._monomials(g, order - 1, False), len(g)
        total = xp.zeros((samples, rank), np.float32)
        for n in range(order, 1, -1):
            (largest, _), (_, starts) = self._table(rank, n - 1), self._table(rank, n)
            size, low_size = host.count(rank, n), host.count(rank, n - 1)
            down = xp.empty((samples, low_size), np.float32)
            if samples:
                run = device.kernels("tpc_slope_total")
                run(samples * rank, 128, (rank, size, low_size, up, lows[n - 2], starts, total))
                run, count = device.kernels("tpc_slope_down"), samples * low_size
                run(-(-count // 256), 256, (samples, rank, size, low_size, g, up, largest, starts, down))
            up = down
        return (total + up).reshape(*shape, rank)

    def product(self, factors: Sequence[Any]) -> Any:
        """The symmetric part of g₁ ⊗ … ⊗ g_n packed, n arrays (…, r) → (…, count), by powers of their sums."""
        order, made = len(factors), None
        for number, g in polarized(factors):
            part = np.float32(number) * self.power(g, order)
            made = part if made is None else made + part
        return made

    def opened(self, dual: Any, lower: Any, order: int) -> Any:
        """⟨dual, T ⊗ ·⟩ for packed tensors of degree `order` and one less, (…, count) and (…, count') → (…, r).

        Above degree 2, where only products of three latents and more lead, it is computed on the host.
        """
        if order == 2:
            return np.float32(0.5) * self.slope(dual, lower, 2)
        found = host.opened(self._device.to_host(dual), self._device.to_host(lower), order)
        return self._device.xp.asarray(np.ascontiguousarray(found))


def polarized(factors: Sequence[Any]) -> Iterator[tuple[float, Any]]:
    """Numbers c and vectors v with sym(g₁ ⊗ … ⊗ g_n) = Σ c v^⊗n: the polarization identity

    n! sym(g₁ ⊗ … ⊗ g_n) = Σ over subsets S of (−1)^(n − |S|) (Σ_{i ∈ S} g_i)^⊗n, equal factors taken together.
    """
    distinct = list({id(g): g for g in factors}.values())
    often = [sum(g is v for g in factors) for v in distinct]
    n = len(factors)
    for counts in product(*(range(b + 1) for b in often)):
        if any(counts):
            number = (-1) ** (n - sum(counts)) * prod(map(comb, often, counts)) / factorial(n)
            yield number, sum(np.float32(k) * v for k, v in zip(counts, distinct, strict=True) if k)
