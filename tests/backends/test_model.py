"""The model: state in and out, wrong arguments, saving, and steps that diverge."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tpc
from tests.support.problems import CLASSES, DIM, RANK, batch, generic_state, make, plain
from tpc.errors import DataError, UsageError
from tpc.runtime.models.divergence import DivergedError

STEP = {"lr": 0.3, "lr_mult": {"embed": 0.5, "readout.bias": 2.0}, "weight_decay": 0.1}


@pytest.fixture(scope="module")
def mlp(programs_dir):
    return tpc.load(programs_dir / "mlp.py", classes=CLASSES)


@pytest.fixture(scope="module", params=["mlp", "resmlp"])
def program(request, programs_dir):
    return tpc.load(programs_dir / f"{request.param}.py", classes=CLASSES)


def erf_network():
    def network(x):
        return tpc.readout(tpc.erf(tpc.dense(tpc.erf(tpc.dense(x, "embed")), "hidden1")), CLASSES)

    return tpc.trace(network)


def train(model, steps, start=0, **options):
    return [model.step(*batch(k), **{**STEP, **options})["loss"] for k in range(start, start + steps)]


def assert_same(a, b):
    """Equal names and values, bit for bit."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.dtype == b[name].dtype
        np.testing.assert_array_equal(value, b[name], err_msg=name)


# --- building --------------------------------------------------------------------------------------------------------


def test_names_and_shapes_of_the_state(mlp):
    model = tpc.compile(mlp).build(DIM, RANK, dtype="float64")
    assert {name: value.shape for name, value in model.state().items()} == {
        "embed.A": (DIM, RANK),
        "embed.bias": (RANK,),
        "hidden1.A": (RANK, RANK),
        "hidden1.B": (RANK, RANK),
        "hidden1.bias": (RANK,),
        "readout.A": (RANK, CLASSES),
        "readout.B": (RANK, RANK),
        "readout.bias": (CLASSES,),
    }
    assert model.weights == ("embed", "embed.bias", "hidden1", "hidden1.bias", "readout", "readout.bias")
    assert model.atoms == {"hidden1": RANK, "readout": RANK}
    assert model.classes == CLASSES
    assert model.nbytes == sum(v.nbytes for v in model.state().values())


def test_initialization(program):
    limit = tpc.compile(program)
    state = limit.build(DIM, 64, dtype="float64", seed=3).state()
    np.testing.assert_allclose(np.linalg.norm(state["embed.A"], axis=0), 1)
    for name, value in state.items():
        if name.endswith(".B"):
            np.testing.assert_allclose(np.linalg.norm(value, axis=1), 1)
        elif name.endswith("bias") or name == "readout.A":
            assert not value.any()
        elif name != "embed.A":
            assert value.std() == pytest.approx(1 / 8, rel=0.1)
    paper = limit.build(DIM, 64, dtype="float64", seed=3, init="paper").state()
    assert paper["readout.A"].std() == pytest.approx(1 / 64, rel=0.3)
    np.testing.assert_array_equal(paper["embed.A"], state["embed.A"])


def test_initial_atoms_have_unit_length_for_every_nonlinearity():
    state = tpc.compile(erf_network()).build(DIM, RANK, dtype="float64").state()
    for name in ("hidden1.B", "readout.B"):
        np.testing.assert_allclose(np.linalg.norm(state[name], axis=1), 1)


def test_seeds(mlp):
    limit = tpc.compile(mlp)
    assert_same(limit.build(DIM, RANK, seed=1).state(), limit.build(DIM, RANK, seed=1).state())
    other = limit.build(DIM, RANK, seed=2).state()
    assert not np.array_equal(limit.build(DIM, RANK, seed=1).state()["embed.A"], other["embed.A"])


