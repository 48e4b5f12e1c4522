"""What the data of a network is: the axes of a sample, told by the annotation of its first parameter.

A network of plain x has data (sample, feature). The axes between samples and the last one are positions; the last one
holds the numbers of a position, and is what an input layer contracts.
"""

from __future__ import annotations

import inspect
from collections import abc
from collections.abc import Callable
from typing import Any, ClassVar

from tpc.errors import UsageError
from tpc.program.axes import Axes, Axis
from tpc.program.trace import TracedTensor


class Data(TracedTensor):
    """Data with axes of the names given, tpc.Data["time", "feature"], behind that of the samples."""

    names: ClassVar[tuple[str, ...]] = ("feature",)
    sizes: ClassVar[tuple[int | None, ...]] = (None,)

    def __class_getitem__(cls, given: Any) -> type[Data]:
        """Other axes by their names, or the lengths of these axes by numbers: tpc.Image[28, 28, 1]."""
        parts = given if isinstance(given, tuple) else (given,)
        if parts and all(isinstance(p, str) for p in parts) and cls is Data:
            for name in parts:
                if not name.isidentifier() or name in ("sample", "class", "support"):
                    raise UsageError(f"expected names of axes, other than sample and class, got {name!r}")
            if len(set(parts)) < len(parts):
                raise UsageError(f"expected different names of axes, got {', '.join(parts)}")
            return type("Data", (Data,), {"names": parts, "sizes": (None,) * len(parts)})
        return type(cls.__name__, (cls,), {"sizes": _lengths(parts, cls.names)})


class Image(Data):
    """Data (sample, height, width, channel)."""

    names = ("height", "width", "channel")
    sizes = (None, None, None)


class Sequence(Data):
    """Data (sample, time, feature)."""

    names = ("time", "feature")
    sizes = (None, None)


def _lengths(given: abc.Sequence[Any], names: abc.Sequence[str]) -> tuple[int, ...]:
    if len(given) != len(names) or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in given):
        shown = ", ".join(map(repr, given))
        raise UsageError(f"expected the lengths of {', '.join(names)}, {len(names)} positive numbers, got {shown}")
    return tuple(given)


def data_axes(network: Callable[..., Any], input_shape: abc.Sequence[int] | None = None) -> Axes:
    """The axes of a sample of a network's data, with their lengths where these are known.

    `input_shape` gives the lengths. Raises UsageError where it differs from the annotation.
    """
    kind = _annotation(network)
    sizes = kind.sizes
    if input_shape is not None:
        given = _lengths(tuple(input_shape), kind.names)
        if any(known not in (None, n) for known, n in zip(sizes, given)):
            raise UsageError(f"expected inputs of shape {sizes}, as {network.__name__} declares them, got {given}")
        sizes = given
    return tuple(Axis(name, n) for name, n in zip(kind.names, sizes))


def own_shape(network: Callable[..., Any]) -> abc.Sequence[int] | None:
    """The default of a network's own parameter `input_shape`, None where it has none."""
    try:
        parameter = inspect.signature(network).parameters.get("input_shape")
    except (TypeError, ValueError):
        return None
    return parameter.default if parameter is not None and isinstance(parameter.default, abc.Sequence) else None


def _annotation(network: Callable[..., Any]) -> type[Data]:
    try:
        parameters = list(inspect.signature(network, eval_str=True).parameters.values())
    except (TypeError, ValueError, NameError, AttributeError, SyntaxError):  # annotations may be anything
        return Data
    found = parameters[0].annotation if parameters else None
    return found if isinstance(found, type) and issubclass(found, Data) else Data
