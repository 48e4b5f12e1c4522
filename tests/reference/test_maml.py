"""Outer training of programs/maml.py against MAML written by hand from the paper's equations."""

import numpy as np
import pytest

import tpc
from tests.reference.maml import PaperMAML, Task
from tests.reference.paper_mlp import initial_state

DIM, RANK, CLASSES, STEPS = 12, 7, 3, 6
SCALES = {"bias_scale": 1.414214, "step_size": 0.353553}
RATES = {"embed": 0.4, "hidden1.bias": 0.5}
COSINE = [(1 + np.cos(np.pi * k / STEPS)) / 2 for k in range(STEPS)]


def both(programs_dir, depth):
    """A model and the reference with one state; readouts are no part of it."""
    state = initial_state(DIM, RANK, CLASSES, depth, seed=1)
    state = {name: value for name, value in state.items() if not name.startswith("readout")}
    rng = np.random.default_rng(2)
    state |= {name: 0.3 * rng.standard_normal(RANK) for name in state if name.endswith("bias")}
    program = tpc.load(programs_dir / "maml.py", hidden=depth, classes=CLASSES, **SCALES)
    model = tpc.compile(program).build(DIM, RANK, dtype="float64")
    model.load_state(state)
    return model, PaperMAML(state, depth, CLASSES, **SCALES)


def tasks(seed, counts=((3, 4), (3, 2), (1, 5))):
    """Tasks with (support, query) samples of these numbers."""
    rng = np.random.default_rng(seed)
    return [
        Task(
            rng.standard_normal((s, DIM)), rng.integers(CLASSES, size=s),
            rng.standard_normal((q, DIM)), rng.integers(CLASSES, size=q),
        )
        for s, q in counts
    ]  # fmt: skip


def together(given):
    """All queries, their classes, and the support of all tasks."""
    support = tpc.Support(
        np.concatenate([t.x_support for t in given]),
        np.concatenate([t.y_support for t in given]),
        np.repeat(np.arange(len(given)), [len(t.y_support) for t in given]),
        np.repeat(np.arange(len(given)), [len(t.y) for t in given]),
    )
    return np.concatenate([t.x for t in given]), np.concatenate([t.y for t in given]), support


def in_order(state):
    """The state with its atoms sorted: a network is a sum over them, whose order says nothing."""
    found = dict(state)
    for name in (n for n in state if n.endswith(".B")):
        order = np.argsort(state[name][:, 0])
        found |= {n: state[n][order] for n in (name, name[:-1] + "A")}
    return found


@pytest.mark.parametrize(("start", "clip"), [(4.0, 0.1), (0.5, 1e9)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_training_equals_the_paper(programs_dir, depth, start, clip):
    model, reference = both(programs_dir, depth)
    for k, part in enumerate(COSINE):
        given, lr = tasks(k), start * part
        x, y, support = together(given)
        found = model.step(x, y, lr=lr, lr_mult={n: RATES[n] for n in RATES if n in model.weights}, clip=clip,
                           clip_mode="global", support=support)  # fmt: skip
        expected = reference.step(given, lr, RATES, clip)
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-11)
        norm = np.sqrt(sum(n**2 for n in found["grad_norm"].values()))
        assert norm == pytest.approx(expected["norm"], rel=1e-10)
    found, expected = in_order(model.state()), in_order(reference.state)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-10, err_msg=name)
    probe = tasks(99)
    x, _, support = together(probe)
    expected = np.concatenate([reference.predict(t) for t in probe])
    np.testing.assert_allclose(model.predict(x, support), expected, rtol=0, atol=1e-10)
    assert np.abs(expected - np.concatenate([both(programs_dir, depth)[1].predict(t) for t in probe])).max() > 1e-3


def test_the_reference_differentiates_its_loss(programs_dir):
    """Its gradients are slopes of its own loss, supports' share included."""
    _, reference = both(programs_dir, 2)
    (task,) = tasks(5, [(3, 4)])
    _, gradient = reference.gradients(task)
    delta, entering = gradient["embed"]
    direction = np.random.default_rng(0).standard_normal(reference.state["embed.A"].shape)
    start, found = reference.state["embed.A"], []
    for eps in (-1e-5, 1e-5):
        reference.state["embed.A"] = start + eps * direction
        found.append(reference.gradients(task)[0])
    assert (found[1] - found[0]) / 2e-5 == pytest.approx(np.sum((entering.T @ delta) * direction), rel=1e-7)
