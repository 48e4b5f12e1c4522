"""Kernels without a closed form: their stated error, their limits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from numpy.polynomial import chebyshev

from tpc.errors import GaussianError
from tpc.gaussian import kernel
from tpc.gaussian.fitting import cell_index
from tpc.gaussian.table import Table, _polynomials
from tpc.program.expression import parse_nonlinearity
from tpc.program.functions import X

from .oracle import points, polar, scale, single

ONE = sp.Integer(1)
NAMES = ["tanh", "sigmoid", "silu", "softplus", "elu", "softsign"]


def worst(phi, psi, evaluate, count=40):
    """The largest error over random points, |ρ| up to 1 − 1e-13, relative to √(V[φ,φ] V[ψ,ψ])."""
    where = points(count, seed=5)
    p, q, c = (np.array(column) for column in zip(*where, strict=True))
    q = np.clip(q, 1e-3, 1e2)
    c = np.clip(c, -np.sqrt(p) * np.sqrt(q), np.sqrt(p) * np.sqrt(q))
    wanted = np.array([polar(phi, psi, *point) for point in zip(p, q, c, strict=True)])
    bound = np.array([scale(phi, psi, a, b) for a, b in zip(p, q, strict=True)])
    return float(np.max(np.abs(evaluate(p, q, c) - wanted) / bound))


@pytest.mark.parametrize("name", NAMES)
def test_tables_keep_their_bound(name):
    phi = parse_nonlinearity(name)
    numeric = kernel(phi).numeric
    assert numeric.error == 1e-10
    assert numeric.largest == (1e9, 1e9)
    assert worst(phi, phi, numeric) <= 1e-11


@pytest.mark.parametrize("pair", [("tanh", "relu"), ("x*tanh(x)", "gelu"), ("softplus", "silu")])
def test_mixed_tables(pair):
    phi, psi = map(parse_nonlinearity, pair)
    assert worst(phi, psi, kernel(phi, psi).numeric) <= 1e-10


@pytest.mark.parametrize("name", ["tanh", "elu"])
def test_derivative_tables(name):
    phi = parse_nonlinearity(name)
    slope = phi.diff(X).subs(sp.DiracDelta(X), 0)
    assert worst(slope, slope, kernel(phi.diff(X)).numeric) <= 1e-10


def test_a_delta_beside_a_table():
    """elu with α = 2 bends at 0: φ'' holds a δ, conditioned on exactly."""
    phi = parse_nonlinearity("elu(x, 2)")
    found = kernel(phi, phi.diff(X, 2))
    assert found.numeric.pair is not None
    assert len(found.numeric.spikes) == 1
    for p, q, c in ((1.3, 0.7, 0.5), (0.2, 4.0, -0.8), (2.0, 2.0, 1.99)):
        regular = polar(phi, 2 * sp.exp(X) * parse_nonlinearity("step(-x)"), p, q, c)
        spike = -single(phi, p - c * c / q) / np.sqrt(2 * np.pi * q)
        assert found.at(p, q, c) == pytest.approx(regular + spike, rel=1e-10)
        assert found.numeric(p, q, c) == pytest.approx(regular + spike, rel=1e-9)


def test_price_holds_between_tables():
    """∂_c V[φ,φ] = V[φ',φ'] and ∂_q V[φ,φ] = ½ V[φ,φ''], each from its own table."""
    phi = parse_nonlinearity("tanh")
    found, p, q, c, h = kernel(phi), 1.3, 0.7, 0.4, 1e-3

    def slope(f):
        return float(8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)

    assert slope(lambda e: found.numeric(p, q, c + e)) == pytest.approx(float(found.d_c().numeric(p, q, c)), rel=1e-8)
    half, second = found.d_q()
    wanted = float(half) * float(second.numeric(p, q, c))
    assert slope(lambda e: found.numeric(p, q + e, c)) == pytest.approx(wanted, rel=1e-8)


def test_float32_tables():
    phi = parse_nonlinearity("silu")
    numeric = kernel(phi).numeric
    p, q, c = (np.array(column) for column in zip(*points(200, seed=3), strict=True))
    q = np.clip(q, 1e-3, 1e2)
    single32 = [x.astype(np.float32) for x in (p, q, np.clip(c, -np.sqrt(p * q), np.sqrt(p * q)) * (1 - 1e-6))]
    found = numeric.truncated(1e-7)(*single32)
    assert found.dtype == np.float32
    size = np.array([scale(phi, phi, a, b) for a, b in zip(p, q, strict=True)])
    assert np.max(np.abs(found - numeric(*(x.astype(np.float64) for x in single32))) / size) < 2e-6


def test_unary_expectation_is_a_table_in_the_variance():
    phi = parse_nonlinearity("softplus")
    numeric = kernel(phi, ONE).numeric
    p = np.array([1e-3, 0.1, 3.0, 99.0])
    assert numeric(p, p, p) == pytest.approx([single(phi, x) for x in p], rel=1e-11)


def test_parity_is_seen_without_a_table():
    tanh = parse_nonlinearity("tanh")
    assert kernel(tanh, ONE).value == 0
    assert kernel(tanh, parse_nonlinearity("softsign(x)*x")).value == 0


def test_outer_products_and_broadcasting_agree():
    numeric = kernel(parse_nonlinearity("tanh")).numeric
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    p, q, c = (x**2).sum(1)[:, None], (y**2).sum(1)[None, :], x @ y.T
    assert numeric(p, q, c) == pytest.approx(numeric(p + 0 * c, q + 0 * c, c), rel=1e-12, abs=1e-14)


def test_truncation_is_cheaper_and_keeps_its_bound():
    phi = parse_nonlinearity("tanh")
    numeric = kernel(phi).numeric
    short = numeric.truncated(1e-6)
    assert short.pair.table(0, 0).core.size < numeric.pair.table(0, 0).core.size / 2
    assert worst(phi, phi, short) <= short.error


@pytest.mark.parametrize("pair", [("silu", "silu"), ("silu'", "silu'"), ("tanh", "tanh''")])
@pytest.mark.parametrize("cells", [(-1, -1), (0, 1), (1, 1), (3, 0)])
def test_tables_of_float32_leave_out_less_than_1e_7(pair, cells):
    """In orders, ranks and degrees together: relative to √(V[φ,φ]V[ψ,ψ]), evaluated in doubles."""
    phi, psi = map(parse_nonlinearity, pair)
    numeric = kernel(phi, psi).numeric
    long, short = (n.pair.table(*cells) for n in (numeric, numeric.truncated(1e-7)))
    assert all(a < b for a, b in zip(short.core.shape, long.core.shape, strict=True))
    for one, other in ((short.left, long.left), (short.right, long.right)):
        assert one.coefficients.shape[1] < other.coefficients.shape[1]
        assert len(one.size) < len(other.size)
    p, q = (np.exp(np.linspace(b.lo, b.hi, 23)) for b in (long.left, long.right))
    theta = np.linspace(0, np.pi, 67)[:, None, None]
    size = np.sqrt(kernel(phi).numeric(p, p, p))[:, None] * np.sqrt(kernel(psi).numeric(q, q, q))
    lost = short.at_angle(p[:, None], q, theta) - long.at_angle(p[:, None], q, theta)
    assert np.max(np.abs(lost) / size) < 1e-7


@pytest.mark.parametrize("shape", [(3000, 7), (7, 3000), (200, 200), (1, 9), (9, 1)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_blocks_of_every_shape(shape, dtype):
    """A column and a row, cut into blocks on the longer side: as one entry at a time."""
    numeric = kernel(parse_nonlinearity("tanh"), parse_nonlinearity("silu")).numeric.truncated(1e-7)
    rng = np.random.default_rng(0)
    p, q = rng.uniform(0.2, 9, (shape[0], 1)), rng.uniform(0.2, 9, (1, shape[1]))
    c = rng.uniform(-0.99, 0.99, shape) * np.sqrt(p * q)
    p, q, c = (x.astype(dtype) for x in (p, q, c))
    found = numeric(p, q, c)
    assert found.dtype == dtype
    assert found.shape == shape
    single = numeric(p + 0 * c, q + 0 * c, c)
    assert np.allclose(found, single, rtol=0, atol=1e-13 if dtype == np.float64 else 3e-6)


def test_chebyshev_polynomials():
    x = np.linspace(-1, 1, 201)
    for count in (1, 2, 3, 8, 28, 64):
        assert np.allclose(_polynomials(x, count), chebyshev.chebvander(x, count - 1).T, rtol=0, atol=1e-13)


def test_cells_of_many_variances():
    """One cell for all is seen from the least and the largest."""
    for p in ([0.2, 3.0, 9.9], [0.2, 30.0, 9.9], [0.0, 1e-30, 5e-24], [0.2, np.nan, 0.3], [np.inf, 1e8, 2e8], []):
        for dtype in (np.float64, np.float32):
            many = np.array(p, dtype=dtype)
            assert cell_index(many).tolist() == [int(cell_index(x)) for x in many]


def test_gram_matrices_of_tables_are_positive_semidefinite():
    numeric = kernel(parse_nonlinearity("softsign")).numeric
    x = np.random.default_rng(1).standard_normal((12, 4)) * 3
    x = np.concatenate([x, -x[:2], x[:1], np.zeros((1, 4))])
    gram = x @ x.T
    p = np.diag(gram)
    limit = np.sqrt(np.outer(p, p))
    values = numeric(p[:, None], p[None, :], np.clip(gram, -limit, limit))
    assert np.linalg.eigvalsh(values)[0] >= -1e-9 * np.trace(values)


def test_tables_are_plain_arrays():
    table = kernel(parse_nonlinearity("tanh")).numeric.pair.table(0, 1)
    assert isinstance(table, Table)
    rank, other, orders = table.core.shape
    assert len(table.left.coefficients) == rank
    assert len(table.right.coefficients) == other
    assert len(table.orders) == orders
    assert np.all(table.orders % 2 == 1)  # an odd φ needs odd orders only


def test_the_other_way_round_is_the_same_table():
    phi, psi = parse_nonlinearity("silu"), parse_nonlinearity("tanh")
    p, q = np.array([0.02, 3.0, 700.0])[:, None], np.array([0.3, 40.0])[None, :]
    c = 0.6 * np.sqrt(p * q)
    one, other = kernel(phi, psi).numeric, kernel(psi, phi).numeric
    assert one(p, q, c) == pytest.approx(other(q.T, p.T, c.T).T, rel=1e-14)
    assert one(p, q, c) == pytest.approx(one.mirrored()(q.T, p.T, c.T).T, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("relu(x - 1)", "expected kinks at x = 0 only, got one where x - 1 = 0"),
        ("tanh(abs(x) - 1)*step(x**2 - 1)", "expected kinks at x = 0 only"),
        ("cos(200*x**2)", "too fast to resolve"),
        ("sin(300*x)*tanh(x)", "too fast to resolve"),
    ],
)
def test_refusals_say_why(text, message):
    with pytest.raises(GaussianError, match=message.replace("(", r"\(")) as caught:
        _ = kernel(parse_nonlinearity(text)).numeric
    assert caught.value.exit_code == 2


def test_kinks_inside_odd_functions():
    """relu(tanh(x)) bends at 0 although its argument is not linear; its second derivative holds δ(x)."""
    phi = parse_nonlinearity("relu(tanh(x))")
    assert worst(phi, phi, kernel(phi).numeric, count=10) <= 1e-10
    found = kernel(phi, phi.diff(X, 2))
    p, q, c = 1.2, 0.8, 0.3
    smooth = polar(phi, parse_nonlinearity("-2*tanh(x)*(1 - tanh(x)**2)*step(x)"), p, q, c)
    spike = single(phi, p - c * c / q) / np.sqrt(2 * np.pi * q)
    assert found.at(p, q, c) == pytest.approx(smooth + spike, rel=1e-11)


def test_two_deltas_are_refused():
    slope = parse_nonlinearity("tanh(x)*step(x) + softplus(x)*step(x)").diff(X)
    with pytest.raises(GaussianError, match="expected a Dirac delta in at most one"):
        kernel(slope)
