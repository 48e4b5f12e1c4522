"""The shape of a sample: the axes of the data, as the program names them, and their lengths."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tpc.errors import UsageError
from tpc.lower.layout import layout
from tpc.program.axes import FEATURE, SAMPLE, Axes, without
from tpc.program.program import Program
from tpc.program.tensor import Input
from tpc.runtime.models.arguments import check_sizes

Shape: TypeAlias = "int | Sequence[int] | None"  # a length, one for every axis, or none where the program knows them


def sample_axes(program: Program) -> Axes:
    """The axes of one sample of x, in the order of the arrays that users give."""
    data = next((n for n in program.nodes if isinstance(n, Input) and n.name == "x"), None)
    return (FEATURE,) if data is None else without(data.shape, (SAMPLE,))


def sample_shape(axes: Axes, given: Shape) -> tuple[int, ...]:
    """The lengths of these axes.

    A single number is that of the only axis, or of all numbers of a sample where the program knows every length.
    Raises UsageError where a length is neither known nor given, or is another than the program's.
    """
    known = tuple(a.size for a in axes)
    wanted = f"({', '.join(str(a.size or a) for a in axes)}{',' if len(axes) == 1 else ''})"
    if given is None:
        lengths: tuple[Any, ...] = known
        if None in known:
            names = ", ".join(a.name for a in axes if a.size is None)
            raise UsageError(f"nothing tells the length of {names}: give input_shape={wanted}")
    elif isinstance(given, Sequence):
        lengths = tuple(given)
    elif len(axes) > 1 and None not in known:
        check_sizes(input_dim=given)
        lengths = known if given == prod(n or 1 for n in known) else (given,)
    else:
        check_sizes(input_dim=given)
        lengths = (given,)
    if len(lengths) != len(axes) or any(a.size not in (None, n) for a, n in zip(axes, lengths)):
        raise UsageError(f"expected inputs of shape {wanted}, as the program declares them, got {given}")
    check_sizes(**{f"input_shape[{k}]": n for k, n in enumerate(lengths)})
    return tuple(map(int, lengths))


def shaped(rows: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """Samples that may come flat, with these axes; the same where their lengths are not known or do not fit."""
    known = tuple(a.size or 0 for a in axes)
    flat = len(axes) > 1 and rows.ndim == 2 and rows.shape[1] == prod(known)
    return rows.reshape(len(rows), *known) if flat else rows


def axis_sizes(axes: Axes, shape: Sequence[int]) -> dict[str, int]:
    """Lengths by the names of axes, which generated code and states ask for."""
    return {a.base: n for a, n in zip(axes, shape)}


def arranged(rows: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """Samples with these axes in the order in which generated code has them."""
    given = (SAMPLE, *axes)
    order = tuple(given.index(a) for a in layout(given))
    return rows if order == tuple(range(len(order))) else np.ascontiguousarray(rows.transpose(order))
