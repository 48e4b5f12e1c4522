"""Windows on arrays: slices, one for every offset (tpc/program/window.py)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.program.window import pieces

Array = NDArray[Any]
Geometry = tuple[tuple[int, int, int], int, int, int, bool]  # what `pieces` takes
Given = tuple[int, int | None]  # places of the source and, where it is there, of the offsets among the dimensions
Made = tuple[int, int]  # places of the target and of the offsets


def shift(x: Array, given: Given, made: Made, geometry: Geometry) -> Array:
    """y[…, p, o] = x[…, stride·p + dilation·o − pad, o?], zero outside of x."""
    _, length, offsets = geometry[0]
    y = np.zeros(_shape(x, given, made, length, offsets), x.dtype)
    for to, seen in _slices(x, y, given, made, geometry, False):
        to[...] = seen
    return y


def unshift(y: Array, given: Given, made: Made, geometry: Geometry) -> Array:
    """x[…, q, o] = Σ_p [q = stride·p + dilation·o − pad] y[…, p, o?]"""
    length, _, offsets = geometry[0]
    x = np.zeros(_shape(y, given, made, length, offsets), y.dtype)
    for to, seen in _slices(y, x, given, made, geometry, True):
        to += seen
    return x


def sweep(x: Array, moves: tuple[tuple[int, Any], ...], back: bool) -> Array:
    """Σ_o x[…, q(p, o), …, q'(p', o), …]: a dimension and the geometry of each window; `back` is the transpose."""
    shape, steps = list(x.shape), []
    for place, geometry in moves:
        shape[place] = geometry[0][0 if back else 1]
        steps.append([(o, place, *((q, p) if back else (p, q))) for o, p, q in pieces(*geometry)])
    y = np.zeros(shape, x.dtype)
    for chosen in product(*steps):
        if len({o for o, _, _, _ in chosen}) == 1:
            moved = {place: (there, here) for _, place, there, here in chosen}
            there, here = zip(*(moved.get(i, (slice(None), slice(None))) for i in range(x.ndim)))
            y[there] += x[here]
    return y


def _shape(x: Array, given: Given, made: Made, length: int, offsets: int) -> tuple[int, ...]:
    shape = [n for i, n in enumerate(x.shape) if i not in given]
    for place, n in sorted(zip(made, (length, offsets))):
        shape.insert(place, n)
    return tuple(shape)


def _slices(
    x: Array, y: Array, given: Given, made: Made, geometry: Geometry, back: bool
) -> Iterator[tuple[Array, Array]]:
    """Views of y and what goes there, with the dimensions of y without its offsets."""
    (source, tied), (target, offset) = given, made
    came = source - (tied is not None and tied < source)
    went = target - (offset < target)
    for o, p, q in pieces(*geometry):
        there, here = (q, p) if back else (p, q)
        seen = x[tuple(here if i == source else o if i == tied else slice(None) for i in range(x.ndim))]
        to = y[tuple(there if i == target else o if i == offset else slice(None) for i in range(y.ndim))]
        yield to, np.moveaxis(seen, came, went)
