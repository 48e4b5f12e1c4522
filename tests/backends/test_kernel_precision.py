"""Kernel matrices in single precision, of nearly equal samples and of data of any scale."""

import ctypes

import mpmath
import numpy as np
import pytest
import sympy as sp

import tpc
from backends import kernel_runtime, native_build, numpy_runtime
from backends.device_kernels import DeviceKernelRuntime
from tests.backends.test_kernel_code import POINTS, compiled
from tpc.errors import UsageError
from tpc.gaussian import kernel
from tpc.gaussian.evaluate import precise
from tpc.gaussian.symbols import C, P, Q
from tpc.limits.nodes import Kernel
from tpc.lower.c_elementwise import FUNCTIONS
from tpc.lower.kernel_native import PRECISE
from tpc.program.expression import parse_nonlinearity
from tpc.program.functions import X
from tpc.program.tensor import Input

ROUNDING = 2.0**-24
BACKENDS = ("numpy", "native", "cuda_cpu")


def deep(phi, depth=3, bias=0.5, std=1.0):
    act = tpc.nonlin(phi)

    def network(x):
        h = tpc.dense(x, "embed", std) + tpc.bias("embed", bias)
        for k in range(1, depth):
            h = tpc.dense(act(h), f"hidden{k}") + tpc.bias(f"hidden{k}", bias)
        return tpc.readout(act(h), 1)

    return tpc.compile(tpc.trace(network), limit="ntk")


def line(n):
    return np.linspace(-10 * np.pi, 10 * np.pi, n)[:, None]


def sizes(k):
    return np.sqrt(np.outer(np.diag(k), np.diag(k)))


# --- nearly equal samples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("phi", ["relu(x)", "erf(x)", "gelu(x)", "sin(x)", "cos(x)", "exp(-x**2)", "abs(x)"])
def test_single_precision_is_double_precision_rounded(phi, backend, cuda_cpu):
    """Symmetric and rectangular, of samples as close as 0.3 in lengths up to 31."""
    limit, x = deep(phi), line(200)
    exact, found = limit.kernel(x), limit.kernel(x, backend=backend, dtype="float32")
    part = limit.kernel(x[:40], x[20:], backend=backend, dtype="float32")
    for kind, k in exact.items():
        assert (np.abs(found[kind] - k) <= 1.01 * ROUNDING * np.abs(k) + 1e-12 * sizes(k)).all()
        allowed = 1.01 * ROUNDING * np.abs(k) + 1e-12 * sizes(k)
        assert (np.abs(part[kind] - k[:40, 20:]) <= allowed[:40, 20:]).all()


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("depth", [3, 6])
def test_a_line_of_a_thousand_samples_has_a_positive_definite_tangent_kernel(depth, backend):
    k = deep("relu(x)", depth).kernel(line(1000), backend=backend, dtype="float32", only="ntk")["ntk"]
    assert np.linalg.eigvalsh(k.astype(np.float64))[0] > 1e-6 * np.mean(np.diag(k))


def test_close_samples_of_many_features():
    """The angle of samples that differ in the last digits of single precision."""
    x = np.random.default_rng(0).standard_normal((1, 500)) + 1e-7 * np.random.default_rng(1).standard_normal((20, 500))
    exact = deep("relu(x)").kernel(x)["ntk"]
    assert 1e-9 < np.abs(exact / exact[0, 0] - 1).max() < 1e-6
    for backend in ("numpy", "native"):
        k = deep("relu(x)").kernel(x, dtype="float32", backend=backend)["ntk"]
        assert (np.abs(k - exact) <= 1.01 * ROUNDING * exact).all()


# --- scales ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_entries_at_the_end_of_single_precision(backend, cuda_cpu):
    limit, x = deep("relu(x)", bias=0), 3e-19 * np.random.default_rng(0).standard_normal((40, 5))
    exact, found = limit.kernel(x)["ntk"], limit.kernel(x, backend=backend, dtype="float32")["ntk"]
    normal = exact > np.finfo(np.float32).tiny
    assert 100 < normal.sum() < 1500
    np.testing.assert_allclose(found[normal], exact[normal], rtol=1.01 * ROUNDING)
    np.testing.assert_allclose(found, exact, rtol=1.01 * ROUNDING, atol=1e-45)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("phi", "degree"), [("relu(x)", 2), ("gelu(x)", 2), ("erf(x)", 0), ("x*erf(x)", 2)])
def test_large_data_have_the_kernel_of_their_directions(phi, degree, backend, cuda_cpu):
    """These are positively homogeneous far from 0, so the kernel grows by a power of the scale."""
    x, limit = np.random.default_rng(3).standard_normal((12, 4)), deep(phi, 1, 0)
    x[2], x[3] = x[0], -x[1]
    base = limit.kernel(1e10 * x)["nngp"]
    for scale in (1e30, 1e60, 1e100, 1e140):
        k = limit.kernel(scale * x, backend=backend)["nngp"]
        np.testing.assert_allclose(k / (scale / 1e10) ** degree, base, rtol=1e-9, atol=1e-9 * np.abs(base).max())


