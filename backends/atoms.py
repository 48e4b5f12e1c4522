"""Stored atoms that grow without copying."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.arrays import HOST, Arrays
from backends.half import fitting, from_stored, stored_dtype

Array = NDArray[Any]

SEGMENT_BYTES = 1 << 24  # a segment of a column: large enough to stream, small enough not to waste memory


class Atoms:
    """The atoms of one kernel matrix: columns of rows, in segments that are allocated once and never copied.

    `coefficients` names the column A. Its stored rows are multiplied by `scale`: one number without momentum, or one
    per atom with it (then `velocity` holds each atom's share of the momentum). `storage` is the type of stored rows:
    the dtype itself, "bfloat16" or "float16"; columns of single numbers always have the dtype. Coefficients in float16
    are stored in units that its range fits, powers of two that `scale` makes good. `rows` fixes the rows of a segment.
    `arrays` says where they lie and how they are written.
    """

    def __init__(
        self,
        widths: Mapping[str, tuple[int, ...]],
        dtype: Any,
        momentum: bool = False,
        storage: str | None = None,
        rows: int | None = None,
        arrays: Arrays = HOST,
    ) -> None:
        self._arrays = arrays
        self._fixed = rows is not None
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
        self._last = 0  # rows in the newest segment; the others are full
        self._scales: list[Array] = []
        self._velocities: list[Array] = []
        self._narrow = self._kinds.get("A") == np.float16
        self._top: float | None = 0.0  # the largest coefficient as it is stored, where one scale is for all in float16

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of all stored rows."""
        return int(self._count * (self._row_bytes + (16 if self.per_atom else 0)))

    # --- growing -----------------------------------------------------------------------------------------------

    def extend(self, columns: Mapping[str, Array], scale: float = 1.0, velocity: float = 0.0) -> None:
        """Store rows; arrays may have several batch axes, which are flattened."""
        flat = self._flat(columns)
        if self._narrow and self.per_atom:
            unit = fitting(self._largest(flat["A"]))
            flat["A"] = flat["A"] * self._typed(unit)
            scale, velocity = scale / unit, velocity / unit
        elif self.scale != 1 and not self.per_atom:
            flat["A"] = flat["A"] / self._typed(self.scale)
        self._extend(flat, scale, velocity)

    def _flat(self, columns: Mapping[str, Array]) -> dict[str, Array]:
        asarray = self._arrays.xp.asarray
        return {n: asarray(columns[n]).reshape(-1, *w) for n, w in self.widths.items()}

    def _extend(self, flat: dict[str, Array], scale: float = 1.0, velocity: float = 0.0) -> None:
        """Store rows, the coefficients in units of the one scale where there is one."""
        if self._narrow and not self.per_atom:
            flat["A"] = self._in_range(flat["A"])
        total = len(next(iter(flat.values())))
        done = 0
        while done < total:
            if not self._segments or self._last == self._room(-1):
                self._new_segment()
            used = self._last
            n = min(self._room(-1) - used, total - done)
            for name, rows in flat.items():
                self._arrays.store(self._segments[-1][name][used : used + n], rows[done : done + n])
            if self.per_atom:
                self._scales[-1][used : used + n] = scale
                self._velocities[-1][used : used + n] = velocity
            self._count += n
            self._last += n
            done += n

    def append(self, rate: float, clip: float, **columns: Array) -> None:
        """Gradient concatenation: coefficients -rate·clip·A (Yang, Santacroce, Hu 2022, §4)."""
        if self.per_atom:
            self.extend(columns, -rate * clip, clip)
            return
        columns["A"] = columns["A"] * self._typed(-rate * clip / self.scale)
        self._extend(self._flat(columns))

    # --- the range of float16 ----------------------------------------------------------------------------------

    def _in_range(self, rows: Array) -> Array:
        """New coefficients in stored units, which are changed if need be."""
        if self._top is None:
            self._top = max((self._largest(part) for part in self._filled_coefficients()), default=0.0)
        top = self._largest(rows)
        unit = fitting(max(top, self._top))
        if unit != 1:
            self._multiply_stored(unit)
            self.scale /= unit
            self._top *= unit
            rows = rows * self._typed(unit)
        rounded = float(np.float16(min(top * unit, 65504.0))) if top < math.inf else 0.0
        self._top = max(self._top, rounded)
        return rows

    def _largest(self, rows: Array) -> float:
        return float(abs(self._arrays.load(rows, self.dtype)).max()) if rows.size else 0.0

    def _filled_coefficients(self) -> Iterator[Array]:
        for k, segment in enumerate(self._segments):
            yield segment["A"][: self._filled(k)]

    def _multiply_stored(self, factor: float) -> None:
        for rows in self._filled_coefficients():
            self._arrays.store(rows, self._arrays.load(rows, self.dtype) * self._typed(factor))

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
        most = 1e30 if self._narrow else 1e3
        if not 1 / most < abs(self.scale) < most:  # keep stored rows at the size of the real ones
            self._multiply_stored(self.scale)
            self.scale, self._top = 1.0, None

    def with_momentum(self) -> None:
        """From one scale for all atoms to one scale and one velocity per atom."""
        if not self.per_atom:
            self.per_atom = True
            xp, rooms = self._arrays.xp, [self._room(k) for k in range(len(self._segments))]
            self._scales = [xp.full(room, self.scale) for room in rooms]
            self._velocities = [xp.zeros(room) for room in rooms]

    def without_momentum(self) -> None:
        """Back to one scale for all atoms, where no step was taken since `with_momentum`."""
        self.per_atom, self._scales, self._velocities = False, [], []

    def _typed(self, x: float) -> Any:
        return self.dtype.type(x)

    # --- shrinking ---------------------------------------------------------------------------------------------

    def pop_segment(self) -> dict[str, Array]:
        """Removes the oldest segment, which must be full, and returns its columns as `full_segment` does."""
        columns = self.full_segment(0)
        self.drop_segments(1)
        return columns

    def drop_segments(self, count: int) -> None:
        """Removes the oldest segments, which must be full."""
        for parts in (self._segments, self._scales, self._velocities):
            if parts is self._segments:
                self._count -= sum(self._room(k) for k in range(count))
            del parts[:count]
        self._top = None

    def full_segment(self, k: int) -> dict[str, Array]:
        """The columns of the segment number k, counted from the oldest, which must be full, as arrays of the dtype.

        "A" has every multiplier applied; with momentum "velocity" is the atoms' momentum, rows like those of "A".
        """
        if self._count < (k + 1) * self.rows:
            raise IndexError(f"expected a full segment of {self.rows} atoms, got {self._count - k * self.rows}")
        columns = {n: self._arrays.load(values, self.dtype) for n, values in self._segments[k].items()}
        a = columns["A"]
        if self.per_atom:
            scales, velocities = (
                x[k].astype(self.dtype).reshape(-1, *([1] * (a.ndim - 1))) for x in (self._scales, self._velocities)
            )
            columns["velocity"] = a * velocities
            columns["A"] = a * scales
        else:
            columns["A"] = a * self._typed(self.scale)
        return columns

    def oldest_velocity(self, k: int = 0) -> float:
        """The largest momentum share among the atoms of the segment number k from the oldest, 0 without momentum."""
        return float(abs(self._velocities[k][: self._filled(k)]).max()) if self.per_atom else 0.0

    # --- reading -----------------------------------------------------------------------------------------------

    def newest(self, name: str, count: int) -> Array:
        """The last `count` rows of a column, or as many as the last two segments hold."""
        parts = [(k, self._segments[k]) for k in range(len(self._segments))[-2:]]
        rows = [self._arrays.load(segment[name][: self._filled(k)], self.dtype) for k, segment in parts]
        xp = self._arrays.xp
        found: Array = xp.concatenate(rows)[-count:] if rows else xp.empty((0, *self.widths[name]), self.dtype)
        return found

    def _room(self, k: int) -> int:
        """Rows that a segment has room for."""
        return len(next(iter(self._segments[k].values())))

    def _filled(self, k: int) -> int:
        return self._last if k == len(self._segments) - 1 else self._room(k)

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
        return tuple(self._arrays.load(x, self.dtype) for x in stored)

    def stored(self, column: str) -> np.dtype[Any]:
        """The type a column is stored in."""
        return self._kinds[column]

    def addresses(self, column: str) -> list[int]:
        """Where the segments of a stored column start in memory; "scale" has numbers of 64 bits."""
        arrays = self._scales if column == "scale" else [segment[column] for segment in self._segments]
        return [a.__array_interface__["data"][0] for a in arrays]

    def column(self, name: str) -> Array:
        """One column of all atoms, copied to a NumPy array; A with every multiplier applied."""
        parts = []
        for k, segment in enumerate(self._segments):
            part = self._arrays.load(segment[name][: self._filled(k)], self.dtype)
            parts.append(self._arrays.to_host(part * self._factor(k, part.ndim) if name == "A" else part))
        return np.concatenate(parts) if parts else np.empty((0, *self.widths[name]), self.dtype)

    def _factor(self, k: int, ndim: int) -> Any:
        if not self.per_atom:
            return self._typed(self.scale)
        return self._scales[k][: self._filled(k)].astype(self.dtype).reshape(-1, *([1] * (ndim - 1)))

    def multipliers(self) -> dict[str, Array]:
        """What the rows of A are as they are "stored", and the "scale" of all or of each; momentum has a "velocity"."""
        host, filled = self._arrays.to_host, [self._filled(k) for k in range(len(self._segments))]
        rows = [host(self._arrays.load(s["A"][:n], self.dtype)) for s, n in zip(self._segments, filled)]
        empty = np.empty((0, *self.widths["A"]), self.dtype)
        found = {"stored": np.concatenate([empty, *rows]), "scale": np.array([self.scale])}
        if self.per_atom:
            for name, parts in (("scale", self._scales), ("velocity", self._velocities)):
                found[name] = np.concatenate([np.empty(0), *(host(part[:n]) for part, n in zip(parts, filled))])
        return found

    # --- saving ------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, list[Array]]:
        """Everything stored, as views of the segments: `restore` gives the same atoms back bit for bit."""
        filled, view = [self._filled(k) for k in range(len(self._segments))], self._arrays.view
        stored = {
            n: [view(segment[n][:rows]) for segment, rows in zip(self._segments, filled)]
            or [np.empty((0, *w), self._kinds[n])]
            for n, w in self.widths.items()
        }
        stored["scale"] = [np.array([self.scale])]
        if self.per_atom:
            for name, parts in (("scales", self._scales), ("velocities", self._velocities)):
                stored[name] = [view(part[:rows]) for part, rows in zip(parts, filled)] or [np.empty(0)]
        return stored

    @classmethod
    def restore(
        cls,
        read: Callable[[str], Array | None],
        widths: Mapping[str, tuple[int, ...]],
        dtype: Any,
        storage: str | None = None,
        rows: int | None = None,
        arrays: Arrays = HOST,
    ) -> Atoms:
        """The inverse of `dump`; `read` gives one column at a time, or None for one that was not stored.

        Columns dumped with another storage are converted: uint16 holds bfloat16.
        """
        scales = read("scales")
        made = cls(widths, dtype, scales is not None, storage, rows, arrays)
        made._top, unit = None, 1.0
        for name in widths:
            column = read(name)
            if column is None:
                raise KeyError(name)
            if name == next(iter(widths)):
                made._reserve(len(column))
            if name == "A" and made._narrow and column.dtype != np.float16:
                column = from_stored(column, made.dtype)
                unit = fitting(float(abs(column).max(initial=0)))
                column = column * made._typed(unit)
            for k, part in made._parts(column):
                arrays.store(made._segments[k][name][: len(part)], part)
        scale = read("scale")
        made.scale = (1.0 if scale is None else float(scale[0])) / unit
        velocities = read("velocities")
        if scales is not None and velocities is not None:
            for target, source in ((made._scales, scales), (made._velocities, velocities)):
                for k, part in made._parts(source):
                    target[k][: len(part)] = arrays.xp.asarray(part) / unit
        return made

    def _parts(self, column: Array) -> Iterator[tuple[int, Array]]:
        """Rows of a whole column, by segment."""
        start = 0
        for k in range(len(self._segments)):
            yield k, column[start : start + self._filled(k)]
            start += self._filled(k)

    def _reserve(self, count: int) -> None:
        """Room for `count` atoms, whose rows are still to be written."""
        while self._count < count:
            self._new_segment()
            self._last = min(self._room(-1), count - self._count)
            self._count += self._last

    def _new_segment(self) -> None:
        rows = self.rows if self._fixed else self._arrays.segment_rows(self.rows, self._row_bytes, len(self._segments))
        empty = self._arrays.empty
        self._segments.append({n: empty((rows, *w), self._kinds[n]) for n, w in self.widths.items()})
        self._last = 0
        if self.per_atom:
            self._scales.append(self._arrays.xp.empty(rows))
            self._velocities.append(self._arrays.xp.empty(rows))