def test_widths_of_the_initialization_follow_the_program():
    def network(x, std=1.0):
        h = tpc.dense(x, "embed", weight_std=2 * std) + tpc.bias("embed", std=3 * std)
        h = tpc.dense(tpc.relu(h), "hidden1", weight_std=4 * std)
        return tpc.readout(tpc.relu(h), CLASSES, weight_std=5 * std)

    plain, wide = (
        tpc.compile(tpc.trace(network, std=std)).build(DIM, RANK, dtype="float64", init="paper").state()
        for std in (1.0, 2.0)
    )
    for name in ("embed.A", "embed.bias", "hidden1.A", "readout.A"):
        np.testing.assert_allclose(wide[name], 2 * plain[name])
    np.testing.assert_allclose(np.linalg.norm(plain["embed.A"], axis=0), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dim": 0}, "expected input_dim to be a positive whole number, got 0"),
        ({"rank": -1}, "expected rank to be a positive whole number, got -1"),
        ({"rank": 2.5}, "expected rank to be a positive whole number, got 2.5"),
        ({"rank": True}, "expected rank to be a positive whole number, got True"),
        ({"dtype": "float16"}, "expected dtype among float32, float64 on the numpy backend, got 'float16'"),
        ({"mode": "approximate"}, "expected mode among exact"),
        ({"storage": "float64"}, "expected storage among float32"),
        ({"backend": "torch"}, "expected a backend among numpy, native, cupy, got 'torch'"),
        ({"seed": -1}, "expected a seed ≥ 0, got -1"),
        ({"seed": 1.5}, "expected a seed ≥ 0, got 1.5"),
        ({"init": "xavier"}, "expected init among zero_readout, paper, got 'xavier'"),
    ],
)
def test_wrong_options_of_build(mlp, options, message):
    with pytest.raises(UsageError) as e:
        tpc.compile(mlp).build(**{"input_dim": DIM, "rank": RANK, **options})
    assert message in str(e.value)


# --- state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_state_round_trip(program, dtype):
    model = make(program, dtype=dtype)
    train(model, 3)
    other = tpc.compile(program).build(DIM, RANK, dtype=dtype, seed=9)
    other.load_state(model.state())
    x, _ = batch(5)
    np.testing.assert_allclose(other.predict(x), model.predict(x), rtol=2e-5 if dtype == "float32" else 1e-13)
    again = tpc.compile(program).build(DIM, RANK, dtype=dtype)
    again.load_state(other.state())
    assert_same(again.state(), other.state())