def test_what_is_beyond_the_range_is_told_or_infinite():
    x = np.array([[1.0, 2.0], [0.0, 0.0], [2.0, 1.0]])
    with pytest.raises(UsageError, match=r"squared length is a number, got x1\[0\].*divide the data"):
        deep("relu(x)").kernel(1e160 * x)
    for backend in ("numpy", "native"):
        with pytest.raises(UsageError, match=r"the ntk kernel of x1\[0\] and x1\[1\].*beyond double precision"):
            deep("exp(x)", 1, 0).kernel(1e3 * x, backend=backend)
        k = deep("exp(x)", 1, 0).kernel(1e3 * x, backend=backend, only="nngp")["nngp"]
        assert np.isposinf(k[::2]).all()
        k = deep("relu(x)").kernel(1e30 * x, dtype="float32", backend=backend)["ntk"]
        assert np.isposinf(k[0, 0])
        assert np.isfinite(k[1, 1])


# --- gap -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gap_in_c():
    head = '__attribute__((visibility("default"))) double gap(double p, double q, double c)'
    text = f"{FUNCTIONS.read_text()}{PRECISE.read_text()}{head}\n{{ return tpc_gap_double(p, q, c); }}\n"
    function = native_build.load(text)["gap"]
    function.argtypes, function.restype = [ctypes.c_double] * 3, ctypes.c_double
    return lambda p, q, c: np.array([function(*point) for point in zip(p, q, c)])


def test_gaps_of_any_size(gap_in_c, cuda_cpu):
    """√(pq − c²) for p and q from the least to the largest double, with the error of √(pq) that c has anyway."""
    rng = np.random.default_rng(0)
    p, q = 10 ** rng.uniform(-320, 307, (2, 400))
    q[::4] = p[::4] * 10 ** rng.uniform(-0.5, 0.5, 100)
    rho = np.where(rng.random(400) < 0.5, rng.uniform(-1, 1, 400), 1 - 10 ** rng.uniform(-13, -1, 400))
    p[:5], q[5:8] = 0, 0
    with mpmath.workdps(700):
        root = [mpmath.sqrt(mpmath.mpf(a) * mpmath.mpf(b)) for a, b in zip(p, q)]
        c = np.array([float(r * mpmath.mpf(t)) for r, t in zip(root, rho)])
        square = [mpmath.mpf(a) * mpmath.mpf(b) - mpmath.mpf(d) ** 2 for a, b, d in zip(p, q, c)]
        root, wanted = np.array(root, float), np.array([mpmath.sqrt(max(s, 0)) for s in square], float)
    device = cuda_cpu.device

    def there(*given):
        return device.to_host(DeviceKernelRuntime(device).gap(*map(device.xp.asarray, given)))

    for gap in (kernel_runtime.gap, gap_in_c, there):
        found = gap(p, q, c)
        normal = np.abs(c) > 1e-290  # smaller ones have fewer digits
        size = root[normal]
        error, wide = np.abs(found - wanted)[normal] / size, wanted[normal] / size
        assert normal.sum() > 300
        assert (error * wide <= 8e-16)[wide > 2.0**-23].all()
        assert (error <= 2.0**-22)[wide <= 2.0**-23].all()
        assert np.isfinite(found).all()


# --- closed forms at extreme variances -------------------------------------------------------------------------------

EXTREME = {np.float32: [-30, -3, 0, 6, 13, 20, 37], np.float64: [-200, -30, 0, 10, 100, 160, 300]}
FORMS = ["erf(x)", "gelu(x)", "exp(-x**2)", "x*exp(-x**2/2)", "relu(x)", "abs(x)"]


@pytest.mark.parametrize("dtype", EXTREME)
@pytest.mark.parametrize("phi", FORMS)
def test_closed_forms_do_not_overflow_on_the_way(phi, dtype):
    """V[φ,φ] and V[φ′,φ′] at variances to the end of a type's range, against 400 digits."""
    first = parse_nonlinearity(phi)
    for f in (first, sp.diff(first, X)):
        v = kernel(f, f)
        run = compiled(*(lambda a, f=f: (Kernel(f, f, *a), a))([Input(n, (POINTS,)) for n in "pqc"]))
        numbers = [dtype(float(f"1e{e}")) for e in EXTREME[dtype]]
        p, q, rho = (a.ravel() for a in np.meshgrid(numbers, numbers, [-0.9, 0, 0.5, 0.999]))
        c = (np.sqrt(p) * np.sqrt(q) * rho).astype(dtype)
        with np.errstate(under="ignore", over="ignore"):
            found = run(p.astype(dtype), q.astype(dtype), c)
        with mpmath.workdps(400):
            points = [tuple(map(float, point)) for point in zip(p, q, c)]
            wanted = [precise(v.value, dict(zip((P, Q, C), point)), 400) for point in points]
            own = {float(x): precise(v.value, dict(zip((P, Q, C), (float(x),) * 3)), 400) for x in numbers}
            scale = np.array([mpmath.sqrt(own[a] * own[b]) for a, b, _ in points], float)
        most = float(np.finfo(dtype).max)
        inside = scale < most / 1e3
        error = np.abs(found.astype(float) - np.array(wanted, float))
        assert (error[inside] <= 64 * np.finfo(dtype).eps * scale[inside] + 8 * float(np.finfo(dtype).tiny)).all()
        assert not np.isnan(found[inside]).any()


def test_roots_and_inverses_of_large_numbers():
    for dtype, big in ((np.float32, 1e30), (np.float64, 1e200)):
        y = np.array([0, 1e-30, 1, big], dtype)
        x = np.array([4, 0, 3, big], dtype)
        np.testing.assert_allclose(numpy_runtime.root_sum(x, y), np.array([2, 1e-30, 2, big], dtype), rtol=1e-6)
        assert numpy_runtime.root_sum(x, y).dtype == dtype
        np.testing.assert_allclose(numpy_runtime.inverse(y), np.array([0, 1e30, 1, 1 / big], dtype), rtol=1e-6)
