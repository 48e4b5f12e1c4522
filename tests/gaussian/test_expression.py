"""Reading nonlinearities from text: what is accepted, what is refused and how, and the round trip."""

from __future__ import annotations

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from tpc.errors import UsageError
from tpc.program.expression import parse_expression, parse_nonlinearity
from tpc.program.functions import (
    NAMED,
    X,
    absolute,
    argument,
    elu,
    gelu,
    leaky_relu,
    relu,
    sigmoid,
    sign,
    silu,
    softplus,
    softsign,
    step,
)

SYMBOLS = {f"u{i}": argument(i) for i in range(3)}
U, V, W = SYMBOLS.values()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("relu", relu(X)),
        ("x*erf(x) + relu(x)", X * sp.erf(X) + relu(X)),
        ("leaky_relu(x, 0.2)", leaky_relu(X, sp.Rational(1, 5))),
        ("max(x, 0)", relu(X)),
        ("Max(0, x, -x/2)", relu(X) + relu(-X) / 2),
        ("min(x, 2*x)", -relu(-X) * 2 + relu(X)),
        ("max(x, 1)", 1 + relu(X - 1)),
        ("abs(x)^3", absolute(X) ** 3),
        ("He(3, x)", X**3 - 3 * X),
        ("t**2 + 1", X**2 + 1),
        ("0.1*x", X / 10),
        ("-2e-3*x", -X / 500),
        ("Heaviside(x)", step(X)),
        ("elu(x, 2)", elu(X, 2)),
    ],
)
def test_reads(text, wanted):
    assert sp.simplify(parse_nonlinearity(text) - wanted) == 0


@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_name_stands_for_its_function(name):
    assert parse_nonlinearity(name) == parse_nonlinearity(f"{name}(x)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rellu", "did you mean relu?"),
        ("rellu(x)", "did you mean relu?"),
        ("x*y", "expected a nonlinearity of one variable x, got 'x*y' with x and y"),
        ("x +", "expected an arithmetic expression"),
        ("", "expected an arithmetic expression"),
        ("foo bar", "expected an arithmetic expression"),
        ("relu*2", "the function relu needs its argument"),
        ("relu(x, x)", "relu expects 1 argument(s), got 2"),
        ("1/0", "divides by zero"),
        ("sqrt(-1)", "not real"),
        ("9**9**9", "exponents of at most 64"),
        ("x**1e9", "exponents of at most 64"),
        ("1e999", "finite number"),
        ("'a'", "expected a number"),
        ("True", "expected a number"),
        ("x.real", "expected numbers, names"),
        ("x if x else 1", "expected numbers, names"),
        ("lambda x: x", "expected numbers, names"),
        ("__import__('os').system('true')", "expected numbers, names"),
        ("(0).__class__", "expected numbers, names"),
        ("[x]", "expected numbers, names"),
        ("He(1.5, x)", "He(k, x) expects an integer"),
        ("(" * 300 + "x" + ")" * 300, "got"),
        ("x" * 3000, "at most 2000 characters"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(UsageError) as caught:
        parse_nonlinearity(text)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


atoms = st.sampled_from(
    [U, V, W, sp.pi * U, 3 * V, sp.Rational(-2, 7) - W, sp.Float(0.1) * U, U + sp.Float(1e-20), sp.sqrt(2) * V, -U]
)
KINKED = [relu, step, sign, absolute, softplus, sp.DiracDelta, leaky_relu, elu, softsign, sp.Abs]
SMOOTH = [sp.erf, sp.exp, sp.tanh, sp.sin, sp.cos, gelu, sigmoid, silu]
ROOTS = [lambda x: sp.log(1 + x**2), lambda x: sp.sqrt(1 + x**2), lambda x: x**3, lambda x: 1 / (1 + x**2)]
unary = st.sampled_from([*KINKED, *SMOOTH, *ROOTS])
binary = st.sampled_from([lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, sp.Max, sp.Min])
expressions = st.recursive(
    atoms,
    lambda inner: st.builds(lambda f, x: f(x), unary, inner) | st.builds(lambda f, a, b: f(a, b), binary, inner, inner),
    max_leaves=6,
).filter(lambda e: bool(e.free_symbols))


@given(expressions)
def test_round_trip_of_what_sympy_prints(expr):
    shown_in_full = all(sp.Float(str(f)) == f for f in expr.atoms(sp.Float))
    if expr.has(sp.zoo, sp.nan, sp.oo) or not shown_in_full:
        return
    assert parse_expression(str(expr), SYMBOLS) == expr


@pytest.mark.parametrize("phi", [gelu(U), elu(U, 3), softplus(U) ** -2, relu(U) * V, sp.exp(-(U**2) / 2) * W])
def test_round_trip_of_derivatives(phi):
    for expr in (phi.diff(U), phi.diff(U, 2)):
        assert parse_expression(str(expr), SYMBOLS) == expr
