"""Kernels are called V[relu, relu], V[silu′, silu′], V[φ, φ″]; any text that means the same finds them."""

import re

import pytest
import sympy as sp

import tpc
from tpc.draw.svg import to_svg
from tpc.errors import ProgramError
from tpc.gaussian.definitions import definitions
from tpc.gaussian.explain import explain
from tpc.gaussian.kernel import kernel
from tpc.gaussian.names import KernelNames, Kernels
from tpc.program.expression import parse_nonlinearity
from tpc.program.functions import X, relu, silu

LONG = parse_nonlinearity("x*tanh(x) + sin(3*x)*exp(-x**2/7)")


def network(phi, layers=2):
    def f(x):
        h = tpc.dense(x, name="embed")
        for k in range(layers):
            h = tpc.dense(phi(h), name=f"hidden{k}")
        return tpc.readout(phi(h), 3, name="readout")

    return tpc.trace(f)


def test_every_text_of_a_limit_names_derivatives():
    limit = tpc.compile(network(tpc.gelu))
    assert list(limit.kernels) == ["V[gelu, gelu]", "V[gelu, gelu″]", "V[gelu′, gelu′]"]
    for stage in ("limit", "kernels", "dot", "json", "update", "program", "backward"):
        text = limit.emit(stage)
        names = set(re.findall(r"V\[(.*?)\]", text)) - {"φ,ψ"}
        assert names <= {"gelu, gelu", "gelu, gelu″", "gelu′, gelu′"}, stage
        assert "erf" not in text or stage == "kernels", stage
    assert "V[gelu′, gelu′]" in limit.summary()
    assert r"V_{\operatorname{gelu}',\,\operatorname{gelu}'}" in limit.emit("latex")
    assert "gelu″" in to_svg(limit.to_networkx())


def test_kernels_without_closed_form_are_named():
    limit = tpc.compile(network(tpc.silu), limit="ntk")
    assert list(limit.kernels) == ["V[silu, silu]", "V[silu′, silu′]"]


def test_old_names_are_found():
    found = tpc.compile(network(tpc.relu)).kernels
    assert list(found) == ["V[relu, relu]", "V[relu, δ]", "V[step, step]"]
    for name in ("V[relu(x), relu(x)]", "V[relu(x), DiracDelta(x)]", "V[step(x), step(x)]", "V[ relu , relu ]"):
        assert name in found
    assert found["V[relu(x), DiracDelta(x)]"] is found["V[relu, δ]"]
    assert found.get("V[tanh, tanh]") is None
    assert "relu" not in found
    assert "V[relu" not in found
    with pytest.raises(KeyError):
        found["V[cos, cos]"]


def test_a_multiple_of_a_kernel_is_that_multiple():
    found = Kernels([(silu(X), silu(X))])
    doubled = found["V[x*(tanh(x/2) + 1), silu(x)]"]
    assert doubled.at(1.0, 1.0, 0.5) == pytest.approx(2 * found["V[silu, silu]"].at(1.0, 1.0, 0.5), rel=1e-9)


def test_long_functions_are_called_phi():
    first, second = LONG.diff(X), LONG.diff(X, 2)
    names = KernelNames([(first, first), (LONG, LONG), (LONG, second), (2 * second, relu(X))])
    assert [names.kernel(*pair) for pair in names.pairs] == ["V[φ′, φ′]", "V[φ, φ]", "V[φ, φ″]", "V[2*φ″, relu]"]
    assert names.definitions == {"φ": LONG}
    other = LONG + sp.cos(5 * X) ** 2
    assert set(KernelNames([(LONG, other)]).definitions) == {"φ1", "φ2"}


def test_short_functions_are_their_own_name():
    short = X * relu(X)
    assert KernelNames([(short, short)]).kernel(short, short) == "V[x*relu(x), x*relu(x)]"


def test_a_listing_says_what_phi_is():
    limit = tpc.compile(network(tpc.nonlin("x*erf(x) + sin(3*x)*exp(-x**2/7)"), layers=1), limit="ntk")
    text = limit.emit("limit")
    assert "where φ(x) = x*erf(x) + exp(-x**2/7)*sin(3*x)" in text
    assert "V[φ′, φ′]" in text
    assert list(limit.kernels) == ["V[φ, φ]", "V[φ′, φ′]"]


def test_errors_use_names():
    with pytest.raises(ProgramError, match=r"V\[δ, δ\] is infinite at equal samples"):
        tpc.compile(network(tpc.step), limit="ntk").graph()


@pytest.mark.parametrize(
    ("phi", "first", "last"),
    [
        ("relu", "  relu(x) = max(x, 0) = x·step(x)", "  hence V[relu, relu](p, q, c) = c·(π - arccos("),
        ("gelu", "  gelu(x) = x·(erf(√2·x/2) + 1)/2", "  hence V[gelu, gelu](p, q, c) = "),
        ("step", "  step(x) = 1 where x > 0, else 0", "  hence V[step, step](p, q, c) = (π - arccos("),
    ],
)
def test_a_derivation_begins_with_the_function_and_ends_with_v(phi, first, last):
    lines = explain(parse_nonlinearity(phi)).text.splitlines()
    start = lines.index("Derivation:")
    end = next(k for k in range(start, len(lines)) if not lines[k])
    assert lines[start + 1] == first
    assert lines[start + 2].startswith("  1. ")
    assert lines[end - 1].startswith(last)


def test_definitions_hold_at_points():
    for name in ("relu", "abs", "leaky_relu", "gelu", "elu"):
        phi = parse_nonlinearity(name)
        (found,) = definitions(kernel(phi, phi))
        for x in (-1.5, 0.7):
            assert float(found.value.subs(X, x)) == pytest.approx(float(phi.subs(X, x)))
