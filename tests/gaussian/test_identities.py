"""Price, Stein, bilinearity, symmetry, Cauchy–Schwarz and positive semidefiniteness over random φ and ψ."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tpc.gaussian import C, P, Q, kernel
from tpc.gaussian.evaluate import precise
from tpc.program.functions import X, absolute, relu, sign, step

from .grammar import any_phi, coefficients, covariances, smooth

CLOSE = 1e-11


def size(phi, psi, p, q):
    return 1e-300 + np.sqrt(kernel(phi).at(p, p, p) * kernel(psi).at(q, q, q))


def closed(*pairs):
    """The kernels of these pairs, when all have closed forms."""
    found = [kernel(*pair) for pair in pairs]
    assume(all(k.value is not None for k in found))
    return found


@given(any_phi, any_phi, covariances())
def test_symmetry(phi, psi, point):
    p, q, c = point
    forward, backward = closed((phi, psi), (psi, phi))
    assert abs(forward.at(p, q, c) - backward.at(q, p, c)) <= CLOSE * size(phi, psi, p, q)


@given(any_phi, any_phi, any_phi, coefficients, covariances())
@settings(max_examples=20)
def test_bilinearity(phi, psi, chi, a, point):
    p, q, c = point
    whole, first, second = closed((phi + a * psi, chi), (phi, chi), (psi, chi))
    wanted = first.at(p, q, c) + float(a) * second.at(p, q, c)
    bound = size(phi, chi, p, q) + abs(float(a)) * size(psi, chi, p, q)
    assert abs(whole.at(p, q, c) - wanted) <= CLOSE * bound


@given(any_phi, any_phi, covariances())
def test_cauchy_schwarz(phi, psi, point):
    p, q, c = point
    (found,) = closed((phi, psi))
    assert abs(found.at(p, q, c)) <= size(phi, psi, p, q) * (1 + CLOSE)


def differentiate(found, symbol, point):
    """The derivative of the closed form by high-precision central differences."""

    def value(x):
        return precise(found.value, {**dict(zip((P, Q, C), point, strict=True)), symbol: x}, digits=50)

    with mpmath.workdps(50):
        return float(mpmath.diff(value, dict(zip((P, Q, C), point, strict=True))[symbol], h=mpmath.mpf(10) ** -14))


@given(any_phi, any_phi, covariances(rho=0.95))
@settings(max_examples=25)
def test_price(phi, psi, point):
    """∂_c V = V[φ',ψ'], ∂_p V = ½ V[φ'',ψ], ∂_q V = ½ V[φ,ψ''], deltas included."""
    jumps = phi.has(step, sign) or psi.has(step, sign)
    assume(not jumps)
    p, q, _ = point
    (found,) = closed((phi, psi))
    (by_c,) = closed((phi.diff(X), psi.diff(X)))
    scale = 1 + size(phi, psi, p, q) / min(p, q)
    assert differentiate(found, C, point) == pytest.approx(by_c.at(*point), abs=1e-9 * scale, rel=1e-9)
    for symbol, (factor, derivative) in ((P, found.d_p()), (Q, found.d_q())):
        wanted = float(factor) * derivative.at(*point)
        assert differentiate(found, symbol, point) == pytest.approx(wanted, abs=1e-9 * scale, rel=1e-9)


@pytest.mark.parametrize("phi", [step(X), sign(X), relu(X) * X, absolute(X)])
def test_price_for_jumps(phi):
    """δ against δ: ∂_c V[step, step] = V[δ, δ] = 1/(2π gap)."""
    point = (1.3, 0.7, 0.4)
    found = kernel(phi)
    assert differentiate(found, C, point) == pytest.approx(found.d_c().at(*point), rel=1e-10)


@given(any_phi, any_phi, covariances(rho=0.99))
@settings(max_examples=25)
def test_stein(phi, psi, point):
    """E[u φ(u) ψ(v)] = p V[φ',ψ] + c V[φ,ψ']"""
    p, q, c = point
    left, first, second = closed((X * phi, psi), (phi.diff(X), psi), (phi, psi.diff(X)))
    wanted = p * first.at(p, q, c) + c * second.at(p, q, c)
    bound = size(X * phi, psi, p, q) + abs(p * first.at(p, q, c)) + abs(c * second.at(p, q, c))
    assert abs(left.at(p, q, c) - wanted) <= 1e-10 * bound


@given(any_phi, st.integers(0, 10_000))
@settings(max_examples=25)
def test_gram_matrices_are_positive_semidefinite(phi, seed):
    """Duplicate, opposite and zero vectors included, in the form that backends emit."""
    (found,) = closed((phi,))
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((5, 3))
    x = np.concatenate([x, x[:2], -x[2:4], np.zeros((1, 3)), x[:1] * (1 + 1e-9)])
    gram = x @ x.T
    p = np.diag(gram)
    values = found.at(p[:, None], p[None, :], np.clip(gram, -np.sqrt(np.outer(p, p)), np.sqrt(np.outer(p, p))))
    lowest = np.linalg.eigvalsh((values + values.T) / 2)[0]
    assert np.all(np.isfinite(values))
    assert lowest >= -1e-7 * np.trace(values) if phi.has(step, sign) else lowest >= -1e-9 * np.trace(values)


@given(smooth, smooth, covariances(rho=0.9))
@settings(max_examples=15)
def test_sympy_differentiates_the_value_itself(phi, psi, point):
    """The primitives know their derivatives: d value/dc is V[φ',ψ']."""
    found, slope = closed((phi, psi), (phi.diff(X), psi.diff(X)))
    derivative = found.value.diff(C)
    at = dict(zip((P, Q, C), point, strict=True))
    assume(abs(point[2]) > 1e-3)
    wanted = slope.at(*point)
    scale = 1 + size(phi.diff(X), psi.diff(X), *point[:2])
    assert float(precise(derivative, at)) == pytest.approx(wanted, abs=1e-9 * scale)
