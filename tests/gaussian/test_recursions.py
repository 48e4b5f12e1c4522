"""NNGP and NTK recursions of two hidden layers against conditional expectations in many digits.

With u the latent of larger variance, v given u is Gaussian, so E φ(u)φ(v) = E φ(u) (T φ)(E[v|u]) where T smooths φ
with a Gaussian of standard deviation s. T φ is written out below for every φ, and one quadrature over u remains.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import sympy as sp

from tpc.gaussian import kernel
from tpc.program.expression import parse_nonlinearity
from tpc.program.functions import X

from .oracle import polar, single

DIGITS = 25
A, S, T = sp.Symbol("a", real=True), sp.Symbol("s", positive=True), sp.Symbol("t", real=True)
ONE = sp.Integer(1)


def cdf(x):
    return sp.erfc(-x / sp.sqrt(2)) / 2


def rectified(k):
    """max(v, 0)^k smoothed"""
    if k == 0:
        return cdf(A / S)
    if k == 1:
        return A * cdf(A / S) + S * sp.exp(-(A**2) / (2 * S**2)) / sp.sqrt(2 * sp.pi)
    return A * rectified(k - 1) + (k - 1) * S**2 * rectified(k - 2)


def polynomial(phi):
    """Σ cₖ vᵏ smoothed"""
    total = 0
    for (k,), coefficient in sp.Poly(phi, T).terms():
        for j in range(k // 2 + 1):
            total += coefficient * sp.binomial(k, 2 * j) * sp.factorial2(2 * j - 1) * A ** (k - 2 * j) * S ** (2 * j)
    return total


def wave(b, w, trig):
    """e^(−bv²) trig(wv) smoothed, for trig = sin or cos"""
    d = 1 + 2 * b * S**2
    return sp.exp(-(b * A**2 + w**2 * S**2 / 2) / d) * trig(w * A / d) / sp.sqrt(d)


def erf(b):
    """erf(bv) smoothed"""
    return sp.erf(b * A / sp.sqrt(1 + 2 * b**2 * S**2))


def x_erf(b):
    """v·erf(bv) smoothed"""
    d = 1 + 2 * b**2 * S**2
    return A * erf(b) + 2 * b * S**2 * sp.exp(-(b**2) * A**2 / d) / sp.sqrt(sp.pi * d)


HALF, ROOT = ONE / 2, 1 / sp.sqrt(2)
# text -> (φ for t > 0, φ for t < 0, T φ)
CLOSED = {
    "identity": (T, T, A),
    "relu": (T, 0, rectified(1)),
    "leaky_relu(x, 0.2)": (T, T / 5, A / 5 + rectified(1) * 4 / 5),
    "2*relu(x) + 0.5*relu(-x)": (2 * T, -T / 2, 2 * rectified(1) + (rectified(1) - A) / 2),
    "abs": (T, -T, 2 * rectified(1) - A),
    "step": (ONE, 0, rectified(0)),
    "sign": (ONE, -ONE, 2 * rectified(0) - 1),
    "relu(x)**2": (T**2, 0, rectified(2)),
    "relu(x)**3": (T**3, 0, rectified(3)),
    "x**2": (T**2, T**2, polynomial(T**2)),
    "x**3 - x": (T**3 - T, T**3 - T, polynomial(T**3 - T)),
    "He(4, x)": (T**4 - 6 * T**2 + 3, T**4 - 6 * T**2 + 3, polynomial(T**4 - 6 * T**2 + 3)),
    "erf": (sp.erf(T), sp.erf(T), erf(ONE)),
    "(1 + erf(x/sqrt(2)))/2": (cdf(T), cdf(T), (1 + erf(ROOT)) / 2),
    "gelu": (T * cdf(T), T * cdf(T), (A + x_erf(ROOT)) / 2),
    "sin": (sp.sin(T), sp.sin(T), wave(0, 1, sp.sin)),
    "cos": (sp.cos(T), sp.cos(T), wave(0, 1, sp.cos)),
    "sin(x/2 + 1)": (sp.sin(T / 2 + 1),) * 2 + (wave(0, HALF, sp.sin) * sp.cos(1) + wave(0, HALF, sp.cos) * sp.sin(1),),
    "exp(x/8)": (sp.exp(T / 8), sp.exp(T / 8), sp.exp(A / 8 + S**2 / 128)),
    "exp(-x**2)": (sp.exp(-(T**2)), sp.exp(-(T**2)), wave(1, 0, sp.cos)),
    "exp(-x**2)*sin(x)": (sp.exp(-(T**2)) * sp.sin(T),) * 2 + (wave(1, 1, sp.sin),),
    "x*exp(-x**2/2)": (T * sp.exp(-(T**2) / 2),) * 2 + (wave(HALF, 0, sp.cos) * A / (1 + S**2),),
    "x*erf(x) + relu(x)": (T * sp.erf(T) + T, T * sp.erf(T), x_erf(ONE) + rectified(1)),
}
JUMPS = {"step", "sign"}  # no NTK: V[δ, δ] is infinite on the diagonal
TABULATED = ["tanh", "sigmoid", "softplus", "silu", "x*tanh(x)"]


@cache
def rule(nodes=20):
    """Gauss–Legendre on [0, 1]"""
    with mpmath.workdps(DIGITS + 10):
        x, w = np.polynomial.legendre.leggauss(nodes)
        found = []
        for start in x:
            root = mpmath.findroot(lambda z: mpmath.legendre(nodes, z), mpmath.mpf(float(start)))
            slope = nodes * (root * mpmath.legendre(nodes, root) - mpmath.legendre(nodes - 1, root)) / (root**2 - 1)
            found.append(((1 + root) / 2, 1 / ((1 - root**2) * slope**2)))
        assert np.allclose([2 * float(v) for _, v in found], w)
        return found


def gaussian_mean(f, scales):
    """E f(z) for z ~ N(0, 1), split at 0 and where f varies on a small scale."""
    edges = {mpmath.mpf(e) for e in (0, 0.6, 1.4, 2.6, 4.4, 7, 10.5)}
    edges |= {k * s for s in scales for k in (1, 4, 12) if k * s < 0.5}
    edges = sorted(edges)
    total = mpmath.mpf(0)
    for low, high in pairwise(edges):
        for x, w in rule():
            z = low + (high - low) * x
            total += w * (high - low) * mpmath.npdf(z) * (f(z) + f(-z))
    return total


class Reference:
    """E φ(u)φ(v) and E φ'(u)φ'(v) of one nonlinearity, to `DIGITS` digits."""

    def __init__(self, positive, negative, smoothed):
        def pair(order):
            derivatives = [sp.diff(sp.sympify(f), v, order) for f, v in ((positive, T), (negative, T), (smoothed, A))]
            above, below = (sp.lambdify(T, f, "mpmath") for f in derivatives[:2])
            above_0, below_0 = (sp.sympify(f).subs(T, 0) for f in derivatives[:2])
            at_0 = mpmath.mpf(sp.N(above_0, DIGITS + 5) if above_0 == below_0 else 0)  # step(0) = sign(0) = 0

            def plain(t):
                return above(t) if t > 0 else below(t) if t < 0 else at_0

            return plain, sp.lambdify((A, S), derivatives[2], "mpmath", cse=True)

        self._pairs = {order: pair(order) for order in (0, 1)}

    def __call__(self, order, p, q, c):
        plain, smoothed = self._pairs[order]
        if p < q:
            p, q = q, p
        if p == 0:
            return plain(p) ** 2
        root, slope = mpmath.sqrt(p), c / p
        rest = q - c * slope
        if rest <= q * mpmath.mpf(10) ** (5 - DIGITS):
            return gaussian_mean(lambda z: plain(root * z) * plain(slope * root * z), [1 / root])
        s = mpmath.sqrt(rest)
        width = s / (abs(slope) * root) if slope else mpmath.mpf(1)
        return gaussian_mean(lambda z: plain(root * z) * smoothed(slope * root * z, s), [1 / root, width])


def inputs():
    """Two vectors, a duplicate, a negation, zero, a very short and a long one, and a near duplicate."""
    x, y = np.random.default_rng(3).standard_normal((2, 10))
    return np.array([x, y, x, -x, 0 * x, 1e-4 * y, 3 * x - y, x + 1e-5 * y])


ENTRIES = [(0, 0), (4, 4), (5, 5), (6, 6), (0, 3), (0, 4), (5, 6)]
NEAR = [(1, 1), (7, 7), (0, 1), (0, 7)]
SAME = {(0, 2): (0, 0), (2, 2): (0, 0), (3, 3): (0, 0)}  # entries equal to another by symmetry of the inputs


def first_layer(sw, sb, size=1.0):
    x = size * inputs()
    return np.array([[sw * float(np.dot(u, v)) / 10 + sb for v in x] for u in x])


def array_recursion(phi, k, sw, sb, ntk, depth=2):
    """K' = σw² V[φ,φ](K) + σb² and Θ' = K' + σw² Θ∘V[φ',φ'](K) from the kernels' array evaluation."""
    theta = k
    for _ in range(depth):
        p, q = np.diag(k)[:, None], np.diag(k)[None, :]
        slope = kernel(phi.diff(X)).at(p, q, k) if ntk else 0.0
        k = sw * kernel(phi).at(p, q, k) + sb
        theta = k + sw * theta * slope
    return k, theta


def exact_recursion(v, k, sw, sb, ntk, entries, depth=2):
    """The same entry by entry; v(order, p, q, c) is E φ(u)φ(v), or of derivatives for order 1."""
    diagonal = {i: k[i, i] for pair in entries for i in pair}
    nngp = {pair: k[pair] for pair in entries}
    theta = dict(nngp)
    for _ in range(depth):
        slope = {(i, j): v(1, diagonal[i], diagonal[j], c) if ntk else 0 for (i, j), c in nngp.items()}
        nngp = {(i, j): sw * v(0, diagonal[i], diagonal[j], c) + sb for (i, j), c in nngp.items()}
        diagonal = {i: nngp[SAME.get((i, i), (i, i))] for i in diagonal}
        theta = {pair: nngp[pair] + sw * theta[pair] * slope[pair] for pair in entries}
    return nngp, theta


def agree(got, wanted, relative, absolute):
    """Errors relative to the entry, or to √(K_ii K_jj) where the entry nearly vanishes."""
    scale = np.sqrt(np.outer(np.diag(got), np.diag(got)))
    for pair in [*wanted, *SAME]:
        value = float(wanted[SAME.get(pair, pair)])
        error = max(abs(got[pair] - value), abs(got[pair[::-1]] - value))
        assert error <= relative * abs(value) or error <= absolute * scale[pair], (pair, got[pair], value)


@pytest.mark.parametrize("weights", [(1.5, 0.1), (2.0, 0.0)], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", CLOSED)
def test_recursions_of_closed_forms(name, weights):
    k, ntk = first_layer(*weights), name not in JUMPS
    entries = ENTRIES + NEAR if weights[1] else ENTRIES
    with mpmath.workdps(DIGITS):
        exact = np.vectorize(mpmath.mpf, otypes=[object])(k)
        wanted = exact_recursion(Reference(*CLOSED[name]), exact, *map(mpmath.mpf, weights), ntk, entries)
    for got, values in zip(array_recursion(parse_nonlinearity(name), k, *weights, ntk), wanted, strict=True):
        agree(got, values, 1e-10, 1e-13)


@pytest.mark.parametrize("weights", [(1.5, 0.1), (2.0, 0.0)], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", TABULATED)
def test_recursions_of_tabulated_kernels(name, weights):
    phi = parse_nonlinearity(name)
    functions = (phi, phi.diff(X))

    def quadrature(order, p, q, c):
        f = functions[order]
        if min(p, q) == 0:
            return float(f.subs(X, 0)) * single(f, max(p, q))
        return polar(f, f, p, q, c)

    k = first_layer(*weights, size=0.5)  # keeps every variance within the tables' domain
    wanted = exact_recursion(quadrature, k, *weights, True, ENTRIES + NEAR)
    for got, values in zip(array_recursion(phi, k, *weights, True), wanted, strict=True):
        agree(got, values, 1e-10, 1e-10)


@pytest.mark.parametrize("name", sorted(JUMPS))
def test_a_jump_has_no_ntk_on_the_diagonal(name):
    """E δ(u)δ(v) = 1/(2π√(pq − c²)): the conditions say so, and off the diagonal the recursion holds."""
    slope = kernel(parse_nonlinearity(name).diff(X))
    assert any("diverges at ρ = ±1" in condition for condition in slope.conditions)
    height = 1 if name == "step" else 2
    assert slope.at(1.3, 0.4, 0.5) == pytest.approx(height**2 / (2 * np.pi * np.sqrt(1.3 * 0.4 - 0.25)), rel=1e-14)
