"""What `Limit.kernel` computes, in blocks, in both types, on both backends."""

import numpy as np
import pytest
from hypothesis import given, settings

import tpc
from tests.support.generators import networks, traced
from tpc.errors import UsageError

BACKENDS = ("numpy", "native")


def relu_net(x):
    h = tpc.dense(x, "embed", 1.3) + tpc.bias("embed", 0.2)
    h = h + tpc.dense(tpc.relu(tpc.rms_norm(h)), "block", 1.1, space=None)
    return tpc.readout(tpc.gelu(h), 2)


def smooth_net(x):
    h = tpc.dense(x, "embed", 0.8)
    return tpc.readout(tpc.sin(tpc.dense(tpc.erf(h), "hidden")), 2) + tpc.bias("readout", 0.3)


def numeric_net(x):
    return tpc.readout(tpc.tanh(tpc.dense(tpc.softplus(tpc.dense(x, "embed")), "hidden")), 2)


NETWORKS = (relu_net, smooth_net, numeric_net)


@pytest.fixture(scope="module")
def limits():
    return {f: tpc.compile(tpc.trace(f), limit="ntk") for f in NETWORKS}


def data(count, width=7, seed=0):
    """Random rows with repeated, opposite, zero, long and short ones."""
    x = np.random.default_rng(seed).standard_normal((count, width))
    x[3], x[4], x[5], x[6], x[7] = x[0], -x[1], 0, 30 * x[2], 1e-3 * x[2]
    return x


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("network", NETWORKS)
def test_blocks_symmetry_and_positive_definiteness(limits, network, backend):
    """300 rows are several blocks; half of the entries, all of them, and the diagonal agree."""
    limit, x = limits[network], data(300)
    half, diagonal = limit.kernel(x, backend=backend), limit.kernel_diagonal(x, backend=backend)
    full = limit.kernel(x, x, backend=backend)
    parts = [limit.kernel(x[k : k + 90], x, backend=backend) for k in range(0, 300, 90)]
    for kind in ("nngp", "ntk"):
        scale = np.sqrt(np.outer(diagonal[kind], diagonal[kind]))
        np.testing.assert_array_equal(half[kind], half[kind].T)
        np.testing.assert_array_equal(np.diag(half[kind]), diagonal[kind])
        assert np.abs(half[kind] - full[kind]).max() < 1e-12 * scale.max()
        assert np.abs(np.vstack([p[kind] for p in parts]) - full[kind]).max() < 1e-12 * scale.max()
        normal = half[kind] / (scale + 1e-300)
        assert np.linalg.eigvalsh(normal).min() > -1e-9 * len(x)


