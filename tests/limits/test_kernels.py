"""Kernel limits against recursions written out by hand, for a dozen networks and awkward data."""

import numpy as np
import pytest

import tpc
from tests.reference import plain_kernels
from tests.reference.plain_kernels import embedded
from tpc.program.expression import parse_nonlinearity

W, B = 1.3, 0.4


def data():
    x, y = np.random.default_rng(5).standard_normal((2, 6))
    return np.array([x, y, -x, 3 * x - y])


def function(text):
    phi = parse_nonlinearity(text)
    return phi, tpc.nonlin(text)


def dense(phi, depth, std=W, bias=B):
    symbol, apply = function(phi)

    def network(x):
        h = tpc.dense(x, "embed", std) + tpc.bias("embed", bias)
        for k in range(1, depth):
            h = tpc.dense(apply(h), f"hidden{k}", std) + tpc.bias(f"hidden{k}", bias)
        return tpc.readout(apply(h), 3, weight_std=std) + tpc.bias("readout", bias)

    def plain(x):
        h = embedded(x, std, bias)
        for _ in range(depth):
            h = h(symbol).dense(std, bias)
        return h.k, h.theta

    return network, plain


def residual(phi, normalised, blocks=2):
    symbol, apply = function(phi)

    def network(x):
        h = tpc.dense(x, "embed", W)
        for k in range(blocks):
            inner = tpc.rms_norm(h, 0.01) if normalised else h
            h = h + 0.6 * (tpc.dense(apply(inner), f"block{k}", W) + tpc.bias(f"block{k}", B))
        return tpc.readout(apply(tpc.rms_norm(h, 0.01) if normalised else h), 2)

    def plain(x):
        h = embedded(x, W)
        for _ in range(blocks):
            h = h + 0.6 * (h.normalised(0.01) if normalised else h)(symbol).dense(W, B)
        h = (h.normalised(0.01) if normalised else h)(symbol).dense()
        return h.k, h.theta

    return network, plain


def multiplied():
    """Multipliers before and after every layer, as in programs/mlp.py."""
    symbol, apply = function("relu")

    def network(x):
        h = 0.7 * (tpc.dense(x, "embed", W) + 0.5 * tpc.bias("embed", B))
        h = 2 * tpc.dense(-3 * apply(h), "hidden1", W) + 0.5 * tpc.bias("hidden1", B)
        return 0.5 * (tpc.readout(apply(0.1 * h), 2, weight_std=W) + 2 * tpc.bias("readout", B))

    def plain(x):
        h = 0.7 * embedded(x, W, 0.5 * B)
        h = 2 * (-3 * h(symbol)).dense(W, 0.25 * B)
        h = 0.5 * (0.1 * h)(symbol).dense(W, 2 * B)
        return h.k, h.theta

    return network, plain


def gated():
    (one, first), (two, second) = function("erf"), function("relu")

    def network(x):
        h = tpc.dense(x, "embed", W) + tpc.bias("embed", B)
        gate, value = tpc.dense(first(h), "gate", W), tpc.dense(second(h), "value") + tpc.bias("value", B)
        return tpc.readout(tpc.dense(first(gate) * value, "out"), 2, weight_std=W)

    def plain(x):
        h = embedded(x, W, B)
        # gate and value are independent, but the tangent kernel of what they share passes through both
        gate, value = h(one).dense(W), h(two).dense(1.0, B)
        h = gate(one).times(value).dense().dense(W)
        return h.k, h.theta

    return network, plain


def recurrent(phi):
    symbol, apply = function(phi)

    def network(x):
        h = tpc.dense(x, "embed", W, space="state")
        for _ in range(3):
            h = 0.8 * h + tpc.dense(apply(h), "step", 1.1, space="state") + tpc.bias("step", B)
        return tpc.readout(apply(h), 2, weight_std=1.2)

    return network, lambda x: plain_kernels.recurrent(x, symbol, 3, 0.8, W, 1.1, B, 1.2)


def averaged():
    """A moment as a multiplier of a hidden layer and of the output."""
    symbol, apply = function("relu")

    def network(x):
        h = tpc.dense(x, "embed", W)
        h = tpc.dense(apply(h) * tpc.moment(apply(h)), "hidden1")
        return tpc.moment(h, h) * tpc.readout(apply(h), 2)

    def plain(x):
        h = embedded(x, W)
        mean = np.sqrt(np.diag(h.k) / (2 * np.pi))
        h = h(symbol)
        h = plain_kernels.Layer(h.k * np.outer(mean, mean), h.theta * np.outer(mean, mean)).dense()
        size = np.outer(np.diag(h.k), np.diag(h.k))
        h = h(symbol).dense()
        return size * h.k, size * h.theta

    return network, plain


