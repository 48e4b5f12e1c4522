"""Vectors and matrices: constructors that simplify, kinds (G or X), and normal forms with bound axes renamed apart."""

import pytest
import sympy as sp

import tpc
from tpc.errors import ProgramError
from tpc.limits.nodes import State
from tpc.limits.term import LimitTerm, multiply
from tpc.passes.backward import backward
from tpc.passes.loss import attach_loss
from tpc.passes.normal import Normaliser, Term
from tpc.program import ir
from tpc.program.axes import Axis, Space
from tpc.program.functions import argument, relu, step
from tpc.program.ir import theta
from tpc.program.renaming import freshened, renamed
from tpc.program.tensor import ONE, ZERO, Constant, Input

S = Space("s")
AI, AJ = Axis("i"), Axis("j")
U0, U1, T0, T1 = argument(0), argument(1), theta(0), theta(1)
G = ir.VectorWeight("g", S, (AI,), "input", sp.Integer(1))
H = ir.VectorWeight("h", S, (AJ,), "input", sp.Integer(1))
V = ir.VectorWeight("v", S, (AJ,), "readout", sp.Integer(1))
W = ir.MatrixWeight("w", S, Space("t"), sp.Integer(1))
A, B = Input("a", (AI,)), Input("b", ())
X = ir.Nonlin(relu(U0), (G,), ())


def test_nonlin_drops_unused_merges_equal_arguments_and_folds_numbers():
    assert ir.nonlin(U0, (G,)) is G
    assert ir.nonlin(U1, (G, H)) is H
    assert ir.nonlin(relu(U1), (G, H)) is ir.Nonlin(relu(U0), (H,), ())
    assert ir.nonlin(U0 * relu(U1), (G, G)) is ir.Nonlin(U0 * relu(U0), (G,), ())
    three = Constant(sp.Integer(3))
    assert ir.nonlin(T0 * U0 + T1, (G,), (three, B)) is ir.Nonlin(3 * U0 + T0, (G,), (B,))


def test_nonlin_keeps_a_constant_function_a_vector():
    ones = ir.nonlin(sp.Integer(1), (G, H))
    assert ones is ir.Nonlin(sp.Integer(1), (G,), ())
    assert ones.space == S


def test_moment_of_a_constant_is_a_number():
    assert ir.moment(sp.Integer(2), (G,)) is Constant(sp.Integer(2))
    assert ir.moment(U0 * U1, (G, G)) is ir.Moment(U0**2, (G,), ())
    assert ir.moment(U0 * U1, (G, H)).axes == (AI, AJ)


def test_lincomb_drops_zero_terms():
    assert ir.lincomb([(ONE, G, ())]) is G
    assert ir.lincomb([(ZERO, G, ())]) is None
    assert ir.lincomb([(ZERO, G, ()), (B, H, ())]) is ir.LinComb(((B, H, ()),))
    assert ir.lincomb([(ONE, G, (AI,))]) is ir.LinComb(((ONE, G, (AI,)),))


def test_rename_vector_merges_and_vanishes():
    once = ir.rename_vector(G, {AI: AI.primed()})
    assert once.axes == (AI.primed(),)
    assert ir.rename_vector(once, {AI.primed(): AI}) is G
    assert ir.rename_vector(G, {AJ: AJ.primed()}) is G


def test_a_transpose_is_the_same_matrix_seen_backwards():
    t = ir.transpose(W)
    assert ir.transpose(t) is W
    assert (t.out, t.inn) == (W.inn, W.out)


def test_kinds():
    y = ir.MatMul(W, ir.VectorWeight("u", Space("t"), (), "input", sp.Integer(1)))
    assert [x.kind for x in (G, V, X, y)] == ["G", "X", "X", "G"]
    assert ir.MatMul(ir.transpose(W), X).kind == "X"
    assert ir.LinComb(((ONE, G, ()), (B, H, ()))).kind == "G"
    assert ir.LinComb(((ONE, G, ()), (B, X, ()))).kind == "X"
    assert ir.Project(X).kind == "G"
    assert ir.rename_vector(X, {AI: AI.primed()}).kind == "X"


