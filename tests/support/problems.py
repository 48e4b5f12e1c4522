"""Small training problems for tests: models with generic states, batches, and what a step should compute."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import tpc
from tests.support import interpreter
from tpc.lower.instructions import AccumulateGradient, Lowered
from tpc.runtime.models.model import Model

DIM, RANK, CLASSES = 5, 4, 3


BOOKKEEPING = (".w", ".folds", ".sums")  # of folded atoms


def plain(state):
    """A state without multipliers of atoms and without momentum."""
    return {name: value for name, value in state.items() if not name.endswith((".stored", ".scale", ".velocity"))}


def generic_state(model: Model, seed: int = 0, spread: float = 0.5) -> dict[str, np.ndarray]:
    """A state with nothing zero in it: readouts and biases drawn too, and every store with atoms."""
    rng = np.random.default_rng(seed)
    stored = {c.name: s for s in model.limit.graph().stores for c in (s.coefficients, *s.columns, *s.thetas)}
    state = {}
    for name, value in plain(model.state()).items():
        if name.endswith(BOOKKEEPING):
            state[name] = value
            continue
        shape = (RANK + 2, *value.shape[1:]) if name in stored else value.shape
        state[name] = spread * rng.standard_normal(shape)
        if name in stored and name in {c.name for c in stored[name].columns}:
            state[name] /= np.linalg.norm(state[name], axis=-1, keepdims=True)
    return state


def make(program, *, dtype="float64", seed=0, dim=DIM, rank=RANK, **options) -> Model:
    """A model of a program with a generic state."""
    model = tpc.compile(program).build(dim, rank, dtype=dtype, **options)
    model.load_state(generic_state(model, seed))
    return model


def batch(seed=0, count=4, dim=DIM, classes=CLASSES):
    """Inputs and soft targets that sum to one."""
    rng = np.random.default_rng([7, seed])
    y = rng.uniform(0.1, 1.0, (count, classes))
    return rng.standard_normal((count, dim)), y / y.sum(axis=1, keepdims=True)


def assert_gradients(model: Model, places, *, rel, abs) -> None:
    """Gradients of accumulated weights at (name, index) against central differences of the predicted loss."""
    x, y = batch()
    step = 1e-5

    def loss():
        logits = model.predict(x)
        return float(np.mean(y.sum(axis=1) * np.log(np.exp(logits).sum(axis=1)) - (y * logits).sum(axis=1)))

    out = model._module("cross_entropy").gradients(model._state, x, y)
    assert float(out["loss"]) == pytest.approx(loss(), rel=1e-10)
    for name, place in places:
        array = model._state[f"{name}.A"]
        array[place] += step
        up = loss()
        array[place] -= 2 * step
        change = (up - loss()) / (2 * step)
        array[place] += step
        assert out[f"{name}:gradient"][place] == pytest.approx(change, rel=rel, abs=abs)


def expected(model: Model, x, y, loss="cross_entropy", data=None) -> dict[str, np.ndarray]:
    """What the interpreter computes for one step; `data` is what adapted networks take besides."""
    return interpreter.run(model.limit.graph(loss), {**model.state(), **(data or {}), "x": x, "y": y})


def taking(run, model: Model, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A generated function called with those of `data` that it takes."""
    code = inspect.unwrap(run).__code__
    names = code.co_varnames[1 : code.co_argcount]
    return run(model._state, **{name: model.backend.array(data[name], model.dtype) for name in names})


def computed(module, lowered: Lowered, model: Model, x, y, data=None) -> dict[str, np.ndarray]:
    """What generated code computes for one step, under the interpreter's names."""
    data = {name: model.backend.array(a, model.dtype) for name, a in {**(data or {}), "x": x, "y": y}.items()}
    out = taking(module.gradients, model, data)
    norms = module.norms(model._state, *(data[k] if k in data else out[k] for k in module.NORM_ARGUMENTS))
    found = {"logits": out["logits"], "loss": np.asarray(out["loss"])}
    found |= {f"norm2:{name}": np.asarray(value) for name, value in norms.items()}
    for change in lowered.changes:
        if isinstance(change, AccumulateGradient):
            found[change.state.name] = out[change.operands[0].key]
            continue
        for o in change.operands:
            rows = np.reshape(out[o.key], (-1, *model._state[change.store.name].widths[o.target]))
            name = f"{change.store.name}.{o.target}"
            found[name] = np.concatenate([found[name], rows]) if name in found else rows
    return found


def assert_close(found, wanted, tolerance):
    """Equal names and shapes; values within `tolerance` of the largest entry of the array, or of 1."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(found[name] / scale, value / scale, rtol=0, atol=tolerance, err_msg=name)
