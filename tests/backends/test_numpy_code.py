"""Generated NumPy code against the naive interpreter: both programs, several settings, random networks."""

import sys

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import tpc
from tests.support import adapted
from tests.support.generators import HOMOGENEOUS, networks, traced
from tests.support.problems import DIM, assert_close, batch, computed, expected, make, plain, taking
from tpc.lower.instructions import Loop
from tpc.lower.lowered import lower
from tpc.lower.numpy_module import numpy_module

SETTINGS = [
    ("mlp", {}),
    ("mlp", {"hidden": 1, "input_scale": 1.5}),
    ("mlp", {"hidden": 3, "output_scale": 2.0, "bias_scale": 0.0}),
    ("resmlp", {}),
    ("resmlp", {"blocks": 0}),
    ("resmlp", {"blocks": 1, "branch_scale": -0.5, "eps": 0.1, "bias_scale": 2.0}),
]


def check(model, x, y, loss, tolerance=1e-10, multipliers=False, data=None):
    graph = model.limit.graph(loss)
    lowered = lower(graph, multipliers)
    module = model.backend.compile_module(lowered)
    found = computed(module, lowered, model, x, y, data)
    wanted = expected(model, x, y, loss, data)
    assert_close(found, wanted, tolerance)
    logits = taking(module.predict, model, {**(data or {}), "x": x})["logits"]
    assert_close({"logits": logits}, {"logits": wanted["logits"]}, tolerance)
    return found


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(("name", "options"), SETTINGS)
def test_programs_in_float64(programs_dir, name, options, loss):
    model = make(tpc.load(programs_dir / f"{name}.py", classes=3, **options))
    check(model, *batch(), loss)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(("name", "options"), SETTINGS[:1] + SETTINGS[3:4])
def test_programs_in_float32(programs_dir, name, options, loss):
    model = make(tpc.load(programs_dir / f"{name}.py", classes=3, **options), dtype="float32")
    found = check(model, *batch(), loss, tolerance=1e-4)
    assert {n: v.dtype.name for n, v in found.items() if v.ndim} == {n: "float32" for n, v in found.items() if v.ndim}


@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_code_with_a_factor_per_atom(programs_dir, name):
    model = make(tpc.load(programs_dir / f"{name}.py", classes=3))
    x, y = batch()
    for _ in range(3):
        model.step(x, y, lr=0.3, momentum=0.9, weight_decay=0.1)
    check(model, *batch(1), "cross_entropy", multipliers=True)


@settings(max_examples=30)
@given(networks())
def test_random_networks(source):
    check(make(traced(source)), *batch(), "cross_entropy")


@settings(max_examples=8)
@given(networks())
def test_random_networks_in_float32(source):
    model = make(traced(source), dtype="float32")
    x, y = batch()
    wanted = {k: np.abs(v).max() for k, v in expected(model, x, y).items()}
    found = check(model, x, y, "cross_entropy", tolerance=2e-3 if max(wanted.values()) > 100 else 2e-4)
    assert all(v.dtype == np.float32 for v in found.values() if v.ndim)


def network(*lines):
    return traced("import tpc\n\n\ndef network(x):\n" + "".join(f"    {line}\n" for line in lines))


