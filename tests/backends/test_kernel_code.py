"""Generated code of every kernel family against the kernel's exact value, float64 and float32, at extreme points."""

import zlib

import numpy as np
import pytest
import sympy as sp

from backends import numpy_runtime
from tpc.gaussian import kernel
from tpc.limits.nodes import Gram, Kernel, gram
from tpc.lower.concretise import Concretiser
from tpc.lower.numpy_printer import numpy_writer
from tpc.lower.plan import Planner
from tpc.lower.schedule import schedule
from tpc.program.axes import Axis
from tpc.program.expression import parse_nonlinearity
from tpc.program.functions import X
from tpc.program.tensor import Input

CLOSED = [
    "identity", "relu", "step", "sign", "abs", "leaky_relu", "erf", "gelu", "sin", "cos", "exp", "exp(-x**2)",
    "relu(x)**2", "x**3 - x", "x*erf(x) + relu(x)", "sin(2*x + 1)", "x*exp(-x**2/2)",
]  # fmt: skip
POINTS = Axis("point")
RANK = Axis("r_embed", 5, "rank")


def compiled(value, inputs):
    function = schedule("value", {"value": Planner()(Concretiser()(value))}, inputs)
    namespace = {"np": np, "rt": numpy_runtime}
    exec(numpy_writer(function).text, namespace)
    return lambda *arrays: namespace["value"]({}, *arrays)["value"]


def pairs(name):
    phi = parse_nonlinearity(name)
    first, second = sp.diff(phi, X), sp.diff(phi, X, 2)
    return [(a, b) for a, b in ((phi, phi), (first, first), (phi, second)) if a.has(X) and b.has(X)]


def diverges(phi, psi):
    """Kernels of a step's derivatives, such as V[δ, δ] = 1/(2π√(pq - c²)), are infinite at |ρ| = 1."""
    return phi.has(sp.DiracDelta) or any(len(d.args) > 1 for d in psi.atoms(sp.DiracDelta))


def points(name, phi, psi, count=60):
    """p and q over six orders of magnitude (two for what grows exponentially), correlations up to 1 - 1e-9."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    wide = 0.5 if "exp" in name and "-" not in name else 3
    p, q = 10 ** rng.uniform(-wide, wide, count), 10 ** rng.uniform(-wide, wide, count)
    extreme = np.sign(rng.uniform(-1, 1, 20)) * (1 - 10 ** rng.uniform(-10, -2, 20))
    rho = np.concatenate([rng.uniform(-1, 1, count - 20), extreme])
    if diverges(phi, psi):
        rho = 0.99 * rho
    if "exp" in name and "-" not in name:
        p, q = np.minimum(p, 2), np.minimum(q, 2)
    return p, q, rho * np.sqrt(p * q)


@pytest.mark.parametrize("name", CLOSED)
def test_float64_code_is_the_closed_form(name):
    for phi, psi in pairs(name):
        p, q, c = points(name, phi, psi)
        v = kernel(phi, psi)
        run = compiled(*(lambda a: (Kernel(phi, psi, *a), a))([Input(n, (POINTS,)) for n in "pqc"]))
        got = run(p, q, c)
        want = np.array([v.at(*(float(t) for t in point)) for point in zip(p, q, c)])
        scale = np.array([_scale(phi, psi, float(a), float(b)) for a, b in zip(p, q)])
        assert np.all(np.abs(got - want) <= 1e-12 * np.abs(want) + 2e-15 * scale), (name, phi, psi)


@pytest.mark.parametrize("name", CLOSED)
def test_float32_code_is_close_to_float64(name):
    for phi, psi in pairs(name):
        p, q, c = (a.astype(np.float32) for a in points(name, phi, psi))
        run = compiled(*(lambda a: (Kernel(phi, psi, *a), a))([Input(n, (POINTS,)) for n in "pqc"]))
        single = run(p, q, c)
        assert single.dtype == np.float32
        double = run(*(a.astype(np.float64) for a in (p, q, c)))
        scale = np.array([_scale(phi, psi, float(a), float(b)) for a, b in zip(p, q)])
        assert np.all(np.abs(single - double) <= 2e-6 * np.maximum(scale, np.abs(double))), (name, phi, psi)


def _scale(phi, psi, p, q):
    """√(V[φ,φ](p,p,p) V[ψ,ψ](q,q,q)), or the size at ρ = 0 where a delta has no square."""
    if phi.has(sp.DiracDelta) or psi.has(sp.DiracDelta):
        return abs(kernel(phi, psi).at(p, q, 0.0))
    return float(np.sqrt(kernel(phi, phi).at(p, p, p) * kernel(psi, psi).at(q, q, q)))


@pytest.mark.parametrize("name", ["relu", "abs", "leaky_relu", "step", "sign", "relu(x)**2", "x**3"])
def test_code_from_latents_is_finite_at_zero_equal_and_opposite_latents(name):
    """The homogeneous form works with unit latents; a zero latent has value and gradient zero."""
    rng = np.random.default_rng(5)
    g = rng.standard_normal((6, 5))
    h = rng.standard_normal((6, 5))
    h[0], h[1], g[2], h[3], g[4], h[4] = g[0], -g[1], 0, 0, 0, 0
    inputs = [Input(n, (POINTS, RANK)) for n in "gh"]
    a, b = inputs
    for phi, psi in [pair for pair in pairs(name) if not diverges(*pair)]:
        v = kernel(phi, psi)
        for dtype, tolerance in ((np.float64, 1e-7), (np.float32, 2e-3)):
            run = compiled(Kernel(phi, psi, gram(a, a), gram(b, b), Gram(a, b, RANK)), inputs)
            got = run(g.astype(dtype), h.astype(dtype))
            assert np.all(np.isfinite(got))
            assert np.all(got[2:5] == 0), (phi, psi)
            for i in (0, 1, 5):
                p, q, c = float(g[i] @ g[i]), float(h[i] @ h[i]), float(g[i] @ h[i])
                want = v.at(p, q, float(np.clip(c, -np.sqrt(p * q), np.sqrt(p * q))))
                assert abs(got[i] - want) <= tolerance * _scale(phi, psi, p, q), (phi, psi, i)
