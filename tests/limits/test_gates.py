"""Gates with kinks where samples repeat: atoms that are, nearly are, or are opposite to the latents they meet."""

from __future__ import annotations

import numpy as np
import pytest

import tpc
from tests.support.problems import CLASSES, DIM, assert_gradients, batch
from tests.support.repeated import DISTANCES, GATES, coinciding, gated, gradients, limit_of
from tpc.gaussian import expectation
from tpc.limits.nodes import Expectation
from tpc.lower.lowered import lower
from tpc.program.functions import argument
from tpc.runtime.models.folding import FoldOptions
from tpc.tasks.check import run_check

QUICK = {"widths": (128, 256, 512, 1024, 2048), "seeds": 12, "steps": 3}
PLACES = [("a", (0, 0)), ("a", (3, 2)), ("b", (1, 1))]


@pytest.mark.parametrize("gate", GATES)
def test_nothing_is_infinite_and_nothing_is_warned_of(gate):
    assert limit_of(gate).warnings == ()


def test_tables_serve_gates_of_higher_degree():
    limit = tpc.compile(gated("tpc.tanh(a) * b**2"))
    (first, *_) = (n for n in limit.graph().nodes if isinstance(n, Expectation))
    found = expectation(first.fn, [argument(i) for i in range(first.size)])
    assert found.value is None
    assert not found.given
    assert lower(limit.graph()).gradients.outputs


@pytest.mark.parametrize("gate", GATES)
def test_gradients_are_differences_at_near_and_away_from_equal_latents(gate, monkeypatch):
    for distance in DISTANCES:
        model, x, y = coinciding(limit_of(gate), distance)
        monkeypatch.setattr("tests.support.problems.batch", lambda given=(x, y): given)
        assert_gradients(model, PLACES, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("gate", ["relu", "abs", "squared", "sums"])
def test_single_precision_is_good_at_equal_latents_too(gate):
    """Gates of higher degree have sums that cancel, and angles below the rounding of correlations in higher powers."""
    tolerance = 1e-4 if gate in ("squared", "sums") else 3e-6
    limit = limit_of(gate)
    for distance in DISTANCES:
        exact, x, y = coinciding(limit, distance)
        wanted = gradients(exact, x, y)
        model, *_ = coinciding(limit, distance, dtype="float32")
        model.load_state(exact.state())
        for name, value in gradients(model, x, y).items():
            np.testing.assert_allclose(value, wanted[name], rtol=0, atol=tolerance * np.abs(wanted[name]).max())


@pytest.mark.parametrize("gate", ["relu", "squared"])
@pytest.mark.parametrize("mode", ["exact", "folded"])
def test_training_on_repeated_samples(gate, mode):
    """The same two samples and their opposites in every step: float32 ends where float64 does."""
    limit = limit_of(gate)
    x, y = batch(count=2)
    x, y = 0.5 * np.concatenate([x, x, -x]), np.concatenate([y, y, y[::-1]])
    losses = []
    for dtype in ("float64", "float32"):
        options = {"mode": mode, "fold": FoldOptions(degree=4, window=8)} if mode == "folded" else {}
        model = limit.build(DIM, 8, dtype=dtype, init="paper", **options)
        model.load_state({k: 3 * v if k == "readout.A" else v for k, v in model.state().items()})
        losses.append([model.step(x, y, lr=0.02, momentum=0.0)["loss"] for _ in range(25)])
    assert np.isfinite(losses).all()
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-4)


@pytest.mark.parametrize("gate", ["relu", "leaky relu", "abs"])
def test_finite_networks_converge_to_it_on_repeated_samples(gate):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((4, 6)), rng.integers(0, CLASSES, 4)
    once = np.concatenate([x, x, -x, x]), np.concatenate([y, y, (y + 1) % CLASSES, y])
    rows, labels = (np.concatenate([part] * QUICK["steps"] + [part[:8]]) for part in once)
    result = run_check(gated(GATES[gate], "tpc.relu"), x=rows, y=labels, batch=16, **QUICK)
    assert max(m for m in result.moved if m is not None) > 0.05
    assert result.ok, result.table()


def test_kernels_of_correlated_gates_at_repeated_and_opposite_samples():
    """h and k = h/2 + … in one gate: E of steps and both G-vectors, which the plain lemma gives with V[δ,δ] alone."""

    def network(x):
        h = tpc.dense(x, name="a", space="s")
        k = tpc.dense(x, name="b", space="s") + 0.5 * h
        return tpc.readout(tpc.relu(tpc.dense(tpc.relu(h) * k, name="mid")), 2)

    limit = tpc.compile(tpc.trace(network), limit="ntk")
    x = np.random.default_rng(0).standard_normal((4, DIM))
    near = np.concatenate([x, x, -x, x + 1e-9])
    k = limit.kernel(near)["ntk"]
    assert np.isfinite(k).all()
    np.testing.assert_allclose(k[:4, 4:8], k[:4, :4], rtol=1e-12)
    np.testing.assert_allclose(k[:4, 12:], k[:4, :4], rtol=1e-6)
    np.testing.assert_allclose(np.diag(k), limit.kernel_diagonal(near)["ntk"], rtol=1e-12)
    assert np.linalg.eigvalsh(k).min() > -1e-12 * k.max()
    single = limit.kernel(near, dtype="float32")["ntk"]
    np.testing.assert_allclose(single, k, rtol=0, atol=1e-6 * k.max())


@pytest.mark.parametrize("phi", ["tpc.sign(a)", "tpc.sign(a) * b", "tpc.step(a) * b + tpc.sign(c)"])
def test_gradients_through_jumps_are_bounded_and_at_equal_latents_the_mean_of_those_around(phi, monkeypatch):
    limit = tpc.compile(gated(phi))
    assert limit.warnings == ()
    sizes = []
    for distance in (1.0, 1e-2, 1e-4, 1e-8, 1e-12, 1e-15, 0.0):
        model, x, y = coinciding(limit, distance)
        sizes.append(max(np.abs(g).max() for name, g in gradients(model, x, y).items() if name == "a"))
        monkeypatch.setattr("tests.support.problems.batch", lambda given=(x, y): given)
        if distance in (1.0, 1e-2):
            assert_gradients(model, PLACES[:2], rel=1e-6, abs=1e-8)
        if distance == 0.0:  # central differences across the jump
            assert_gradients(model, PLACES[:2], rel=1e-3, abs=1e-4)
    assert np.isfinite(sizes).all()
    assert max(sizes) < 20 * sizes[0]
