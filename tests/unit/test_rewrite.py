"""Recursion with memory is that of plain recursion, in a few frames of Python's stack."""

import pytest

from tests.support.deep import shallow
from tpc.errors import InternalError
from tpc.program.axes import Axis
from tpc.program.node import topological
from tpc.program.rewrite import DEEPEST, Recursion, Rewriter
from tpc.program.tensor import Input, Rename, Tensor

I = Axis("i")  # noqa: E741
X = Input("x", (I,))


def chain(length):
    n = X
    for _ in range(length):
        (axis,) = n.axes
        n = Rename(n, ((axis, Axis("j" if axis == I else "i")),))
    return n


class Fibonacci:
    """Two calls per rule; `order` is what was done for the first time, in order."""

    def __init__(self):
        self.known, self.recall, self.made, self.order = {}, Recursion(), 0, []

    def __call__(self, n):
        return self.recall(self.known, n, self.rule)

    def rule(self, n):
        self.made += 1
        value = n if n < 2 else self(n - 1) + self(n - 2)
        self.order.append(n)
        return value


@pytest.mark.parametrize("n", [1, DEEPEST - 1, DEEPEST, DEEPEST + 1, 5000])
def test_values_and_order_are_those_of_plain_recursion(n):
    f = Fibonacci()
    with shallow(200):
        value = f(n)
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    assert value == a
    assert f.order == ([1, 0, *range(2, n + 1)] if n > 1 else [n])
    assert f.made <= 3 * len(f.order)


def test_a_rule_may_fail_and_be_asked_again():
    recall, known, broken = Recursion(), {}, [True]

    def image(n):
        return recall(known, n, rule)

    def rule(n):
        if n == 0 and broken:
            raise ValueError("not yet")
        return 0 if n == 0 else image(n - 1) + 1

    with pytest.raises(ValueError, match="not yet"):
        image(100)
    broken.clear()
    assert image(100) == 100


def test_what_needs_itself_is_told():
    recall, known = Recursion(), {}

    def image(n):
        return recall(known, n, lambda n: image((n + 1) % 5))

    with pytest.raises(InternalError, match="needed to compute itself"):
        image(0)


def test_a_recursion_within_another_has_its_own_stack():
    outer, inner = Recursion(), Recursion()
    made, found = {}, {}

    def length(n):
        return outer(made, n, lambda n: 0 if n == 0 else 1 + length(n - 1) + twice(3 * DEEPEST) * 0)

    def twice(n):
        return inner(found, n, lambda n: 0 if n == 0 else 2 + twice(n - 1) + length(0))

    with shallow(400):
        assert (length(1000), twice(1000)) == (1000, 2000)


def test_deep_graphs_are_rewritten():
    class Renamed(Rewriter[Tensor]):
        def rule(self, n):
            return Input("z", n.axes) if n is X else self.rebuilt(n)

    with shallow(200):
        image = Renamed()(chain(3000))
        order = topological([image])
        assert Rewriter()(image) is image
    assert len(order) == 3001
    assert order[0] is Input("z", (I,))


def test_what_follows_from_the_operands_is_found_when_a_node_is_made():
    with shallow(200):
        assert chain(3001).axes == (Axis("j"),)
