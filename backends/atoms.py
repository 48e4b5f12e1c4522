"""Stored atoms that grow without copying."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.half import from_stored, stored_dtype, to_stored

Array = NDArray[Any]

SEGMENT_BYTES = 1 << 24  # a segment of a column: large enough to stream, small enough not to waste memory
ALIGNMENT = 64  # bytes of a cache line, where rows that fill whole lines should start


class Atoms:
    """The atoms of one kernel matrix: columns of rows, in segments that are allocated once and never copied.

    `coefficients` names the column A. Its stored rows are multiplied by `scale`: one number without momentum, or one
    per atom with it (then `velocity` holds each atom's share of the momentum). `storage` is the type of stored rows:
    the dtype itself, "bfloat16" or "float16"; columns of single numbers always have the dtype. `rows` fixes the rows
    of a segment.
    """

    def __init__(
        self,
        widths: Mapping[str, tuple[int, ...]],
        dtype: Any,
        momentum: bool = False,
        storage: str | None = None,
        rows: int | None = None,
    ) -> None:
        self.widths = dict(widths)
        self.dtype = np.dtype(dtype)
        self.storage = storage or self.dtype.name
        self.scale = 1.0
        self.per_atom = momentum
        wide = stored_dtype(self.storage)
        self._kinds = {n: wide if math.prod(w) > 1 else self.dtype for n, w in self.widths.items()}
        self._row_bytes = sum(math.prod(w) * self._kinds[n].itemsize for n, w in self.widths.items())
        self.rows = rows or max(256, SEGMENT_BYTES // max(1, self._row_bytes))
        self._segments: list[dict[str, Array]] = []
        self._count = 0
        self._scales: list[Array] = []
        self._velocities: list[Array] = []

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of all stored rows."""
        return int(self._count * (self._row_bytes + (16 if self.per_atom else 0)))

    # --- growing -----------------------------------------------------------------------------------------------

    def extend(self, columns: Mapping[str, Array], scale: float = 1.0, velocity: float = 0.0) -> None:
        """Store rows; arrays may have several batch axes, which are flattened."""
        flat = {n: to_stored(np.asarray(columns[n]).reshape(-1, *w), self._kinds[n]) for n, w in self.widths.items()}
        total = len(next(iter(flat.values())))
        done = 0
        while done < total:
            used = self._count % self.rows
            if used == 0:
                self._new_segment()
            n = min(self.rows - used, total - done)
            for name, rows in flat.items():
                self._segments[-1][name][used : used + n] = rows[done : done + n]
            if self.per_atom:
                self._scales[-1][used : used + n] = scale
                self._velocities[-1][used : used + n] = velocity
            self._count += n
            done += n

    def append(self, rate: float, clip: float, **columns: Array) -> None:
        """Gradient concatenation: coefficients -rate·clip·A (Yang, Santacroce, Hu 2022, §4)."""
        if self.per_atom:
            self.extend(columns, -rate * clip, clip)
            return
        columns["A"] = columns["A"] * self._typed(-rate * clip / self.scale)
        self.extend(columns)

    def age(self, rate: float, keep: float, momentum: float) -> None:
        """Weight decay and momentum of the atoms already stored: m ← μ m, W ← keep·W - rate·m."""
        if self.per_atom:
            for k, (s, v) in enumerate(zip(self._scales, self._velocities)):
                n = self._filled(k)
                v[:n] *= momentum
                s[:n] *= keep
                s[:n] -= rate * v[:n]
            return
        self.scale *= keep
        if not 1e-3 < abs(self.scale) < 1e3:  # keep stored rows at the size of the real ones
            factor = self._typed(self.scale)
            for k, segment in enumerate(self._segments):
                rows = segment["A"][: self._filled(k)]
                rows[...] = to_stored(from_stored(rows, self.dtype) * factor, self._kinds["A"])
            self.scale = 1.0

    def with_momentum(self) -> None:
        """From one scale for all atoms to one scale and one velocity per atom."""
        if not self.per_atom:
            self.per_atom = True
            self._scales = [np.full(self.rows, self.scale) for _ in self._segments]
            self._velocities = [np.zeros(self.rows) for _ in self._segments]

    def _typed(self, x: float) -> Any:
        return self.dtype.type(x)

    # --- shrinking ---------------------------------------------------------------------------------------------

    def pop_segment(self) -> dict[str, Array]:
        """Removes the oldest segment, which must be full, and returns its columns as arrays of the dtype.

        "A" has every multiplier applied; with momentum "velocity" is the atoms' momentum, rows like those of "A".
        """
        if self._count < self.rows:
            raise IndexError(f"expected a full segment of {self.rows} atoms, got {self._count}")
        segment = self._segments.pop(0)
        self._count -= self.rows
        columns = {n: from_stored(values, self.dtype) for n, values in segment.items()}
        a = columns["A"]
        if self.per_atom:
            scales, velocities = (
                x.pop(0).astype(self.dtype).reshape(-1, *([1] * (a.ndim - 1))) for x in (self._scales, self._velocities)
            )
            columns["velocity"] = a * velocities
            columns["A"] = a * scales
        else:
            columns["A"] = a * self._typed(self.scale)
        return columns

    def oldest_velocity(self) -> float:
        """The largest momentum share among the atoms of the oldest segment, 0 without momentum."""
        return float(np.abs(self._velocities[0][: self._filled(0)]).max()) if self.per_atom else 0.0

    # --- reading -----------------------------------------------------------------------------------------------

    def newest(self, name: str, count: int) -> Array:
        """The last `count` rows of a column, or as many as the last two segments hold."""
        parts = [(k, self._segments[k]) for k in range(len(self._segments))[-2:]]
        rows = [from_stored(segment[name][: self._filled(k)], self.dtype) for k, segment in parts]
        return np.concatenate(rows)[-count:] if rows else np.empty((0, *self.widths[name]), self.dtype)

    def _filled(self, k: int) -> int:
        return int(min(self.rows, self._count - k * self.rows))

    def blocks(self, columns: tuple[str, ...], size: int) -> list[tuple[Array, ...]]:
        """At most `size` rows of the named columns at a time, as numbers of the dtype; "scale" is the per-atom scale.

        Columns stored as such are views.
        """
        return [self.typed(block) for block in self.stored_blocks(columns, size)]

    def stored_blocks(self, columns: tuple[str, ...], size: int) -> list[tuple[Array, ...]]:
        """Views of at most `size` rows of the named columns, as they are stored."""
        found = []
        for k, segment in enumerate(self._segments):
            for start in range(0, self._filled(k), size):
                rows = slice(start, min(start + size, self._filled(k)))
                found.append(tuple((self._scales[k] if c == "scale" else segment[c])[rows] for c in columns))
        return found

    def typed(self, stored: tuple[Array, ...]) -> tuple[Array, ...]:
        """Stored columns as numbers of the dtype."""
        return tuple(from_stored(x, self.dtype) for x in stored)

    def stored(self, column: str) -> np.dtype[Any]:
        """The type a column is stored in."""
        return self._kinds[column]

    def addresses(self, column: str) -> list[int]:
        """Where the segments of a stored column start in memory; "scale" has numbers of 64 bits."""
        arrays = self._scales if column == "scale" else [segment[column] for segment in self._segments]
        return [a.__array_interface__["data"][0] for a in arrays]

    def column(self, name: str) -> Array:
        """One column of all atoms, copied; A with every multiplier applied."""
        parts = [from_stored(segment[name][: self._filled(k)], self.dtype) for k, segment in enumerate(self._segments)]
        if name == "A":
            parts = [p * self._factor(k, p.ndim) for k, p in enumerate(parts)]
        return np.concatenate(parts) if parts else np.empty((0, *self.widths[name]), self.dtype)

    def _factor(self, k: int, ndim: int) -> Any:
        if not self.per_atom:
            return self._typed(self.scale)
        return self._scales[k][: self._filled(k)].astype(self.dtype).reshape(-1, *([1] * (ndim - 1)))

    # --- saving ------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, list[Array]]:
        """Everything stored, as views of the segments: `restore` gives the same atoms back bit for bit."""
        filled = [self._filled(k) for k in range(len(self._segments))]
        stored = {
            n: [segment[n][:rows] for segment, rows in zip(self._segments, filled)]
            or [np.empty((0, *w), self._kinds[n])]
            for n, w in self.widths.items()
        }
        stored["scale"] = [np.array([self.scale])]
        if self.per_atom:
            for name, parts in (("scales", self._scales), ("velocities", self._velocities)):
                stored[name] = [part[:rows] for part, rows in zip(parts, filled)] or [np.empty(0)]
        return stored

    @classmethod
    def restore(
        cls,
        read: Callable[[str], Array | None],
        widths: Mapping[str, tuple[int, ...]],
        dtype: Any,
        storage: str | None = None,
        rows: int | None = None,
    ) -> Atoms:
        """The inverse of `dump`; `read` gives one column at a time, or None for one that was not stored.

        Columns dumped with another storage are converted: uint16 holds bfloat16.
        """
        scales = read("scales")
        made = cls(widths, dtype, scales is not None, storage, rows)
        for name in widths:
            column = read(name)
            if column is None:
                raise KeyError(name)
            if name == next(iter(widths)):
                made._reserve(len(column))
            for k, segment in enumerate(made._segments):
                part = column[k * made.rows : k * made.rows + made._filled(k)]
                if part.dtype != segment[name].dtype:
                    part = to_stored(from_stored(part, made.dtype), segment[name].dtype)
                segment[name][: made._filled(k)] = part
        scale = read("scale")
        made.scale = 1.0 if scale is None else float(scale[0])
        velocities = read("velocities")
        if scales is not None and velocities is not None:
            for k in range(len(made._segments)):
                n = made._filled(k)
                made._scales[k][:n] = scales[k * made.rows : k * made.rows + n]
                made._velocities[k][:n] = velocities[k * made.rows : k * made.rows + n]
        return made

    def _reserve(self, count: int) -> None:
        """Room for `count` atoms, whose rows are still to be written."""
        for _ in range(0, count, self.rows):
            self._new_segment()
        self._count = count

    def _new_segment(self) -> None:
        self._segments.append({n: aligned((self.rows, *w), self._kinds[n]) for n, w in self.widths.items()})
        if self.per_atom:
            self._scales.append(np.empty(self.rows))
            self._velocities.append(np.empty(self.rows))


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array that is not written yet and starts at a cache line."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    skip = -raw.__array_interface__["data"][0] % ALIGNMENT
    return raw[skip : skip + size].view(dtype).reshape(shape)
