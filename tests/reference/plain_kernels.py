"""NNGP and NTK of a few networks written out layer by layer, entry by entry, with quadrature for every expectation.

Shares no code with tpc.limits or tpc.gaussian: E φ(u)ψ(v) comes from `gaussian.oracle`, the recursions from the papers
(Jacot et al. 2018; Lee et al. 2018), for weights applied several times from the sum over their places.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tests.gaussian.oracle import polar, single
from tpc.program.functions import X


@cache
def expected(phi, p, q, c):
    """E φ(u)φ(v)"""
    if min(p, q) == 0:
        at_0 = float(phi.subs(X, 0)) if phi.has(X) else float(phi)
        return at_0 * single(phi, max(p, q)) if max(p, q) else at_0**2
    return polar(phi, phi, p, q, c)


def applied(phi, k, rows=None, columns=None):
    """E φ(u_i)φ(v_j) where k has the covariances, rows and columns the variances (the diagonal of k unless told)."""
    rows = np.diag(k) if rows is None else rows
    columns = np.diag(k) if columns is None else columns
    return np.array([[expected(phi, p, q, k[i, j]) for j, q in enumerate(columns)] for i, p in enumerate(rows)])


class Layer:
    """Covariance and tangent kernel of the vectors of one layer."""

    def __init__(self, k, theta):
        self.k, self.theta = k, theta

    def __add__(self, other):
        """A sum of independent layers."""
        return Layer(self.k + other.k, self.theta + other.theta)

    def __rmul__(self, factor):
        return Layer(factor**2 * self.k, factor**2 * self.theta)

    def __call__(self, phi):
        return Layer(applied(phi, self.k), applied(phi.diff(X), self.k) * self.theta)

    def normalised(self, eps):
        size = np.sqrt(np.diag(self.k) + eps)
        return Layer(self.k / np.outer(size, size), self.theta / np.outer(size, size))

    def times(self, other):
        """A product of independent layers, neuron by neuron."""
        return Layer(self.k * other.k, self.k * other.theta + self.theta * other.k)

    def dense(self, std=1.0, bias=0.0):
        k = std**2 * self.k + bias**2
        return Layer(k, k + std**2 * self.theta)


def embedded(x, std=1.0, bias=0.0):
    k = std**2 * x @ x.T / x.shape[1] + bias**2
    return Layer(k, k)


def recurrent(x, phi, steps, keep, embed, weight, bias, readout):
    """h_0 = U ξ, h_{t+1} = keep·h_t + W φ(h_t) + b with one W and one b, f = v φ(h_T).

    c[s][t] = Cov(h_s, h_t'), m[s][t] = E φ(h_s)φ(h_t'), b[s][t] = E dh_s dh_t', with dh_s = keep·dh_{s+1} + φ'(h_s) ⊙
    Wᵀ dh_{s+1} written out as Σ_k keep^(k−s) φ'(h_k) ⊙ g_k, g_T = v, g_k = Wᵀ dh_{k+1}.
    """
    t, n = steps + 1, len(x)
    c, m, d, b = (np.zeros((t, t, n, n)) for _ in range(4))
    noise = np.zeros((t, t, n, n))  # Cov of what each step adds, W φ(h) + b
    c[0, 0] = embed**2 * x @ x.T / x.shape[1]
    for last in range(1, t + 1):
        for i in range(last):
            for j in range(last):
                rows, columns = np.diag(c[i, i]), np.diag(c[j, j])
                m[i, j] = applied(phi, c[i, j], rows, columns)
                d[i, j] = applied(phi.diff(X), c[i, j], rows, columns)
        if last == t:
            break
        for i in range(last):
            for j in range(last):
                noise[i, j] = weight**2 * m[i, j] + bias**2
        for i in range(last + 1):  # h_i = keep^i h_0 + Σ_{k<i} keep^(i−1−k) noise_k
            for j in range(last + 1):
                c[i, j] = keep ** (i + j) * c[0, 0]
                for k in range(i):
                    for other in range(j):
                        c[i, j] += keep ** (i - 1 - k + j - 1 - other) * noise[k, other]
    g = np.zeros((t, t, n, n))
    g[steps, steps] = readout**2
    for i in reversed(range(t)):
        for j in reversed(range(t)):
            if max(i, j) < steps:
                g[i, j] = weight**2 * b[i + 1, j + 1]
            for k in range(i, t):
                for other in range(j, t):
                    b[i, j] += keep ** (k - i + other - j) * d[k, other] * g[k, other]
    ntk = readout**2 * m[steps, steps] + c[0, 0] * b[0, 0]
    for i in range(steps):
        for j in range(steps):
            ntk = ntk + (weight**2 * m[i, j] + bias**2) * b[i + 1, j + 1]
    return readout**2 * m[steps, steps], ntk
