"""Device functions: the C text of every kernel family against its exact value, and the functions they call."""

import ctypes

import numpy as np
import pytest
import sympy as sp
from test_kernel_code import CLOSED, POINTS, _scale, diverges, pairs, points

from backends import native_build
from tpc.gaussian import kernel
from tpc.gaussian.primitives import angle1, gap1
from tpc.gaussian.symbols import RHO, C, P, Q
from tpc.lower.c_elementwise import FUNCTIONS, KNOWN, device_function, number
from tpc.lower.elementwise import Builder
from tpc.lower.operations import ARITY, Operation, Value


def text(name, arguments, expression, values):
    """A device function of one expression, and a loop that calls it."""
    count = iter(range(10**6))
    builder = Builder(lambda: f"t{next(count)}")
    result = builder.expression(expression, values)
    pointers = ", ".join(f"const float *{a}" for a in arguments)
    call = ", ".join(f"{a}[i]" for a in arguments)
    return (
        device_function(name, arguments, builder.operations, {"value": result})
        + f'__attribute__((visibility("default"))) void {name}_array(int n, {pointers}, float *out)\n{{\n'
        + f"#pragma omp simd\n    for (int i = 0; i < n; i++)\n        {name}({call}, &out[i]);\n}}\n"
    )


def caller(library, name, arguments):
    def call(*arrays):
        arrays = [np.ascontiguousarray(a, dtype=np.float32) for a in arrays]
        out = np.empty(len(arrays[0]), np.float32)
        getattr(library, f"{name}_array")(len(out), *(ctypes.c_void_p(a.ctypes.data) for a in (*arrays, out)))
        return out.astype(np.float64)

    assert library[f"{name}_array"]
    return call


PAIRS = [(name, phi, psi) for name in CLOSED for phi, psi in pairs(name)]
HOMOGENEOUS = [(n, a, b) for n, a, b in PAIRS if kernel(a, b).kappa is not None and not diverges(a, b)]


@pytest.fixture(scope="module")
def library():
    """Every kernel in one compiled text."""
    parts = [FUNCTIONS.read_text()]
    for k, (_, phi, psi) in enumerate(PAIRS):
        values = {P: Value("p", (POINTS,)), Q: Value("q", (POINTS,)), C: Value("c", (POINTS,))}
        parts.append(text(f"value{k}", ["p", "q", "c"], kernel(phi, psi).value, values))
    for k, (_, phi, psi) in enumerate(HOMOGENEOUS):
        parts.append(text(f"kappa{k}", ["rho"], kernel(phi, psi).kappa, {RHO: Value("rho", (POINTS,))}))
    for name, arity in ARITY.items():
        if name in KNOWN:
            values = [Value("xyz"[i], (POINTS,)) for i in range(arity)]
            body = device_function(
                f"op_{name}",
                "xyz"[:arity],
                [Operation(Value("t", (POINTS,)), name, tuple(values))],
                {"value": Value("t", (POINTS,))},
            )
            pointers = ", ".join(f"const float *{v.name}" for v in values)
            call = ", ".join(f"{v.name}[i]" for v in values)
            parts.append(
                body + f'__attribute__((visibility("default"))) void op_{name}_array(int n, {pointers}, float *out)\n'
                f"{{ for (int i = 0; i < n; i++) op_{name}({call}, &out[i]); }}\n"
            )
    return native_build.load("\n".join(parts))


@pytest.mark.parametrize("k", range(len(PAIRS)), ids=[f"{n}:{a},{b}".replace(" ", "") for n, a, b in PAIRS])
def test_kernels(library, k):
    name, phi, psi = PAIRS[k]
    p, q, c = (a.astype(np.float32).astype(np.float64) for a in points(name, phi, psi))
    got = caller(library, f"value{k}", "pqc")(p, q, c)
    v = kernel(phi, psi)
    want = np.array([v.at(*map(float, point)) for point in zip(p, q, c)])
    scale = np.array([_scale(phi, psi, float(a), float(b)) for a, b in zip(p, q)])
    assert np.all(np.abs(got - want) <= 2e-6 * np.maximum(scale, np.abs(want)))


@pytest.mark.parametrize("k", range(len(HOMOGENEOUS)), ids=[f"{n}:{a},{b}".replace(" ", "") for n, a, b in HOMOGENEOUS])
def test_kernels_of_a_correlation(library, k):
    _, phi, psi = HOMOGENEOUS[k]
    single = np.float32(1)
    near = [np.nextafter(single, np.float32(0)), 1 - 1e-5, 1 - 1e-3]
    rho = np.array([*np.linspace(-1, 1, 81), *near, *(-x for x in near), -0.0], np.float32).astype(np.float64)
    got = caller(library, f"kappa{k}", ["rho"])(rho)
    v = kernel(phi, psi)
    want = np.array([v.at(1.0, 1.0, float(x)) for x in rho])
    assert np.all(np.abs(got - want) <= 2e-6 * max(1.0, np.abs(want).max()))
    if not v.kappa.has(gap1, angle1):
        return
    beyond = np.array([-1.5, -1.0000001, 1.0000001, 1.5])  # rounding leaves [-1, 1], the kernel does not
    np.testing.assert_array_equal(
        caller(library, f"kappa{k}", ["rho"])(beyond), caller(library, f"kappa{k}", ["rho"])(np.sign(beyond))
    )


