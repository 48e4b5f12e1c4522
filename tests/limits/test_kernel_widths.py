"""Random networks of finite width: their kernels approach the limits like width^(-1/2), whatever the program does."""

import numpy as np
import pytest

import tpc
from tpc.runtime.kernels.empirical import empirical_kernels

WIDTHS = (64, 128, 256, 512)
SEEDS = 10


def recurrent(x):
    h = tpc.dense(x, "embed", space="state") + tpc.bias("embed", 0.3)
    for _ in range(3):
        h = 0.5 * h + tpc.dense(tpc.tanh(h), "step", space="state") + tpc.bias("step", 0.2)
    return (1 + tpc.moment(tpc.relu(h))) * (tpc.readout(tpc.erf(h), 2) + tpc.bias("readout", 1.0))


def gated(x):
    h = tpc.dense(x, "embed", 1.5) + tpc.bias("embed", 0.3)
    gate, value = tpc.dense(tpc.relu(h), "gate"), tpc.dense(tpc.relu(h), "value", 1.4)
    return tpc.readout(tpc.dense(tpc.sigmoid(gate) * value, "out", 2.0), 2)


def attending(x):
    """Features as positions: keys and values of each, scores by moments, softmax over positions."""
    h = tpc.dense(x, "embed", 1.2) + tpc.bias("embed", 0.3)
    each = x * tpc.relu(h)
    key, value = tpc.dense(each, "key", 1.5), tpc.dense(each, "value")
    scores = tpc.softmax(tpc.moment(key, key), "feature")
    return tpc.readout(tpc.erf(tpc.dense(tpc.total(scores * value, "feature"), "out", 2.0)), 2)


def two_readouts(x):
    """One readout of two hidden layers, shared."""
    h = tpc.dense(x, "embed", space="s") + tpc.bias("embed", 0.5)
    g = tpc.dense(tpc.relu(h), "hidden", 1.4, space="s")
    return tpc.readout(tpc.relu(h), 2, "v", 1.2) + 2 * tpc.readout(tpc.erf(g), 2, "v", 1.2)


@pytest.mark.parametrize("network", ["mlp", "resmlp", recurrent, gated, attending, two_readouts])
def test_kernels_of_random_networks_approach_the_limit(network, programs_dir):
    path = isinstance(network, str)
    limit = tpc.compile(tpc.load(programs_dir / f"{network}.py") if path else tpc.trace(network), limit="ntk")
    x = np.random.default_rng(2).standard_normal((4, 3))
    wanted = limit.kernel(x)
    for kind, kernel in wanted.items():
        errors = []
        for width in WIDTHS:
            found = [empirical_kernels(limit, x, width, seed)[kind] for seed in range(SEEDS)]
            errors.append(np.sqrt(np.mean((np.array(found) - kernel) ** 2) / np.mean(kernel**2)))
        slope = np.polyfit(np.log(WIDTHS), np.log(errors), 1)[0]
        assert -0.75 < slope < -0.3, (kind, errors)
        assert errors[-1] < 0.2, (kind, errors)