def test_the_state_is_a_copy(mlp):
    model = make(mlp)
    state = model.state()
    before = {n: v.copy() for n, v in state.items()}
    given = {n: v.copy() for n, v in state.items()}
    model.load_state(given)
    for value in (*state.values(), *given.values()):
        value += 1
    assert_same(model.state(), before)
    train(model, 1)
    assert_same(given, {n: v + 1 for n, v in before.items()})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_any_length_are_normalised_into_the_coefficients(mlp, dtype):
    model = make(mlp, dtype=dtype)
    state = model.state()
    x, _ = batch()
    expected = model.predict(x)
    factors = np.random.default_rng(0).uniform(0.1, 10, RANK + 2)
    for store in ("hidden1", "readout"):
        state[f"{store}.B"] = state[f"{store}.B"] * factors[:, None]
        state[f"{store}.A"] = state[f"{store}.A"] / factors[:, None]
    model.load_state(state)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4 if dtype == "float32" else 1e-12)
    loaded = model.state()
    np.testing.assert_allclose(np.linalg.norm(loaded["hidden1.B"], axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(loaded["hidden1.A"], state["hidden1.A"] * factors[:, None], rtol=1e-5)


def test_rows_of_a_function_that_is_not_homogeneous_stay_as_they_are():
    model = make(erf_network())
    state = model.state()
    state["hidden1.B"] = state["hidden1.B"] * 3
    model.load_state(state)
    assert_same(model.state(), state)


def test_zero_rows_contribute_nothing(mlp):
    model = make(mlp)
    state = model.state()
    state["readout.B"][2] = 0
    model.load_state(state)
    x, y = batch()
    without = {n: np.delete(v, 2, axis=0) if n in ("readout.A", "readout.B") else v for n, v in state.items()}
    other = make(mlp)
    other.load_state(without)
    np.testing.assert_allclose(model.predict(x), other.predict(x), rtol=1e-12)
    assert np.isfinite(model.step(x, y, lr=0.1, clip=1.0)["loss"])
    assert not model.state()["readout.B"][2].any()


def test_stores_may_have_any_number_of_atoms(mlp):
    model = make(mlp)
    state = model.state()
    for name in ("hidden1.A", "hidden1.B"):
        state[name] = np.concatenate([state[name]] * 3)
    model.load_state(state)
    assert model.atoms == {"hidden1": 3 * (RANK + 2), "readout": RANK + 2}


def wrong(state, name, change):
    return {**state, name: change(state[name])}


WRONG_STATES = {
    "expected embed.A of shape (5, 4), got (4, 5)": lambda s: wrong(s, "embed.A", np.transpose),
    "expected embed.A of shape (5, 4), got ()": lambda s: {**s, "embed.A": 3.0},
    "expected embed.bias of shape (4,), got (4, 1)": lambda s: wrong(s, "embed.bias", lambda v: v[:, None]),
    "expected hidden1.B of shape (5, 4), got (6, 4)": lambda s: wrong(s, "hidden1.A", lambda v: v[1:]),
    "expected hidden1.A of shape (0, 4), got ()": lambda s: {**s, "hidden1.A": 0.0},
    "expected readout.A of shape (6, 3), got (6, 2)": lambda s: wrong(s, "readout.A", lambda v: v[:, 1:]),
    "expected readout.bias to hold real numbers, got complex128": lambda s: wrong(s, "readout.bias", lambda v: 1j * v),
    "expected readout.bias to hold real numbers, got <U3": lambda s: {**s, "readout.bias": ["one", "two", "six"]},
    "expected readout.bias to hold real numbers, got object": lambda s: {**s, "readout.bias": None},
    "expected hidden1.A to be an array": lambda s: {**s, "hidden1.A": [[1.0], [2.0, 3.0]]},
    "missing: hidden1.B": lambda s: {n: v for n, v in s.items() if n != "hidden1.B"},
    "there is no array in the state called 'hiden1.A'": lambda s: {**s, "hiden1.A": s["hidden1.A"]},
    "Did you mean 'hidden1.A'?": lambda s: {**s, "hiden1.A": s["hidden1.A"]},
}


@pytest.mark.parametrize("message", WRONG_STATES)
def test_a_wrong_state_is_refused_and_changes_nothing(mlp, message):
    model = make(mlp)
    train(model, 1, momentum=0.9)
    before = model.state()
    with pytest.raises(UsageError) as e:
        model.load_state(WRONG_STATES[message](generic_state(model, seed=5)))
    assert message in str(e.value)
    assert_same(model.state(), before)


# --- steps -----------------------------------------------------------------------------------------------------------


def test_predictions(mlp):
    model = make(mlp, dtype="float32")
    x, _ = batch(count=7)
    whole = model.predict(x)
    assert whole.shape == (7, CLASSES)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.concatenate([model.predict(x[:3]), model.predict(x[3:])]), whole, rtol=1e-5)
    assert model.predict(x[:0]).shape == (0, CLASSES)
    np.testing.assert_allclose(model.predict(x.tolist()), whole, rtol=1e-5)


def test_many_rows_are_predicted_in_pieces(mlp, monkeypatch):
    model = make(mlp)
    x, _ = batch(count=25)
    whole = model.predict(x)
    monkeypatch.setattr("tpc.runtime.models.model.PREDICT_ROWS", 10)
    np.testing.assert_allclose(model.predict(x), whole, rtol=1e-12)


def test_class_numbers_are_one_hot_targets(mlp):
    a, b = make(mlp), make(mlp)
    x, _ = batch()
    labels = np.array([2, 0, 1, 1])
    first = a.step(x, labels, lr=0.3)
    second = b.step(x, np.eye(3)[labels], lr=0.3)
    assert first == second
    assert_same(a.state(), b.state())


def test_metrics_are_those_before_the_update(mlp):
    model = make(mlp)
    x, _ = batch()
    labels = np.array([2, 0, 1, 1])
    logits = model.predict(x)
    metrics = model.step(x, labels, lr=0.3, clip=0.1)
    assert metrics["accuracy"] == np.mean(logits.argmax(axis=1) == labels)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert metrics["loss"] == pytest.approx(-log_p[np.arange(4), labels].mean(), rel=1e-12)
    assert metrics["grad_norm"].keys() == set(model.weights)
    assert "grad_norm" not in model.step(x, labels, lr=0.3)


def test_a_step_appends_one_atom_per_sample(program):
    model = make(program)
    before = model.state()
    x, y = batch(count=3)
    model.step(x, y, lr=0.3)
    after = model.state()
    for name, value in before.items():
        if name.rpartition(".")[0] in model.atoms and not name.endswith("bias"):
            np.testing.assert_array_equal(after[name][:-3], value)
        else:
            assert after[name].shape == value.shape
            assert not np.array_equal(after[name], value)


def test_a_rate_of_zero_changes_no_value(mlp):
    model = make(mlp)
    x, y = batch()
    expected = model.predict(x)
    model.step(x, y, lr=0.0, weight_decay=0.5)
    np.testing.assert_array_equal(model.predict(x), expected)


X, Y = batch()
WRONG_STEPS = {
    "expected inputs of shape (N, 5), got (4, 4)": {"x": X[:, :4]},
    "expected inputs of shape (N, 5), got (5,)": {"x": X[0]},
    "expected inputs to hold real numbers, got complex128": {"x": 1j * X},
    "expected inputs to hold real numbers, got <U1": {"x": np.full(X.shape, "a")},
    "expected inputs to be an array": {"x": [[1.0], [2.0, 3.0]]},
    "expected at least one sample in a batch, got none": {"x": X[:0], "y": Y[:0]},
    "expected 4 class numbers or targets of shape (4, 3), got int64 of shape (3,)": {"y": np.array([0, 1, 2])},
    "expected 4 class numbers or targets of shape (4, 3), got float64 of shape (4,)": {"y": np.zeros(4)},
    "expected 4 class numbers or targets of shape (4, 3), got float64 of shape (4, 2)": {"y": Y[:, :2]},
    "expected class numbers from 0 to 2, got -1 to 2": {"y": np.array([0, 1, 2, -1])},
    "expected class numbers from 0 to 2, got 0 to 3": {"y": np.array([0, 1, 2, 3])},
    "expected a loss among cross_entropy, mse, got 'hinge'": {"loss": "hinge"},
    "expected lr to be a finite number ≥ 0, got nan": {"lr": float("nan")},
    "expected lr to be a finite number ≥ 0, got '0.1'": {"lr": "0.1"},
    "expected weight_decay to be a finite number ≥ 0, got inf": {"weight_decay": float("inf")},
    "expected 0 ≤ momentum < 1, got 1.0": {"momentum": 1.0},
    "expected momentum to be a finite number ≥ 0, got -0.1": {"momentum": -0.1},
    "expected clip to be a positive number, got 0": {"clip": 0, "momentum": 0.9},
    "expected clip to be a positive number, got nan": {"clip": float("nan")},
    "expected a clip mode among param, global, got 'layer'": {"clip": 1.0, "clip_mode": "layer"},
    "there is no weight in lr_mult called 'hiden1'": {"lr_mult": {"hiden1": 2.0}},
    "expected one of embed, embed.bias, hidden1, hidden1.bias, readout, readout.bias. Did you mean 'hidden1'?": {
        "lr_mult": {"hiden1": 2.0}
    },
    "expected lr_mult['embed'] to be a finite number ≥ 0, got nan": {"lr_mult": {"embed": float("nan")}},
}


@pytest.mark.parametrize("message", WRONG_STEPS)
def test_a_wrong_step_is_refused_and_changes_nothing(mlp, message):
    model = make(mlp)
    before = model.state()
    with pytest.raises(UsageError) as e:
        model.step(**{"x": X, "y": Y, "lr": 0.1, "momentum": 0.5, **WRONG_STEPS[message]})
    assert message in str(e.value)
    assert_same(model.state(), before)
    assert model.nbytes == sum(v.nbytes for v in before.values())  # no momentum was started either


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_that_diverges_is_told_and_leaves_the_state_as_it_was(program, momentum, dtype):
    x = X * (1e200 if dtype == "float64" else 1e30)
    model = make(program, dtype=dtype)
    train(model, 2, momentum=momentum)
    before, predicted = model.state(), model.predict(X)
    if program.name == "resmlp":  # whose normalisation makes it harmless
        assert np.isfinite(model.step(x, Y, **STEP)["loss"])
        return
    with pytest.raises(DivergedError, match=r"the step was not taken.*lower lr \(it is 0\."):
        model.step(x, Y, clip=1.0, momentum=momentum, **STEP)
    assert_same(model.state(), before)
    np.testing.assert_array_equal(model.predict(X), predicted)


def test_targets_that_are_not_numbers_leave_the_state_as_it_was(mlp):
    model = make(mlp)
    before = model.state()
    for x, y in ((X, Y * np.nan), (X * np.inf, Y), (np.where(np.arange(DIM) == 2, np.nan, X), Y)):
        with pytest.raises(UsageError, match=r"expected finite (inputs|targets), got NaN or infinity"):
            model.step(x, y, lr=0.1)
    assert_same(model.state(), before)


# --- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", ["mlp", "resmlp", "erf"])
def test_a_loaded_model_continues_bit_for_bit(programs_dir, tmp_path, name, momentum, dtype):
    program = erf_network() if name == "erf" else tpc.load(programs_dir / f"{name}.py", classes=CLASSES)
    model = make(program, dtype=dtype)
    options = {"momentum": momentum} if name != "erf" else {"momentum": momentum, "lr_mult": {"embed": 0.5}}
    train(model, 3, **options)
    model.save(tmp_path / "model.npz")
    loaded = tpc.Model.load(tmp_path / "model.npz")
    assert loaded.limit.program == program
    assert (loaded.dtype, loaded.rank, loaded.input_dim) == (dtype, RANK, DIM)
    assert_same(loaded.state(), model.state())
    assert train(loaded, 3, start=3, clip=1.0, **options) == train(model, 3, start=3, clip=1.0, **options)
    assert_same(loaded.state(), model.state())
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_momentum_that_has_begun_is_saved(mlp, tmp_path):
    model = make(mlp)
    train(model, 3, momentum=0.9)
    model.save(tmp_path / "model.npz")
    forgetful = make(mlp)
    forgetful.load_state(plain(model.state()))
    loaded = tpc.Model.load(tmp_path / "model.npz")
    a, b, c = (train(m, 2, start=3, momentum=0.9) for m in (model, loaded, forgetful))
    assert a == b
    assert a != c


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"expected a saved model at .*model\.npz, found none"):
        tpc.Model.load(tmp_path / "model.npz")


