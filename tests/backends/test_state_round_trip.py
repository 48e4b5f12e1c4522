"""`load_state(state())`, pickles and copies give the same model again, bit for bit, in every mode, on all backends."""

import copy
import pickle

import numpy as np
import pytest

import tpc
from tests.support.problems import CLASSES, DIM, RANK, batch, plain
from tpc.errors import UsageError
from tpc.runtime.models.folding import FoldOptions

DECAY = {"lr": 0.3, "weight_decay": 0.1}
MOMENTUM = {"lr": 0.1, "momentum": 0.6, "weight_decay": 0.05}
LONG_DECAY = {"lr": 1.0, "weight_decay": 0.4}  # rescales what is stored
FOLDED = FoldOptions(degree=2, window=5)
TAIL = FoldOptions(degree=2, window=5, points=12)
MODES = {
    "exact": ({}, {"lr": 0.3}),
    "decay": ({}, DECAY),
    "rescaled": ({}, LONG_DECAY),
    "momentum": ({}, MOMENTUM),
    "bfloat16": ({"storage": "bfloat16"}, DECAY),
    "float16": ({"storage": "float16"}, MOMENTUM),
    "folded": ({"mode": "folded", "fold": FOLDED}, DECAY),
    "folded, fitted": ({"mode": "folded", "fold": FoldOptions(degree=3, window=0)}, {"lr": 0.1}),
    "folded, sampled": ({"mode": "folded", "fold": TAIL}, DECAY),
    "folded, momentum": ({"mode": "folded", "fold": FOLDED}, {**MOMENTUM, "momentum": 0.1}),
    "folded, bfloat16": ({"mode": "folded", "fold": TAIL, "storage": "bfloat16"}, LONG_DECAY),
}


@pytest.fixture(params=["numpy", "native", "cuda_cpu"])
def name(request):
    if request.param == "cuda_cpu":
        request.getfixturevalue("cuda_cpu")
    return request.param


@pytest.fixture(scope="module")
def mlp(programs_dir):
    return tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES))


def built(limit, name, options, seed=0):
    return limit.build(DIM, RANK, backend=name, seed=seed, init="paper", **options)


def train(model, count, options, start=0):
    return [model.step(*batch(k), **options) for k in range(start, start + count)]


def assert_equal(a, b):
    one, other = a.state(), b.state()
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype, key
        np.testing.assert_array_equal(value, other[key], err_msg=key)
    assert (a.atoms, a.nbytes, a.remainders) == (b.atoms, b.nbytes, b.remainders)


def assert_goes_on_alike(a, b, options):
    assert_equal(a, b)
    assert train(a, 12, options, 20) == train(b, 12, options, 20)
    assert_equal(a, b)
    np.testing.assert_array_equal(a.predict(batch(3)[0]), b.predict(batch(3)[0]))


@pytest.mark.parametrize("mode", MODES)
def test_a_state_makes_the_same_model(mlp, name, mode):
    built_with, options = MODES[mode]
    model = built(mlp, name, built_with)
    train(model, 20, options)
    if "folded" in mode:
        assert any(v.count for k, v in model.raw_state.items() if k.endswith(".folded"))
    other = built(mlp, name, built_with, seed=9)
    other.load_state(model.state())
    assert_goes_on_alike(model, other, options)


@pytest.mark.parametrize("mode", ["decay", "momentum", "folded, bfloat16"])
def test_pickles_and_copies_are_equal_and_independent(mlp, name, mode):
    built_with, options = MODES[mode]
    model = built(mlp, name, built_with)
    train(model, 20, options)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        assert other.limit.program == model.limit.program
        before = model.state()
        twin = copy.deepcopy(model)
        assert_goes_on_alike(twin, other, options)
        for key, value in model.state().items():
            np.testing.assert_array_equal(value, before[key])


def test_atoms_that_were_folded_are_counted_again(mlp):
    model = built(mlp, "numpy", {"mode": "folded", "fold": FoldOptions(degree=2, window=0)})
    train(model, 20, {"lr": 0.1})
    other = built(mlp, "numpy", {"mode": "folded", "fold": FoldOptions(degree=2, window=0)})
    other.load_state(model.state())
    assert other.atoms == model.atoms == {"hidden1": 84, "readout": 84}


