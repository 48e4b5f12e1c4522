"""Large arrays outside the loops: every way to cut a product, gradients as factors, updates by rows."""

import numpy as np
import pytest

import tpc
from backends import large, native_dense, native_powers, numpy_runtime, powers
from backends.large import OuterSum, is_finite, outer_sum, square
from backends.threads import threads
from tpc.lower.lowered import lower
from tpc.lower.native_module import native_module, outer_sums


@pytest.fixture(params=[1, 2, 3])
def workers(request, monkeypatch):
    """Threads that are woken for the smallest arrays."""
    before = threads().count
    threads().set(request.param)
    monkeypatch.setattr(large, "THREAD_NUMBERS", 1)
    monkeypatch.setattr(large, "CHUNK_BYTES", 64)
    yield request.param
    threads().set(before)


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


# --- products --------------------------------------------------------------------------------------------------------


BOTH = pytest.mark.parametrize("products", [large, native_dense], ids=["numpy", "native"])
SHAPES = [(1, 1, 1), (5, 300, 7), (200, 3, 6), (300, 200, 5), (2, 3, 40), (0, 4, 3), (3, 0, 2), (3, 2, 0),
          (1, 17, 16), (8, 33, 32), (9, 16, 49), (12, 50, 67), (11, 40, 48), (15, 20, 10)]  # fmt: skip
OPTIONS = [{"clip": 0.1, "weight_decay": 1e-2}, {"momentum": 0.9}, {"clip": 0.2, "momentum": 0.5}]


@BOTH
@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_matrices(workers, products, shape):
    m, inner, n = shape
    a, b = numbers(m, inner), numbers(inner, n, seed=1)
    for found in (products.matmul(a, b), products.matmul(np.asfortranarray(a), np.asfortranarray(b))):
        np.testing.assert_allclose(found, a.astype(float) @ b.astype(float), atol=1e-4)
        assert found.dtype == np.float32


@BOTH
@pytest.mark.parametrize(("batch", "k", "r"), [(1, 5, 6), (2, 1, 33), (7, 5, 70), (3, 4, 0), (0, 2, 3)])
def test_a_matrix_for_every_sample(workers, products, batch, k, r):
    matrices, right, left = numbers(batch, k, r), numbers(batch, r, seed=1), numbers(batch, k, seed=2)
    for order in ("C", "F"):
        given = np.asarray(matrices, order=order)
        found = products.matvecs(given, right)
        np.testing.assert_allclose(found, (matrices @ right[:, :, None])[:, :, 0], atol=2e-5)
        found = products.vecmats(left, given)
        np.testing.assert_allclose(found, (left[:, None] @ matrices)[:, 0], atol=2e-5)
        found = products.matvecs(given.transpose(0, 2, 1), left)
        np.testing.assert_allclose(found, (left[:, None] @ matrices)[:, 0], atol=2e-5)


# --- sums of outer products ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 9])
def test_an_outer_sum_is_its_matrix(workers, batch):
    x, y = numbers(batch, 12), numbers(batch, 15, seed=1)
    wanted, found = x.T @ y, outer_sum(x, y)
    assert isinstance(found, OuterSum) == (batch < 9)  # 9 · (12 + 15) > 12 · 15
    np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-5)
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, atol=1e-5)
    np.testing.assert_allclose(found[3:5], wanted[3:5], atol=1e-5)
    np.testing.assert_allclose(found[2, 4], wanted[2, 4], atol=1e-5)
    assert (found.shape, found.ndim, found.dtype) == (wanted.shape, 2, wanted.dtype)
    np.testing.assert_allclose(square(found), (wanted.astype(float) ** 2).sum(), rtol=1e-5)


def test_finite_numbers_are_told_from_others():
    def both(x, y):
        made = OuterSum(np.array(x, np.float32), np.array(y, np.float32))
        with np.errstate(all="ignore"):
            assert is_finite(made) == np.isfinite(np.asarray(made)).all()
            return is_finite(made)

    assert both([[1, 2]], [[3, 4, 5]])
    assert both([[1e30, 0]], [[0, 1e8]])  # the squares of the factors are infinite
    assert not both([[1e30, 0]], [[1e30, 1]])  # the factors are finite
    assert not both([[np.nan, 0]], [[1, 1]])
    assert not both([[1, 0]], [[np.inf, 1]])
    with np.errstate(all="ignore"):
        assert is_finite(np.float32([1e30, -1e30]))
        assert not is_finite(np.float32([[1, np.nan]]))
        assert not is_finite(np.float32(-np.inf))


