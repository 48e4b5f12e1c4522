"""What windows show: every place of the target sees the places of the source around it.

    shift:    y[…, p, o] = x[…, q, o?]        where q = stride·p + dilation·o − pad
    unshift:  x[…, q, o] = Σ_p [q = stride·p + dilation·o − pad] y[…, p, o]

Outside of the source there is zero, or the source again (`circular`). Both keep the axis o of offsets, and each is the
transpose of the other for every o. An argument that has the axis o already is tied to it: place and offset are those of
one entry. Source and target may be one axis. A convolution is Σ_o W[o] shift(x)[p, o], or Σ_o shift(W[o] x)[p, o].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tpc.program import ir, tensor
from tpc.program.axes import Axes, Axis
from tpc.program.ir import Vector
from tpc.program.node import Node, Scope, node
from tpc.program.tensor import ONE, Tensor, is_number
from tpc.program.window import Window


class _Seen(Node):
    """y[…, p, o] = x[…, stride·p + dilation·o − pad, o?]"""

    __slots__ = ()
    arg: Tensor | Vector
    window: Window

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (Scope((self.arg,), (self.window.source,)),)

    @property
    def introduces(self) -> Axes:
        return self.window.target, self.window.offset

    @classmethod
    def build(cls, *fields: Any) -> Any:
        return shift(*fields)


class _Seeing(Node):
    """x[…, q, o] = Σ_p [q = stride·p + dilation·o − pad] y[…, p, o?]"""

    __slots__ = ()
    arg: Tensor | Vector
    window: Window

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (Scope((self.arg,), (self.window.target,)),)

    @property
    def introduces(self) -> Axes:
        return self.window.source, self.window.offset

    @classmethod
    def build(cls, *fields: Any) -> Any:
        return unshift(*fields)


@node
class Shifted(_Seen, Tensor):
    """What every place of a tensor sees."""

    arg: Tensor
    window: Window


@node
class ShiftedVector(_Seen, Vector):
    """What every place of vectors sees."""

    linear: ClassVar[bool] = True
    arg: Vector
    window: Window


@node
class Unshifted(_Seeing, Tensor):
    """What sees every place of a tensor, summed offset by offset."""

    arg: Tensor
    window: Window


@node
class UnshiftedVector(_Seeing, Vector):
    """What sees every place of vectors, summed offset by offset."""

    linear: ClassVar[bool] = True
    arg: Vector
    window: Window


def shift(x: Tensor | Vector, window: Window) -> Any:
    """What every place sees of x, a tensor or vectors; what x repeats along the source is a mask times x."""
    w = window
    if w.is_trivial:
        return _along(_renamed(x, {w.source: w.target}), (w.target, w.offset))
    if w.source not in x.axes:
        mask = ONE if w.fits else Shifted(tensor.broadcast(ONE, (w.source,)), w)
        return _along(_times(mask, x), (w.target, w.offset))
    if isinstance(x, Vector):
        return ShiftedVector(x, w)
    return tensor.ZERO if is_number(x, 0) else Shifted(x, w)


def unshift(y: Tensor | Vector, window: Window) -> Any:
    """The transpose of `shift`, offset by offset."""
    w = window
    if w.is_trivial:
        return _along(_renamed(y, {w.target: w.source}), (w.source, w.offset))
    if w.target not in y.axes:
        counts = Unshifted(tensor.broadcast(ONE, (w.target,)), w)
        return _along(_times(counts, y), (w.source, w.offset))
    if isinstance(y, Vector):
        return UnshiftedVector(y, w)
    return tensor.ZERO if is_number(y, 0) else Unshifted(y, w)


def _renamed(x: Tensor | Vector, pairs: Mapping[Axis, Axis]) -> Tensor | Vector:
    return ir.rename_vector(x, pairs) if isinstance(x, Vector) else tensor.rename(x, pairs)


def _times(c: Tensor, x: Tensor | Vector) -> Tensor | Vector:
    if isinstance(x, Vector):
        return ir.LinComb(((c, x, ()),))
    return tensor.contract((c, x))


def _along(x: Tensor | Vector, axes: Axes) -> Tensor | Vector:
    """x with all of `axes`."""
    return ir.spread(x, axes) if isinstance(x, Vector) else tensor.broadcast(x, axes)
