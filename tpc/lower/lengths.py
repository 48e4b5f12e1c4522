"""The length of every axis, once a model and a batch are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from tpc.errors import InternalError
from tpc.limits.power import ROLE, order_of, packed_size
from tpc.program.axes import SAMPLE, Axes, Axis
from tpc.program.tensor import Tensor


def length_of(axis: Axis, sizes: Mapping[str, int]) -> int:
    """The length of a finite axis, by its own size or that of its name. Raises InternalError where neither is known."""
    if axis.size is not None:
        return axis.size
    if axis.base not in sizes:
        raise InternalError(f"nothing tells the length of {axis}; known are {', '.join(sizes)}")
    return sizes[axis.base]


def places_of(tensors: Iterable[Tensor]) -> int:
    """The most places that one of the tensors has for every sample: along finite axes of known length."""
    return max((prod(a.size or 1 for a in t.axes if a.role == "finite") for t in tensors), default=1)


@dataclass(frozen=True)
class Lengths:
    """Lengths of finite axes by name, of the rank, and of stores, with the bytes of an atom."""

    sizes: Mapping[str, int]
    rank: int
    itemsize: int
    atoms: Mapping[str, int]
    row_bytes: Mapping[str, int]

    def numbers(self, axes: Axes, batch: int) -> int:
        """How many numbers a tensor has."""
        return prod(self.length(a, batch) for a in axes)

    def length(self, axis: Axis, batch: int) -> int:
        """Of one axis; `batch` is that of the samples."""
        if axis.role == "rank":
            return self.rank
        if axis.role == ROLE:
            return packed_size(self.rank, order_of(axis))
        if axis.role == "atom":
            return self.atoms[axis.base]
        if axis.base == SAMPLE.name:
            return batch
        return length_of(axis, self.sizes)
