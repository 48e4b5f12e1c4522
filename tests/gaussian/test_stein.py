"""Stein's lemma given one variable: expectations whose plain terms are infinite where two variables are one."""

from __future__ import annotations

from math import gamma

import numpy as np
import pytest
import sympy as sp
from sympy import DiracDelta

from tpc.gaussian import expectation, gram
from tpc.gaussian.evaluate import vectorised
from tpc.program.functions import absolute, argument, leaky_relu, relu, sign, step

U = [argument(i) for i in range(4)]
DELTA = DiracDelta

# φ(u0) ψ(u1) and the powers of u2 and u3; δ at u0 alone, so that the integral over its line is elementary
BOUNDED = {
    "step step": (step, step, 1, 1),
    "relu' relu of powers": (step, relu, 3, 2),
    "relu' relu' of squares": (step, step, 2, 2),
    "abs' leaky'": (sign, lambda x: leaky_relu(x).diff(x), 1, 1),
    "abs' abs of three": (sign, absolute, 3, 1),
    "δ relu": (DELTA, relu, 1, 1),
    "δ abs of squares": (DELTA, absolute, 2, 2),
    "δ relu of three": (DELTA, relu, 3, 0),
}
SMALL = (1.0, 1e-2, 1e-4, 1e-6, 1e-9, 0.0)
ANGLES = (*SMALL, *(np.pi - t for t in SMALL))


def vectors(theta, seed=0):
    """Latents b = (√q, 0, 0), g at the angle θ of it, and two others, in R³."""
    rng = np.random.default_rng(seed)
    first, second = np.array([1.3, 0, 0]), 0.8 * np.array([np.cos(theta), np.sin(theta), 0])
    return np.array([first, second, *rng.standard_normal((2, 3))])


def integral(phi, psi, m, n, z):
    """E φ(u0) ψ(u1) u2^m u3^n by the angle in the plane of u0 and u1, moments of the third coordinate being exact.

    Kinks are at the ends of the sectors; radially all are powers.
    """
    theta = np.arctan2(z[1, 1], z[1, 0])
    line = phi is DELTA
    f, g = (sp.lambdify(U[0], h(U[0]), [{"relu": lambda x: np.maximum(x, 0), "step": lambda x: (x > 0) * 1.0,
                                         "sign": np.sign, "absolute": np.abs}, "numpy"]) if h is not DELTA else None
            for h in (phi, psi))  # fmt: skip
    if line:  # u0 = 0: y1 = 0, y2 on both half lines
        points = [(0.0, 1.0, 1.0), (0.0, -1.0, 1.0)]
        at = lambda y: 1 / (z[0, 0] * 2 * np.pi) * g(z[1, :2] @ y)  # noqa: E731
        radial = lambda d: 2 ** ((d - 1) / 2) * gamma((d + 1) / 2)  # noqa: E731
    else:
        ends = np.sort(np.mod([np.pi / 2, 3 * np.pi / 2, theta + np.pi / 2, theta - np.pi / 2], 2 * np.pi))
        x, w = np.polynomial.legendre.leggauss(24)
        points = []
        for start, width in zip(ends, np.diff([*ends, ends[0] + 2 * np.pi])):
            points += [(np.cos(t), np.sin(t), v) for t, v in zip(start + width * (x + 1) / 2, width * w / 2)]
        at = lambda y: f(z[0, :2] @ y) * g(z[1, :2] @ y) / (2 * np.pi)  # noqa: E731
        radial = lambda d: 2 ** (d / 2) * gamma(d / 2 + 1)  # noqa: E731
    degree = {relu: 1, absolute: 1}
    total = 0.0
    for a, b, weight in points:
        y = np.array([a, b])
        value = at(y) * weight
        left, right = np.poly1d([z[2, 2], z[2, :2] @ y]) ** m, np.poly1d([z[3, 2], z[3, :2] @ y]) ** n
        for k, c in enumerate((left * right).coeffs[::-1]):  # the k-th power of the third coordinate
            if k % 2 == 0:
                normal = 2 ** (k / 2) * gamma((k + 1) / 2) / np.sqrt(np.pi)
                d = m + n - k + degree.get(phi, 0) + degree.get(psi, 0)
                total += c * value * normal * radial(d)
    return total


def numeric(found, z):
    """The terms in double precision, as generated code evaluates them: 1/√(pq − c²) counts as 0 at |ρ| = 1."""
    c = z @ z.T
    symbols = [gram(i, j) for i in range(4) for j in range(i, 4)]
    at = [np.array([c[i, j]]) for i in range(4) for j in range(i, 4)]

    def value(expr):
        return vectorised(sp.sympify(expr), symbols)(*at)

    total = 0.0
    for t in found.terms:
        with np.errstate(divide="ignore", invalid="ignore"):
            made = t.kernel.at(*(value(v) for v in (*t.variances, t.covariance)))
        made = np.where(np.isfinite(made), made, 0.0) if t.kernel.pole else made
        total += float((value(t.coefficient) * made)[0])
    return total


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("swapped", [False, True])
def test_near_and_at_equal_and_opposite_variables(name, swapped):
    phi, psi, m, n = BOUNDED[name]
    u, v = (U[1], U[0]) if swapped else U[:2]
    found = expectation(phi(u) * psi(v) * U[2] ** m * U[3] ** n, U)
    assert found.divergence <= 0
    for theta in ANGLES:
        z = vectors(theta)
        wanted = integral(phi, psi, m, n, z)
        order = [1, 0, 2, 3] if swapped else [0, 1, 2, 3]
        assert numeric(found, z[order]) == pytest.approx(wanted, abs=2e-8), theta


def test_what_the_plain_lemma_gives_alone_is_infinite():
    """The same expectation, u3 stripped before the lemma is given a variable: its terms diverge one by one."""
    found = expectation(step(U[0]) * step(U[1]) * U[2] * U[3], U)
    assert found.given
    assert max(t.kernel.pole for t in found.terms) == 1
    assert all(t.order >= t.kernel.pole for t in found.terms)
    smooth = expectation(sp.erf(U[0]) * sp.erf(U[1]) * U[2] * U[3], U)
    assert not smooth.given
    assert expectation(relu(U[0]) * relu(U[1]) * U[2] * U[3], U).given is False


@pytest.mark.parametrize(
    ("fn", "divergence"),
    [
        (DELTA(U[0]) * DELTA(U[1]) * U[2], 0),  # odd
        (DELTA(U[0]) * DELTA(U[1]), 1),
        (DELTA(U[0]) * DELTA(U[1]) * U[2] * U[3], 1),
        (DELTA(U[0], 1) * step(U[1]) * U[2] * U[3], 1),
        (DELTA(U[0], 1) * DELTA(U[1], 1) * U[2] * U[3], 3),
        (DELTA(U[0]) * step(U[1]) * U[2], 0),
    ],
    ids=str,
)
def test_what_is_infinite_says_how_fast(fn, divergence):
    assert expectation(fn, U).divergence == divergence


def test_steps_name_the_variable():
    found = expectation(step(U[0]) * step(U[1]) * U[2] * U[3], U)
    assert found.rules[0].rule == "Stein given u0"