def test_few_shot_networks_round_trip(programs_dir, name):
    limit = tpc.compile(tpc.load(programs_dir / "maml.py"))
    rng = np.random.default_rng(0)
    support = tpc.Support(rng.standard_normal((5, DIM)), np.arange(5))
    x, y = rng.standard_normal((4, DIM)), np.array([0, 3, 1, 4])
    models = [limit.build(DIM, RANK, backend=name, seed=k) for k in (0, 1)]
    for _ in range(3):
        models[0].step(x, y, support=support, **MOMENTUM)
    models[1].load_state(models[0].state())
    for _ in range(3):
        a, b = (m.step(x, y, support=support, **MOMENTUM) for m in models)
        assert a == b
    assert_equal(*models)


@pytest.mark.parametrize("options", [{"lr": 0.3}, MOMENTUM])
@pytest.mark.parametrize("parametrization", ["mup", "pi"])
def test_finite_networks_round_trip(mlp, options, parametrization):
    rank = {"rank": 4} if parametrization == "pi" else {}
    net, other = (tpc.finite(mlp, 16, DIM, seed=k, parametrization=parametrization, **rank) for k in (0, 1))
    for k in range(3):
        net.step(*batch(k), **options)
    other.load_state(net.state())
    for twin in (other, pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        start = copy.deepcopy(net)
        for k in range(3):
            assert start.step(*batch(k), **options) == twin.step(*batch(k), **options)
        for key, value in start.state().items():
            np.testing.assert_array_equal(value, twin.state()[key], err_msg=key)


def test_programs_and_limits_are_pickled_and_copied(mlp):
    program = mlp.program
    again = pickle.loads(pickle.dumps(program))
    assert again == program
    assert [again.where(n) for n in again.nodes] == [program.where(n) for n in program.nodes]
    assert copy.deepcopy(program) == program
    for limit in (pickle.loads(pickle.dumps(mlp)), copy.deepcopy(mlp)):
        assert (limit.program, limit.kind) == (program, "pi")
    (logits, *_) = [value for _, value in program.outputs]
    assert copy.deepcopy(logits) is logits


def test_plain_states_start_momentum_at_zero(mlp):
    model = built(mlp, "numpy", {})
    train(model, 3, MOMENTUM)
    model.load_state(plain(model.state()))
    assert not model.has_momentum


def test_bookkeeping_that_does_not_fit_is_refused(mlp):
    model = built(mlp, "numpy", {})
    train(model, 3, MOMENTUM)
    state, before = model.state(), model.state()
    wrong = {
        r"expected hidden1\.A to be hidden1\.scale times hidden1\.stored": {"hidden1.A": 2 * state["hidden1.A"]},
        r"expected hidden1\.scale of shape": {"hidden1.scale": state["hidden1.scale"][1:]},
        r"expected rows of length 1 in hidden1\.B": {"hidden1.B": 2 * state["hidden1.B"]},
        r"expected finite numbers in hidden1\.velocity": {"hidden1.velocity": np.nan * state["hidden1.velocity"]},
        r"expected hidden1\.B to hold real numbers, got complex": {"hidden1.B": 1j * state["hidden1.B"]},
        r"expected numbers in embed\.A that float32 can hold": {"embed.A": state["embed.A"].astype(float) * 1e300},
    }
    for message, change in wrong.items():
        with pytest.raises(UsageError, match=message):
            model.load_state({**state, **change})
    with pytest.raises(UsageError, match=r"missing: hidden1\.velocity"):
        model.load_state({key: value for key, value in state.items() if key != "hidden1.velocity"})
    for given in (None, [1], "state", 3):
        with pytest.raises(UsageError, match="expected the arrays of a state by name"):
            model.load_state(given)
        with pytest.raises(UsageError, match="expected the arrays of a state by name"):
            tpc.finite(mlp, 8, DIM).load_state(given)
    with pytest.raises(UsageError, match="there is no array in the state called 1"):
        model.load_state({1: 2})
    for key, value in model.state().items():
        np.testing.assert_array_equal(value, before[key])


def test_numbers_beyond_16_bits_are_refused(mlp):
    model = built(mlp, "numpy", {"storage": "float16"})
    state = model.state()
    state["embed.bias"] = np.full_like(state["embed.bias"], 7e4)  # is no stored row
    state["hidden1.B"] = np.full_like(state["hidden1.B"], 7e4)
    with pytest.raises(UsageError, match=r"numbers in hidden1\.B that float16 can hold, up to 6\.55e\+04"):
        model.load_state(state)