PARTICULAR = {
    "a linear network": ["h = tpc.dense(tpc.dense(x, 'a'), 'b')", "return tpc.readout(h, 3)"],
    "a sum of nonlinearities": ["h = tpc.dense(x, 'a')", "return tpc.readout(tpc.relu(h) + 0.5 * tpc.erf(h) - h, 3)"],
    "a vector plus a number": ["h = tpc.dense(x, 'a')", "return tpc.readout(tpc.relu(h) + 1, 3)"],
    "a power": ["h = 0.5 * tpc.dense(x, 'a')", "return tpc.readout(h**3, 3)"],
    "a gate": ["h, g = tpc.dense(x, 'a'), tpc.dense(x, 'b')", "return tpc.readout(tpc.erf(h) * g, 3)"],
    "a gate of waves": [
        "h, g = 0.4 * tpc.dense(x, 'a'), 0.4 * tpc.dense(x, 'b')",
        "return tpc.readout(tpc.cos(0.5 * h) * tpc.sin(0.5 * g), 3)",
    ],
    "a moment of one vector": [
        "h = tpc.dense(x, 'a')",
        "return tpc.readout(tpc.relu(h) * (1 + tpc.moment(tpc.relu(h))), 3)",
    ],
    "a moment that vanishes": [
        "h = tpc.dense(x, 'a')",
        "return tpc.readout(tpc.relu(h) * (1 + tpc.moment(h, tpc.abs(h))), 3)",
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
    "a moment of two": [
        "h = tpc.dense(x, 'a')",
        "g = h + tpc.dense(tpc.relu(h), 'b')",
        "return tpc.readout(tpc.relu(g) * (1 + tpc.moment(h, g)), 3)",
    ],
    "two readouts of one weight": [
        "h = tpc.dense(x, 'a')",
        "f = tpc.readout(tpc.relu(h), 3)",
        "h = h + tpc.dense(tpc.abs(h), 'b')",
        "return f + tpc.readout(tpc.relu(h), 3)",
    ],
    "two forms of one weight": [
        "h = tpc.dense(x, 'a', space='s')",
        "h = h + tpc.dense(tpc.identity(h), 'w', space='s')",
        "h = h + tpc.dense(tpc.abs(h), 'w', space='s')",
        "return tpc.readout(tpc.identity(h), 3)",
    ],
    "a softmax inside": ["h = tpc.dense(x, 'a')", "return tpc.softmax(tpc.readout(tpc.relu(h), 3), 'class')"],
    "a quotient of logits": [
        "h = tpc.dense(x, 'a')",
        "f = tpc.readout(tpc.relu(h), 3)",
        "return f / (1 + tpc.total(f**2, 'class'))",
    ],
    "a product of readouts": [
        "h = tpc.dense(x, 'a')",
        "q = tpc.total(tpc.readout(tpc.erf(h), 4, name='q'), 'q_class')",
        "return tpc.readout(tpc.relu(h) * q, 3)",
    ],
    "classes before a matrix": [
        "h = tpc.dense(x, 'a')",
        "h = tpc.dense(tpc.erf(h) * tpc.readout(tpc.erf(h), 4, name='q'), 'b') + tpc.bias('b')",
        "return tpc.total(tpc.readout(tpc.erf(h), 3), 'q_class')",
    ],
    "what all samples share": [
        "b = tpc.erf(tpc.bias('a', std=1))",
        "return tpc.readout(tpc.erf(tpc.dense(x, 'a') + tpc.dense(b, 'w', space='a')), 3)",
    ],
    "a function of the data": ["h = tpc.dense(x * (x + 1), 'a')", "return tpc.readout(tpc.relu(h), 3)"],
    "weights of another size": [
        "h = tpc.dense(tpc.relu(tpc.dense(x, 'a', weight_std=2)), 'b', weight_std=0.5) + tpc.bias('b', std=1)",
        "return tpc.readout(tpc.relu(h), 3, weight_std=3)",
    ],
}


@pytest.mark.parametrize("name", PARTICULAR)
def test_particular_networks(name):
    check(make(network(*PARTICULAR[name])), *batch(), "mse", tolerance=1e-9)


def test_atoms_are_stored_before_the_weights_they_may_be_views_of():
    model = make(network(*PARTICULAR["what all samples share"]))
    before = model.state()
    model.step(*batch(), lr=0.5)
    after = model.state()
    assert np.abs(after["a.bias"] - before["a.bias"]).max() > 1e-3
    np.testing.assert_array_equal(after["w.B"][-1], before["a.bias"])


# --- shapes and number types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_batch_size(programs_dir, count):
    model = make(tpc.load(programs_dir / "resmlp.py", classes=3))
    check(model, *batch(count=count), "cross_entropy")


def test_one_class_one_feature_one_latent():
    model = make(network("h = tpc.dense(x, 'a')", "return tpc.readout(tpc.relu(h), 1)"), dim=1, rank=1)
    x, _ = batch(dim=1)
    check(model, x, x, "mse")


def test_empty_stores_give_the_biases(programs_dir):
    model = make(tpc.load(programs_dir / "mlp.py", classes=3))
    state = model.state()
    for store in model.atoms:
        for name in state:
            if name.startswith(f"{store}.") and name != f"{store}.bias":
                state[name] = state[name][:0]
    model.load_state(state)
    assert set(model.atoms.values()) == {0}
    found = check(model, *batch(), "cross_entropy")
    np.testing.assert_allclose(found["logits"], np.tile(0.25 * state["readout.bias"], (4, 1)))
    model.step(*batch(), lr=0.1)
    assert set(model.atoms.values()) == {4}


def test_a_zero_input_has_finite_values_and_no_gradient(programs_dir):
    model = make(tpc.load(programs_dir / "mlp.py", classes=3, bias_scale=0.0))
    _, y = batch()
    found = check(model, np.zeros((4, DIM)), y, "cross_entropy")
    assert all(np.isfinite(v).all() for v in found.values())
    assert not found["logits"].any()
    assert not found["embed.A"].any()
    assert not found["readout.A"].any()


def test_a_zero_latent_passes_no_gradient(programs_dir):
    """step(0) = 0, so nothing flows back to the bias that could move it."""
    model = make(tpc.load(programs_dir / "mlp.py", classes=3))
    state = model.state()
    state["embed.bias"][:] = 0
    model.load_state(state)
    x, y = batch()
    x[1:] = 0
    alone = check(model, x, y, "mse")["embed.bias"]
    np.testing.assert_allclose(check(model, x[:1], y[:1], "mse")["embed.bias"] / 4, alone, rtol=1e-12)
    assert alone.any()


def test_norms_read_no_atoms(programs_dir):
    """What the norms need of the stored atoms is handed over by `gradients`."""
    gate = network(*PARTICULAR["a gate before a linear readout"])
    for program in (gate, *(tpc.load(programs_dir / f"{name}.py") for name in ("mlp", "resmlp"))):
        lowered = lower(tpc.compile(program).graph())
        assert not any(isinstance(s, Loop) for s in lowered.norms.steps)
        assert any(isinstance(s, Loop) for s in lowered.gradients.steps)


class WideNumbers:
    """Collects the float64 arrays that generated code holds while it runs."""

    def __init__(self):
        self.found = []
        self.lines = 0

    def __call__(self, frame, event, arg):
        if "tpc_generated" not in frame.f_code.co_filename:
            return None
        self.lines += 1
        for name, value in frame.f_locals.items():
            if isinstance(value, np.ndarray | np.generic) and value.dtype == np.float64:
                self.found.append((frame.f_code.co_name, frame.f_lineno, name))
        return self

    def __enter__(self):
        sys.settrace(self)
        return self

    def __exit__(self, *_):
        sys.settrace(None)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_no_array_becomes_float64_on_the_way(programs_dir, name, loss, momentum):
    model = make(tpc.load(programs_dir / f"{name}.py", classes=3), dtype="float32")
    x, y = batch()
    with WideNumbers() as seen:
        for _ in range(2):
            model.step(x, y, lr=0.1, weight_decay=0.1, momentum=momentum, clip=1.0, loss=loss)
        out = model.predict(x)
    assert seen.lines > 100
    assert not seen.found
    assert out.dtype == np.float32
    assert all(v.dtype == np.float32 for v in plain(model.state()).values())


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(
    ("phi", "adaptation"),
    [
        ("tpc.relu", "layers='readout', zero='readout', steps=2"),
        ("tpc.relu", "layers='all', order=1, loss='mse'"),
        ("tpc.erf", "layers='all', zero='readout', steps=2"),
    ],
)
def test_adapted_networks_stay_in_single_precision(phi, adaptation, loss):
    model = tpc.compile(adapted.network(adapted.mlp(phi), adaptation)).build(DIM, 4)
    (x, y), support = adapted.queried(), adapted.support()
    with WideNumbers() as seen:
        model.step(x, y, lr=0.1, clip=1.0, loss=loss, support=support)
        model.predict(x, support)
    assert seen.lines > 100
    assert not seen.found


ADAPTED = {
    "steps from zero": "layers=['readout', 'readout.bias'], zero='readout', steps=3, step_size=0.5",
    "first order": "layers='all', order=1, steps=2, step_size=0.5, loss='mse'",
    "second order": "layers='all', step_size=0.5",
}


@pytest.mark.parametrize("name", ADAPTED)
def test_adapted_networks(name):
    check_adapted(adapted.network(adapted.mlp("tpc.relu" if name != "second order" else "tpc.erf"), ADAPTED[name]))


@settings(max_examples=8, phases=(Phase.explicit, Phase.generate))
@given(networks(), st.data())
def test_random_adapted_networks(source, data):
    """Any network, adapted in any way that its nonlinearities allow."""
    smooth = not any(f"tpc.{phi}(" in source for phi in HOMOGENEOUS)
    weights = [w.name for w in traced(source).weights]
    outer = [name for name in weights if name.startswith("readout")]
    order = data.draw(st.sampled_from([1, 2]))
    layers = data.draw(st.sampled_from([["readout"], outer] if order == 2 and not smooth else [["readout"], weights]))
    zero = data.draw(st.sampled_from([(), ("readout",)]))
    steps = data.draw(st.integers(1, 1 if order == 2 and smooth and len(layers) > 2 else 2))
    loss = data.draw(st.sampled_from(["cross_entropy", "mse"]))
    arguments = f"layers={layers}, zero={zero}, order={order}, steps={steps}, step_size=0.2, loss={loss!r}"
    *body, last = source.splitlines()
    program = traced("\n".join([*body, last.replace("return ", "return tpc.adapt(") + f", {arguments})"]) + "\n")
    check_adapted(program, "mse" if loss == "cross_entropy" else "cross_entropy")


def check_adapted(program, loss="cross_entropy"):
    """`check` for data with a support."""
    model = make(program)
    (x, y), given = adapted.queried(), adapted.support()
    check(model, x, y, loss, data=model._support(given, len(x)))


def test_the_tracer_sees_wide_numbers(programs_dir):
    model = make(tpc.load(programs_dir / "mlp.py", classes=3), dtype="float64")
    with WideNumbers() as seen:
        model.predict(batch()[0])
    assert seen.found


# --- source ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_source_is_reproducible_and_readable(programs_dir, name):
    def source():
        return numpy_module(lower(tpc.compile(tpc.load(programs_dir / f"{name}.py")).graph()))

    text = source()
    assert text == source()
    assert text.startswith(f'"""The pi-limit of {name}, as NumPy code generated by tpc.')
    assert max(map(len, text.splitlines())) < 1200
    for function in ("predict(state, x)", "gradients(state, x, y)", "norms(state, ", "update(state, gradients, "):
        assert f"def {function}" in text


def test_two_sums_over_atoms_cannot_meet():
    p = network(
        "h = tpc.dense(x, 'a')",
        "f = tpc.readout(tpc.relu(h), 3)",
        "g = tpc.readout(tpc.erf(h), 3)",
        "return f * g",
    )
    check(make(p), *batch(), "mse")  # a product of finished sums is no problem
    p = network(
        "h = tpc.dense(tpc.relu(tpc.dense(x, 'a')), 'b')", "return tpc.readout(tpc.relu(h), 3) + 0 * tpc.moment(h, h)"
    )
    check(make(p), *batch(), "mse")
