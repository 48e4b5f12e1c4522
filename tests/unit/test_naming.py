"""Functions and their derivatives are called by name, and names are read back."""

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

import tpc
from tpc.errors import UsageError
from tpc.program.expression import parse_expression, parse_nonlinearity
from tpc.program.functions import NAMED, X, argument, gelu, relu, sigmoid, silu
from tpc.program.naming import function_name, identify, named, primed, split_number, text, unnamed, unprimed
from tpc.program.text import listing, parse

U, V = argument(0), argument(1)
LONG = "x*tanh(x) + sin(3*x)*exp(-x**2/7)"


@pytest.mark.parametrize(
    ("phi", "name"),
    [
        (relu(X), "relu"),
        (relu(X).diff(X), "step"),
        (relu(X).diff(X, 2), "δ"),
        (relu(X).diff(X, 3), "δ′"),
        (NAMED["abs"](X), "abs"),
        (silu(X), "silu"),
        (X * (sp.Rational(1, 4) - sp.tanh(X / 2) ** 2 / 4) + sp.tanh(X / 2) / 2 + sp.Rational(1, 2), "silu′"),
        (silu(X).diff(X, 2), "silu″"),
        (sp.expand(silu(X).diff(X, 3)), "silu‴"),
        (gelu(X).diff(X, 4), "gelu⁽⁴⁾"),
        (1 - sp.tanh(X) ** 2, "tanh′"),
        (NAMED["softplus"](X).diff(X), "sigmoid"),
        (sp.exp(-(X**2)), None),  # as short as erf′
        (X * sp.tanh(X), None),
        (2 * silu(X), None),
    ],
)
def test_names(phi, name):
    assert function_name(phi) == name


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("order", range(4))
def test_a_name_means_the_derivative(name, order):
    phi = sp.diff(NAMED[name](X), X, order)
    shown = function_name(phi)
    if shown is not None and phi.has(X):
        assert sp.expand(parse_nonlinearity(shown) - phi) == 0
    found = identify(phi)
    if found is not None:
        assert sp.expand(found[0] * found[1].function - phi) == 0


def test_multiples_are_split_into_number_and_named_function():
    assert split_number(X * (1 + sp.erf(X / sp.sqrt(2)))) == (2, gelu(X))
    number, function = split_number(-6 * silu(X).diff(X))
    assert (number, function_name(function)) == (-6, "silu′")
    assert split_number(3 * relu(X)) == (3, relu(X))
    assert split_number(5 * X * sp.tanh(X)) == (5, X * sp.tanh(X))


def test_names_within_expressions():
    assert text(silu(U) * V) == "u1*silu(u0)"
    assert text(U * silu(U).diff(U) * gelu(V)) == "u0*gelu(u1)*silu′(u0)"
    assert text(X + silu(X)) == "x + silu(x)"
    assert text(U / sp.sqrt(V)) == "u0/sqrt(u1)"
    assert unnamed(named(silu(U).diff(U) * V + 1)) == silu(U).diff(U) * V + 1


@given(st.sampled_from(["silu", "f", "φ2"]), st.integers(0, 12))
def test_primes_are_counted(name, order):
    assert unprimed(primed(name, order)) == (name, order)
    assert unprimed(name + "'" * order) == (name, order)


def test_primes_are_read():
    assert parse_nonlinearity("silu'") == parse_nonlinearity("silu′") == silu(X).diff(X)
    assert parse_nonlinearity("gelu⁽⁴⁾(x) + gelu⁽⁴⁾(x)") == 2 * gelu(X).diff(X, 4)
    assert parse_nonlinearity("x*silu″(x)") == X * silu(X).diff(X, 2)
    assert parse_nonlinearity("silu''(2*x)") == silu(X).diff(X, 2).subs(X, 2 * X)
    assert parse_nonlinearity("δ") == sp.DiracDelta(X)
    assert parse_expression("u1*sigmoid′(u0)", {"u0": U, "u1": V}) == V * sigmoid(X).diff(X).xreplace({X: U})
    for wrong in ("silu''''''''''(x)", "x′", "silu′(x, 2)", "no′(x)"):
        with pytest.raises(UsageError):
            parse_nonlinearity(wrong)


@pytest.mark.parametrize("phi", ["silu", "gelu", "tanh", "softsign", "x*tanh(x)", LONG])
def test_listings_with_names_are_read_back(phi):
    def network(x):
        h = tpc.dense(x, name="embed")
        h = tpc.nonlin(phi)(tpc.dense(h, name="gate")) * tpc.dense(h, name="up")
        h = tpc.dense(h, name="down")
        return tpc.readout(tpc.nonlin(phi)(h), 3, name="readout")

    program = tpc.trace(network)
    for each in (program, tpc.compile(program).trained()):
        assert parse(listing(each)) == each
    if phi in NAMED:
        assert f"nonlin({phi}(u0)" in listing(program)
