"""Networks with gates whose stored atoms are the latents of a batch, or near: repeated and opposite samples."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

import tpc
from tests.support.generators import traced
from tests.support.problems import CLASSES, DIM, RANK, batch, generic_state
from tpc.compiler import Limit
from tpc.program.program import Program
from tpc.runtime.models.model import Model

GATES = {
    "relu": "tpc.relu(a) * b",
    "leaky relu": "tpc.leaky_relu(a, 0.2) * b",
    "abs": "tpc.abs(a) * b",
    "squared": "tpc.relu(a) * b**2",
    "sums": "(tpc.relu(a) + a / 2) * (b + 0.5 * a) + tpc.abs(c)",
    "kinked, from a table": "tpc.nonlin('relu(x)*sigmoid(x)')(a) * b",
    "relu and erf": "tpc.nonlin('relu(x)*erf(x)')(a) * b + tpc.relu(b) * a",
}
DISTANCES = (1.0, 1e-3, 1e-6, 1e-12, 0.0)  # ρ = 1 − these: at, near and away from coincidence


def gated(gate: str, phi: str = "tpc.erf") -> Program:
    """A network of one gate, read by a readout through a second layer."""
    return traced(
        "import tpc\n\n\ndef network(x):\n"
        "    a, b, c = (tpc.dense(x, name=n, space='s') for n in 'abc')\n"
        f"    h = tpc.dense({gate}, name='mid')\n"
        f"    return tpc.readout({phi}(h), {CLASSES}, name='readout')\n"
    )


@lru_cache
def limit_of(gate: str) -> Limit:
    """The limit of the network of a gate, by its name in `GATES`."""
    return tpc.compile(gated(GATES[gate]))


def coinciding(
    limit: Limit, distance: float, dtype: str = "float64", **options
) -> tuple[Model, np.ndarray, np.ndarray]:
    """A model and a batch whose latents meet atoms at correlation ±(1 − distance), in every column of every store."""
    model = limit.build(DIM, RANK, dtype=dtype, **options)
    model.load_state(generic_state(model))
    x, y = batch(count=2)
    rng = np.random.default_rng(5)
    for stores in ("mid", "readout"):  # what comes later depends on what came before
        state = {name: np.array(value, dtype=np.float64) for name, value in model.state().items()}
        model.step(x, y, lr=0.0)  # appends the latents of the batch
        appended = model.state()
        for store in (s for s in model.limit.graph().stores if s.weight == stores):
            for column in store.columns:
                g = np.asarray(appended[column.name][-len(x) :], dtype=np.float64)
                aside = rng.standard_normal(g.shape)
                aside -= g * (aside * g).sum(1, keepdims=True) / (g * g).sum(1, keepdims=True)
                aside *= np.linalg.norm(g, axis=1, keepdims=True) / np.linalg.norm(aside, axis=1, keepdims=True)
                moved = (1 - distance) * g + np.sqrt(distance * (2 - distance)) * aside
                state[column.name][: 2 * len(x)] = np.concatenate([moved, -moved])
        model.load_state(state)
    return model, x, y


def gradients(model: Model, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The gradients of the first layers, as float64 arrays."""
    data = (model.backend.array(a, model.dtype) for a in (x, y))
    out = model._module("cross_entropy").gradients(model._state, *data)
    names = [name for name in ("a", "b") if f"{name}:gradient" in out]
    found = {name: model.backend.to_numpy(out[f"{name}:gradient"]) for name in names}
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}
