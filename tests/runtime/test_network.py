"""Finite networks of any program: gradients, parametrizations over widths, adaptation, files."""

import numpy as np
import pytest

import tpc
from tests.support.adapted import expected_logits, mlp, network, queried, support
from tests.support.problems import CLASSES, DIM, batch
from tpc.data import load
from tpc.errors import DataError, UsageError
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.networks.library import Library, library
from tpc.runtime.networks.network_file import is_network
from tpc.runtime.networks.parametrization import ABC, PARAMETRIZATIONS, stability
from tpc.runtime.trained import load_trained
from tpc.runtime.training.evaluation import mean_loss

WIDTH, RANK = 16, 4


def smooth_residual(x):
    h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed", 0.3)
    for _ in range(2):  # the same matrix twice
        h = h + tpc.dense(tpc.gelu(tpc.rms_norm(h)), name="block") + tpc.bias("block", 0.2)
    return tpc.readout(tpc.erf(h), CLASSES) + tpc.bias("readout", 0.1)


def gated(x):
    h = tpc.dense(x, name="embed")
    a, b = tpc.dense(tpc.erf(h), name="a", space="q"), tpc.dense(tpc.sin(h) + 0.5 * h, name="b", space="q")
    s = tpc.moment(a, b)
    f = tpc.readout(tpc.tanh(a) * b, CLASSES)
    return tpc.log_softmax(f * (1 + s**2) ** -0.5, "class") + tpc.bias("readout", 0.2)


def made(program, parametrization="mup", width=WIDTH, **options):
    rank = RANK if parametrization == "pi" else None
    options = {"dtype": "float64", "seed": 1, **options}
    return tpc.finite(program, width, DIM, parametrization=parametrization, rank=rank, **options)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("parametrization", ABC)
@pytest.mark.parametrize("program", [smooth_residual, gated])
def test_a_step_goes_along_the_gradient(program, parametrization, loss):
    """ΔW = −lr·rate·∂L/∂W, by central differences of the loss of the predictions."""
    net = made(tpc.trace(program), parametrization)
    start, rng = net.state(), np.random.default_rng(0)
    x, _ = batch()
    y = rng.integers(0, CLASSES, len(x))

    def loss_at(name, index, eps):
        moved = {**start, name: start[name].copy()}
        moved[name][index] += eps
        net.load_state(moved)
        return mean_loss(net.predict(x), y, loss)

    assert net.step(x, y, lr=1e-3, loss=loss)["loss"] == pytest.approx(mean_loss(made_logits(net, start, x), y, loss))
    net.load_state(start)
    net.step(x, y, lr=1e-3, loss=loss)
    change = {name: value - start[name] for name, value in net.state().items()}
    for name, value in start.items():
        eps = 1e-5 * max(1e-3, value.std())
        for index in [tuple(rng.integers(0, size) for size in value.shape) for _ in range(3)]:
            slope = (loss_at(name, index, eps) - loss_at(name, index, -eps)) / (2 * eps)
            expected = -1e-3 * net.scales[name].rate * slope
            assert change[name][index] == pytest.approx(expected, rel=1e-4, abs=1e-11), (name, index)


def made_logits(net, state, x):
    net.load_state(state)
    return net.predict(x)


def test_the_table_is_stable_and_tells_feature_learning_from_kernels():
    found = {name: stability(name) for name in ABC}
    assert all(stable and nontrivial for _, stable, nontrivial in found.values())
    assert found["mup"][0] == 0
    assert found["ntk"][0] == found["standard"][0] == 0.5


def tanh_mlp(x):
    h = tpc.dense(x, name="embed")
    return tpc.readout(tpc.tanh(tpc.dense(tpc.tanh(h), name="hidden")), CLASSES)


WIDTHS = (64, 128, 256, 512, 1024)


