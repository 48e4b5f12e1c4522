"""Gradients against central differences of the loss, in every parameter: accumulated states and kernel matrices."""

import numpy as np
import pytest
from hypothesis import given, settings

import tpc
from tests.support.generators import networks, traced
from tests.support.problems import CLASSES, batch, computed, make
from tpc.limits.store import Accumulate
from tpc.lower.lowered import lower

EPS = 2e-4


def slope(model, module, state, change, x, y):
    """∂ loss / ∂ε at state + ε·change, to fourth order in ε."""
    found = {}
    for k in (-2, -1, 1, 2):
        model.load_state({**state, **change(k * EPS)})
        with np.errstate(all="ignore"):  # only the loss is needed; at an atom equal to a latent slopes may diverge
            found[k] = float(module.gradients(model._state, x, y)["loss"])
    model.load_state(state)
    return (8 * (found[1] - found[-1]) - (found[2] - found[-2])) / (12 * EPS)


def accumulated(state, found, updates, rng):
    """A random change of an accumulated state, and its slope."""
    name = updates[0].state.name
    direction = rng.standard_normal(state[name].shape)
    return (lambda eps: {name: state[name] + eps * direction}), float((found[name] * direction).sum())


def appended(state, found, updates):
    """W + ε∇ of a kernel matrix: the atoms of its gradient, appended with coefficients times ε."""
    stores = {u.store.name: u.store for u in updates}.values()

    def change(eps):
        new = {}
        for s in stores:
            for column in (s.coefficients, *s.columns, *s.thetas):
                factor = eps if column is s.coefficients else 1
                new[column.name] = np.concatenate([state[column.name], factor * found[column.name]])
        return new

    return change


def check(model, loss="cross_entropy", seed=0, tolerance=1e-7):
    x, y = batch(seed)
    graph = model.limit.graph(loss)
    lowered = lower(graph)
    module = model.backend.compile_module(lowered)
    found = computed(module, lowered, model, x, y)
    state = model.state()
    rng = np.random.default_rng(seed)
    for weight, updates in graph.updates:
        if isinstance(updates[0], Accumulate):
            change, expected = accumulated(state, found, updates, rng)
        elif updates[0].store.coefficients.name not in found:
            assert found[f"norm2:{weight}"] == 0  # a weight without influence on the loss
            continue
        else:
            change, expected = appended(state, found, updates), float(found[f"norm2:{weight}"])
        got = slope(model, module, state, change, x, y)
        rounding = 1e-3 * tolerance * max(1.0, float(found["loss"]))
        assert got == pytest.approx(expected, rel=tolerance, abs=rounding), weight


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("mlp", {}), ("mlp", {"hidden": 3, "input_scale": 0.7}), ("resmlp", {}), ("resmlp", {"blocks": 3, "eps": 0.1})],
)
def test_programs(programs_dir, name, options, loss):
    check(make(tpc.load(programs_dir / f"{name}.py", classes=CLASSES, **options)), loss)


@settings(max_examples=25)
@given(networks())
def test_random_networks(source):
    check(make(traced(source)), tolerance=1e-5)


def network(*lines):
    return traced("import tpc\n\n\ndef network(x):\n" + "".join(f"    {line}\n" for line in lines))


PARTICULAR = {
    "a gate": ["h, g = tpc.dense(x, 'a'), tpc.dense(x, 'b')", "return tpc.readout(tpc.relu(h) * g, 3)"],
    "a gate of waves": [
        "h, g = tpc.dense(x, 'a'), tpc.dense(x, 'b')",
        "h = tpc.dense(tpc.cos(h) * tpc.sin(g), 'c')",
        "return tpc.readout(tpc.erf(h), 3)",
    ],
    "a cube": ["h = 0.5 * tpc.dense(x, 'a')", "return tpc.readout(h**3 + tpc.relu(h), 3)"],
    "moments": [
        "h = tpc.dense(x, 'a')",
        "g = tpc.dense(tpc.relu(h), 'b')",
        "s = 1 + tpc.moment(tpc.abs(g)) * tpc.moment(tpc.relu(h), h)",
        "return tpc.readout(tpc.relu(g) / s, 3)",
    ],
    "a moment that vanishes": [
        "h, g = tpc.dense(x, 'a'), tpc.dense(x, 'b')",
        "return tpc.readout(tpc.gelu(h) * (1 + tpc.moment(tpc.cos(g), g)), 3)",
    ],
    "a layer without influence": [
        "h = tpc.dense(x, 'a')",
        "g = tpc.dense(tpc.erf(h), 'b') + tpc.bias('b')",
        "return tpc.readout(tpc.relu(h) * (1 + tpc.moment(tpc.cos(h), g)), 3)",
    ],
    "a gate before a linear readout": [
        "h, g = tpc.dense(x, 'a'), tpc.dense(x, 'b')",
        "return tpc.readout(0.5 * tpc.dense(tpc.sin(h) * g, 'c'), 3)",
    ],
    "a constant beside a function": ["h = tpc.dense(x, 'a')", "return tpc.readout(tpc.gelu(0.5 * h) + 1, 3)"],
    "a loop": [
        "h = tpc.dense(x, 'a')",
        "for _ in range(3):",
        "    h = 0.5 * h + tpc.dense(tpc.relu(h), 'cell') + tpc.bias('cell')",
        "return tpc.readout(tpc.relu(h), 3)",
    ],
    "a readout used twice": [
        "h = tpc.dense(x, 'a')",
        "f = tpc.readout(tpc.relu(h), 3)",
        "h = h + tpc.dense(tpc.abs(h), 'b')",
        "return f + tpc.readout(tpc.relu(h), 3)",
    ],
    "a sum over classes": [
        "h = tpc.dense(x, 'a')",
        "q = tpc.total(tpc.readout(tpc.erf(h), 4, name='q'), 'q_class')",
        "return tpc.readout(tpc.relu(h) * q, 3)",
    ],
    "attention over classes": [
        "h = tpc.dense(x, 'a')",
        "f = tpc.readout(tpc.relu(h), 3)",
        "return tpc.softmax(f, 'class') * f + tpc.log_softmax(f, 'class')",
    ],
}


@pytest.mark.parametrize("name", PARTICULAR)
def test_particular_networks(name):
    check(make(network(*PARTICULAR[name])), "mse", tolerance=1e-6)


def test_the_comparison_sees_a_small_error(programs_dir, monkeypatch):
    model = make(tpc.load(programs_dir / "mlp.py", classes=CLASSES))

    exact = computed

    def slightly_wrong(*args):
        found = exact(*args)
        found["hidden1.bias"] = found["hidden1.bias"] * (1 + 1e-5)
        return found

    monkeypatch.setitem(globals(), "computed", slightly_wrong)
    with pytest.raises(AssertionError, match=r"hidden1\.bias"):
        check(model)
