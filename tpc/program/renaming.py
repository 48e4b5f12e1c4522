"""Axes under other names, in anything that is made of nodes and axes: a term of a sum, with what it sums over."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from tpc.program import ir, tensor
from tpc.program.axes import Axes, Axis, apart, union
from tpc.program.ir import Vector
from tpc.program.node import Node
from tpc.program.tensor import Tensor

V = TypeVar("V")


def renamed(value: V, pairs: Mapping[Axis, Axis]) -> V:
    """A value with axes renamed, free and bound alike.

    Values are tensors, vectors, axes, and tuples and dataclasses of values; anything else is itself.
    """
    return cast(V, _renamed(value, pairs)) if pairs else value


def freshened(value: V, bound: Iterable[Axis], taken: Iterable[Axis]) -> V:
    """A value with its `bound` axes renamed so that none of them is `taken`."""
    return renamed(value, apart(bound, taken, axes_of(value)))


def axes_of(value: Any) -> Axes:
    """Every axis of a value, as `renamed` takes it."""
    if isinstance(value, Axis):
        return (value,)
    if isinstance(value, Node):
        return value.axes
    if isinstance(value, tuple):
        return union(*map(axes_of, value))
    return union(*map(axes_of, _fields(value).values()))


def _renamed(value: Any, pairs: Mapping[Axis, Axis]) -> Any:
    if isinstance(value, Axis):
        return pairs.get(value, value)
    if isinstance(value, Tensor):
        return tensor.rename(value, pairs)
    if isinstance(value, Vector):
        return ir.rename_vector(value, pairs)
    if isinstance(value, tuple):
        return tuple([_renamed(item, pairs) for item in value])
    fields = {name: _renamed(item, pairs) for name, item in _fields(value).items()}
    return dataclasses.replace(value, **fields) if fields else value


def _fields(value: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(value):
        return {}
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
