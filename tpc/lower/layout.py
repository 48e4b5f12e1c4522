"""Where the axes of an array lie, the same in all generated code and in what runs it."""

from __future__ import annotations

from tpc.limits.power import Half
from tpc.program.axes import SAMPLE, SUPPORT, Axes, Axis, without

SAMPLES = (SAMPLE.name, SUPPORT.name)  # axes whose lengths are those of a batch


def layout(axes: Axes) -> Axes:
    """The order of an array's axes: atoms, samples, support, features, points, classes, rank, packed powers of rank.

    Among classes those of role "last" are: the row of an atom may have classes as the batch it comes from has.

    Atoms come first because BLAS computes B gᵀ up to twice as fast as g Bᵀ when the batch is small.
    """

    def place(axis: Axis) -> tuple[int, str]:
        if axis.role == "rank":
            return 7, axis.name
        if axis.role == "power":
            return 8, axis.name
        if axis.role == "atom":
            return -1, axis.name
        if axis.role == "point":
            return 4, axis.name
        if axis.size is not None:
            return 5 + (axis.role == "last"), axis.name
        return (SAMPLES.index(axis.base) if axis.base in SAMPLES else 3), axis.name

    return tuple(sorted(axes, key=place))


def half_layout(x: Half) -> Axes:
    """The axes of the array that folded tensors make of a latent."""
    return (*without(layout(x.arg.axes), (x.rank,)), *without(layout(x.matrix.axes), (x.slot,)), x.left)
