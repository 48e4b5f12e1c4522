"""Independent evaluations of E φ(u)ψ(v), sharing no code with tpc.gaussian."""

from __future__ import annotations

import mpmath
import numpy as np
import sympy as sp
from scipy import special

from tpc.program.functions import X

OSCILLATING = 5.0  # the largest variance at which this quadrature resolves a wave

_NUMPY = {
    "relu": lambda x: np.maximum(x, 0),
    "step": lambda x: np.where(x > 0, 1.0, 0.0),
    "sign": np.sign,
    "absolute": np.abs,
    "erf": special.erf,
    "erfc": special.erfc,
    "softplus": lambda x: np.logaddexp(0, x),
}


def numpy_function(phi):
    f = sp.lambdify(X, phi, modules=[_NUMPY, "numpy"])
    return lambda x: np.broadcast_to(f(x), np.shape(x))


def angles(p, q, c):
    """(θ, π − θ) of exactly these floats."""
    with mpmath.workdps(80):
        p, q, c = (mpmath.mpf(float(x)) for x in (p, q, c))
        root = mpmath.sqrt(max(p * q - c * c, 0))
        return float(mpmath.atan2(root, c)), float(mpmath.atan2(root, -c))


_T = np.arange(-90, 91) * 0.038
_Y = np.pi / 2 * np.sinh(_T)
NEAR, FAR = 1 / (1 + np.exp(-2 * _Y)), 1 / (1 + np.exp(2 * _Y))
NEAR_WEIGHT = 0.038 * np.pi * np.cosh(_T) * NEAR * FAR
_R = np.arange(-130, 90) * 0.035
RADIUS = np.exp(_R - np.exp(-_R))
RADIUS_WEIGHT = 0.035 * RADIUS**2 * (1 + np.exp(-_R)) * np.exp(-(RADIUS**2) / 2)


def polar(phi, psi, p, q, c):
    """Double-exponential quadrature over the four sectors between the lines u = 0 and v = 0."""
    theta, rest = angles(p, q, c)
    f, g = numpy_function(phi), numpy_function(psi)
    total = 0.0
    for width, s, t in ((rest, 1, 1), (rest, -1, -1), (theta, 1, -1), (theta, -1, 1)):
        u = s * np.sqrt(p) * RADIUS[:, None] * np.sin(width * NEAR)
        v = t * np.sqrt(q) * RADIUS[:, None] * np.sin(width * FAR)
        total += width * np.einsum("r,a,ra->", RADIUS_WEIGHT, NEAR_WEIGHT, f(u) * g(v))
    return total / (2 * np.pi)


def single(phi, p):
    """E φ(√p z) by double-exponential quadrature on both half lines."""
    f = numpy_function(phi)
    z = np.sqrt(p) * RADIUS
    weight = RADIUS_WEIGHT / RADIUS / np.sqrt(2 * np.pi)
    return float(weight @ (f(z) + f(-z)))


def scale(phi, psi, p, q):
    """√(E φ(u)² E ψ(v)²), the Cauchy–Schwarz bound of the kernel."""
    return np.sqrt(single(phi**2, p) * single(psi**2, q))


def conditional(phi, psi, p, q, c):
    """E_z φ(√p z) E[ψ(v) | z] by Gauss–Legendre panels split where u and v vanish; for moderate ρ."""
    f, g = numpy_function(phi), numpy_function(psi)
    x, w = np.polynomial.legendre.leggauss(40)
    slope, spread = c / np.sqrt(p), np.sqrt(q - c * c / p)

    def panels(edges):
        edges = np.asarray(edges)
        half = np.diff(edges) / 2
        nodes = edges[:-1, None] + half[:, None] * (x + 1)
        weight = half[:, None] * w
        return nodes.ravel(), (weight * np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)).ravel()

    total = 0.0
    for z, weight in zip(*panels([-9, -6, -3, -1, 0, 1, 3, 6, 9]), strict=True):
        kink = float(np.clip(-slope * z / spread, -9, 9))
        nodes, inner = panels(sorted({-9.0, kink - 2, kink - 0.5, kink, kink + 0.5, kink + 2, 9.0, 0.0}))
        total += weight * float(f(np.array([np.sqrt(p) * z]))[0]) * float(inner @ g(slope * z + spread * nodes))
    return total


def points(count, seed=0, top=1e2):
    """(p, q, c) with p/q up to 1e6, variances up to `top`, and |ρ| > 1 − 1e-9 on both sides for a third."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        p = float(np.exp(rng.uniform(np.log(1e-3), np.log(top))))
        near = float(np.exp(rng.uniform(-3, np.log(top))))
        q = float(np.clip(p * 10.0 ** rng.uniform(-6, 6), 1e-4, top)) if k % 2 else near
        sign = 1.0 if rng.uniform() < 0.5 else -1.0
        rho = rng.uniform(-1, 1) if k % 3 else sign * (1 - 10.0 ** rng.uniform(-13, -8))
        out.append((p, q, float(rho * np.sqrt(p) * np.sqrt(q))))
    return out