@pytest.fixture(scope="module")
def saved(mlp, tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "model.npz"
    model = make(mlp)
    train(model, 2, momentum=0.9)
    model.save(file)
    return file.read_bytes(), model.predict(X)


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_file_is_told_or_read_as_it_was(saved, tmp_path_factory, data):
    raw, expected = saved
    text = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        k = data.draw(st.integers(0, len(text) - 1))
        text[k : k + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=4))
    file = tmp_path_factory.getbasetemp() / "damaged.npz"
    file.write_bytes(text)
    try:
        predicted = tpc.Model.load(file).predict(X)
    except DataError as e:
        told = str(e)
        predicted = expected
    else:
        told = str(file)
    assert str(file) in told
    np.testing.assert_array_equal(predicted, expected)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file(saved, tmp_path, share):
    raw, _ = saved
    file = tmp_path / "model.npz"
    file.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(DataError, match=r"model\.npz is not a complete saved model"):
        tpc.Model.load(file)


def rewritten(raw, tmp_path, change):
    """The saved file with other contents."""
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    first.write_bytes(raw)
    with np.load(first) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(arrays["meta"].tobytes())
    change(arrays, meta)
    if "meta" in arrays:
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(second, **arrays)
    return second


CHANGES = {
    "reads format 2": lambda arrays, meta: meta.update(format=3),
    "is not a complete saved model": lambda arrays, meta: arrays.pop("meta"),
    "embed.A": lambda arrays, meta: arrays.pop("array/embed.A"),
    "hidden1.B": lambda arrays, meta: arrays.update({"hidden1/B": arrays["hidden1/B"][:, 1:]}),
    "expected embed.bias of shape": lambda arrays, meta: arrays.update({"array/embed.bias": np.zeros(9)}),
    "rank": lambda arrays, meta: meta.update(rank=-3),
    "'input_dim'": lambda arrays, meta: meta.pop("input_dim"),
    "unknown operation": lambda arrays, meta: meta.update(program=meta["program"].replace("matmul", "mulmat")),
    "expected a listing": lambda arrays, meta: meta.update(program=""),
    "expected dtype among": lambda arrays, meta: meta.update(dtype="object"),
    "expected a backend among": lambda arrays, meta: meta.update(backend="os"),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_file_with_wrong_contents(saved, tmp_path, message):
    file = rewritten(saved[0], tmp_path, CHANGES[message])
    with pytest.raises(DataError) as e:
        tpc.Model.load(file)
    assert message in str(e.value)


def test_pickles_are_not_read(saved, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("",))

    hostile = {"hidden1/B": np.array([Hostile()], dtype=object)}
    file = rewritten(saved[0], tmp_path, lambda arrays, meta: arrays.update(hostile))
    with pytest.raises(DataError):
        tpc.Model.load(file)
    assert not (tmp_path / "ran").exists()


def test_saving_and_loading_copy_no_store(tmp_path, mlp):
    """Peak memory beyond the model itself: a little for saving, one column for loading."""
    model = tpc.compile(mlp).build(DIM, 64, dtype="float32")
    rng = np.random.default_rng(0)
    count = 60_000
    for name, store in model._state.items():
        if name in model.atoms:
            widths = {n: (count, *w) for n, w in store.widths.items()}
            store.extend({n: rng.standard_normal(shape, dtype=np.float32) for n, shape in widths.items()})
    path = tmp_path / "model.npz"
    tracemalloc.start()
    model.save(path)
    saving = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    again = tpc.Model.load(path)
    loading = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert again.atoms == model.atoms
    assert saving < 0.1 * model.nbytes
    assert loading < 1.2 * model.nbytes + 4 * 64 * count
