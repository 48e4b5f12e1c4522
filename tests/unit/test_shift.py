"""Windows: values against a loop over places, transposes, identities, listings, gradients and broken ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp

from backends import windows
from tests.support.interpreter import Interpreter
from tpc.errors import InternalError, ProgramError
from tpc.limits import latex, latex_program, mathml
from tpc.limits.graph import LimitGraph
from tpc.limits.text import LimitNames
from tpc.lower.layout import layout
from tpc.passes.backward import differentiate
from tpc.passes.project import norm2
from tpc.passes.substitute import Substitution
from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, Axis, Space
from tpc.program.lines import Names
from tpc.program.program import Program
from tpc.program.shift import Shifted, ShiftedVector, Unshifted, UnshiftedVector, shift, unshift
from tpc.program.tensor import ONE, Tensor
from tpc.program.text import listing, parse
from tpc.program.verify import verify
from tpc.program.window import Window, pieces
from tpc.runtime.networks.interpret import evaluate
from tpc.runtime.networks.matrix import Dense, dense

Q, OFFSET, C = Axis("height", 7), Axis("offset", 3), Axis("channel", 2)
S = Space("s")
STD = sp.Integer(1)
WIDTH, SAMPLES = 5, 2


def window(target: int, **numbers) -> Window:
    return Window(Q, Q if target == Q.size else Axis(f"height_{target}", target), OFFSET, **numbers)


WINDOWS = {
    "same": window(7, pad=1),
    "valid": window(5),
    "stride": window(4, stride=2, pad=1),
    "dilated": window(7, dilation=2, pad=2),
    "circular": window(7, pad=1, circular=True),
    "circular stride": window(4, stride=2, pad=1, circular=True),
    "wound": window(7, stride=3, dilation=4, pad=9, circular=True),
    "outside": window(4, stride=5, pad=12),
    "late": window(4, pad=-3),
}
each = pytest.mark.parametrize("w", WINDOWS.values(), ids=WINDOWS)


def matrix(w: Window) -> np.ndarray:
    """M[p, o, q] = 1 where place p sees q by offset o, by a loop."""
    source, target, offsets = w.sizes
    made = np.zeros((target, offsets, source))
    for p in range(target):
        for o in range(offsets):
            q = w.stride * p + w.dilation * o - w.pad
            if w.circular or 0 <= q < source:
                made[p, o, q % source] += 1
    return made


def values(n, **leaves):
    return evaluate(Program("p", (("out", n),)), ["out"], WIDTH, leaves, {})["out"]


@each
def test_places_see_what_a_loop_says(w):
    found = np.zeros_like(matrix(w))
    for o, p, q in pieces(*w.geometry):
        found[p, o, q] += np.eye(len(range(*p.indices(1 << 30))))
    np.testing.assert_array_equal(found, matrix(w))
    assert w.fits == bool((matrix(w).sum(2) == 1).all())


@each
@pytest.mark.parametrize("tied", [False, True])
def test_both_are_transposes(w, tied):
    rng = np.random.default_rng(1)
    own = (OFFSET,) if tied else ()
    x, y = tensor.Input("x", (*own, SAMPLE, Q, C)), tensor.Input("y", (SAMPLE, C, *own, w.target))
    at = {a: rng.normal(size=[{SAMPLE: SAMPLES}.get(a, a.size) for a in n.shape]) for a, n in (("x", x), ("y", y))}
    there, back = shift(x, w), unshift(y, w)
    assert isinstance(there, Shifted)
    assert isinstance(back, Unshifted)
    o = "o" if tied else ""
    letters = {w.target: "p", Q: "q", OFFSET: "o", SAMPLE: "s", C: "c"}
    ends = ["".join(letters[a] for a in n.axes) for n in (there, back)]
    seen = np.einsum(f"poq,{o}sqc->{ends[0].replace('q', 'p')}", matrix(w), at["x"])
    np.testing.assert_allclose(values(there, **at), seen, atol=1e-14)
    np.testing.assert_allclose(values(back, **at), np.einsum(f"poq,sc{o}p->{ends[1]}", matrix(w), at["y"]), atol=1e-14)
    for n in (there, back):  # as generated code and the interpreter of limit graphs have it
        have, want = layout(n.arg.axes), layout(n.axes)
        run = windows.shift if n is there else windows.unshift
        old, new = (w.source, w.target) if n is there else (w.target, w.source)
        given = have.index(old), have.index(OFFSET) if tied else None
        array = at[n.arg.name].transpose([n.arg.axes.index(a) for a in have])
        made = run(array, given, (want.index(new), want.index(OFFSET)), w.geometry)
        np.testing.assert_allclose(made.transpose([want.index(a) for a in n.axes]), values(n, **at), atol=1e-14)
        np.testing.assert_allclose(Interpreter([n], at)[n], values(n, **at), atol=1e-14)


@each
def test_what_repeats_along_the_source_is_masked(w):
    x = tensor.Input("x", (SAMPLE,))
    data = np.array([2.0, 3.0])
    seen, seeing = matrix(w).sum(2), matrix(w).sum(0).T  # by (target, offset) and (source, offset)
    for made, own, counted in ((shift(x, w), w.target, seen), (unshift(x, w), Q, seeing)):
        assert set(made.axes) == {SAMPLE, own, OFFSET}
        got = np.moveaxis(values(made, x=data), [made.axes.index(a) for a in (SAMPLE, own, OFFSET)], range(3))
        np.testing.assert_allclose(got, data[:, None, None] * counted, atol=1e-14)


def test_a_trivial_window_is_a_name():
    one = Axis("offset1", 1)
    w = Window(Q, Q, one)
    x = tensor.Input("x", (Q, one))
    assert shift(x, w) is x
    assert unshift(x, w) is x
    assert shift(tensor.Input("x", (Q,)), w).axes == (Q, one)
    h = ir.VectorWeight("h", S, (Q,), "input", STD)
    assert set(shift(h, w).axes) == {Q, one}
    assert shift(tensor.ZERO, WINDOWS["same"]).axes == (Q, OFFSET)


# --- in a program ----------------------------------------------------------------------------------------------------


def network(w: Window, tied: bool):
    """A loss of two convolutions: of data, and of vectors by a family of matrices."""
    x = tensor.Input("x", (SAMPLE, Q, C))
    u = ir.VectorWeight("u", S, (OFFSET, C), "input", STD)
    first = ir.LinComb(((shift(x, window(7, pad=1)), u, (OFFSET, C)),))
    family = ir.MatrixWeight("w", S, S, STD, (OFFSET,))
    h = ir.nonlin(sp.tanh(ir.argument(0)), [first])
    if tied:  # y[p] = Σ_o W[o] h[p, o], the other way to write it
        second = ir.LinComb(((ONE, ir.MatMul(family, shift(h, w)), (OFFSET,)),))
    else:
        second = ir.LinComb(((ONE, shift(ir.MatMul(family, h), w), (OFFSET,)),))
    v = ir.VectorWeight("v", S, (w.target,), "readout", STD)
    f = tensor.contract((ir.moment(ir.PRODUCT, (ir.nonlin(sp.tanh(ir.argument(0)), [second]), v)),), (w.target,))
    return tensor.contract((f, f), (SAMPLE,)), {"u": u, "w": family, "v": v}


def leaves(w: Window):
    rng = np.random.default_rng(3)
    return {
        "x": rng.normal(size=(SAMPLES, 7, 2)),
        "u": rng.normal(size=(3, 2, WIDTH)),
        "w": rng.normal(size=(3, WIDTH, WIDTH)),
        "v": rng.normal(size=(w.target.size, WIDTH)),
    }


def as_values(arrays, axes):
    return {n: dense(a, axes, np.matmul) if n == "w" else a for n, a in arrays.items()}


@each
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_those_of_differences(w, tied):
    loss, weights = network(w, tied)
    found = differentiate(loss, weights.values())
    grads = {name: found[node] for name, node in weights.items()}
    norms = {f"norm2:{name}": norm2(g) for name, g in grads.items()}
    program = Program("p", (("loss", loss), *((f"grad:{n}", g) for n, g in grads.items()), *norms.items()))
    verify(program, "a pass")
    text = listing(program)
    again = parse(text)
    assert [n for _, n in again.outputs] == [n for _, n in program.outputs]
    assert "w : matrix s <- s[offset] = weight(std 1)" in text
    at = leaves(w)
    out = evaluate(program, [n for n, _ in program.outputs], WIDTH, as_values(at, (OFFSET,)), {})
    rng = np.random.default_rng(5)
    for name in weights:
        direction = rng.normal(size=at[name].shape)
        values = [
            evaluate(program, ["loss"], WIDTH, as_values(at | {name: at[name] + t * direction}, (OFFSET,)), {})["loss"]
            for t in (1e-5, -1e-5)
        ]
        slope = (values[0] - values[1]) / 2e-5
        g = out[f"grad:{name}"]
        if name == "w":
            g = np.stack([m.left.T @ m.right / WIDTH for _, m in sorted(g.members.items())])
            square = (g * g).sum()
        else:  # cotangents of vectors are n times the derivative
            axes = [grads[name].axes.index(a) for a in weights[name].axes]
            square, g = (g * g).sum() / WIDTH, g.transpose([*axes, g.ndim - 1]) / WIDTH
        assert slope == pytest.approx((g * direction).sum(), rel=1e-6, abs=1e-8)
        assert out[f"norm2:{name}"] == pytest.approx(square, rel=1e-10)


def test_both_ways_to_write_a_convolution_agree():
    at = leaves(WINDOWS["stride"])
    one, other = (network(WINDOWS["stride"], tied)[0] for tied in (False, True))
    assert values(one, **as_values(at, (OFFSET,))) == pytest.approx(
        values(other, **as_values(at, (OFFSET,))), rel=1e-12
    )


def test_samples_and_axes_get_other_names():
    support = Axis("support")
    x, w = tensor.Input("x", (SAMPLE, Q)), WINDOWS["valid"]
    image = Substitution({x: tensor.Input("z", (support, Q))}, axes={SAMPLE: support})
    assert image.tensor(shift(x, w)) is shift(tensor.Input("z", (support, Q)), w)
    primed = replace(w, target=w.target.primed())
    assert w.renamed({w.target: w.target.primed(), Q: Q.primed()}) == primed
    moved = Substitution({x: tensor.Input("z", (support, Q.primed()))}, axes={Q: Q.primed()})
    assert moved.tensor(shift(x, w)).window == replace(w, source=Q.primed())


def test_vectors_stay_gaussian():
    h = ir.VectorWeight("h", S, (Q,), "input", STD)
    w = WINDOWS["valid"]
    assert isinstance(shift(h, w), ShiftedVector)
    assert shift(h, w).kind == "G"
    assert isinstance(unshift(shift(h, w), w), UnshiftedVector)
    assert unshift(shift(ir.nonlin(sp.tanh(ir.argument(0)), [h]), w), w).kind == "X"


BROKEN: dict[str, Tensor] = {
    "sums over height, which its operands lack": Shifted(tensor.Input("x", (SAMPLE,)), WINDOWS["valid"]),
    "leads to an axis that its operand has": Shifted(tensor.Input("x", (Q, Axis("height_5", 5))), WINDOWS["valid"]),
    "known lengths": Shifted(tensor.Input("x", (SAMPLE,)), Window(SAMPLE, Q, OFFSET)),
    "a stride": Shifted(tensor.Input("x", (Q,)), window(5, stride=0)),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_broken_windows_are_refused(rule):
    with pytest.raises(InternalError, match=rule):
        verify(Program("p", (("out", BROKEN[rule]),)), "a pass")


def test_windows_are_shown_as_mathematics():
    x, h = tensor.Input("x", (SAMPLE, Q)), ir.VectorWeight("h", S, (Q,), "input", STD)
    w, family = WINDOWS["stride"], ir.MatrixWeight("w", S, S, STD, (OFFSET,))
    for given, writer in ((x, latex.Symbols.finite), (h, latex_program.Instructions.operation)):
        names = latex_program.Instructions(Names([given]))
        told = writer(names, shift(given, w))
        assert r"\to" in told
        assert "stride 2" in told
        assert "top" not in told
        assert "top" in writer(names, unshift(given, WINDOWS["same"]))
    assert latex_program.described(family).endswith("[offset]")
    graph = LimitGraph("p", "ntk", (("out", x),), (), ())
    shown = mathml.Equations(LimitNames(graph))
    assert "<mtext>height → height, offset, pad 1, circular</mtext>" in shown.right(shift(x, WINDOWS["circular"]))
    assert "⊤" in shown.right(unshift(x, WINDOWS["circular"]))


def test_a_listing_that_cannot_be_read_is_told():
    program = Program("p", (("out", shift(tensor.Input("x", (SAMPLE, Q)), WINDOWS["stride"])),))
    text = listing(program)
    assert "shift[height->height_4, offset, stride 2, pad 1](x)" in text
    with pytest.raises(ProgramError, match="expected \\[source->target"):
        parse(text.replace(", stride 2", ", stride two"))
    with pytest.raises(ProgramError, match="height_4 has none"):
        parse(text.replace("axis height_4 = 4", "axis height_4"))
    family = ir.MatrixWeight("w", S, Space("t"), STD, (OFFSET,))
    assert family.axes == (OFFSET,)
    assert isinstance(dense(np.zeros((2, 2)), (), np.matmul), Dense)
