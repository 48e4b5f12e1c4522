"""Vectors under other names of axes or through windows, and the same for what such vectors are made of.

A renaming changes nothing but names. A window gives every place one place of its argument, or zero: what is computed
entry by entry may be moved before or after, f(shift(g)) = shift(f(g)), times a mask where a place sees beyond the
source. The transpose of a window does that, too, unless places of a circular one meet.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

from tpc.errors import InternalError
from tpc.program import ir, shift, tensor
from tpc.program.axes import Axis
from tpc.program.ir import Vector
from tpc.program.tensor import ONE, ZERO, Tensor

Windowed: TypeAlias = shift.ShiftedVector | shift.UnshiftedVector
Move: TypeAlias = ir.RenameVector | shift.ShiftedVector | shift.UnshiftedVector
V = TypeVar("V", Tensor, Vector)


def end(x: Windowed) -> Axis:
    """The axis that a window takes away."""
    return x.window.source if isinstance(x, shift.ShiftedVector) else x.window.target


def through(x: Windowed, value: Tensor) -> Tensor:
    """A tensor through the window of x: what lacks its places is masked and repeated."""
    made: Tensor = (shift.shift if isinstance(x, shift.ShiftedVector) else shift.unshift)(value, x.window)
    return ZERO if value is ZERO else made


def is_entrywise(x: Windowed) -> bool:
    """Whether every place gets at most one place of the argument."""
    w = x.window
    source, target, _ = w.sizes
    return isinstance(x, shift.ShiftedVector) or not w.circular or w.stride * (target - 1) < source


def moved(x: Move, value: V) -> V:
    """A part of what x moves, moved alike; the same where it has no place that is."""
    made: Any = value
    if isinstance(x, ir.RenameVector):
        new = dict(x.pairs)
        made = ir.rename_vector(value, new) if isinstance(value, Vector) else tensor.rename(value, new)
    elif end(x) in value.axes:
        made = (shift.shift if isinstance(x, shift.ShiftedVector) else shift.unshift)(value, x.window)
    return value if value is ZERO else made


def moved_parameter(x: Move, value: Tensor) -> Tensor:
    """The same for a parameter of a function, which is 1 where a place sees nothing: the function has a value there."""
    if isinstance(x, ir.RenameVector) or end(x) not in value.axes or sees_all(x):
        return moved(x, value)
    rest = tensor.add((value, tensor.contract((tensor.Constant(-1), ONE))))
    return tensor.add((moved(x, rest), ONE))


def sees_all(x: Windowed) -> bool:
    """Whether every place gets exactly one place of the argument."""
    return isinstance(x, shift.ShiftedVector) and x.window.fits


def moves_of(x: Vector) -> tuple[Vector, tuple[Move, ...]]:
    """What is moved in the end, and the moves, the first one first."""
    found: list[Move] = []
    while isinstance(x, ir.RenameVector | shift.ShiftedVector | shift.UnshiftedVector):
        found.append(x)
        x = x.arg
    return x, tuple(reversed(found))


def require_entrywise(x: Windowed) -> None:
    """Raise InternalError for a window whose places meet."""
    if not is_entrywise(x):
        raise InternalError(f"places of the circular window {x.window} meet: its transpose is a sum over them")
