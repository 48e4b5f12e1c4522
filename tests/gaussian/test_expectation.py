"""Expectations over several Gaussian variables: gates, products, tied arguments, orthants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp

from tpc.errors import GaussianError
from tpc.gaussian import expectation, gram
from tpc.gaussian.evaluate import precise
from tpc.program.functions import X, argument, gelu, relu, step

from .oracle import numpy_function, polar

U = [argument(i) for i in range(4)]
ROOT = np.array([[1.1, 0.0, 0.0, 0.0], [0.3, 0.8, 0.0, 0.0], [-0.5, 0.3, 0.9, 0.0], [0.2, -0.4, 0.6, 0.7]])
COVARIANCE = ROOT @ ROOT.T


def at(value):
    where = {gram(i, j): COVARIANCE[i, j] for i in range(4) for j in range(i, 4) if value.has(gram(i, j))}
    return float(precise(value, where)) if where else float(value)


def sampled(fn, count=400_000):
    """Mean and standard error from antithetic samples of a fixed seed."""
    z = np.random.default_rng(7).standard_normal((count, 4)) @ ROOT.T
    f = sp.lambdify(U, fn, modules=[{"relu": lambda x: np.maximum(x, 0), "step": lambda x: x > 0}, "numpy", "scipy"])
    values = (f(*z.T) + f(*(-z.T))) / 2
    return values.mean(), values.std() / math.sqrt(count)


CASES = [
    relu(U[0]) * U[1],
    relu(U[0]) * U[1] * U[2],
    relu(U[0]) * relu(U[1]) * U[2] * U[3],
    step(U[0]) * U[1] ** 2 * U[2],
    sp.erf(U[0]) * sp.erf(U[1]) * U[2] * U[3],
    gelu(U[0]) * U[1],
    (relu(U[0]) + U[1]) ** 2,
    relu(U[0] + 2 * U[1]) * U[0],
    relu(U[0] - U[1]) * relu(U[2]),
    step(U[0]) * step(U[1]) * step(U[2]),
    relu(U[0]) * relu(U[1]) * relu(U[2]),
    sp.sin(U[0]) * sp.cos(U[1]) * sp.sin(U[2]),
    sp.exp(U[0] / 2) * relu(U[1]) * U[2],
    sp.exp(U[0] / 2 + U[1] / 3) * U[2],
    U[0] * U[1] * U[2] * U[3],
    U[0] ** 2 * U[1] ** 2 + 3,
]


@pytest.mark.parametrize("fn", CASES, ids=str)
def test_against_sampling(fn):
    mean, error = sampled(fn)
    assert abs(at(expectation(fn, U).value) - mean) < 4.5 * error


def test_gates_reduce_to_the_unary_table():
    """E φ(u0) u1 = Cov · E φ'(u0) (Stein)"""
    found = expectation(gelu(U[0]) * U[1], U)
    (term,) = found.terms
    assert sp.simplify(term.coefficient * term.kernel.phi - gram(0, 1) * gelu(X).diff(X)) == 0
    assert term.kernel.psi == 1
    assert found.rules[0].rule == "Stein"


def test_polynomial_factors_leave_pairs():
    found = expectation(relu(U[0]) * step(U[1]) * U[2] * U[3], U)
    assert all(t.kernel is None or t.kernel.psi.free_symbols <= {X} for t in found.terms)
    assert found.value is not None


def test_numeric_kernels_stay_terms():
    found = expectation(sp.tanh(U[0]) * U[1] ** 2 * sp.tanh(U[2]), U)
    assert found.value is None
    assert len(found.terms) == 4
    total = 0.0
    for term in found.terms:
        p, q, c = (at(x) for x in (*term.variances, term.covariance))
        total += at(term.coefficient) * term.kernel.at(p, q, c)
    mean, error = sampled(sp.tanh(U[0]) * U[1] ** 2 * sp.tanh(U[2]))
    assert abs(total - mean) < 4.5 * error


def test_pairs_of_linear_forms():
    fn = relu(U[0] + U[1]) * sp.erf(U[0] - U[1])
    g = COVARIANCE
    p, q = g[0, 0] + g[1, 1] + 2 * g[0, 1], g[0, 0] + g[1, 1] - 2 * g[0, 1]
    wanted = polar(relu(X), sp.erf(X), p, q, g[0, 0] - g[1, 1])
    assert at(expectation(fn, U).value) == pytest.approx(wanted, rel=1e-12)


def test_parameters_factor_out():
    a, b = sp.symbols("theta0 theta1", real=True)
    found = expectation(a * relu(U[0]) * (b * relu(U[1]) + a), U).value
    plain = a * b * expectation(relu(U[0]) * relu(U[1]), U).value + a**2 * expectation(relu(U[0]), U).value
    assert sp.expand(found - plain) == 0


def test_constants_and_single_variables():
    assert expectation(sp.Integer(3), U).value == 3
    assert expectation(U[0], U).value == 0
    assert expectation(U[0] ** 2, U).value == gram(0, 0)
    assert numpy_function(X)(np.ones(2)).shape == (2,)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (sp.exp(U[0] * U[1]), "expected products of functions of one variable"),
        (sp.tanh(U[0]) * sp.tanh(U[1]) * sp.tanh(U[2]), "no closed form for E"),
        (sp.exp(U[0] ** 2), "diverges"),
        (relu(U[0] + sp.Symbol("w")), "expected w as a factor only"),
    ],
)
def test_refusals(fn, message):
    with pytest.raises(GaussianError, match=message):
        expectation(fn, U)
