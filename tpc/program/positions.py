"""Operations along positions: convolutions, pooling, means, and what tells their axes.

An axis keeps its name where its length stays, and is called by name and length where it changes, height_4: networks
that come to the same number of places meet there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, Axes, Axis, without
from tpc.program.context import Trace, fail, root
from tpc.program.functions import argument
from tpc.program.shift import shift
from tpc.program.tensor import Tensor
from tpc.program.trace import Traced, TracedTensor, TracedVector, as_tensor, scalar
from tpc.program.window import Window

PADDINGS = ("same", "valid", "circular")


def axis_of(s: Traced, name: Any) -> Axis:
    """The axis of this name, or what became of it."""
    found = [a for a in s.axes if a.name == name] or [a for a in s.axes if root(a) == name]
    if len(found) == 1:
        return found[0]
    return fail(f"expected one of the axes {', '.join(map(str, s.axes)) or '(none)'}, got {name!r}")


def axes_of(s: Traced, names: Any, operation: str) -> Axes:
    """Several axes by their names."""
    given = (names,) if isinstance(names, str) else names
    if not isinstance(given, Iterable) or not (listed := tuple(given)):
        fail(f"{operation} expects names of axes, got {names!r}", "for example ('height', 'width')")
    found = tuple(axis_of(s, name) for name in listed)
    if len(set(found)) < len(found):
        fail(f"{operation} expects different axes, got {names!r}")
    return found


def positions_of(s: Traced, names: Any, operation: str) -> Axes:
    """The axes of positions: those named, else all that s has."""
    if names is not None:
        found = axes_of(s, names, operation)
        if SAMPLE in found or Trace.current().last in map(root, found):
            fail(
                f"{operation} goes along positions, not along {', '.join(map(str, found))}", "name an axis of positions"
            )
        return found
    places = Trace.current().positions
    found = tuple(sorted((a for a in s.axes if root(a) in places), key=lambda a: places.index(root(a))))
    if not found:
        fail(
            f"{operation} expects positions, got {s._is_a()} with the axes {', '.join(map(str, s.axes)) or '(none)'}",
            "annotate the data, x: tpc.Image (sample, height, width, channel), and do it before positions are averaged",
        )
    return found


def data_positions(names: Any, operation: str) -> Axes:
    """Axes of positions of the data, by their names, with lengths."""
    data = Trace.current().data
    given = (names,) if isinstance(names, str) else tuple(names)
    for name in given:
        if name not in Trace.current().positions:
            listed = ", ".join(Trace.current().positions) or "no positions"
            fail(f"{operation} expects axes of positions of the data, {listed}, got {name!r}")
    for name in given:
        length(data[name], operation)
    return tuple(data[name] for name in given)


def length(axis: Axis, operation: str) -> int:
    """The number of places of an axis."""
    if axis.size is None:
        last = Trace.current()
        names = ", ".join((*last.positions, last.last))
        fail(
            f"{operation} needs to know the length of {axis}",
            f"give the shape of a sample, ({names}): as x: tpc.Image[28, 28, 1], or input_shape= of tpc.load",
        )
    return axis.size


@dataclass(frozen=True)
class Sliding:
    """How windows slide along one axis."""

    size: int
    stride: int
    dilation: int
    padding: str

    def window(self, axis: Axis, operation: str) -> Window:
        """The window along an axis, with the axis it leads to."""
        n, reach = length(axis, operation), self.dilation * (self.size - 1) + 1
        pad = 0
        if self.padding == "valid":
            if reach > n:
                fail(
                    f"{operation}: a window of {reach} places does not fit into the {n} of {axis} with padding='valid'",
                    "take a smaller size or dilation, or padding='same'",
                )
            places = (n - reach) // self.stride + 1
        else:
            places = -(-n // self.stride)
            pad = (
                (reach - 1) // 2 if self.padding == "circular" else max(0, (places - 1) * self.stride + reach - n) // 2
            )
        offset = Axis(f"{root(axis)}_offset{self.size}", self.size)
        return Window(
            axis, _with_length(axis, places), offset, self.stride, self.dilation, pad, self.padding == "circular"
        )


def _with_length(axis: Axis, places: int) -> Axis:
    """An axis of positions with another number of them."""
    if places == axis.size:
        return axis
    start = Trace.current().data.get(root(axis))
    return start if start is not None and start.size == places else Axis(f"{root(axis)}_{places}", places)


def slidings(
    axes: Axes, size: Any, stride: Any, dilation: Any, padding: Any, operation: str
) -> tuple[tuple[Axis, Sliding], ...]:
    """How windows slide along each of the axes."""
    if padding not in PADDINGS:
        fail(f"{operation} expects padding among {', '.join(PADDINGS)}, got {padding!r}")
    count = len(axes)
    sizes, strides, dilations = (
        _each(v, count, f"{what} of {operation}")
        for v, what in ((size, "size"), (stride, "stride"), (dilation, "dilation"))
    )
    return tuple((axes[i], Sliding(sizes[i], strides[i], dilations[i], padding)) for i in range(count))


def _each(value: Any, count: int, what: str) -> tuple[int, ...]:
    """A number for each axis."""
    given = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * count
    if len(given) != count or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in given):
        axes = "" if count == 1 else f", or {count} of them"
        fail(f"expected a positive whole number{axes} as {what}, got {value!r}")
    return given


def windows(found: Sequence[tuple[Axis, Sliding]], operation: str) -> tuple[Window, ...]:
    """The windows; along an axis where every place sees itself alone there is none."""
    made = (s.window(a, operation) for a, s in found)
    return tuple(w for w in made if not w.is_trivial)


def seen(axes: Axes, through: Iterable[Window]) -> tuple[Axes, Axes]:
    """(axes of what windows show, summed over offsets; the offsets)."""
    offsets: list[Axis] = []
    for w in through:
        axes = tuple(w.target if a == w.source else a for a in axes)
        offsets.append(w.offset)
    return axes, tuple(offsets)


def shifted(x: Any, through: Iterable[Window]) -> Any:
    """What windows show, one after the other."""
    for w in through:
        x = shift(x, w)
    return x


# --- operations ------------------------------------------------------------------------------------------------------


def avg_pool(h: Any, size: Any, stride: Any = None, padding: str = "valid", axes: Any = None) -> Any:
    """Averages over windows of positions, of vectors or of data.

    `size` and `stride` (by default the size) are numbers or one for each axis. `axes` names the axes, by default all
    positions. With padding "same" places beyond the border count as zeros. Before the nonlinearity averages of
    G-vectors are G-vectors. Raises ProgramError for a window that does not fit.
    """
    traced = _traced(h, "tpc.avg_pool")
    along = positions_of(traced, axes, "tpc.avg_pool")
    through = windows(
        slidings(along, size, size if stride is None else stride, 1, padding, "tpc.avg_pool"), "tpc.avg_pool"
    )
    after, offsets = seen(traced.axes, through)
    share = tensor.Constant(sp.Rational(1, math.prod(a.size or 1 for a in offsets)))
    if isinstance(traced, TracedVector):
        v = traced
        return TracedVector(
            v.space, after, lambda: combined(share, shifted(v.build_vector(), through), offsets), "vector"
        )
    t = as_tensor(traced)
    return scalar(after, lambda: tensor.contract((share, shifted(t.build_tensor(), through)), offsets), t)


def mean(value: Any, axes: Any) -> Any:
    """The average along finite axes, of vectors or of a scalar: ("height", "width") pools globally."""
    traced = _traced(value, "tpc.mean")
    along = axes_of(traced, axes, "tpc.mean")
    after = without(traced.axes, along)
    if isinstance(traced, TracedVector):
        v = traced
        return TracedVector(v.space, after, lambda: combined(_share(along), v.build_vector(), along))
    t = as_tensor(traced)
    return scalar(after, lambda: tensor.contract((_share(along), t.build_tensor()), along), t)


def _share(axes: Axes) -> Tensor:
    """One over the number of places."""
    return tensor.elementwise(1 / argument(0), (tensor.contract(tensor.size(a) for a in axes),))


def combined(c: Tensor, x: ir.Vector, over: Axes) -> ir.Vector:
    """Σ_over c x"""
    made = ir.lincomb([(c, x, over)])
    assert made is not None
    return made


def _traced(value: Any, operation: str) -> TracedTensor | TracedVector:
    if not isinstance(value, TracedTensor | TracedVector):
        fail(f"{operation} expects a traced value, got {type(value).__name__}", "pass data or the result of a layer")
    return value
