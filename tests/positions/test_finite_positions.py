"""Networks with positions at finite width: values against loops over places, gradients against differences, files."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tpc
from tpc.runtime.networks.network import Network

WIDTH, N, CLASSES = 6, 3, 2
SHAPE = (5, 6, 2)


def images(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(size=(N, *shape))


# --- against loops ---------------------------------------------------------------------------------------------------


def places(n, size, stride, dilation, padding):
    """(number of places, for each and offset the place it sees or None)."""
    reach = dilation * (size - 1) + 1
    if padding == "valid":
        count, pad = (n - reach) // stride + 1, 0
    else:
        count = -(-n // stride)
        pad = (reach - 1) // 2 if padding == "circular" else max(0, (count - 1) * stride + reach - n) // 2
    seen = [[stride * p + dilation * o - pad for o in range(size)] for p in range(count)]
    inside = lambda q: q % n if padding == "circular" else q if 0 <= q < n else None  # noqa: E731
    return count, [[inside(q) for q in row] for row in seen]


def plain_conv(x, apply, size, stride, dilation, padding):
    """Σ_o W[o] x[place that o sees], for x (N, height, width, …) and apply(o1, o2, values)."""
    rows, above = places(x.shape[1], size[0], stride[0], dilation, padding)
    columns, beside = places(x.shape[2], size[1], stride[1], dilation, padding)
    made = np.zeros((len(x), rows, columns, WIDTH))
    for i, j, a, b in itertools.product(range(rows), range(columns), range(size[0]), range(size[1])):
        p, q = above[i][a], beside[j][b]
        if p is not None and q is not None:
            made[:, i, j] += apply(a, b, x[:, p, q])
    return made


CONVOLUTIONS = {
    "same": ((3, 3), (1, 1), 1, "same"),
    "strides": ((3, 2), (2, 3), 1, "same"),
    "valid": ((2, 3), (1, 2), 1, "valid"),
    "circular": ((3, 3), (2, 1), 1, "circular"),
    "dilated": ((3, 2), (1, 1), 2, "same"),
    "a row": ((1, 3), (1, 1), 1, "same"),
    "one place": ((1, 1), (1, 1), 1, "same"),
    "every other": ((1, 1), (2, 2), 1, "same"),
}


@pytest.mark.parametrize("given", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("flat", [True, False])
def test_a_network_is_what_loops_say(given, flat):
    size, stride, dilation, padding = given

    def network(x: tpc.Image[SHAPE]):
        h = tpc.conv(x, "first", size, stride, padding, dilation=dilation)
        g = tpc.conv(tpc.tanh(h), "second", size, padding="same")
        if flat:
            return tpc.readout(tpc.tanh(g), CLASSES, over=("height", "width"))
        return tpc.readout(tpc.mean(tpc.tanh(g), ("height", "width")), CLASSES)

    net = tpc.finite(tpc.trace(network), WIDTH, dtype="float64", seed=2)
    state, x = net.state(), images()
    u = state["first"].reshape(*size, SHAPE[2], WIDTH)
    w = state["second"].reshape(*size, WIDTH, WIDTH)
    h = plain_conv(x, lambda a, b, v: v @ u[a, b], size, stride, dilation, padding)
    g = plain_conv(np.tanh(h), lambda a, b, v: v @ w[a, b].T, size, (1, 1), 1, "same") / np.sqrt(np.prod(size))
    if flat:
        v = state["readout"].reshape(*g.shape[1:3], CLASSES, WIDTH)
        wanted = np.einsum("sijn,ijcn->sc", np.tanh(g), v) / np.sqrt(g.shape[1] * g.shape[2])
    else:
        wanted = np.tanh(g).mean((1, 2)) @ state["readout"].T
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(net.predict(x.reshape(N, -1)), wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("data", [True, False])
def test_pools_average_windows(data):
    def network(x: tpc.Image[4, 6, 2]):
        x = tpc.avg_pool(x, 2) if data else x
        h = tpc.dense(x, "embed")
        return tpc.readout(tpc.tanh(h if data else tpc.avg_pool(h, 2)), CLASSES, over=("height", "width"))

    net = tpc.finite(tpc.trace(network), WIDTH, dtype="float64", seed=2)
    state, x = net.state(), images(shape=(4, 6, 2))
    means = x.reshape(N, 2, 2, 3, 2, 2).mean((2, 4))
    wanted = np.einsum("sijn,ijcn->sc", np.tanh(means @ state["embed"]), state["readout"]) / np.sqrt(6)
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-11)


def test_positions_are_learned():
    def network(x: tpc.Sequence[5, 2]):
        h = tpc.dense(x, "embed") + tpc.bias("embed", std=1.0, axes="time")
        return tpc.readout(tpc.mean(tpc.tanh(h), "time"), CLASSES)

    net = tpc.finite(tpc.trace(network), 1000, dtype="float64", seed=2)
    state, x = net.state(), images(shape=(5, 2))
    assert state["embed.bias"].shape == (5, 1000)
    assert np.std(state["embed.bias"]) == pytest.approx(1, rel=0.05)
    wanted = np.tanh(x @ state["embed"] + state["embed.bias"]).mean(1) @ state["readout"].T
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-11)


def test_averages_commute_with_latents():
    def early(x: tpc.Sequence[8, 2]):
        h = tpc.conv(tpc.tanh(tpc.conv(x, "first")), "second")
        return tpc.readout(tpc.tanh(tpc.avg_pool(h, 2, padding="same")), CLASSES, over="time")

    def late(x: tpc.Sequence[8, 2]):
        h = tpc.conv(tpc.tanh(tpc.conv(x, "first")), "second")
        moved = tpc.avg_pool(h, 2, stride=1)
        return tpc.readout(tpc.tanh(tpc.avg_pool(moved, 1, stride=2)), CLASSES, over="time")

    x = images(shape=(8, 2))
    one, other = (tpc.finite(tpc.trace(f), WIDTH, dtype="float64", seed=4).predict(x) for f in (early, late))
    np.testing.assert_allclose(one, other, rtol=1e-11)


# --- gradients and files ---------------------------------------------------------------------------------------------


def deep(x: tpc.Image[SHAPE]):
    """Strides, a residual, pooling after the nonlinearity, every padding, biases."""
    h = tpc.conv(x, "first", 3, 2) + tpc.bias("first", std=0.5)
    h = h + 0.5 * tpc.conv(tpc.tanh(h), "block", 3, padding="circular")
    g = tpc.conv(tpc.avg_pool(tpc.erf(h), 2, 1), "second", (2, 1), padding="valid")
    return tpc.readout(tpc.tanh(g), CLASSES, over=("width", "height")) + tpc.bias("readout", std=0.5)


@pytest.mark.parametrize("parametrization", ["mup", "ntk", "standard"])
def test_gradients_are_those_of_differences(parametrization):
    net = tpc.finite(tpc.trace(deep), WIDTH, dtype="float64", seed=3, parametrization=parametrization)
    start, x, y = net.state(), images(5), np.array([0, 1, 1])

    def loss(state):
        net.load_state(state)
        f = net.predict(x)
        return np.mean(np.log(np.exp(f).sum(1)) - f[np.arange(N), y])

    metrics = net.step(x, y, lr=1e-3, clip=1e9)
    moved = net.state()
    assert metrics["loss"] == pytest.approx(loss(start))
    rng = np.random.default_rng(1)
    for name, value in start.items():
        direction = rng.normal(size=value.shape)
        slope = (
            loss({**start, name: value + 1e-5 * direction}) - loss({**start, name: value - 1e-5 * direction})
        ) / 2e-5
        gradient = (value - moved[name]) / (1e-3 * net.scales[name].rate)
        assert slope == pytest.approx((gradient * direction).sum(), rel=1e-6, abs=1e-9)
        norm = net.scales[name].norm * np.linalg.norm(gradient)
        assert metrics["grad_norm"][name] == pytest.approx(norm, rel=1e-6)


def test_a_network_is_saved_with_its_shape(tmp_path):
    net = tpc.finite(tpc.trace(deep), WIDTH, seed=3)
    x, y = images(5), np.array([0, 1, 1])
    net.step(x, y, lr=0.1, momentum=0.9)
    net.save(tmp_path / "net.npz")
    again = Network.load(tmp_path / "net.npz")
    assert again.input_shape == SHAPE
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    again.step(x, y, lr=0.1, momentum=0.9)
    net.step(x, y, lr=0.1, momentum=0.9)
    np.testing.assert_array_equal(again.predict(x), net.predict(x))


def test_the_program_of_this_project_learns(programs_dir):
    for readout in ("flatten", "mean"):
        net = tpc.finite(tpc.load(programs_dir / "cnn.py", readout=readout, classes=CLASSES), 32, seed=1)
        x = np.random.default_rng(0).normal(size=(8, 8, 8, 1))
        y = np.arange(8) % CLASSES
        losses = [net.step(x, y, lr=1.0, clip=1.0)["loss"] for _ in range(40)]
        assert losses[-1] < 0.8 * losses[0]
