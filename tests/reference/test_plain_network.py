"""Finite networks of every parametrization against a perceptron written by hand."""

import numpy as np
import pytest

import tpc
from tests.support.problems import batch

from .plain_network import BIAS, BIAS_STD, OUT, WEIGHT_STD, PlainNetwork

DIM, CLASSES, WIDTH, RANK = 5, 3, 24, 4
PARAMETRIZATIONS = ("mup", "ntk", "standard", "pi")


def mlp(x):
    h = tpc.dense(x, "embed", WEIGHT_STD["embed"]) + BIAS["embed.bias"] * tpc.bias("embed", BIAS_STD)
    h = tpc.dense(tpc.relu(h), "hidden", WEIGHT_STD["hidden"]) + BIAS["hidden.bias"] * tpc.bias("hidden", BIAS_STD)
    f = tpc.readout(tpc.relu(h), CLASSES, "readout", WEIGHT_STD["readout"])
    return OUT * (f + tpc.bias("readout", BIAS_STD))


def network(parametrization, dtype="float64", init=None, **options):
    rank = RANK if parametrization == "pi" else None
    if init is None:
        init = "paper" if parametrization == "pi" else "random"
    return tpc.finite(
        tpc.trace(mlp), WIDTH, DIM, parametrization=parametrization, rank=rank, dtype=dtype, init=init, **options
    )


def plain(net):
    state = {name: value for name, value in net.state().items() if not name.startswith("basis.")}
    return PlainNetwork(state, WIDTH, DIM, "mup" if net.parametrization == "pi" else net.parametrization)


def projections(net):
    """What each weight's output space is projected to."""
    if net.parametrization != "pi":
        return None
    state = net.state()
    spaces = {"embed": "embed", "embed.bias": "embed", "hidden": "hidden", "hidden.bias": "hidden"}
    return {name: state[f"basis.{space}"] for name, space in spaces.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr_mult": {"embed": 0.3, "readout": 4.0}, "weight_decay": 0.05, "momentum": 0.7},
        {"clip": 0.1, "clip_mode": "param", "momentum": 0.5},
        {"clip": 0.1, "clip_mode": "global"},
    ],
    ids=["plain", "momentum", "clip", "global-clip"],
)
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_steps_are_those_of_a_perceptron_written_by_hand(parametrization, options):
    net = network(parametrization)
    hand = plain(net)
    settings = {"lr_mult": {}, "weight_decay": 0.0, "momentum": 0.0, "clip": None, "clip_mode": "param"} | options
    test, _ = batch(9)
    bases = projections(net)
    before = net.predict(test)
    for k in range(4):
        x, y = batch(k)
        np.testing.assert_allclose(net.predict(test), hand.forward(test)[-1], rtol=1e-9, atol=1e-12)
        assert net.step(x, y, lr=0.3, **settings)["loss"] == pytest.approx(
            hand.step(x, y, 0.3, **settings, projections=bases), rel=1e-9
        )
    for name, value in hand.effective.items():
        np.testing.assert_allclose(net.state()[name], value, rtol=1e-8, atol=1e-11, err_msg=name)
    assert np.abs(net.predict(test) - before).max() > 1e-3


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_single_precision_follows_double_precision(parametrization):
    double, single = network(parametrization), network(parametrization, "float32")
    test, _ = batch(9)
    for k in range(4):
        x, y = batch(k)
        for net in (double, single):
            net.step(x, y, lr=0.3, momentum=0.5, clip=0.5)
    assert {value.dtype for value in single.state().values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(single.predict(test), double.predict(test), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_norms_are_those_of_the_trained_entries(parametrization):
    net = network(parametrization)
    x, y = batch()
    _, grads = plain(net).gradients(x, y)
    bases = projections(net)
    if bases:
        grads |= {
            name: (b @ (b.T @ grads[name])) if name == "hidden" else grads[name] @ b @ b.T for name, b in bases.items()
        }
    found = net.step(x, y, lr=0.0, clip=1.0)["grad_norm"]
    assert found == pytest.approx({name: np.linalg.norm(g) for name, g in grads.items()}, rel=1e-9)


def test_initial_entries_have_the_standard_deviations_of_the_table():
    """Of W: σ/√fan-in for input-like and hidden matrices; the readout has 1/√n, with μP 1/n."""
    width = 600
    for parametrization, power in (("mup", 1.0), ("ntk", 0.5), ("standard", 0.5)):
        state = tpc.finite(tpc.trace(mlp), width, 40, parametrization=parametrization, seed=3).state()
        expected = {
            "embed": WEIGHT_STD["embed"] / np.sqrt(40),
            "embed.bias": BIAS_STD,
            "hidden": WEIGHT_STD["hidden"] / np.sqrt(width),
            "hidden.bias": BIAS_STD,
            "readout": WEIGHT_STD["readout"] * width**-power,
        }
        for name, std in expected.items():
            count = state[name].size
            assert state[name].std() == pytest.approx(std, rel=5 / np.sqrt(2 * count)), (parametrization, name)
            assert abs(state[name].mean()) < 5 * std / np.sqrt(count)


def test_the_seed_decides_and_a_readout_can_start_at_zero():
    x, _ = batch()
    for parametrization in PARAMETRIZATIONS:
        one, same, other = (network(parametrization, seed=s).predict(x) for s in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert np.abs(one - other).max() > 1e-3
        zero = network(parametrization, init="zero_readout")
        assert not zero.state()["readout"].any()
        assert zero.state()["hidden"].any()
