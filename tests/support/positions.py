"""Networks with positions, made of instructions by hand."""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, Axis, Space, union
from tpc.program.expression import parse_nonlinearity
from tpc.program.functions import X, argument
from tpc.program.program import Program
from tpc.program.shift import shift
from tpc.program.window import Window

CLASS = Axis("class", 3)


def number(value):
    return tensor.Constant(sp.sympify(value))


class Layer:
    """Vectors with the axes of their positions."""

    def __init__(self, x, at):
        self.x, self.at = x, tuple(at)

    def __add__(self, other):
        return Layer(ir.lincomb([(tensor.ONE, self.x, ()), (tensor.ONE, other.x, ())]), self.at)

    def __rmul__(self, factor):
        return Layer(ir.lincomb([(number(factor), self.x, ())]), self.at)

    def __call__(self, text):
        return Layer(ir.nonlin(parse_nonlinearity(text).xreplace({X: argument(0)}), [self.x]), self.at)

    def conv(self, name, size, std=1, bias=0, space="", **how):
        windows = make_windows(self.at, size, **how)
        family = tuple(w.offset for w in windows)
        space = Space(space or name)
        if isinstance(self.x, tensor.Tensor):  # data: its last axis is the channel
            channel = self.x.axes[-1]
            w = ir.VectorWeight(name, space, (*family, channel), "input", sp.sympify(std))
            h = ir.lincomb([(seen(self.x, windows), w, (*family, channel))])
        else:
            m = ir.MatrixWeight(name, space, self.x.space, sp.sympify(std), family)
            c = tensor.Constant(1 / sp.sqrt(sp.prod([a.size for a in family])))
            h = ir.lincomb([(c, seen(ir.MatMul(m, self.x), windows), family)])
        if bias:
            b = ir.VectorWeight(f"{name}.bias", space, (), "input", sp.sympify(bias))
            h = ir.lincomb([(tensor.ONE, h, ()), (tensor.ONE, b, ())])
        return Layer(h, [w.target for w in windows])

    def pool(self, size):
        windows = make_windows(self.at, size, stride=size, padding="valid")
        over = tuple(w.offset for w in windows)
        c = tensor.Constant(sp.Rational(1, sp.prod([a.size for a in over])))
        return Layer(ir.lincomb([(c, seen(self.x, windows), over)]), [w.target for w in windows])

    def flat(self, std=1):
        v = ir.VectorWeight("readout", self.x.space, (*self.at, CLASS), "readout", sp.sympify(std))
        return tensor.contract((ir.moment(ir.PRODUCT, (self.x, v)),), self.at)

    def mean(self, std=1):
        c = tensor.Constant(sp.Rational(1, sp.prod([a.size for a in self.at])))
        pooled = ir.lincomb([(c, self.x, self.at)])
        v = ir.VectorWeight("readout", self.x.space, (CLASS,), "readout", sp.sympify(std))
        return ir.moment(ir.PRODUCT, (pooled, v))


def seen(x, windows):
    for w in windows:
        x = shift(x, w)
    return x


def make_windows(at, size, stride=1, padding="same", dilation=1):
    found = []
    for a in at:
        reach = dilation * (size - 1) + 1
        out = (a.size - reach) // stride + 1 if padding == "valid" else -(-a.size // stride)
        pad = 0 if padding == "valid" else max(0, (out - 1) * stride + reach - a.size) // 2
        target = a if out == a.size else Axis(f"{a.name.split('_')[0]}_{out}", out)
        offset = Axis(f"{a.name.split('_')[0]}_o{size}", size)
        found.append(Window(a, target, offset, stride, dilation, pad, padding == "circular"))
    return found


def data(*lengths):
    names = ("height", "width") if len(lengths) == 2 else ("time",)
    at = [Axis(n, k) for n, k in zip(names, lengths)]
    return Layer(tensor.Input("x", (SAMPLE, *at, Axis("channel"))), at)


def program(output):
    return Program("hand", (("logits", output),))