NETWORKS = {
    "relu, depth 1": dense("relu", 1),
    "relu, depth 2, no bias": dense("relu", 2, 1.4, 0.0),
    "relu, depth 4": dense("relu", 4),
    "erf, depth 2": dense("erf", 2),
    "gelu, depth 3": dense("gelu", 3),
    "tanh, depth 2": dense("tanh", 2, 1.1, 0.3),
    "sin, depth 2": dense("sin", 2),
    "abs, depth 2": dense("abs", 2),
    "leaky relu, depth 3": dense("leaky_relu(x, 0.2)", 3),
    "x·erf(x) + relu(x), depth 1": dense("x*erf(x) + relu(x)", 1),
    "identity, depth 2": dense("identity", 2),
    "residual relu": residual("relu", normalised=False),
    "residual relu, normalised": residual("relu", normalised=True),
    "residual erf, normalised": residual("erf", normalised=True),
    "multipliers": multiplied(),
    "gate": gated(),
    "shared weights, erf": recurrent("erf"),
    "shared weights, relu": recurrent("relu"),
    "moments": averaged(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_against_recursions_written_out(name):
    network, plain = NETWORKS[name]
    limit, x = tpc.compile(tpc.trace(network), limit="ntk"), data()
    found, diagonal = limit.kernel(x), limit.kernel_diagonal(x)
    for got, again, kernel, wanted in zip(
        found.values(), limit.kernel(x[:3], x[1:]).values(), diagonal.values(), plain(x), strict=True
    ):
        scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
        np.testing.assert_allclose(got / scale, wanted / scale, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(again / scale[:3, 1:], wanted[:3, 1:] / scale[:3, 1:], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(kernel, np.diag(wanted), rtol=1e-9)
    nngp = tpc.compile(limit.program, limit="nngp").kernel(x)
    np.testing.assert_array_equal(nngp["nngp"], found["nngp"])


@pytest.mark.parametrize(
    "name", ["relu, depth 2, no bias", "relu, depth 4", "abs, depth 2", "residual relu, normalised"]
)
def test_equal_opposite_and_zero_samples(name):
    """Equal samples have the kernel of one, to the last digits: no angle comes out of rounding errors."""
    network, plain = NETWORKS[name]
    limit = tpc.compile(tpc.trace(network), limit="ntk")
    x, y = np.random.default_rng(8).standard_normal((2, 300))
    rows = np.array([x, y, x, -x, 0 * x, 2.0**-13 * x, 2.0**20 * y, x + 1e-5 * y])
    wanted = dict(zip(("nngp", "ntk"), plain(rows[[0, 3, 4, 5, 6, 7]]), strict=True))
    for kind, kernel in limit.kernel(rows).items():
        for other in (kernel, limit.kernel(rows, rows)[kind]):
            scale = np.sqrt(np.outer(np.diag(other), np.diag(other))) + 1e-300
            assert np.isfinite(other).all()
            np.testing.assert_allclose(other[0, 2], other[0, 0], rtol=1e-14)
            np.testing.assert_allclose(other[2], other[0], rtol=1e-13, atol=1e-14)
            picked = np.ix_([0, 3, 4, 5, 6, 7], [0, 3, 4, 5, 6, 7])
            np.testing.assert_allclose(
                other[picked] / scale[picked], wanted[kind] / scale[picked], rtol=1e-9, atol=1e-10
            )


def test_only_the_std_of_a_bias_counts_and_not_its_size():
    """A bias that starts at zero is σ·β with σ = 0 in NTK parametrization, so training leaves it where it is."""
    x = data()

    def network(x, std, scale):
        h = tpc.dense(x, "embed") + scale * tpc.bias("embed", std)
        return tpc.readout(tpc.relu(h), 2)

    kernels = [tpc.compile(tpc.trace(network, std=s, scale=c), limit="ntk").kernel(x) for s, c in ((0, 3), (0, 0.1))]
    np.testing.assert_array_equal(kernels[0]["ntk"], kernels[1]["ntk"])
    a, b = (tpc.compile(tpc.trace(network, std=s, scale=c), limit="ntk").kernel(x) for s, c in ((0.5, 2), (1, 1)))
    np.testing.assert_allclose(a["ntk"], b["ntk"], rtol=1e-14)
