"""Closed forms against quadrature split at the kinks, at extreme variances and correlations."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import sympy as sp

from tpc.gaussian import C, P, Q, kernel
from tpc.gaussian.evaluate import vectorised
from tpc.program.expression import parse_nonlinearity
from tpc.program.functions import X

from .oracle import OSCILLATING, angles, conditional, points, polar, scale

FAMILIES = [
    "identity",
    "x**3 - 2*x**2 + x - 1/2",
    "He(4, x)",
    "relu",
    "leaky_relu(x, 0.2)",
    "abs",
    "step",
    "sign",
    "relu(x)**2",
    "relu(x)**5",
    "abs(x)**3",
    "erf",
    "erf(2*x)",
    "gelu",
    "Phi",
    "exp(x/2)",
    "sin",
    "cos",
    "sin(2*x + 1)",
    "exp(-x**2)",
    "exp(-x**2)*cos(3*x)",
    "x*exp(-x**2)",
    "x*Phi(x)",
    "relu(x)*(x**2 - 1)",
    "x*erf(x) + relu(x)",
    "relu(x)*exp(-x**2)",
]
KEY = ("relu", "erf", "gelu", "sin")


def error(phi, psi, p, q, c):
    wanted = polar(phi, psi, p, q, c)
    return abs(kernel(phi, psi).at(p, q, c) - wanted) / max(scale(phi, psi, p, q), 1e-300)


@pytest.mark.parametrize("name", FAMILIES)
def test_agrees_with_quadrature(name):
    phi = parse_nonlinearity(name)
    assert kernel(phi).value is not None
    top = OSCILLATING if phi.has(sp.sin, sp.cos) else 1e2
    for p, q, c in points(200 if name in KEY else 24, top=top):
        assert error(phi, phi, p, q, c) < 1e-12, (p, q, c)


@pytest.mark.parametrize("left", ["relu", "erf", "x**3", "exp(-x**2)", "abs", "gelu", "sin(x + 1)", "exp(x/2)"])
@pytest.mark.parametrize("right", ["relu(x)**2", "erf(x)", "cos", "x*exp(-x**2)", "step", "He(3, x)"])
def test_mixed_pairs_agree(left, right):
    phi, psi = parse_nonlinearity(left), parse_nonlinearity(right)
    assert kernel(phi, psi).value is not None
    top = OSCILLATING if (phi * psi).has(sp.sin, sp.cos) else 1e2
    for p, q, c in points(4, seed=1, top=top):
        assert error(phi, psi, p, q, c) < 1e-12, (p, q, c)


@pytest.mark.parametrize("name", ["relu", "erf", "gelu", "exp(-x**2)*cos(3*x)", "step", "sin", "relu(x)**3"])
def test_array_evaluation_is_stable(name):
    """The form that backends emit, in float64 and float32, keeps its accuracy relative to Cauchy–Schwarz."""
    phi = parse_nonlinearity(name)
    found = kernel(phi)
    p, q, c = (np.array(column) for column in zip(*points(200, seed=2), strict=True))
    exact = np.array([found.at(*point) for point in zip(p, q, c, strict=True)])
    size = np.array([scale(phi, phi, a, b) for a, b in zip(p, q, strict=True)])
    assert np.max(np.abs(found.at(p, q, c) - exact) / size) < 1e-12
    p, q, c = (x.astype(np.float32) for x in (p, q, c))
    c = np.clip(c, -np.sqrt(p) * np.sqrt(q), np.sqrt(p) * np.sqrt(q))
    exact = np.array([found.at(*map(float, point)) for point in zip(p, q, c, strict=True)])
    size = np.array([scale(phi, phi, float(a), float(b)) for a, b in zip(p, q, strict=True)])
    assert np.max(np.abs(found.at(p, q, c, "float32") - exact) / size) < 2e-6


def test_the_value_is_exact_where_it_nearly_vanishes():
    """E relu(u) relu(v) ~ η³ at ρ = −cos η: the scalar evaluation keeps every digit."""
    relu = parse_nonlinearity("relu")
    for p, q, c in ((1.0, 1.0, -1 + 1e-9), (2.0, 0.5, -1 + 1e-12), (1e3, 1e-3, -1 + 1e-7)):
        with mpmath.workdps(60):
            rest = mpmath.acos(-mpmath.mpf(c) / mpmath.sqrt(mpmath.mpf(p) * q))
            wanted = mpmath.sqrt(mpmath.mpf(p) * q) * (mpmath.sin(rest) - rest * mpmath.cos(rest)) / (2 * mpmath.pi)
        assert kernel(relu).at(p, q, c) == pytest.approx(float(wanted), rel=1e-14)
        assert polar(relu, relu, p, q, c) == pytest.approx(float(wanted), rel=1e-11)


@pytest.mark.parametrize("name", ["relu", "erf", "gelu", "abs", "sin", "step", "x*erf(x) + relu(x)", "exp(-x**2)"])
def test_zero_vectors_give_finite_values_and_gradients(name):
    phi = parse_nonlinearity(name)
    zero, some = np.zeros(3), np.array([0.0, 1e-30, 3.0])
    pairs = [(phi, phi), (phi.diff(X), phi.diff(X))]
    if name != "step":
        pairs.append((phi, phi.diff(X, 2)))
    for left, right in pairs:
        if left.has(sp.DiracDelta) and right.has(sp.DiracDelta):
            continue
        value = vectorised(kernel(left, right).value, (P, Q, C))
        for arguments in ((zero, some, zero), (some, zero, zero), (zero, zero, -zero)):
            assert np.all(np.isfinite(value(*arguments)))


def test_homogeneous_kernels_factor():
    found = kernel(parse_nonlinearity("relu(x)**2"), parse_nonlinearity("abs"))
    assert found.degrees == (2, 1)
    rho = -0.3
    kappa = float(found.kappa.subs(sp.Symbol("rho", real=True), rho))
    assert found.at(4.0, 9.0, rho * 6) == pytest.approx(4.0 * 3.0 * kappa, rel=1e-13)


def test_derivative_kernels_of_relu_are_the_textbook_ones():
    relu = parse_nonlinearity("relu")
    step, delta = relu.diff(X), relu.diff(X, 2)
    p, q, c = 1.3, 0.4, 0.5
    theta, rest = angles(p, q, c)
    assert kernel(step).at(p, q, c) == pytest.approx(rest / (2 * np.pi), rel=1e-14)
    assert kernel(relu, delta).at(p, q, c) == pytest.approx(np.sin(theta) / (2 * np.pi) * np.sqrt(p / q), rel=1e-14)
    assert kernel(delta, relu).at(p, q, c) == pytest.approx(np.sin(theta) / (2 * np.pi) * np.sqrt(q / p), rel=1e-14)


@pytest.mark.parametrize("names", [("relu", "gelu"), ("abs", "tanh"), ("erf", "softplus")])
def test_the_oracle_itself(names):
    """Two quadratures that share nothing but the integrand."""
    phi, psi = map(parse_nonlinearity, names)
    assert polar(phi, psi, 1.3, 0.6, 0.5) == pytest.approx(conditional(phi, psi, 1.3, 0.6, 0.5), rel=1e-12)


def test_derivations_name_their_rules():
    def fired(left, right=None):
        pair = parse_nonlinearity(left), parse_nonlinearity(right or left)
        return {step.rule for step in kernel(*pair).rules}

    assert fired("relu") == {"Stein", "conditioning on δ", "arc-cosine"}
    assert fired("erf") == {"arcsine"}
    assert fired("x**2") == {"Isserlis"}
    assert fired("sin") == {"characteristic function"}
    assert fired("x**2", "x") == {"parity"}
    assert "Gaussian tilt" in fired("gelu")
    assert "exponential shift" in fired("exp(x)", "relu")
    assert "bilinearity" in fired("leaky_relu(x, 0.2)")
    assert "Price: derivatives of δ move to the partner" in {
        s.rule for s in kernel(parse_nonlinearity("gelu"), sp.DiracDelta(X, 1)).rules
    }