def test_axes_of_vectors():
    assert ir.LinComb(((A, G, (AI,)), (B, H, ()))).axes == (AJ,)
    assert ir.Nonlin(U0 * U1 * T0, (G, H), (A,)).axes == (AI, AJ)
    assert ir.Outer(G, ir.rename_vector(H, {}), (AI, AJ)).out == S


# --- terms -----------------------------------------------------------------------------------------------------------


def test_bound_axes_move_out_of_the_way_and_free_ones_stay():
    t = Term(A, U0, (G,), (), (V,), (AJ,))
    moved = freshened(t, t.over, (AI, AJ))
    assert moved.over == (AJ.primed(),)
    assert moved.leaves[0].axes == (AJ.primed(),)
    assert moved.coefficient is A
    assert moved.gs == (G,)
    assert freshened(t, t.over, (AI,)) is t
    again = freshened(t, t.over, (AJ, AJ.primed()))
    assert again.over == (AJ.primed().primed(),)


def test_a_fresh_axis_avoids_axes_the_term_already_has():
    primed = ir.rename_vector(H, {AJ: AJ.primed()})
    t = Term(ONE, U0, (primed,), (), (V,), (AJ,))
    assert freshened(t, t.over, (AJ,)).over == (AJ.primed().primed(),)


def test_renamed_covers_every_part():
    t = Term(A, U0 * T0, (G,), (A,), (V,), (AJ,))
    moved = renamed(t, {AI: AI.primed(), AJ: AJ.primed()})
    assert set(moved.axes) == {AI.primed(), AJ.primed()}
    assert renamed(moved, {AI.primed(): AI, AJ.primed(): AJ}) == t


def program():
    def network(x):
        h = tpc.dense(x, "embed")
        h = tpc.dense(tpc.relu(h), "hidden1")
        return tpc.readout(tpc.relu(h), 3)

    return backward(attach_loss(tpc.trace(network), "cross_entropy"))


def test_normal_form_of_a_gradient():
    p = program()
    hidden = p["grad:hidden1"]
    (delta,) = Normaliser(p).terms(hidden.y)  # step(h) · Σ_class c · v
    assert delta.fn == step(U0)
    assert [type(x).__name__ for x in delta.leaves] == ["VectorWeight"]
    assert {a.base for a in delta.over} == {"class"}
    (atom,) = Normaliser(p).terms(hidden.x)
    assert atom.is_plain
    assert atom.fn == relu(U0)


def test_a_product_of_sums_is_multiplied_out():
    total = ir.LinComb(((ONE, V, (AJ,)), (ONE, X, ())))
    p = program()
    terms = Normaliser(p).applied(U0**2, (total,), (), total)
    # (v + x)² has v·v, v·x twice, x·x: sums over j stay apart
    assert sorted(len(t.leaves) for t in terms) == [0, 1, 1, 2]
    double = next(t for t in terms if len(t.leaves) == 2)
    assert len(set(double.over)) == 2
    assert double.leaves[0] is not double.leaves[1]


def test_sums_over_one_store_are_kept_apart_in_a_product():
    atom, rank = Axis("w", role="atom"), Axis("r_s", role="rank")
    a, b = State("w.A", (atom,)), State("w.B", (atom, rank), True)
    term = LimitTerm(a, relu(U0), (b,), (), (atom,))
    both = multiply(term, term, (AI,))
    assert both.over == (atom, atom.primed())
    assert set(both.coefficient.axes) == {atom, atom.primed()}
    assert [g.axes[0] for g in both.latents] == [atom, atom.primed()]
    assert both.fn == relu(U0) * relu(U1)


def test_a_nonlinearity_of_a_sum_of_leaves_is_the_users_mistake():
    p = program()
    with pytest.raises(ProgramError, match="two in a row") as e:
        Normaliser(p).applied(relu(U0), (V,), (), p["logits"])
    assert "tpc.dense" in e.value.fix
