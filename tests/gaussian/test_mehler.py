"""Mehler series: coefficients, partial sums and remainder bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp

from tpc.gaussian import RHO, kernel
from tpc.program.expression import parse_nonlinearity
from tpc.program.functions import X

from .oracle import RADIUS, RADIUS_WEIGHT, numpy_function

CLOSED = ["relu", "abs", "step", "erf", "gelu", "x**3", "sin", "cos(2*x + 1)", "exp", "exp(-x**2)", "relu(x)**3"]
CLOSED += ["exp(-x**2)*cos(3*x)", "x*erf(x) + relu(x)", "leaky_relu(x, 0.2)"]


def coefficient(phi, s, k):
    """E[φ(s z) He_k(z)]/√k! by quadrature on both half lines."""
    weight = RADIUS_WEIGHT / RADIUS / np.sqrt(2 * np.pi)
    hermite = np.polynomial.hermite_e.HermiteE.basis(k)
    f = numpy_function(phi)
    total = weight @ (f(s * RADIUS) * hermite(RADIUS) + f(-s * RADIUS) * hermite(-RADIUS))
    return float(total) / math.sqrt(math.factorial(k))


@pytest.mark.parametrize("name", [*CLOSED, "tanh", "softplus", "elu"])
def test_coefficients(name):
    phi = parse_nonlinearity(name)
    series = kernel(phi).series(6)
    assert (series.left is None) == (name in ("tanh", "softplus"))
    for p in (0.3, 2.0):
        wanted = [coefficient(phi, np.sqrt(p), k) for k in range(7)]
        found = [a for a, _ in series.numbers(p, 1.0)]
        assert found == pytest.approx(wanted, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("name", [*CLOSED, "tanh", "silu"])
@pytest.mark.parametrize("rho", [0.0, 0.4, -0.9, 1.0])
def test_remainder_bounds_hold(name, rho):
    phi = parse_nonlinearity(name)
    found = kernel(phi)
    p, q = 0.8, 1.7
    c = rho * math.sqrt(p * q) * (1 - 1e-15)
    for terms in (2, 5, 8):
        series = found.series(terms)
        bound = series.remainder(p, q, c)
        assert abs(found.at(p, q, c) - series(p, q, c)) <= bound + 1e-12
    assert series.remainder(p, q, 0.4 * math.sqrt(p * q)) < 0.02 * math.sqrt(found.at(p, p, p) * found.at(q, q, q))


def test_relu_series_is_the_textbook_one():
    relu = parse_nonlinearity("relu")
    wanted = (1 + sp.pi * RHO / 2 + RHO**2 / 2 + RHO**4 / 24 + RHO**6 / 80) / (2 * sp.pi)
    assert sp.expand(kernel(relu).series(6).value - wanted) == 0


def test_series_against_a_delta():
    """V[relu, δ] = sin θ/(2π): a δ has no finite energy, yet the remainder is bounded."""
    relu = parse_nonlinearity("relu")
    found = kernel(relu, relu.diff(X, 2))
    series = found.series(6)
    wanted = (1 - RHO**2 / 2 - RHO**4 / 8 - RHO**6 / 16) / (2 * sp.pi)
    assert sp.expand(series.value - wanted) == 0
    for c in (0.2, -0.9, 1.0):
        assert abs(found.at(1.0, 1.0, c) - series(1.0, 1.0, c)) <= series.remainder(1.0, 1.0, c) < 1
    step = relu.diff(X)
    assert kernel(step, step.diff(X, 2)).series(3).remainder(1.0, 1.0, 0.5) == math.inf


@pytest.mark.parametrize("name", ["tanh", "softplus", "relu"])
def test_tabulated_coefficients(name):
    phi = parse_nonlinearity(name)
    basis, _ = kernel(phi).series(5).tabulated()
    p = np.array([1e-3, 0.2, 3.0, 50.0])
    wanted = np.array([[coefficient(phi, np.sqrt(x), k) for x in p] for k in range(6)])
    assert basis(p) == pytest.approx(wanted, rel=1e-9, abs=1e-11)


def test_polynomials_end():
    cubic = parse_nonlinearity("x**3 - x")
    assert kernel(cubic).series(3).remainder(1.2, 0.4, 0.5) < 1e-7
    assert kernel(cubic).series(3)(1.2, 0.4, 0.5) == pytest.approx(kernel(cubic).at(1.2, 0.4, 0.5), rel=1e-13)
