"""limit ∘ gradient = gradient ∘ limit: the two derivations of the update rule are the same symbolic expressions."""

from pathlib import Path

import pytest
import sympy as sp

import tpc
from tests.support.repeated import gated
from tpc.limits.canonical import Canonical
from tpc.limits.gradient import gradients_of_limit
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import Expectation, State
from tpc.limits.store import Accumulate, Append
from tpc.passes.loss import attach_loss
from tpc.program.functions import argument
from tpc.program.node import topological
from tpc.program.tensor import Constant, Map, Tensor, contract

PROGRAMS = Path(__file__).parents[2] / "programs"


def wide_and_shared(x, *, classes=3):
    """The same matrix twice, a scaled residual stream, two nonlinearities and a moment as a gate."""
    h = tpc.dense(x, name="embed")
    g = tpc.dense(tpc.erf(h), name="shared") + 0.5 * tpc.bias("shared")
    h = h + 0.7 * tpc.dense(tpc.relu(g), name="back", space="embed")
    g = tpc.moment(h, h) * tpc.dense(tpc.erf(h), name="shared")
    return tpc.readout(tpc.relu(g) + tpc.erf(g), classes)


CASES = {
    "mlp of depth 1": lambda: tpc.load(PROGRAMS / "mlp.py", hidden=1),
    "mlp of depth 2": lambda: tpc.load(PROGRAMS / "mlp.py", hidden=2),
    "mlp of depth 3": lambda: tpc.load(PROGRAMS / "mlp.py", hidden=3),
    "resmlp of 1 block": lambda: tpc.load(PROGRAMS / "resmlp.py", blocks=1),
    "resmlp of 2 blocks": lambda: tpc.load(PROGRAMS / "resmlp.py", blocks=2),
    "shared weights": lambda: tpc.trace(wide_and_shared),
}


def routes(program, loss):
    derived = tpc.compile(program).graph(loss)
    return derived, gradients_of_limit(attach_loss(program, loss), derived)


def first_route(derived: LimitGraph) -> dict[str, list[tuple[Tensor, tuple[Tensor, ...]]]]:
    found: dict[str, list[tuple[Tensor, tuple[Tensor, ...]]]] = {}
    for weight, updates in derived.updates:
        for u in updates:
            value = (u.gradient, ()) if isinstance(u, Accumulate) else (u.coefficient, u.columns)
            found.setdefault(weight, []).append(value)
    return found


def assert_agreement(derived: LimitGraph, second, canonical: Canonical) -> None:
    one = {
        weight: sorted((canonical.key(value), [canonical.key(c) for c in columns]) for value, columns in values)
        for weight, values in first_route(derived).items()
    }
    two: dict[str, list[object]] = {}
    for g in second:
        two.setdefault(g.weight, []).append((canonical.key(g.value), [canonical.key(c) for c in g.columns]))
    assert one.keys() == two.keys()
    for weight in one:
        assert one[weight] == sorted(two[weight]), weight
    assert any(isinstance(u, Append) for _, us in derived.updates for u in us)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_both_routes_give_the_same_updates(case, loss):
    derived, second = routes(CASES[case](), loss)
    canonical = Canonical(n for n in topological([derived["logits"]]) if isinstance(n, Tensor))
    assert_agreement(derived, second, canonical)


GATES = {
    "smooth": "tpc.erf(a) * b",
    "kinked": "tpc.relu(a) * b",
    "kinked, of three": "tpc.relu(a) * b * c",
    "kinked, squared": "tpc.relu(a) * b**2",
    "kinked, summed": "(tpc.abs(a) + a / 2) * (b + a / 3)",
    "with a jump": "tpc.sign(a) * b",
}


@pytest.mark.parametrize("gate", GATES)
def test_both_routes_give_the_same_updates_of_gates(gate):
    """Price's theorem on the terms of plain Stein, and Stein's lemma given one variable: other forms of one sum."""
    derived, second = routes(gated(GATES[gate]), "mse")
    latents = (n for n in topological([derived["logits"]]) if any(a.role == "rank" for a in n.axes))
    assert_agreement(derived, second, Canonical([derived["logits"], *latents]))
    terms = any(isinstance(n, Expectation) for n in derived.nodes)
    assert terms == (gate != "smooth")


def test_the_comparison_tells_different_expressions_apart():
    derived, second = routes(CASES["mlp of depth 2"](), "cross_entropy")
    canonical = Canonical(n for n in topological([derived["logits"]]) if isinstance(n, Tensor))
    for g in second:
        doubled = contract((Constant(2), g.value))
        assert canonical.key(doubled) != canonical.key(g.value)
        other = next(h for h in second if h.weight != g.weight)
        assert canonical.key(g.value) != canonical.key(other.value)


@pytest.mark.parametrize("phi", ["relu(x)", "x*erf(x)", "tanh(x)", "step(x)", "sign(x)"])
def test_what_is_finite_is_not_warned_of(phi):
    def net(x):
        return tpc.readout(tpc.nonlin(phi)(tpc.dense(x, "embed")), 3)

    assert tpc.compile(tpc.trace(net)).warnings == ()


def test_what_is_infinite_at_equal_latents_is_warned_of():
    """A derivative of a jump as a nonlinearity: its kernel is V[δ,δ]."""
    text = tpc.compile(tpc.trace(lambda x: tpc.readout(tpc.sign(tpc.dense(x, "embed")), 3))).emit("program")
    (warning,) = tpc.compile(tpc.parse(text.replace("sign(u0)", "DiracDelta(u0)"))).warnings
    assert warning.startswith("V[δ, δ] (and ")
    assert "is infinite where a latent equals a stored one up to a factor" in warning


def test_deep_tensors_are_compared():
    def chain(depth: int, last: float) -> Tensor:
        x: Tensor = State("a", ())
        for k in range(depth):
            x = contract((Constant(sp.Integer(2)), Map(sp.sin(argument(0)), (x,))))
            x = contract((x, Constant(sp.Rational(last)))) if k == depth - 1 else x
        return x

    canonical = Canonical()
    assert canonical.key(chain(3000, 1)) == canonical.key(chain(3000, 1))
    assert canonical.key(chain(3000, 1)) != canonical.key(chain(2999, 1))
    assert canonical.key(chain(3000, 1)) != canonical.key(chain(3000, 0.5))