@pytest.mark.parametrize("network", NETWORKS)
def test_c_and_numpy_agree(limits, network):
    limit, x, y = limits[network], data(70), data(40, seed=1)
    for other in (None, y):
        one, two = (limit.kernel(x, other, backend=backend) for backend in BACKENDS)
        for kind in one:
            np.testing.assert_allclose(one[kind], two[kind], rtol=1e-12, atol=1e-13 * np.abs(one[kind]).max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("network", NETWORKS)
def test_single_precision(limits, network, backend):
    """Errors are those of rounded data: nothing grows at equal or opposite samples."""
    limit, x = limits[network], data(100, width=200)
    wanted = limit.kernel(x)
    for kind, got in limit.kernel(x, dtype="float32", backend=backend).items():
        assert got.dtype == np.float32
        scale = np.sqrt(np.outer(np.diag(wanted[kind]), np.diag(wanted[kind]))) + 1e-30
        assert (np.abs(got - wanted[kind]) / scale).max() < 5e-6, kind
        assert got[0, 3] == pytest.approx(wanted[kind][0, 3], rel=2e-6)


def test_one_kernel_alone_and_given_memory(limits):
    limit, x, y = limits[relu_net], data(20), data(9)
    both = limit.kernel(x, y)
    alone = limit.kernel(x, y, only="ntk")
    assert list(alone) == ["ntk"]
    np.testing.assert_allclose(alone["ntk"], both["ntk"], rtol=1e-13)
    whole = np.full((30, 20), np.nan)
    found = limit.kernel(x, y, out={"nngp": whole[5:25, 3:12]})
    np.testing.assert_array_equal(whole[5:25, 3:12], both["nngp"])
    assert np.isnan(whole).sum() == 600 - 180
    assert found["nngp"].base is whole
    assert found["ntk"].shape == (20, 9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_progress_counts_every_entry_once(limits, backend):
    told = []
    limits[relu_net].kernel(data(300), backend=backend, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert 300 * 300 / 2 < told[-1][1] < 300 * 300


def test_features_as_positions_run_in_parts_in_c():
    def network(x):
        h = tpc.dense(x, "embed")
        each = tpc.erf(tpc.dense(x * tpc.relu(h), "mix"))
        return tpc.readout(tpc.total(each, "feature"), 2)

    limit = tpc.compile(tpc.trace(network), limit="ntk")
    one, two = (limit.kernel(data(12, 3), backend=backend) for backend in BACKENDS)
    np.testing.assert_allclose(one["ntk"], two["ntk"], rtol=1e-11, atol=1e-13)


def test_integers_and_lists_are_data(limits):
    rows = [[1, 2], [3, -1]]
    one, two = limits[relu_net].kernel(rows), limits[relu_net].kernel(np.array(rows, float))
    np.testing.assert_array_equal(one["ntk"], two["ntk"])


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda k: k([1.0, 2.0]), r"expected x1 of shape \(samples, features\), got float64 of shape \(2,\)"),
        (lambda k: k(np.zeros((0, 3))), "got float64 of shape"),
        (lambda k: k([["a"]]), r"expected x1 of shape"),
        (lambda k: k([[1.0, np.nan]]), "expected finite numbers in x1"),
        (lambda k: k([[1.0, 2.0]], [[1.0]]), "as many features, got 2 and 1"),
        (lambda k: k([[1.0, 2.0]], dtype="float16"), "expected a dtype among float32, float64, got 'float16'"),
        (lambda k: k([[1.0, 2.0]], backend="abacus"), "expected a backend among"),
        (lambda k: k([[1.0, 2.0]], only="ntkk"), "has the kernels nngp, ntk, got 'ntkk'"),
        (lambda k: k([[1.0, 2.0]], out={"ntk": np.zeros((2, 2))}), r"expected out\['ntk'\] of shape \(1, 1\), float64"),
        (lambda k: k([[1.0], [2.0]], out={"ntk": np.zeros((2, 2), order="F")}), "contiguous rows"),
        (lambda k: k([[1.0]], out={"ntkk": np.zeros((1, 1))}), "out has 'ntkk'"),
    ],
)
def test_wrong_calls_are_told(limits, call, told):
    with pytest.raises(UsageError, match=told):
        call(limits[relu_net].kernel)


def test_data_that_the_network_scales_is_not_copied():
    def network(x):
        return tpc.readout(tpc.relu(tpc.dense(3 * x, "embed")), 2)

    limit = tpc.compile(tpc.trace(network), limit="ntk")
    lowered = limit.kernel_function().lowered
    assert all(t.axes in ((), lowered.points.inputs[0].axes[:1]) for _, t in lowered.points.outputs)
    x = data(9)
    plain = tpc.compile(tpc.trace(lambda x: tpc.readout(tpc.relu(tpc.dense(x, "embed")), 2)), limit="ntk").kernel(3 * x)
    np.testing.assert_allclose(limit.kernel(x)["ntk"], plain["ntk"], rtol=1e-12, atol=1e-15)


def test_a_failure_in_one_thread_stops_the_others(limits):
    def fail(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        limits[relu_net].kernel(data(300), progress=fail)


@settings(max_examples=8)
@given(networks())
def test_random_networks(source):
    """Symmetric, positive semidefinite, equal at repeated samples, and the same in C as in NumPy."""
    limit = tpc.compile(traced(source), limit="ntk")
    x = data(12, 4)
    found, native = limit.kernel(x), limit.kernel(x, backend="native")
    for kind, kernel in found.items():
        scale = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel))) + 1e-300
        assert np.linalg.eigvalsh(kernel / scale).min() > -1e-9
        np.testing.assert_allclose(kernel[3], kernel[0], rtol=1e-12, atol=1e-13 * scale.max())
        np.testing.assert_allclose(native[kind] / scale, kernel / scale, rtol=1e-11, atol=1e-12)
