"""Interning: equal nodes are one object."""

import gc

import pytest
import sympy as sp

from tpc.program import ir, tensor
from tpc.program.axes import Axis, Space, fresh, union, without
from tpc.program.node import _interned, rebuild, topological
from tpc.program.tensor import ONE, Add, Constant, Contract, Input, Map, Rename

AI, AJ = Axis("i", 2), Axis("j", 3)
U0 = sp.Symbol("u0", real=True)


def test_equal_nodes_are_one_object():
    assert Input("x", (AI, AJ)) is Input("x", (AI, AJ))
    assert Contract((Input("x", (AI, AJ)), Input("y", (AJ,))), (AJ,)) is Contract(
        (Input("x", (AI, AJ)), Input("y", (AJ,))), (AJ,)
    )
    assert Map(U0**2 + U0, (Input("x", (AI,)),)) is Map(U0 + U0**2, (Input("x", (AI,)),))


def test_nodes_that_differ_in_one_field_are_two_objects():
    x = Input("x", (AI, AJ))
    assert x is not Input("x", (AJ, AI))
    assert x is not Input("y", (AI, AJ))
    assert x is not tensor.Weight("x", (AI, AJ), sp.Integer(1))
    assert Add((x, ONE)) is not Add((ONE, x))
    assert Axis("i", 2) != Axis("i", 3)
    assert Input("x", (Axis("i", 2),)) is not Input("x", (Axis("i", 3),))


@pytest.mark.parametrize(
    ("a", "b"), [(sp.Integer(1), sp.Float(1.0)), (sp.Integer(1), sp.true), (1, 1.0), (1, True), (1.0, True)]
)
def test_numbers_that_python_calls_equal_are_kept_apart(a, b):
    assert Constant(a) is not Constant(b)
    assert Constant(a) is Constant(a)
    assert type(Constant(a).value) is type(a)
    assert type(Constant(b).value) is type(b)


def test_nodes_are_immutable_and_compared_by_identity():
    x = Input("x", (AI,))
    with pytest.raises(AttributeError):
        x.name = "y"
    assert hash(x) == object.__hash__(x)
    assert len({x, Input("x", (AI,)), Input("y", (AI,))}) == 2


def test_unused_nodes_are_forgotten():
    gc.collect()
    before = len(_interned)
    made = [Input(f"gone{k}", (AI,)) for k in range(50)]
    assert len(_interned) == before + 50
    del made
    gc.collect()
    assert len(_interned) == before


def test_topological_order_lists_operands_first_and_each_node_once():
    x, y = Input("x", (AI,)), Input("y", (AI,))
    s = Add((x, y))
    t = Contract((s, s, x), ())
    assert topological([t, s]) == [x, y, s, t]
    assert topological([s, t]) == [x, y, s, t]


def test_a_deep_chain_needs_no_recursion():
    n = Input("x", (AI,))
    for _ in range(5000):
        n = Add((n, ONE))
    assert len(topological([n])) == 5002


def test_rebuild_replaces_operands_and_keeps_what_did_not_change():
    x, y, z = (Input(name, (AI,)) for name in "xyz")
    s = Add((x, y))
    assert rebuild(s, lambda n: n) is s
    assert rebuild(s, lambda n: z if n is x else n) is Add((z, y))
    r = Rename(x, ((AI, AI.primed()),))
    assert rebuild(r, lambda n: y) is Rename(y, ((AI, AI.primed()),))


def test_operands_of_nested_fields_are_found_in_order():
    space = Space("s")
    a, b = (ir.VectorWeight(n, space, (AI,), "input", sp.Integer(1)) for n in "ab")
    c = Input("c", (AI,))
    assert ir.LinComb(((c, a, (AI,)), (ONE, b, ()))).operands == (c, a, ONE, b)


def test_axes_are_computed_once():
    x = Contract((Input("x", (AI, AJ)),), (AJ,))
    assert x.axes == (AI,)
    assert x.axes is x.axes


def test_axes():
    assert union((AI, AJ), (AJ, AI.primed())) == (AI, AJ, AI.primed())
    assert without((AI, AJ, AI.primed()), (AJ,)) == (AI, AI.primed())
    assert fresh(AI, (AI, AI.primed())) == AI.primed().primed()
    assert fresh(AI, (AJ,)) == AI
    assert AI.primed().primed().base == "i"
    assert AI.primed().size == 2
    assert str(AI.primed()) == "i'"
