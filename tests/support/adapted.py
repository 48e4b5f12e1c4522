"""Adapted networks for tests, and what they should answer: plain networks trained on the support, task by task."""

from __future__ import annotations

import numpy as np

import tpc
from tests.support.generators import traced
from tests.support.problems import CLASSES, DIM, RANK, make
from tpc.program.program import Program
from tpc.runtime.models.model import Model
from tpc.runtime.networks.finite import FiniteNetwork

MLP = (
    "h = tpc.dense(x, name='embed') + 0.5 * tpc.bias('embed')",
    "h = tpc.dense({phi}(h), name='hidden') + 0.5 * tpc.bias('hidden')",
    "f = tpc.readout({phi}(h), 3) + tpc.bias('readout')",
)


def mlp(phi: str) -> tuple[str, ...]:
    """Two hidden layers, biases everywhere."""
    return tuple(line.format(phi=phi) for line in MLP)


def network(lines: tuple[str, ...], adaptation: str = "") -> Program:
    """The program of a network whose logits are f, adapted with the arguments `adaptation` unless there are none."""
    body = [*lines, f"return tpc.adapt(f, {adaptation})" if adaptation else "return f"]
    return traced("import tpc\n\n\ndef network(x):\n" + "".join(f"    {line}\n" for line in body))


def support(seed: int = 0, classes: int = CLASSES) -> tpc.Support:
    """Three tasks with supports of 2, 1 and 3 samples in mixed order, asked 2, 3 and 1 times."""
    rng = np.random.default_rng([3, seed])
    tasks, queries = np.array([2, 0, 2, 1, 0, 2]), np.array([1, 0, 1, 2, 1, 0])
    y = rng.uniform(0.1, 1.0, (len(tasks), classes))
    return tpc.Support(rng.standard_normal((len(tasks), DIM)), y / y.sum(axis=1, keepdims=True), tasks, queries)


def one_task(s: tpc.Support, task: int) -> tpc.Support:
    """The support of one task alone."""
    own = s.tasks == task
    return tpc.Support(s.x[own], s.y[own])


def queried(seed: int = 0, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Samples and targets for the queries of `support`."""
    rng = np.random.default_rng([5, seed])
    y = rng.uniform(0.1, 1.0, (6, classes))
    return rng.standard_normal((6, DIM)), y / y.sum(axis=1, keepdims=True)


def make_adapted(program: Program, plain: Model | None = None, **options) -> Model:
    """A model of an adapted program with the state of a plain one where there is one, else with a generic state.

    Forms of atoms that the plain network does not have stay empty then.
    """
    if plain is None:
        return make(program, **options)
    model = tpc.compile(program).build(DIM, RANK, dtype="float64", **options)
    known = plain.state()
    model.load_state({name: known.get(name, value[:0]) for name, value in model.state().items()})
    return model


def learned(start, s: tpc.Support, layers, steps: int, size, loss: str = "cross_entropy"):
    """For every task a network from `start()`, after `steps` steps on its support at rates `size` of `layers`."""
    for task in np.unique(s.queries):
        own = one_task(s, task)
        trained = start()
        names = trained.weights
        rates = {name: float(size) for name in (names if layers == "all" else layers)}
        for _ in range(steps):
            trained.step(own.x, own.y, lr=1.0, lr_mult={n: rates.get(n, 0.0) for n in names}, loss=loss)
        yield task, trained


def expected_logits(start, s: tpc.Support, x: np.ndarray, layers, steps: int, size, loss: str = "cross_entropy"):
    """The logits of x by plain networks that learned the support of each sample's task."""
    out = np.empty((len(x), CLASSES))
    for task, trained in learned(start, s, layers, steps, size, loss):
        out[s.queries == task] = trained.predict(x[s.queries == task])
    return out


def restarted(model: Model):
    """A function that sets a model back to the state it has now, and returns it."""
    state = model.state()

    def start() -> Model:
        model.load_state(state)
        return model

    return start


def finite(plain: Model, width: int):
    """A function that makes the same network of finite width again and again."""
    state = plain.state()
    return lambda: FiniteNetwork(plain.limit, state, width, seed=1)
