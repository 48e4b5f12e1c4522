"""The smart constructors of finite tensors keep the value: compared with plain broadcasting by axis name."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.interpreter import Interpreter
from tpc.program import tensor
from tpc.program.axes import Axis, union, without
from tpc.program.functions import argument
from tpc.program.tensor import ONE, ZERO, Add, Broadcast, Constant, Contract, Input, Rename, Size

AXES = (Axis("i", 2), Axis("j", 3), Axis("k", 4))
PRIMED = (*AXES, *(a.primed() for a in AXES))
AI, AJ, AK = AXES
U0, U1 = argument(0), argument(1)
RNG = np.random.default_rng(0)
LEAVES = {
    Input(name, axes): RNG.standard_normal([a.size for a in axes])
    for name, axes in {"a": (AI, AJ), "b": (AJ,), "c": (AI, AJ, AK), "d": (), "e": (AK, AI)}.items()
}
FUNCTIONS = (U0, U0 + 2 * U1, U0 * U1, U0**2, sp.exp(-(U0**2)), sp.Integer(3), U1, U1 - U0, sp.cos(U0) * U1)


class Named:
    """An array with named axes, and arithmetic that broadcasts by name: what the constructors must agree with."""

    def __init__(self, value, axes):
        self.value, self.axes = np.asarray(value), axes

    def along(self, axes):
        order = [self.axes.index(a) for a in axes if a in self.axes]
        value = self.value.transpose(order)
        value = value[tuple(slice(None) if a in self.axes else None for a in axes)]
        return np.broadcast_to(value, [a.size for a in axes])


def combine(values, by):
    axes = union(*(v.axes for v in values))
    return Named(by([v.along(axes) for v in values]), axes)


def summed(x, over):
    x = Named(x.along(union(x.axes, over)), union(x.axes, over))
    return Named(x.value.sum(axis=tuple(x.axes.index(a) for a in over)), without(x.axes, over))


def renamed(x, pairs):
    return Named(x.value, tuple(pairs.get(a, a) for a in x.axes))


@st.composite
def expressions(draw, depth=4):
    """(tensor, its value by definition)"""
    kinds = ["leaf", "number"] if depth == 0 else ["leaf", "add", "contract", "map", "rename", "broadcast", "lse"]
    kind = draw(st.sampled_from(kinds))
    if kind == "leaf":
        leaf = draw(st.sampled_from(list(LEAVES)))
        return leaf, Named(LEAVES[leaf], leaf.axes)
    if kind == "number":
        number = draw(st.sampled_from([0, 1, -1, 2, 0.5]))
        return tensor.constant(number), Named(float(number), ())
    below = expressions(depth - 1)
    if kind == "add":
        parts = draw(st.lists(below, min_size=1, max_size=3))
        if draw(st.booleans()):
            parts.append(parts[0])
        return tensor.add(t for t, _ in parts), combine([v for _, v in parts], sum)
    if kind == "contract":
        parts = draw(st.lists(below, min_size=1, max_size=3))
        over = tuple(draw(st.lists(st.sampled_from(PRIMED), max_size=2, unique=True)))
        product = combine([v for _, v in parts], lambda arrays: np.prod(arrays, axis=0))
        return tensor.contract((t for t, _ in parts), over), summed(product, over)
    if kind == "map":
        parts = [draw(below), draw(below)]
        fn = draw(st.sampled_from(FUNCTIONS))
        f = sp.lambdify((U0, U1), fn, "numpy")
        value = combine([v for _, v in parts], lambda arrays: f(*arrays) + 0 * arrays[0])
        return tensor.elementwise(fn, [t for t, _ in parts]), value
    t, value = draw(below)
    if kind == "lse":
        if not t.axes:
            return t, value
        axis = draw(st.sampled_from(t.axes))
        return tensor.LogSumExp(t, axis), Named(
            np.log(np.exp(value.along(union(t.axes, value.axes))).sum(axis=t.axes.index(axis))),
            without(union(t.axes, value.axes), (axis,)),
        )
    if kind == "rename":
        pairs = {}
        for a in value.axes:
            free = [b for b in PRIMED if b.base == a.base and b not in value.axes and b not in pairs.values()]
            if free and draw(st.booleans()):
                pairs[a] = draw(st.sampled_from(free))
        return tensor.rename(t, pairs), renamed(value, pairs)
    axes = tuple(draw(st.lists(st.sampled_from(PRIMED), max_size=2, unique=True)))
    return tensor.broadcast(t, axes), Named(value.along(union(value.axes, axes)), union(value.axes, axes))


@settings(max_examples=300)
@given(expressions())
def test_random_expressions_keep_their_value(pair):
    t, expected = pair
    assert set(t.axes) <= set(expected.axes)  # constants may drop axes, never gain one
    leaves = {n.name: v for n, v in LEAVES.items()}
    value = Interpreter([t], leaves)[t]
    found = Named(value, t.axes).along(expected.axes)
    np.testing.assert_allclose(found, expected.value, rtol=1e-9, atol=1e-9)


A, B, C, D, E = LEAVES


def test_add_is_flat_counts_equal_terms_and_gathers_numbers():
    assert tensor.add((A, ZERO)) is A
    assert tensor.add(()) is ZERO
    assert tensor.add((tensor.add((A, B)), C)) is Add((A, B, C))
    assert tensor.add((A, A)) is Contract((Constant(sp.Integer(2)), A), ())
    assert tensor.add((ONE, A, ONE)) is Add((A, Constant(sp.Integer(2))))


def test_contract_is_flat_and_numbers_come_first():
    two = Constant(sp.Integer(2))
    assert tensor.contract((A,)) is A
    assert tensor.contract(()) is ONE
    assert tensor.contract((A, ONE)) is A
    assert tensor.contract((A, ZERO), (AI,)) is ZERO
    assert tensor.contract((A, two, tensor.contract((two, B)))) is Contract((Constant(sp.Integer(4)), A, B), ())


def test_a_sum_over_an_absent_axis_is_its_length():
    assert tensor.contract((B,), (AK,)) is Contract((Constant(sp.Integer(4)), B), ())
    assert tensor.contract((B,), (Axis("n"),)) is Contract((B, Size(Axis("n"))), ())


def test_factors_a_sum_does_not_touch_leave_it():
    assert tensor.contract((A, B), (AI,)) is Contract((B, Contract((A,), (AI,))), ())
    assert tensor.contract((tensor.contract((C,), (AJ,)),), (AI,)) is Contract((C,), (AJ, AI))


def test_a_repeated_factor_is_not_repeated_where_others_have_the_axis():
    assert tensor.contract((Broadcast(B, (AI,)), A), (AI, AJ)) is Contract((B, A), (AI, AJ))
    assert tensor.contract((Broadcast(B, (AK,)), A)) is Contract((Broadcast(B, (AK,)), A), ())


def test_elementwise_folds_constants_and_drops_unused_arguments():
    assert tensor.elementwise(U0, (A,)) is A
    assert tensor.elementwise(U1**2, (A, B)) is tensor.Map(U0**2, (B,))
    assert tensor.elementwise(U0 * U1, (Constant(sp.Integer(3)), B)) is tensor.Map(3 * U0, (B,))
    assert tensor.elementwise(U0**2, (Constant(sp.Integer(3)),)) is Constant(sp.Integer(9))


def test_renamings_merge_and_vanish():
    once = tensor.rename(A, {AI: AI.primed()})
    assert once is Rename(A, ((AI, AI.primed()),))
    assert tensor.rename(once, {AI.primed(): AI}) is A
    assert tensor.rename(A, {AK: AK.primed()}) is A
    assert tensor.rename(A, {AI: AI}) is A
    twice = tensor.rename(once, {AI.primed(): AI.primed().primed(), AJ: AJ.primed()})
    assert twice is Rename(A, ((AI, AI.primed().primed()), (AJ, AJ.primed())))


def test_broadcast_adds_only_what_is_missing():
    assert tensor.broadcast(A, (AJ, AI)) is A
    assert tensor.broadcast(B, (AI, AJ, AK)) is Broadcast(B, (AI, AK))


@pytest.mark.parametrize(
    ("given", "expected"), [(0.1, sp.Rational(1, 10)), (3, sp.Integer(3)), (-0.75, sp.Rational(-3, 4))]
)
def test_numbers_become_short_rationals(given, expected):
    assert tensor.constant(given) is Constant(expected)


def test_is_number():
    assert tensor.is_number(ONE, 1)
    assert not tensor.is_number(ONE, 0)
    assert not tensor.is_number(D, 0)
