"""Derivatives of δ lowered beside functions without closed form, against closed forms and quadrature."""

import numpy as np
import pytest
import sympy as sp
from sympy import DiracDelta

from tpc.gaussian import deltas
from tpc.gaussian.kernel import kernel
from tpc.gaussian.primitives import rsqrt
from tpc.gaussian.symbols import C, P, Q
from tpc.program.functions import X, relu, sigmoid, step

from .oracle import numpy_function

POINTS = [(1.3, 0.7, 0.4), (0.5, 2.0, -0.9), (1.0, 1.0, 0.999)]


def value(parts, p, q, c):
    total = 0.0
    for coefficient, phi, psi in parts:
        number = sp.sympify(coefficient).replace(rsqrt, lambda x: 1 / sp.sqrt(x)).subs({P: p, Q: q, C: c})
        total += float(number) * float(kernel(phi, psi).at(p, q, c))
    return total


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("psi", [relu(X), step(X), X * sp.erf(X) + relu(X), sp.exp(-(X**2)) * step(X)], ids=str)
def test_against_the_closed_form(monkeypatch, order, psi):
    known = deltas.decompose
    monkeypatch.setattr(deltas, "decompose", lambda f: known(f) if f.func == DiracDelta else None)
    for swapped in (False, True):
        pair = (psi, DiracDelta(X, order)) if swapped else (DiracDelta(X, order), psi)
        parts = deltas.evaluable(*pair, P, Q, C)
        assert len(parts) > 1 or order == 1
        for point in POINTS:
            assert value(parts, *point) == pytest.approx(float(kernel(*pair).at(*point)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("p", "q", "c"), POINTS)
def test_a_kinked_function_without_a_closed_form(p, q, c):
    """E δ'(u)ψ(v) = −∂_t (density at t · E[ψ(v) | u = t]) at t = 0, the expectation by Gauss–Legendre on both sides."""
    psi = relu(X) * sigmoid(X)
    f = numpy_function(psi)
    x, w = np.polynomial.legendre.leggauss(200)
    spread = np.sqrt(q - c * c / p)

    def given(t):
        mean, total = c / p * t, 0.0
        for low, high in ((mean - 12 * spread, 0.0), (0.0, mean + 12 * spread)):  # split at the kink
            v = (low + high) / 2 + (high - low) / 2 * x
            density = np.exp(-((v - mean) ** 2) / (2 * spread**2)) / (spread * np.sqrt(2 * np.pi))
            total += (high - low) / 2 * float(w @ (f(v) * density))
        return total * np.exp(-t * t / (2 * p)) / np.sqrt(2 * np.pi * p)

    h = 1e-3
    wanted = -(8 * (given(h) - given(-h)) - (given(2 * h) - given(-2 * h))) / (12 * h)
    parts = deltas.evaluable(DiracDelta(X, 1), psi, P, Q, C)
    assert value(parts, p, q, c) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("phi", [sp.tanh(X) ** 2, sp.tanh(X) * step(X)], ids=str)
def test_a_delta_alone_beside_a_table(phi):
    """E φ(u)δ(v) = E φ(√(p − c²/q) z)/√(2πq)"""
    p, q, c = (np.array([x]) for x in POINTS[0])
    sigma = np.sqrt(p - c * c / q)
    half, weight = np.polynomial.legendre.leggauss(200)
    v = 6 * (half + 1)
    both = numpy_function(phi)(v * sigma) + numpy_function(phi)(-v * sigma)
    wanted = 6 * weight @ (both * np.exp(-(v**2) / 2)) / np.sqrt(2 * np.pi) / np.sqrt(2 * np.pi * q)
    np.testing.assert_allclose(kernel(phi, DiracDelta(X)).at(p, q, c), wanted, rtol=1e-9)
    np.testing.assert_allclose(kernel(DiracDelta(X), phi).at(q, p, c), wanted, rtol=1e-9)


def test_jumps_of_powers_of_steps_are_whole():
    assert deltas.slope(step(X) ** 3 * X) == step(X) + X * DiracDelta(X)
