"""Convolutional networks along one axis of positions, instruction by instruction."""

from __future__ import annotations

import sympy as sp

from tests.support.problems import CLASSES
from tpc.program import ir, shift, tensor
from tpc.program.axes import SAMPLE, Axis, Space
from tpc.program.functions import argument, relu
from tpc.program.program import Program
from tpc.program.tensor import Constant, Input
from tpc.program.window import Window

PLACES, CHANNELS = 5, 2
U = argument(0)
NONLINEARITIES = {"relu": relu(U), "erf": sp.erf(U), "poly": U**2 / 4 + U}


def convolved(name: str, x: ir.Vector, source: Axis, *, size: int = 3, **options: object) -> ir.Vector:
    """Σ_o shift(W[o] x)[p, o] / √size"""
    offset = Axis(f"{name}_{source.base}", size)
    w = ir.MatrixWeight(name, Space(name), x.space, sp.Integer(1), (offset,))
    window = Window(source, target_of(name, source, size, **options), offset, **options)
    made = ir.lincomb([(Constant(1 / sp.sqrt(size)), shift.shift(ir.MatMul(w, x), window), (offset,))])
    assert made is not None
    return made


def target_of(name: str, source: Axis, size: int, *, stride: int = 1, pad: int = 0, circular: bool = False) -> Axis:
    """The axis of places that are left."""
    assert source.size is not None
    count = source.size // stride if circular else (source.size + 2 * pad - size) // stride + 1
    return source if count == source.size else Axis(f"{name}_target", count)


def pooled(x: ir.Vector, source: Axis, size: int, stride: int, pad: int = 0) -> tuple[ir.Vector, Axis]:
    """Averages of `size` places."""
    offset = Axis("pool_offset", size)
    target = target_of("pool", source, size, stride=stride, pad=pad)
    window = Window(source, target, offset, stride=stride, pad=pad)
    made = ir.lincomb([(Constant(sp.Rational(1, size)), shift.shift(x, window), (offset,))])
    assert made is not None
    return made, target


def network(
    head: str = "mean", phi: str = "relu", pool: tuple[int, int, int] | None = None, circular: bool = False,
    stride: int = 1,
) -> Program:  # fmt: skip
    """conv, φ, pooling if asked for, conv, φ, and a readout of the mean or one a place ("flat")."""
    place, channel, offset = Axis("place", PLACES), Axis("channel", CHANNELS), Axis("conv0_place", 3)
    x = Input("x", (SAMPLE, place, channel))
    window = Window(place, place, offset, pad=1, circular=circular)
    first = ir.VectorWeight("conv0", Space("conv0"), (offset, channel), "input", sp.Integer(1))
    bias = ir.VectorWeight("conv0.bias", Space("conv0"), (), "input", sp.Integer(0))
    h = ir.lincomb([(shift.shift(x, window), first, (offset, channel)), (tensor.ONE, bias, ())])
    assert h is not None
    z, axis = ir.nonlin(NONLINEARITIES[phi], (h,)), place
    if pool:
        z, axis = pooled(z, place, *pool)
    h = convolved("conv1", z, axis, pad=1, stride=stride, circular=circular)
    (axis,) = (a for a in h.axes if a is not SAMPLE)
    z = ir.nonlin(NONLINEARITIES[phi], (h,))
    classes = Axis("class", CLASSES)
    if head == "flat":
        v = ir.VectorWeight("readout", Space("conv1"), (axis, classes), "readout", sp.Integer(1))
        logits = tensor.contract((ir.moment(ir.PRODUCT, (z, v)),), (axis,))
    else:
        v = ir.VectorWeight("readout", Space("conv1"), (classes,), "readout", sp.Integer(1))
        mean = ir.lincomb([(Constant(sp.Rational(1, axis.size or 1)), z, (axis,))])
        assert mean is not None
        logits = ir.moment(ir.PRODUCT, (mean, v))
    return Program("places", (("logits", logits),), {}, False)


CASES = {
    "mean": {},
    "flat": {"head": "flat"},
    "erf, flat": {"head": "flat", "phi": "erf"},
    "polynomial": {"phi": "poly"},
    "polynomial, flat": {"phi": "poly", "head": "flat"},
    "polynomial, pooled": {"phi": "poly", "pool": (2, 1, 0)},
    "stride": {"stride": 2},
    "stride, flat": {"stride": 2, "head": "flat"},
    "circular": {"circular": True},
    "pooled": {"pool": (2, 2, 0)},
    "pooled, padded and overlapping": {"pool": (3, 2, 1), "phi": "erf"},
    "pooled, flat": {"pool": (2, 1, 0), "head": "flat"},
}