def moved(parametrization, width, seed):
    """How far a few steps move the hidden features of a sample, per neuron, and the logits."""
    net = tpc.finite(tpc.trace(tanh_mlp), width, DIM, parametrization=parametrization, seed=seed)
    x, y = batch(seed, 8)

    def hidden():
        w = net.state()
        return np.tanh(np.tanh(x @ w["embed"]) @ w["hidden"].T), net.predict(x)

    before = hidden()
    for _ in range(5):
        net.step(x, y, lr=0.5)
    return [np.sqrt(np.mean((b - a) ** 2)) for a, b in zip(before, hidden())]


@pytest.mark.parametrize(("parametrization", "features"), [("mup", 0.0), ("ntk", -0.5), ("standard", -0.5)])
def test_features_move_over_widths_as_the_parametrization_says(parametrization, features):
    """Logits by Θ(1) in all; features by Θ(n^(-s)) with the s of the table: 0 for μP, ½ in the kernel regime."""
    changes = np.log([np.mean([moved(parametrization, n, seed) for seed in range(3)], axis=0) for n in WIDTHS])
    slopes = np.polyfit(np.log(WIDTHS), changes, 1)[0]
    assert slopes[0] == pytest.approx(features, abs=0.15)
    assert slopes[1] == pytest.approx(0.0, abs=0.15)
    assert -stability(parametrization)[0] == features


def test_a_projected_network_of_width_2048_trains_like_its_limit():
    """On digits, from the same initial state: after 24 steps the logits differ by the n^(-1/2) of `tpc check`."""
    digits = load("digits", dtype=np.float32)
    limit = tpc.compile(tpc.load("programs/mlp.py"))
    model = limit.build(digits.input_dim, 16, seed=2, init="paper")
    net = tpc.finite(limit, 2048, digits.input_dim, parametrization="pi", rank=16, seed=2, init="paper")
    for k in range(24):
        rows = slice(16 * k, 16 * k + 16)
        for trained in (model, net):
            trained.step(digits.train_x[rows], digits.train_y[rows], lr=1.0, momentum=0.5, clip=0.4, weight_decay=1e-3)
    expected, found = model.predict(digits.test_x), net.predict(digits.test_x)
    assert expected.std() > 0.5
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.2 * expected.std()
    right = [(f.argmax(axis=1) == digits.test_y).mean() for f in (expected, found)]
    assert min(right) > 0.2  # of ten classes
    assert abs(right[0] - right[1]) < 0.1


@pytest.mark.parametrize(
    ("parametrization", "layers"), [("mup", "all"), ("pi", "all"), ("ntk", "readout"), ("standard", "readout")]
)
def test_adapted_networks_answer_as_plain_ones_that_learned_the_support(parametrization, layers):
    lines, names, size = mlp("tpc.gelu"), "all", 0.25
    if layers == "readout":
        names, size = (layers,), 4.0
    plain = made(network(lines), parametrization, init="paper" if parametrization == "pi" else None)
    adapting = made(network(lines, f"steps=2, step_size={size}, layers={layers!r}"), parametrization)
    state = plain.state()
    adapting.load_state(state)

    def start():
        plain.load_state(state)
        return plain

    s, (x, y) = support(), queried()
    expected = expected_logits(start, s, x, names, 2, size)
    np.testing.assert_allclose(adapting.predict(x, support=s), expected, rtol=1e-9, atol=1e-10)
    assert np.abs(expected - start().predict(x)).max() > 1e-3
    losses = [adapting.step(x, y, lr=0.1, support=s)["loss"] for _ in range(8)]
    assert losses[-1] < losses[0]


def test_only_readouts_adapt_where_inner_steps_would_need_another_scale():
    program = network(mlp("tpc.gelu"), "layers='all'")
    for parametrization in ("ntk", "standard"):
        with pytest.raises(UsageError, match=f"in {parametrization} only readouts can adapt"):
            made(program, parametrization)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_a_saved_network_goes_on_bit_for_bit(parametrization, tmp_path):
    net = made(tpc.trace(gated), parametrization, dtype="float32", width=20)
    options = {"lr": 0.2, "momentum": 0.6, "clip": 0.5}
    for k in range(2):
        net.step(*batch(k), **options)
    net.save(tmp_path / "net.npz")
    again = tpc.Network.load(tmp_path / "net.npz")
    assert again.program == net.program
    for k in range(2, 4):
        assert net.step(*batch(k), **options) == again.step(*batch(k), **options)
    for name, value in net.state().items():
        assert value.tobytes() == again.state()[name].tobytes(), name
    assert is_network(tmp_path / "net.npz")
    assert isinstance(load_trained(tmp_path / "net.npz"), tpc.Network)


