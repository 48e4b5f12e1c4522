"""The π-limit of networks with positions: gradients against differences, both routes, backends, files."""

import numpy as np
import pytest

import tpc
from tests.backends.test_gradients import EPS, accumulated, appended, slope
from tests.support.positions import CASES, CHANNELS, PLACES, network
from tests.support.problems import CLASSES, RANK, computed, generic_state
from tpc.limits.store import Accumulate
from tpc.lower.lowered import lower

assert EPS


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
