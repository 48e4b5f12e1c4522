"""Windows along an axis of positions: which places of a source the places of a target see, offset by offset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tpc.errors import InternalError
from tpc.program.axes import Axis

Piece = tuple[int, slice, slice]  # an offset, places of the target and those of the source that they see


def pieces(
    sizes: tuple[int, int, int], stride: int = 1, dilation: int = 1, pad: int = 0, circular: bool = False
) -> Iterator[Piece]:
    """Which places see which, offset by offset; `sizes` are those of source, target and offsets."""
    source, target, offsets = sizes
    for o in range(offsets):
        start = dilation * o - pad
        last = start + stride * (target - 1)
        for turn in range(start // source, last // source + 1) if circular else (0,):
            first = max(0, -((start - turn * source) // stride))  # the first p with stride·p + start ≥ turn·source
            stop = min(target, -((start - (turn + 1) * source) // stride))
            if first < stop:
                q = stride * first + start - turn * source
                yield o, slice(first, stop), slice(q, q + stride * (stop - first - 1) + 1, stride)


@dataclass(frozen=True, slots=True)
class Window:
    """Place p of `target` sees place stride·p + dilation·o − pad of `source` by offset o."""

    source: Axis
    target: Axis
    offset: Axis
    stride: int = 1
    dilation: int = 1
    pad: int = 0
    circular: bool = False

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The lengths of source, target and offsets, which are known."""
        found = self.source.size, self.target.size, self.offset.size
        if None in found:
            raise InternalError(f"a window along axes of unknown length: {self}")
        return found  # type: ignore[return-value]

    @property
    def geometry(self) -> tuple[tuple[int, int, int], int, int, int, bool]:
        """What `pieces` takes."""
        return self.sizes, self.stride, self.dilation, self.pad, self.circular

    @property
    def fits(self) -> bool:
        """Whether no place sees beyond the source."""
        source, target, offsets = self.sizes
        last = self.stride * (target - 1) + self.dilation * (offsets - 1) - self.pad
        return self.circular or (self.pad <= 0 and last < source)

    @property
    def is_trivial(self) -> bool:
        """Whether every place sees itself alone."""
        source, target, offsets = self.sizes
        same = source == target and self.source.base == self.target.base
        return same and offsets == self.stride == 1 and self.pad == 0

    def renamed(self, pairs: Mapping[Axis, Axis]) -> Window:
        """The window whose target and offsets have other names; the source, which is bound, keeps its own."""
        return replace(self, target=pairs.get(self.target, self.target), offset=pairs.get(self.offset, self.offset))

    def __str__(self) -> str:
        return ", ".join([f"{self.source}->{self.target}", *self.details])

    @property
    def details(self) -> tuple[str, ...]:
        """The offsets, and the numbers that are not those of a plain window, in words."""
        extra = [f"{name} {value}" for name, value, plain in self._numbers if value != plain]
        return (str(self.offset), *extra, *(["circular"] if self.circular else []))

    @property
    def _numbers(self) -> tuple[tuple[str, int, int], ...]:
        return ("stride", self.stride, 1), ("dilation", self.dilation, 1), ("pad", self.pad, 0)
