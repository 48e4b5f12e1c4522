"""Networks that adapt, and gates that are folded, on the backends with loops of their own: as on NumPy."""

import numpy as np
import pytest

import tpc
from tpc.runtime.models.folding import FoldOptions

DIM, RANK, TASKS, WAYS, QUERIES = 6, 12, 4, 3, 2


def adapted(phi, **options):
    def network(x):
        h = tpc.dense(x, name="embed") + 1.4 * tpc.bias("embed")
        h = tpc.dense(phi(h), name="hidden1") + 1.4 * tpc.bias("hidden1")
        return tpc.adapt(tpc.readout(phi(h), WAYS, name="readout"), step_size=0.5, **options)

    return network


def gated(x):
    h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
    g = tpc.dense(x, name="gate", space="embed")
    u = tpc.dense(tpc.tanh(h) * g, name="hidden1") + 0.5 * tpc.bias("hidden1")
    return tpc.readout(tpc.erf(u), WAYS, name="readout")


def tasks(rng):
    xs, xq = rng.standard_normal((TASKS * WAYS, DIM)), rng.standard_normal((TASKS * WAYS * QUERIES, DIM))
    own, asked = np.repeat(np.arange(TASKS), WAYS), np.repeat(np.arange(TASKS), WAYS * QUERIES)
    labels = np.tile(np.arange(WAYS), TASKS)
    return xq, np.repeat(labels, QUERIES), tpc.Support(xs, labels, own, asked)


@pytest.mark.parametrize("mode", ["exact", "folded", "sampled"])
@pytest.mark.parametrize(
    "options",
    [{"zero": "readout"}, {"zero": "readout", "steps": 2, "order": 1}, {"layers": "all", "order": 1}],
    ids=["second order", "first order, two steps", "all layers"],
)
def test_few_shot_steps_are_those_of_numpy(backend, mode, options):
    limit = tpc.compile(tpc.trace(adapted(tpc.relu, **options)))
    fold = None if mode == "exact" else FoldOptions(degree=2, window=8, points=20 * (mode == "sampled"))
    kind = {"mode": "folded", "fold": fold} if fold else {}
    one, other = (limit.build(DIM, RANK, backend=name, init="paper", **kind) for name in ("numpy", backend.NAME))
    rng = np.random.default_rng(0)
    for _ in range(12):
        x, y, support = tasks(rng)
        a, b = (m.step(x, y, lr=0.5, clip=0.5, clip_mode="global", support=support) for m in (one, other))
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        for name, norm in a["grad_norm"].items():
            assert b["grad_norm"][name] == pytest.approx(norm, rel=2e-3, abs=1e-6)
    x, _, support = tasks(rng)
    wanted, found = one.predict(x, support), other.predict(x, support)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("points", [0, 20])
def test_folded_gates_are_those_of_numpy(backend, points):
    limit = tpc.compile(tpc.trace(gated))
    fold = FoldOptions(degree=2, window=8, points=points)
    one, other = (limit.build(DIM, RANK, backend=n, mode="folded", fold=fold) for n in ("numpy", backend.NAME))
    rng = np.random.default_rng(1)
    for _ in range(12):
        x, y = rng.standard_normal((8, DIM)), rng.integers(0, WAYS, 8)
        a, b = (m.step(x, y, lr=0.5, weight_decay=1e-2, clip=0.5) for m in (one, other))
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
    x = rng.standard_normal((5, DIM))
    wanted = one.predict(x)
    np.testing.assert_allclose(other.predict(x), wanted, atol=1e-3 * np.abs(wanted).max())
