"""The π-limit of networks with positions: gradients against differences, both routes, backends, files."""

from pathlib import Path

import numpy as np
import pytest

import tpc
from tests.backends.test_gradients import accumulated, appended, slope
from tests.limits.test_routes import assert_agreement, routes
from tests.support.positions import CASES, CHANNELS, PLACES, network
from tests.support.problems import CLASSES, RANK, computed, generic_state
from tpc.errors import UsageError
from tpc.limits.canonical import Canonical
from tpc.limits.nodes import State
from tpc.limits.store import Accumulate
from tpc.lower.layout import layout
from tpc.lower.lowered import lower
from tpc.program.node import topological
from tpc.program.tensor import Tensor
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.models.model import PREDICT_ROWS, predicted_rows
from tpc.tasks.check import run_check

PROGRAMS = Path(__file__).parents[2] / "programs"


def made(case, **options):
    model = tpc.compile(network(**CASES[case])).build(rank=RANK, **{"dtype": "float64", **options})
    model.load_state(generic_state(model))
    return model


def batch(seed=0, count=3):
    rng = np.random.default_rng([11, seed])
    y = rng.uniform(0.1, 1.0, (count, CLASSES))
    return rng.standard_normal((count, PLACES, CHANNELS)), y / y.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_gradients_are_those_of_differences(case, loss):
    model = made(case)
    x, y = batch()
    inputs = model._inputs(x)
    lowered = lower(model.limit.graph(loss))
    module = model.backend.compile_module(lowered)
    found, state = computed(module, lowered, model, inputs, y), model.state()
    rng = np.random.default_rng(0)
    for weight, updates in model.limit.graph(loss).updates:
        if isinstance(updates[0], Accumulate):
            change, expected = accumulated(state, found, updates, rng)
        else:
            change, expected = appended(state, found, updates), float(found[f"norm2:{weight}"])
        got = slope(model, module, state, change, inputs, y)
        assert abs(expected) > 1e-6
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-10), weight


OPTIONS = {"lr": 0.3, "momentum": 0.5, "weight_decay": 0.1, "clip": 1.0}


def trained(model, steps=3):
    found = []
    for k in range(steps):
        model.step(*batch(k), **OPTIONS)
        found.append(model.predict(batch(9)[0]))
    return np.stack(found)


