"""The text and data behind `tpc kernel`."""

from __future__ import annotations

import json
import math

import pytest

from tpc.errors import GaussianError, UserError
from tpc.gaussian.explain import explain
from tpc.program.expression import parse_nonlinearity


def test_relu_text():
    text = explain(parse_nonlinearity("relu")).text
    assert "V = c·(π - arccos(c/(√p·√q)))/(2·π) + √(-c² + p·q)/(2·π)" in text
    assert r"\arccos" in text
    assert "1. Stein: E[u·v·step(u)·step(v)] = c·E[step(u)·step(v)] + p·E[v·δ(u)·step(v)]" in text
    assert "where Var1 v = (-c² + p·q)/p" in text
    assert "κ(ρ) = 1/(2·π) + ρ/4 + ρ²/(4·π) + ρ⁴/(48·π) + ρ⁶/(160·π) + O(ρ^7)" in text
    assert "V = 0.304498890522115" in text


def test_erf_text():
    text = explain(parse_nonlinearity("erf"), terms=3, at=(1.0, 2.0, -0.5)).text
    assert "V = 2·arcsin(2·c/(√(2·p + 1)·√(2·q + 1)))/π" in text
    assert "a_1(s) = 2·s/(√π·√(2·s² + 1))" in text
    assert "At p = 1, q = 2, c = -0.5:" in text


@pytest.mark.parametrize("name", ["relu", "tanh", "elu", "x*erf(x) + relu(x)", "sin", "gelu", "step"])
def test_data_is_json(name):
    found = explain(parse_nonlinearity(name))
    data = json.loads(json.dumps(found.data, allow_nan=False))
    assert data["closed_form"] == (found.kernel.value is not None)
    assert data["at"]["value"] == pytest.approx(found.kernel.at(1.0, 1.0, 0.5))
    assert abs(data["series"]["partial_sum"] - data["at"]["value"]) <= data["series"]["remainder_bound"]
    assert "**" not in found.text


def test_numeric_kernels_say_so():
    text = explain(parse_nonlinearity("tanh")).text
    assert "No closed form" in text
    assert "1e-10" in text


def test_a_pair_and_its_divergence():
    delta = parse_nonlinearity("DiracDelta(x)")
    text = explain(parse_nonlinearity("relu"), delta).text
    assert "q > 0" in text
    assert "|ρ| < 1 (diverges at ρ = ±1)" in explain(delta, delta).text


def test_points_outside_the_cone_are_refused():
    with pytest.raises(GaussianError, match="Cauchy–Schwarz"):
        explain(parse_nonlinearity("relu"), at=(1.0, 1.0, 2.0))
    with pytest.raises(GaussianError, match="p ≥ 0"):
        explain(parse_nonlinearity("relu"), at=(-1.0, 1.0, 0.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1/x", "a pole"),
        ("log(x)", "log(x) is not defined where x ≤ 0"),
        ("exp(x**2)", "diverges"),
        ("exp(x**3)", "diverges"),
        ("exp(exp(x))", "diverges"),
        ("sqrt(x)", "not real where x < 0"),
        ("1/(x**2 - 1)", "x**2 - 1 can vanish"),
        ("1/tanh(x)", "tanh(x) can vanish"),
        ("x**x", "constant exponent"),
        ("log(abs(x))", "is not defined where absolute(x) ≤ 0"),
    ],
)
def test_expectations_that_do_not_exist(text, message):
    with pytest.raises(UserError) as caught:
        explain(parse_nonlinearity(text))
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text", ["1/(1 + x**2)", "1/(x**2 - 2*x + 2)", "sqrt(1 + x**2)", "log(1 + exp(x))", "1/(1 + exp(-x))", "exp(-x**4)"]
)
def test_expectations_that_do(text):
    assert explain(parse_nonlinearity(text)).data["at"]["value"] == pytest.approx(
        explain(parse_nonlinearity(text)).data["series"]["partial_sum"], abs=0.02
    )


@pytest.mark.parametrize(
    ("phi", "at", "value"),
    [
        ("relu", (1e-300, 1e-300, 0.0), 1e-300 / (2 * math.pi)),
        ("relu", (1e300, 1e300, 1e300), 5e299),
        ("tanh", (1e-300, 1e-300, 0.0), 0.0),
        ("DiracDelta(x)", (0.0, 1.0, 0.0), 0.0),
        ("DiracDelta(x)", (1e-200, 1e-200, 0.0), 1e200 / (2 * math.pi)),
    ],
)
def test_points_at_the_ends_of_floats(phi, at, value):
    found = explain(parse_nonlinearity(phi), at=at).data
    assert found["at"]["value"] == pytest.approx(value, rel=1e-14)
    assert found["series"]["partial_sum"] == pytest.approx(value, rel=1e-2)


def test_a_value_beyond_doubles_is_told():
    assert "larger than the largest double" in explain(parse_nonlinearity("exp"), at=(1000.0, 1000.0, 0.0)).text


@pytest.mark.parametrize("sign", [1, -1])
def test_a_kernel_that_diverges_is_told(sign):
    with pytest.raises(GaussianError, match="diverges as the correlation goes to ±1"):
        explain(parse_nonlinearity("DiracDelta(x)"), at=(1.0, 1.0, float(sign)))
