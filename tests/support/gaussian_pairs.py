"""E φ(u)ψ(v) by conditioning v on u, with Gauss–Legendre panels that are halved towards 0: for any scale of φ and ψ.

Shares no code with tpc.gaussian, and neither its coordinates.
"""

from __future__ import annotations

import mpmath
import numpy as np
import sympy as sp
from scipy import special

from tpc.program.functions import X

_NUMPY = {
    "relu": lambda x: np.maximum(x, 0),
    "step": lambda x: np.where(x > 0, 1.0, 0.0),
    "sign": np.sign,
    "absolute": np.abs,
    "erf": special.erf,
    "erfc": special.erfc,
    "softplus": lambda x: np.logaddexp(0, x),
    "exp": lambda x: np.exp(np.minimum(x, 300)),  # beside step(−x) it is 0 there
}
REACH = 9.5  # standard deviations
LEAST = 2.0**-34
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(14)


def function(phi):
    """A NumPy function of a nonlinearity; log(1 + x²) keeps its digits near 0."""
    if phi == sp.log(1 + X**2):
        return lambda x: np.log1p(x * x)
    f = sp.lambdify(X, phi, modules=[_NUMPY, "numpy"])
    return lambda x: np.broadcast_to(f(x), np.shape(x))


def correlation(p, q, c):
    """(ρ, √(1 − ρ²)) of exactly these floats."""
    with mpmath.workdps(80):
        p, q, c = (mpmath.mpf(float(x)) for x in (p, q, c))
        rho = max(min(c / mpmath.sqrt(p * q), mpmath.mpf(1)), mpmath.mpf(-1))
        return float(rho), float(mpmath.sqrt(1 - rho * rho))


def graded(width):
    """Edges of panels on (0, REACH], halved towards 0 and no wider than `width`."""
    halved = REACH * 2.0 ** -np.arange(0, np.log2(REACH / LEAST))[::-1]
    edges = [0.0]
    for edge in halved:
        count = max(1, int(np.ceil((edge - edges[-1]) / width)))
        edges.extend(edges[-1] + (edge - edges[-1]) * np.arange(1, count + 1) / count)
    return np.array(edges)


def panels(edges):
    """Nodes and weights on consecutive panels (last axis)."""
    half = np.diff(edges)[..., None] / 2
    nodes = edges[..., :-1, None] + half * (1 + _NODES)
    return nodes.reshape(*nodes.shape[:-2], -1), (half * _WEIGHTS).reshape(*nodes.shape[:-2], -1)


def density(z):
    return np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


def line(width):
    """Nodes and weights of the standard normal distribution, on both sides of 0."""
    z, weight = panels(graded(width))
    weight = weight * density(z)
    return np.concatenate([-z[::-1], z]), np.concatenate([weight[::-1], weight])


def single(phi, p, wave=0.0):
    """E φ(√p z); `wave` is the fastest frequency of φ."""
    z, weight = line(1 / (1 + wave * np.sqrt(p)))
    return float(weight @ function(phi)(np.sqrt(p) * z))


def scale(phi, psi, p, q, wave=0.0):
    """√(E φ(u)² E ψ(v)²)"""
    return np.sqrt(single(phi**2, p, 2 * wave) * single(psi**2, q, 2 * wave))


def value(phi, psi, p, q, c, wave=0.0):
    """E φ(u)ψ(v): outside over u, inside over v given u, with panels halved towards v = 0."""
    f, g = function(phi), function(psi)
    rho, spread = correlation(p, q, c)
    z, weight = line(1 / (1 + wave * np.sqrt(p)))
    mean = rho * z
    if spread == 0:
        return float(weight @ (f(np.sqrt(p) * z) * g(np.sqrt(q) * mean)))
    steps = np.arange(-REACH, REACH + 0.1, min(0.75, 1 / (1 + wave * spread * np.sqrt(q))))
    around = graded(np.inf) / spread  # panels towards v = 0, in units of the spread
    total = 0.0
    for part in np.array_split(np.arange(len(z)), max(1, len(z) // 64)):
        centre = mean[part, None] / spread
        edges = [np.broadcast_to(steps, (len(part), len(steps)))]
        edges += [np.clip(sign * around - centre, -REACH, REACH) for sign in (1, -1)]
        w, inner = panels(np.sort(np.concatenate(edges, axis=1), axis=1))
        v = np.sqrt(q) * (mean[part, None] + spread * w)
        total += float((weight[part] * f(np.sqrt(p) * z[part])) @ (inner * density(w) * g(v)).sum(axis=1))
    return total