@pytest.mark.parametrize("case", CASES)
def test_backends_agree(case):
    wanted = trained(made(case))
    assert np.abs(np.diff(wanted, axis=0)).max() > 1e-3
    for options in ({"backend": "native"}, {"backend": "native", "storage": "bfloat16"}):
        found = trained(made(case, dtype="float32", **options))
        tolerance = 2e-4 if "storage" not in options else 0.05
        np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("case", ["mean", "flat", "pooled, flat"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_models_are_saved_and_loaded(case, momentum, tmp_path):
    model = made(case)
    model.step(*batch(), lr=0.3, momentum=momentum)
    model.save(tmp_path / "model.npz")
    loaded = type(model).load(tmp_path / "model.npz")
    again = tpc.compile(network(**CASES[case])).build(rank=RANK, dtype="float64")
    again.load_state(model.state())
    x, y = batch(1)
    assert loaded.input_shape == (PLACES, CHANNELS)
    for other in (loaded, again):
        np.testing.assert_array_equal(other.predict(x), model.predict(x))
    for other in (model, loaded, again):
        other.step(x, y, lr=0.3, momentum=momentum)
    for other in (loaded, again):
        np.testing.assert_allclose(other.predict(x), model.predict(x), rtol=1e-12, atol=1e-14)


def test_samples_may_come_flat():
    model, (x, y) = made("mean"), batch()
    np.testing.assert_array_equal(model.predict(x.reshape(len(x), -1)), model.predict(x))
    assert model.step(x.reshape(len(x), -1), y, lr=0.1)["loss"] == made("mean").step(x, y, lr=0.1)["loss"]


def test_shapes_that_do_not_fit_are_refused():
    limit = tpc.compile(network())
    assert limit.build(PLACES * CHANNELS, 3).input_shape == limit.build(rank=3).input_shape == (PLACES, CHANNELS)
    for given in (7, (PLACES, CHANNELS + 1), (PLACES,)):
        with pytest.raises(UsageError, match=rf"expected inputs of shape \({PLACES}, {CHANNELS}\)"):
            limit.build(rank=3, input_shape=given)
    with pytest.raises(UsageError, match=rf"expected inputs of shape \(N, {PLACES}, {CHANNELS}\), got \(2, 5, 3\)"):
        limit.build(rank=3).predict(np.zeros((2, 5, 3)))


def test_stored_arrays_lie_as_code_expects():
    for case in CASES:
        for node in tpc.compile(network(**CASES[case])).graph().nodes:
            if isinstance(node, State):
                assert node.axes == layout(node.axes), node.name


@pytest.mark.parametrize("case", ["flat", "pooled, padded and overlapping"])
def test_finite_networks_converge(case):
    """Logits of training with momentum, decay and clipping, and means of evenly drawn networks."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((40, PLACES, CHANNELS)), rng.standard_normal((PLACES * CHANNELS, CLASSES))
    y = (np.tanh(x.reshape(len(x), -1)) @ w).argmax(axis=1)
    options = {"momentum": 0.5, "weight_decay": 0.1, "clip": 1.0}
    result = run_check(network(**CASES[case]), x=x, y=y, batch=6, widths=(64, 128, 256), seeds=2, rank=4, **options)
    assert all(m > 0.05 for m in result.moved[1:])
    assert all(d.size < 0.05 for d in result.deviations)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_both_routes_give_the_same_updates(case, loss):
    derived, second = routes(network(**CASES[case]), loss)
    canonical = Canonical(n for n in topological([derived["logits"]]) if isinstance(n, Tensor))
    assert_agreement(derived, second, canonical)


@pytest.mark.parametrize("readout", ["mean", "flatten"])
def test_both_routes_agree_in_two_dimensions(readout):
    program = tpc.load(PROGRAMS / "cnn.py", input_shape=(5, 4, 2), layers=2, readout=readout, classes=3)
    derived, second = routes(program, "mse")
    assert_agreement(derived, second, Canonical(n for n in topological([derived["logits"]]) if isinstance(n, Tensor)))


@pytest.mark.parametrize("case", ["polynomial", "polynomial, flat", "polynomial, pooled"])
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_folding_is_exact_for_polynomials(case, backend):
    exact = made(case)
    dtype = "float64" if backend == "numpy" else "float32"
    options = {"mode": "folded", "dtype": dtype, "backend": backend}
    folded = tpc.compile(network(**CASES[case])).build(rank=RANK, fold=FoldOptions(degree=2, window=0), **options)
    folded.load_state(exact.state())
    wanted, found = trained(exact, 4), trained(folded, 4)
    assert folded.remainders["conv1"] < 1e-3
    assert len(folded.raw_state["conv1"]) < exact.atoms["conv1"]
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())


def test_atoms_of_a_place_each_are_kept_by_folding():
    model = tpc.compile(network(**CASES["flat"])).build(rank=RANK, mode="folded", fold=FoldOptions(degree=2, window=0))
    assert set(model.folds) == {"conv1"}
    model.step(*batch(), lr=0.1)
    assert len(model.raw_state["readout"]) == model.atoms["readout"] == RANK + 3


def test_predictions_do_not_depend_on_how_many_go_at_a_time(monkeypatch):
    model, x = made("pooled, flat"), batch(3, 40)[0]
    whole = model.predict(x)
    monkeypatch.setattr(type(model), "predict_rows", property(lambda self: 7))
    np.testing.assert_allclose(model.predict(x), whole, rtol=1e-12)
    assert predicted_rows(model.graph, RANK) < PREDICT_ROWS
