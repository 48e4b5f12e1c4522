"""The verifiers refuse every kind of broken program and limit graph, and pass what the compiler makes."""

import dataclasses

import pytest
import sympy as sp
from hypothesis import given

import tpc
from tests.support.generators import networks, traced
from tpc.compiler import compile_program
from tpc.errors import InternalError
from tpc.limits.graph import LimitGraph
from tpc.limits.kinds import LIMITS
from tpc.limits.nodes import Gram, State
from tpc.limits.store import Accumulate, Append
from tpc.limits.verify import verify_limit
from tpc.passes.loss import attach_loss
from tpc.program import ir, tensor
from tpc.program.axes import Axis, Space
from tpc.program.functions import argument
from tpc.program.program import Program
from tpc.program.tensor import ONE
from tpc.program.verify import verify

AI, AJ, AK = Axis("i", 2), Axis("j", 3), Axis("k")
S, T = Space("s"), Space("t")
ONE_STD = sp.Integer(1)
U0, U1 = argument(0), argument(1)
X = tensor.Input("x", (AI, AJ))
G = ir.VectorWeight("g", S, (AI,), "input", ONE_STD)
H = ir.VectorWeight("h", T, (), "input", ONE_STD)
W = ir.MatrixWeight("w", S, T, ONE_STD)
W2 = ir.MatrixWeight("w2", T, S, ONE_STD)

BROKEN = {
    "sums over": tensor.Contract((X,), (AK,)),
    "sums over k": tensor.LogSumExp(X, AK),
    "which its operands lack": ir.LinComb(((ONE, G, (AJ,)),)),
    "sums over all finite axes": ir.Outer(G, G, ()),
    "renames an axis its argument lacks": tensor.Rename(X, ((AK, AK.primed()),)),
    "two axes get one name": tensor.Rename(tensor.Input("z", (AI, AI.primed())), ((AI, AI.primed()),)),
    "only be renamed to a primed copy": tensor.Rename(X, ((AI, AK),)),
    "primed copy of itself": ir.RenameVector(G, ((AI, AJ),)),
    "multiplies a matrix from t with a vector of s": ir.MatMul(W, G),
    "mixes the spaces s, t": ir.Nonlin(U0 * U1, (G, H), ()),
    "mixes the spaces t, s": ir.Moment(U0 * U1, (H, G), ()),
    "mixes the spaces": ir.LinComb(((ONE, G, ()), (ONE, H, ()))),
    "adds matrices between different spaces": ir.MatrixSum((W, W2)),
    "not arguments": tensor.Map(U0 + U1, (X,)),
    "u1": ir.Nonlin(sp.erf(U1), (G,), ()),
    "t0": ir.Moment(U0 * ir.theta(0), (G,), ()),
    "two leaves are named x": tensor.Add((X, tensor.Input("x", (AI,)))),
    "two leaves are named g": ir.LinComb(((ONE, G, ()), (ONE, ir.VectorWeight("g", S, (AI,), "readout", ONE_STD), ()))),
    "two sizes or roles": tensor.Add((X, tensor.Input("y", (Axis("i", 5),)))),
    "axis i has two sizes": tensor.Contract((X, tensor.Size(Axis("i", 4))), ()),
    "roles": tensor.Add((X, tensor.Input("y", (Axis("j", 3, "rank"),)))),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_program_is_refused(rule):
    with pytest.raises(InternalError) as e:
        verify(Program("p", (("out", BROKEN[rule]),)), "a pass")
    assert rule in str(e.value)
    assert "after a pass, program p" in str(e.value)
    assert "please report it" in str(e.value)


def test_what_is_broken_deep_inside_is_found():
    deep = BROKEN["multiplies a matrix from t with a vector of s"]
    for _ in range(20):
        deep = ir.Nonlin(U0**2, (deep,), ())
    with pytest.raises(InternalError, match="multiplies a matrix"):
        verify(Program("p", (("out", tensor.Add((ir.Moment(U0, (deep,), ()), ONE))),)), "a pass")


def test_outputs_have_different_names():
    with pytest.raises(InternalError, match="outputs repeat"):
        verify(Program("p", (("out", X), ("out", X))), "a pass")


def test_a_valid_program_is_returned_unchanged():
    p = Program("p", (("out", X),))
    assert verify(p, "a pass") is p


@given(networks())
def test_every_pass_makes_valid_programs(source):
    p = verify(attach_loss(traced(source), "mse"), "loss")
    for name, run in LIMITS["pi"].recipe().passes:
        p = verify(run(p), name)


# --- limit graphs ----------------------------------------------------------------------------------------------------


def graph():
    def network(x):
        h = tpc.dense(tpc.relu(tpc.dense(x, "embed")), "hidden1") + tpc.bias("hidden1")
        return tpc.readout(tpc.relu(h), 3)

    return compile_program(tpc.trace(network)).graph()


def changed(change) -> LimitGraph:
    g = graph()
    return dataclasses.replace(g, **change(g))


R, Q = Axis("r_s", role="rank"), Axis("r_t", role="rank")
A, B = State("a", (AI, R)), State("b", (AJ, Q))


def replaced(g, kind, **fields):
    """The updates of g with the first one of a kind changed."""
    updates, done = [], False
    for w, us in g.updates:
        new = []
        for u in us:
            if isinstance(u, kind) and not done:
                u, done = dataclasses.replace(u, **fields), True
            new.append(u)
        updates.append((w, tuple(new)))
    assert done
    return tuple(updates)


BROKEN_LIMITS = {
    "still has a width axis": lambda g: {"outputs": (*g.outputs, ("moment", ir.Moment(U0**2, (G,), ())))},
    "has two sizes or roles": lambda g: {"outputs": (*g.outputs, ("more", tensor.Input("n", (Axis("class", 9),))))},
    "sums over k, which its operands lack": lambda g: {"outputs": (*g.outputs, ("more", tensor.Contract((X,), (AK,))))},
    "joins latents of different spaces": lambda g: {"outputs": (*g.outputs, ("more", Gram(A, B, R)))},
    "output more depends on": lambda g: {"outputs": (*g.outputs, ("more", A))},
    "the coefficients appended to hidden1": lambda g: {"updates": replaced(g, Append, coefficient=X)},
    "the gradient of embed.A": lambda g: {"updates": replaced(g, Accumulate, gradient=X)},
}


@pytest.mark.parametrize("rule", BROKEN_LIMITS)
def test_a_broken_limit_graph_is_refused(rule):
    with pytest.raises(InternalError) as e:
        verify_limit(changed(BROKEN_LIMITS[rule]), "a limit")
    assert rule in str(e.value)
    assert "after a limit, limit of network" in str(e.value)


def test_a_valid_limit_graph_is_returned_unchanged():
    g = graph()
    assert verify_limit(g, "a limit") is g