ALWAYS = [-30.0, -1.5, -1.0, -0.3, -1e-6, 0.0, 1e-6, 0.25, 1.0, 1.5, 30.0]
POSITIVE = [1e-6, 0.25, 1.0, 1.5, 30.0]
UNIT = [-1.0, -0.999999, -0.5, -1e-4, 0.0, 1e-4, 0.5, 0.999999, 1.0]
UNARY = {
    "negative": (np.negative, ALWAYS), "square": (np.square, ALWAYS), "sqrt": (np.sqrt, POSITIVE),
    "reciprocal": (np.reciprocal, POSITIVE), "rsqrt": (lambda x: np.where(x > 0, np.abs(x) ** -0.5, 0), POSITIVE),
    "exp": (np.exp, ALWAYS), "log": (np.log, POSITIVE), "sin": (np.sin, ALWAYS), "cos": (np.cos, ALWAYS),
    "tanh": (np.tanh, ALWAYS), "erf": (np.vectorize(lambda x: float(sp.erf(x))), ALWAYS),
    "erfc": (np.vectorize(lambda x: float(sp.erfc(x))), [-5.0, -1.0, 0.0, 1.0, 5.0]), "abs": (np.abs, ALWAYS),
    "sign": (np.sign, ALWAYS), "step": (lambda x: (x > 0) * 1.0, ALWAYS), "relu": (lambda x: np.maximum(x, 0), ALWAYS),
    "arccos": (np.arccos, UNIT), "arcsin": (np.arcsin, UNIT), "clip1": (lambda x: np.clip(x, -1, 1), ALWAYS),
    "softplus": (lambda x: np.logaddexp(x, 0), ALWAYS), "sinh": (np.sinh, ALWAYS), "cosh": (np.cosh, ALWAYS),
    "asinh": (np.arcsinh, ALWAYS), "log1p": (np.log1p, POSITIVE), "expm1": (np.expm1, ALWAYS),
    "inverse": (lambda x: np.where(x > 0, 1 / np.where(x == 0, 1, x), 0), ALWAYS),
}  # fmt: skip
BINARY = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "maximum": np.maximum,
    "minimum": np.minimum, "arctan2": np.arctan2, "power": lambda x, y: np.abs(x) ** y,
    "root_sum": lambda x, y: np.sqrt(np.abs(x) + y**2),
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(library, name):
    exact, values = UNARY[name]
    x = np.array(values, np.float32).astype(np.float64)
    np.testing.assert_allclose(caller(library, f"op_{name}", "x")(x), exact(x), rtol=6e-7, atol=1e-30)


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_numbers(library, name):
    x, y = (a.ravel() for a in np.meshgrid(POSITIVE if name == "power" else ALWAYS, POSITIVE))
    x, y = (a.astype(np.float32).astype(np.float64) for a in (x, y))
    if name == "power":
        y = np.clip(y, 0, 2)
    if name == "root_sum":
        x, y = np.abs(x), np.append(y[1:], 1e30)
    np.testing.assert_allclose(caller(library, f"op_{name}", "xy")(x, y), BINARY[name](x, y), rtol=6e-7, atol=1e-7)


def test_gap_is_of_exact_products(library):
    x = np.float32(0.1)
    q = np.array([x, 1.5, 0.0, x], np.float32).astype(np.float64)
    p = np.array([x, 1.5, 3.0, x], np.float32).astype(np.float64)
    c = np.array([x, 0.5, 0.0, np.nextafter(x, np.float32(0))], np.float32).astype(np.float64)
    got = caller(library, "op_gap", "xyz")(p, q, c)
    np.testing.assert_allclose(got, np.sqrt(np.maximum(p * q - c * c, 0)), rtol=1e-7)


def test_every_function_was_tested():
    assert set(UNARY) | set(BINARY) | {"gap"} == set(KNOWN)
    assert set(ARITY) > KNOWN


def test_not_a_number_passes_through(library):
    nan = np.full(20, np.nan)
    for name in ("clip1", "relu", "sign", "arccos", "sqrt", "exp", "tanh", "softplus", "erf"):
        assert np.isnan(caller(library, f"op_{name}", "x")(nan)).all(), name
    one = np.ones(20)
    for name in ("maximum", "minimum"):
        for pair in ((one, nan), (nan, one), (nan, nan)):
            assert np.isnan(caller(library, f"op_{name}", "xy")(*pair)).all(), name


@pytest.mark.parametrize("exponent", [1, 2, 7, 8, 9, 10, 15, 16, 17, 33, "1/2", "3/2", "17/2", "19/2", -9, "-19/2"])
def test_powers_by_squaring(exponent):
    count = iter(range(100))
    builder = Builder(lambda: f"t{next(count)}")
    x = sp.Symbol("x")
    power = sp.Rational(exponent)
    result = builder.expression(sp.Pow(x, power, evaluate=False), {x: Value("x", (POINTS,))})
    values = {"x": 1.25}
    rules = {"square": np.square, "multiply": np.multiply, "sqrt": np.sqrt, "reciprocal": np.reciprocal}
    for o in builder.operations:
        values[o.target.name] = rules[o.op](*(values[a.name] for a in o.args))
    assert values[result.name] == pytest.approx(1.25 ** float(power), rel=1e-13)
    assert len(builder.operations) <= 12


def test_numbers_are_floats():
    assert [number(x) for x in (1.0, -0.5, 1e-7, 0.6366197723675814, 3e20)] == [
        "1.0f", "(-0.5f)", "1e-07f", "0.6366197723675814f", "3e+20f",
    ]  # fmt: skip
