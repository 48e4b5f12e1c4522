"""A naive interpreter of limit graphs: one NumPy expression per node, in float64, straight from the definitions.

Nothing of the compiler's lowering or Gaussian algebra is used. V[φ,ψ] is a two-dimensional quadrature in polar
coordinates, with the angle cut where either variable changes sign, so kinks at zero cost no accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from string import ascii_letters

import numpy as np
import sympy as sp
from scipy import special

from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import Expectation, Gram, Kernel, State
from tpc.limits.store import Append
from tpc.program import tensor
from tpc.program.axes import Axes, Axis
from tpc.program.functions import X, argument
from tpc.program.node import topological
from tpc.program.shift import Shifted, Unshifted
from tpc.program.window import Window

ANGLES = 40  # Gauss–Legendre nodes on each of the four sectors, at least
RADII = ((0.0, 1.0, 32), (1.0, 9.0, 56))  # (from, to, nodes)
HERMITE = 14

FUNCTIONS = {
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "step": lambda x: np.where(x > 0, 1.0, 0.0),
    "sign": np.sign,
    "absolute": np.abs,
    "erf": special.erf,
    "softplus": lambda x: np.logaddexp(0.0, x),
}


@cache
def array_function(fn: sp.Expr, symbols: tuple[sp.Symbol, ...]):
    """fn as a function of float64 arrays."""
    raw = sp.lambdify(symbols, fn, modules=[FUNCTIONS, "numpy"])
    return lambda *args: np.asarray(raw(*args), dtype=np.float64)


# --- Gaussian expectations -------------------------------------------------------------------------------------------


@cache
def legendre(count: int, end: float):
    """Nodes and weights on [0, end]."""
    x, w = np.polynomial.legendre.leggauss(count)
    return (x + 1) * end / 2, w * end / 2


@cache
def radii():
    """Nodes and weights on [0, 9]; e^{-81/2} is below rounding."""
    parts = [(start, *legendre(count, end - start)) for start, end, count in RADII]
    return np.concatenate([start + x for start, x, _ in parts]), np.concatenate([w for _, _, w in parts])


def split_delta(phi: sp.Expr) -> tuple[sp.Expr, float]:
    """φ = smooth or kinked part + number · δ."""
    phi = sp.expand(phi)
    delta = sp.DiracDelta(X)
    weight = phi.coeff(delta)
    rest = sp.expand(phi - weight * delta)
    assert not rest.has(sp.DiracDelta), f"only the delta function itself is covered, got {phi}"
    return rest, float(array_function(weight, (X,))(0.0))


def kernel_value(phi: sp.Expr, psi: sp.Expr, p, q, c) -> np.ndarray:
    """E φ(u)ψ(v) for Gaussians with variances p, q and covariance c (arrays of one shape)."""
    p, q, c = (np.array(a, dtype=np.float64) for a in np.broadcast_arrays(p, q, c))
    shape = p.shape
    p, q, c = p.ravel(), q.ravel(), c.ravel()
    left, at_u = split_delta(phi)
    right, at_v = split_delta(psi)
    assert not (at_u and at_v), "a product of two delta functions"
    total = _plane(left, right, p, q, c)
    if at_u:
        total = total + at_u * _on_line(right, p, q, c)
    if at_v:
        total = total + at_v * _on_line(left, q, p, c)
    return total.reshape(shape)


def _angles(fn: sp.Expr, variance: float) -> int:
    """More nodes where a smooth function is steep."""
    return ANGLES + (int(16 * variance**0.5) if fn.has(sp.erf, sp.exp, sp.sin, sp.cos, sp.tanh) else 0)


def _plane(phi, psi, p, q, c):
    """∫ φ(√p R cos t) ψ(√q R cos(t - θ)) R e^{-R²/2} dR dt / 2π"""
    theta = np.arctan2(np.sqrt(np.maximum(p * q - c * c, 0.0)), c)[:, None]
    r, wr = radii()
    s, ws = legendre(_angles(phi * psi, float(max(p.max(initial=0), q.max(initial=0)))), 1.0)
    starts = (-np.pi / 2 + 0 * theta, theta - np.pi / 2, np.pi / 2 + 0 * theta, theta + np.pi / 2)
    lengths = (theta, np.pi - theta, theta, np.pi - theta)
    t = np.concatenate([a + n * s for a, n in zip(starts, lengths)], axis=1)
    wt = np.concatenate([n * ws for n in lengths], axis=1)
    wr = wr * r * np.exp(-r * r / 2) / (2 * np.pi)
    u = np.sqrt(p)[:, None, None] * np.cos(t)[:, :, None] * r
    v = np.sqrt(q)[:, None, None] * np.cos(t - theta)[:, :, None] * r
    product = array_function(phi, (X,))(u) * array_function(psi, (X,))(v)
    return np.einsum("etr,et,r->e", np.broadcast_to(product, u.shape), wt, wr)


def _on_line(psi, p, q, c):
    """E δ(u)ψ(v) = E[ψ(v) | u = 0] / √(2πp), zero at a zero vector"""
    known = p > 0
    safe = np.where(known, p, 1.0)
    spread = np.sqrt(np.maximum(q - c * c / safe, 0.0))
    y, w = radii()
    w = w * np.exp(-y * y / 2) / np.sqrt(2 * np.pi)
    f = array_function(psi, (X,))
    v = spread[:, None] * y
    mean = (np.broadcast_to(f(v), v.shape) + np.broadcast_to(f(-v), v.shape)) @ w
    return np.where(known, mean / np.sqrt(2 * np.pi * safe), 0.0)


def joint_value(fn: sp.Expr, covariance: np.ndarray) -> np.ndarray:
    """E fn(u0, u1, …) for smooth fn; `covariance` has shape (entries, k, k)."""
    size = covariance.shape[-1]
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    x, w = np.polynomial.hermite_e.hermegauss(HERMITE)
    grid = np.stack(np.meshgrid(*[x] * size, indexing="ij"), axis=-1).reshape(-1, size)
    weight = np.prod(np.stack(np.meshgrid(*[w] * size, indexing="ij"), axis=-1).reshape(-1, size), axis=1)
    f = array_function(fn, tuple(argument(i) for i in range(size)))
    out = []
    for r in root:
        u = grid @ r.T
        out.append(np.broadcast_to(f(*u.T), len(grid)) @ weight)
    return np.array(out) / (2 * np.pi) ** (size / 2)


def windows(w: Window) -> np.ndarray:
    """W[p, o, q] = 1 where place p of the target sees q by offset o."""
    source, target, offsets = w.sizes
    q = w.stride * np.arange(target)[:, None] + w.dilation * np.arange(offsets) - w.pad
    places = np.arange(source)
    return ((q % source if w.circular else q)[..., None] == places).astype(float)


# --- nodes -----------------------------------------------------------------------------------------------------------


class Interpreter:
    """Values of nodes: arrays whose dimensions are the node's axes, in its order."""

    def __init__(self, roots: Iterable[tensor.Tensor], leaves: Mapping[str, np.ndarray]) -> None:
        self.values: dict[tensor.Tensor, np.ndarray] = {}
        self.sizes: dict[str, int] = {}
        nodes = topological(roots)
        for n in nodes:
            for axis in n.mentions:
                if axis.size is not None:
                    self.sizes[axis.base] = axis.size
            if isinstance(n, tensor.Input | tensor.Weight | State):
                value = np.asarray(leaves[n.name], dtype=np.float64)
                assert value.ndim == len(n.axes), f"{n.name} has axes {n.axes}, got shape {value.shape}"
                for axis, length in zip(n.axes, value.shape):
                    assert self.sizes.setdefault(axis.base, length) == length, f"two lengths of {axis}"
                self.values[n] = value
        for n in nodes:
            if n not in self.values:
                value = self._value(n)
                assert value.shape == tuple(self.sizes[a.base] for a in n.axes), n
                self.values[n] = value

    def __getitem__(self, n: tensor.Tensor) -> np.ndarray:
        return self.values[n]

    def along(self, n: tensor.Tensor, axes: Axes) -> np.ndarray:
        """The value of n repeated along `axes`, in that order."""
        assert set(n.axes) <= set(axes), (n, n.axes, axes)
        order = [n.axes.index(a) for a in axes if a in n.axes]
        value = self.values[n].transpose(order)
        value = value[tuple(slice(None) if a in n.axes else None for a in axes)]
        return np.broadcast_to(value, tuple(self.sizes[a.base] for a in axes))

    def _einsum(self, factors, over: Axes, axes: Axes) -> np.ndarray:
        letters: dict[Axis, str] = {}
        for f in factors:
            for a in f.axes:
                letters.setdefault(a, ascii_letters[len(letters)])
        assert set(over) <= set(letters)
        spec = ",".join("".join(letters[a] for a in f.axes) for f in factors)
        result = "".join(letters[a] for a in axes)
        return np.einsum(f"{spec}->{result}", *(self.values[f] for f in factors), optimize=True)

    def _value(self, n: tensor.Tensor) -> np.ndarray:
        match n:
            case tensor.Constant():
                return np.asarray(float(n.value))
            case tensor.Size():
                return np.asarray(float(self.sizes[n.axis.base]))
            case tensor.Map():
                f = array_function(n.fn, tuple(argument(i) for i in range(len(n.args))))
                shape = tuple(self.sizes[a.base] for a in n.axes)
                return np.broadcast_to(f(*(self.along(a, n.axes) for a in n.args)), shape)
            case tensor.Add():
                return np.sum([self.along(t, n.axes) for t in n.terms], axis=0)
            case tensor.Contract():
                return self._einsum(n.factors, n.over, n.axes)
            case tensor.LogSumExp():
                return special.logsumexp(self.values[n.arg], axis=n.arg.axes.index(n.over))
            case tensor.Rename():
                return self.values[n.arg]
            case tensor.Broadcast():
                return self.along(n.arg, n.axes)
            case Shifted():
                return np.einsum(self._seen(n, "poq", n.window.source), self.values[n.arg], windows(n.window))
            case Unshifted():
                return np.einsum(self._seen(n, "qop", n.window.target), self.values[n.arg], windows(n.window))
            case Gram():
                return self._einsum((n.a, n.b), (n.rank,), n.axes)
            case Kernel():
                p, q, c = (self.along(t, n.axes) for t in (n.p, n.q, n.c))
                return kernel_value(n.phi, n.psi, p, q, c)
            case Expectation():
                return self._expectation(n)
        raise AssertionError(f"the interpreter has no rule for {type(n).__name__}")

    @staticmethod
    def _seen(n: Shifted | Unshifted, ends: str, summed: Axis) -> str:
        """The einsum of an operand with W[p, o, q]; its last letter in `ends` is summed."""
        new, _, old = ends
        letters = {a: ascii_letters[i].upper() for i, a in enumerate((*n.arg.axes, *n.axes))} | {n.window.offset: "o"}
        given = "".join(letters[a] if a != summed else old for a in n.arg.axes)
        made = n.window.target if summed == n.window.source and new == "p" else n.window.source
        return f"{given},poq->" + "".join(new if a == made else letters[a] for a in n.axes)

    def _expectation(self, n: Expectation) -> np.ndarray:
        size = next(k for k in range(2, 12) if k * (k + 1) // 2 == len(n.grams))
        shape = tuple(self.sizes[a.base] for a in n.axes)
        covariance = np.empty((*shape, size, size))
        rows = iter(n.grams)
        for i in range(size):
            for j in range(i, size):
                covariance[..., i, j] = covariance[..., j, i] = self.along(next(rows), n.axes)
        return joint_value(n.fn, covariance.reshape(-1, size, size)).reshape(shape)


def run(graph: LimitGraph, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What one step of a limit graph computes, by name.

    "logits" (sample, class) and "loss"; "<state>" for the gradient of an accumulated state;
    "<store>.A", "<store>.B"… for the rows appended, without learning rate, first axis flat; "norm2:<weight>".
    """
    states = [c for s in graph.stores for c in (s.coefficients, *s.columns, *s.thetas)]
    states += [u.state for u in graph.accumulated]  # unused ones still tell lengths
    known = Interpreter((*graph.roots, *states), leaves)
    found: dict[str, np.ndarray] = {}
    for name, t in graph.outputs:
        axes = tuple(sorted(t.axes, key=lambda a: a.name != "sample"))
        found[name] = known.along(t, axes)
    for name, t in graph.norms:
        found[f"norm2:{name}"] = known[t]
    for _, updates in graph.updates:
        for u in updates:
            if isinstance(u, Append):
                if u.coefficient is tensor.ZERO:
                    continue  # atoms that change nothing
                for name, rows in _rows(u, known).items():
                    found[name] = np.concatenate([found[name], rows]) if name in found else rows
            else:
                found[u.state.name] = known.along(u.gradient, u.state.axes)
    return found


def _rows(u: Append, known: Interpreter) -> dict[str, np.ndarray]:
    s = u.store

    def rows(t: tensor.Tensor, extra: Axes) -> np.ndarray:
        value = known.along(t, (*u.batch, *extra))
        return value.reshape(-1, *value.shape[len(u.batch) :])

    a = rows(u.coefficient, s.coefficients.axes[1:])
    columns = [rows(t, c.axes[1:]) for t, c in zip(u.columns, s.columns)]
    if s.degree is not None:
        (b,) = columns
        norm = np.linalg.norm(b, axis=1, keepdims=True)
        unit = np.divide(b, norm, out=np.zeros_like(b), where=norm > 0)
        factor = np.where(norm > 0, norm**s.degree, 0.0)
        a, columns = a * factor.reshape(-1, *[1] * (a.ndim - 1)), [unit]
    named = {c.name: b for c, b in zip(s.columns, columns)}
    named |= {c.name: rows(t, ()) for c, t in zip(s.thetas, u.thetas)}
    return {s.coefficients.name: a, **named}