def test_files_that_hold_no_network_are_told(tmp_path):
    with pytest.raises(DataError, match="found none"):
        tpc.Network.load(tmp_path / "none.npz")
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(DataError, match="not a complete saved network"):
        tpc.Network.load(tmp_path / "half.npz")
    model = tpc.compile(tpc.trace(tanh_mlp)).build(DIM, RANK)
    model.save(tmp_path / "model.npz")
    with pytest.raises(DataError, match="not a complete saved network"):
        tpc.Network.load(tmp_path / "model.npz")
    assert isinstance(load_trained(tmp_path / "model.npz"), tpc.Model)


def test_a_step_that_is_not_finite_leaves_the_weights_alone():
    net = made(tpc.trace(lambda x: tpc.readout(tpc.exp(tpc.dense(x, name="embed", weight_std=1e3)), CLASSES)))
    before = net.state()
    x, y = batch()
    with pytest.raises(DivergedError, match="the step was not taken"):
        net.step(x, y, lr=0.1)
    for name, value in net.state().items():
        np.testing.assert_array_equal(value, before[name])


def test_arrays_of_another_library_give_the_same_network():
    """The code path of a device: products and updates by the functions of its namespace alone."""
    numpy = library()
    other = Library("numpy", np, numpy.special, numpy.to_numpy)
    nets = [made(tpc.trace(smooth_residual), width=800, dtype="float32") for _ in range(2)]  # wide enough to be shared
    nets[1].arrays = other
    for k in range(3):
        for net in nets:
            net.step(*batch(k), lr=0.3, momentum=0.5, weight_decay=0.01)
    x, _ = batch(5)
    np.testing.assert_allclose(nets[0].predict(x), nets[1].predict(x), rtol=1e-4, atol=1e-5)


def test_wrong_arguments_are_told():
    program = tpc.trace(gated)
    for options, message in (
        ({"parametrization": "sp"}, "expected parametrization among mup, ntk, standard, pi, got 'sp'"),
        ({"parametrization": "pi"}, "expected a rank with parametrization 'pi' and with no other"),
        ({"rank": 3}, "expected a rank with parametrization 'pi' and with no other, got 'mup' and 3"),
        ({"parametrization": "pi", "rank": 17}, "width of at least the rank 17, got 16"),
        ({"init": "paper"}, "expected init among random, zero_readout with mup, got 'paper'"),
        ({"dtype": "float16"}, "expected dtype among float32, float64"),
        ({"backend": "native"}, "finite networks run on the backends numpy and cupy, got 'native'"),
        ({"seed": -1}, "expected a seed ≥ 0"),
    ):
        with pytest.raises(UsageError, match=message):
            tpc.finite(program, WIDTH, DIM, **options)
    with pytest.raises(UsageError, match="width to be a positive whole number, got 0"):
        tpc.finite(program, 0, DIM)
    net = made(program)
    x, y = batch()
    with pytest.raises(UsageError, match=r"weight in lr_mult called 'embd'.*Did you mean 'embed'"):
        net.step(x, y, lr=0.1, lr_mult={"embd": 1.0})
    with pytest.raises(UsageError, match=r"expected inputs of shape \(N, 5\), got \(4, 6\)"):
        net.predict(np.ones((4, 6)))
    with pytest.raises(UsageError, match="missing: b"):
        net.load_state({name: value for name, value in net.state().items() if name != "b"})
    with pytest.raises(UsageError, match="does not adapt and takes no support"):
        net.predict(x, support=support())
