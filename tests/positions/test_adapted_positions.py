"""Networks with positions adapt as plain ones learn: at finite width, and as limits."""

from __future__ import annotations

import numpy as np

import tpc
from tests.support.adapted import expected_logits, queried, support
from tests.support.problems import CLASSES, DIM, generic_state
from tpc.runtime.models.representation import gram


def plain(x: tpc.Sequence[DIM, 1]):
    h = tpc.conv(x, "first", 3) + 0.5 * tpc.bias("first", axes="time", std=0.3)
    h = tpc.conv(tpc.gelu(h), "second", 2, 2) + 0.5 * tpc.bias("second")
    return tpc.readout(tpc.gelu(h), CLASSES, over="time") + tpc.bias("readout")


def adapting(x: tpc.Sequence[DIM, 1]):
    return tpc.adapt(plain(x), steps=2, step_size=0.25, layers="all")


def test_finite_networks_answer_as_those_that_learned_the_support():
    nets = [tpc.finite(tpc.trace(f), 12, dtype="float64", seed=1) for f in (plain, adapting)]
    state, s, (x, y) = nets[0].state(), support(), queried()
    nets[1].load_state(state)

    def start():
        nets[0].load_state(state)
        return nets[0]

    expected = expected_logits(start, s, x, "all", 2, 0.25)
    np.testing.assert_allclose(nets[1].predict(x, support=s), expected, rtol=1e-9, atol=1e-10)
    assert np.abs(expected - start().predict(x)).max() > 1e-3
    losses = [nets[1].step(x, y, lr=0.1, support=s)["loss"] for _ in range(6)]
    assert losses[-1] < losses[0]


def test_limits_answer_as_those_that_learned_the_support():
    models = [tpc.compile(tpc.trace(f)).build(rank=4, dtype="float64", seed=1) for f in (plain, adapting)]
    state, s, (x, _) = generic_state(models[0]), support(), queried()
    models[1].load_state({name: state.get(name, value[:0]) for name, value in models[1].state().items()})

    def start():
        models[0].load_state(state)
        return models[0]

    expected = expected_logits(start, s, x, "all", 2, 0.25)
    np.testing.assert_allclose(models[1].predict(x, support=s), expected, rtol=1e-9, atol=1e-10)
    assert np.abs(expected - start().predict(x)).max() > 1e-3


def test_a_representation_has_positions():
    model = tpc.compile(tpc.trace(plain)).build(rank=4, dtype="float64", seed=1)
    x, _ = queried()
    made = gram(model, x)
    assert made.shape == (len(x), len(x))
    np.testing.assert_allclose(made, made.T, rtol=1e-10)
    assert np.linalg.eigvalsh(made).min() > 0