# --- updates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [numpy_runtime.accumulate, native_dense.accumulate], ids=["numpy", "native"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("kind", "batch", "width"),
    [("factors", 3, 9), ("factors", 8, 100), ("factors", 12, 81), ("factors", 13, 80), ("matrix", 3, 9),
     ("vector", 3, 9), ("number", 3, 9)],
)  # fmt: skip
def test_updates_by_rows(workers, accumulate, kind, batch, width, momentum):
    w, v = numbers(40, width), np.zeros((40, width))
    made = OuterSum(numbers(batch, 40, seed=1), numbers(batch, width, seed=2))
    gradient = made if kind == "factors" else np.asarray(made)
    if kind in ("vector", "number"):
        place = (slice(None), 0) if kind == "vector" else (0, 0)
        w, v, gradient = np.array(w[place]), v[place], np.array(gradient[place])
    state, wanted = {"W": w.copy()}, w.astype(float)
    for _ in range(2):
        accumulate(state, "W", gradient, 0.3, 0.5, 0.9, momentum)
        v = momentum * v + 0.5 * np.asarray(gradient, float)
        wanted = 0.9 * wanted - 0.3 * v
    np.testing.assert_allclose(state["W"], wanted, atol=1e-5)
    if momentum:
        np.testing.assert_allclose(state["W.velocity"], v, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_steps_of_few_samples_are_those_of_numpy(programs_dir, workers, name, options):
    limit = tpc.compile(tpc.load(programs_dir / f"{name}.py", classes=3))
    one, other = (limit.build(30, 20, backend=b) for b in ("numpy", "native"))
    other.load_state(one.state())
    rng = np.random.default_rng(0)
    for _ in range(4):
        x, y = rng.standard_normal((5, 30)), rng.integers(0, 3, 5)
        wanted, found = (m.step(x, y, lr=0.3, **options) for m in (one, other))
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-4)
        for weight, norm in wanted.get("grad_norm", {}).items():
            assert found["grad_norm"][weight] == pytest.approx(norm, rel=1e-4)
    before, after = one.state(), other.state()
    np.testing.assert_allclose(after["embed.A"], before["embed.A"], atol=1e-5)


def test_only_what_update_and_norm_read_stays_factors(programs_dir):
    lowered = lower(tpc.compile(tpc.load(programs_dir / "mlp.py")).graph("cross_entropy"))
    outputs = dict(lowered.gradients.outputs)
    assert outer_sums(lowered) == {outputs["embed:gradient"]}
    assert "= rt.outer_sum(x, " in native_module(lowered).python
    other = lower(tpc.compile(tpc.load(programs_dir / "mlp.py")).graph("cross_entropy"))
    read = (*other.gradients.outputs, ("read", outputs["embed:gradient"]))
    object.__setattr__(other.gradients, "outputs", read)
    assert not outer_sums(other)
    assert "outer_sum" not in native_module(other).python


# --- powers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("rank", [1, 5, 18])
def test_monomials_between_two_indices(rank, order):
    g = numbers(6, rank)
    wanted, low = powers.power(g, order), powers._monomials(g, order - 1)
    fill = native_powers.filling(g, low, order)
    for start, stop in ((0, rank), (rank // 2, rank), (rank - 1, rank)):
        columns = slice(powers.count(start, order), powers.count(stop, order))
        part = np.empty((6, columns.stop - columns.start), np.float32)
        fill(part, start, stop)
        np.testing.assert_allclose(part, wanted[:, columns], rtol=1e-6)


@pytest.mark.parametrize(("outer", "atoms", "n"), [(1, 1, 1), (12, 5, 32), (13, 600, 33), (30, 512, 70), (5, 1025, 31)])
def test_products_are_added_to_some_columns(outer, atoms, n):
    a, b, start = numbers(outer, atoms), numbers(atoms, n, seed=1), numbers(outer, n + 9, seed=2)
    target = start.copy()
    native_powers.adding(a)(target[:, 4 : 4 + n], b)
    wanted = start.astype(float)
    wanted[:, 4 : 4 + n] += a.astype(float) @ b
    np.testing.assert_allclose(target, wanted, atol=1e-4)
