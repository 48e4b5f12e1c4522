"""Loops over atoms against NumPy in float64, on every backend that has its own: one suite for all of them."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import tpc
from backends.numpy_backend import BACKEND as NUMPY
from tests.support.generators import networks, traced
from tests.support.loops import CLASSES, DIM, NONLINEARITIES, RANK_BY_RANK, Problem, Rounded, error, network
from tests.support.problems import plain
from tpc.lower.cuda_module import cuda_module
from tpc.lower.native_module import native_module
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.models.folding import FoldOptions


@pytest.fixture
def source(backend):
    """The generated Python of a problem."""

    def text(problem):
        made = native_module if backend.NAME == "native" else cuda_module
        return made(problem.lowered).python

    return text


def mlp(programs_dir, **options):
    return Problem(tpc.load(programs_dir / "mlp.py", classes=CLASSES), **options)


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_programs(programs_dir, backend, exact, source, name, momentum, loss):
    problem = Problem(tpc.load(programs_dir / f"{name}.py", classes=CLASSES), loss=loss, momentum=momentum)
    text = source(problem)
    assert "over_blocks" not in text
    assert text.count("native[") >= 6
    assert error(problem.run(backend, "float32"), problem.exact()) < exact()


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("name", NONLINEARITIES)
def test_nonlinearities(backend, exact, source, name, momentum):
    problem = Problem(network(NONLINEARITIES[name]), momentum=momentum)
    text = source(problem)
    assert "native[" in text
    assert ("over_blocks" in text) == (name in RANK_BY_RANK)
    assert error(problem.run(backend, "float32"), problem.exact()) < 5 * exact()


@pytest.mark.parametrize("phi", [tpc.tanh, tpc.silu])
def test_tables_are_blocks(backend, source, phi):
    problem = Problem(network(phi), batch=5)
    assert "over_blocks" in source(problem)
    assert error(problem.run(backend, "float32"), problem.exact()) < 1e-5


def test_loops_of_both_kinds_keep_their_products_apart(backend, source):
    """A layer of relu beside one of tanh: products are kept natively, by blocks, or computed again."""

    def f(x):
        h = tpc.dense(x, name="embed")
        h = tpc.dense(tpc.relu(h), name="hidden1")
        return tpc.readout(tpc.tanh(h), CLASSES, name="readout")

    problem = Problem(tpc.trace(f))
    text = source(problem)
    assert "over_blocks" in text
    assert "native[" in text
    assert error(problem.run(backend, "float32"), problem.exact()) < 1e-5


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(given=networks())
def test_random_networks(backend, given):
    problem = Problem(traced(given), count=70)
    wanted = problem.exact()
    single = problem.run(NUMPY, "float32")
    rounding = error(single, wanted)  # NumPy's own in float32
    assert error(problem.run(backend, "float32"), wanted) < 10 * rounding + 5e-6


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 8, 9, 33, 128, 300])
@pytest.mark.parametrize("momentum", [False, True])
def test_batches(programs_dir, backend, exact, batch, momentum):
    problem = mlp(programs_dir, batch=batch, count=200, rank=20, momentum=momentum)
    assert error(problem.run(backend, "float32"), problem.exact()) < exact()


@pytest.mark.parametrize("batch", [8, 40])
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rank", [1, 7, 16, 50])
def test_ranks(backend, exact, rank, storage, batch):
    problem = Problem(network(tpc.erf), rank=rank, count=41, batch=batch)
    found = problem.run(backend, "float32", storage)
    assert error(found, Rounded(problem, storage).exact()) < 5 * exact(storage)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 63, 64, 65, 1000])
@pytest.mark.parametrize("batch", [3, 40])
def test_numbers_of_atoms(programs_dir, backend, exact, count, batch):
    problem = mlp(programs_dir, count=count, batch=batch)
    assert error(problem.run(backend, "float32"), problem.exact()) < exact()
    found = problem.run(backend, "float32", function="predict")
    assert error(found, problem.exact(function="predict")) < exact()


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_one_class_one_latent(backend, exact, storage):
    def f(x):
        return tpc.readout(tpc.relu(tpc.dense(x, name="embed")), 1, name="readout")

    problem = Problem(tpc.trace(f), rank=1, count=10, loss="mse")
    found = problem.run(backend, "float32", storage)
    assert error(found, Rounded(problem, storage).exact()) < exact(storage)


@lru_cache(maxsize=1)
def many_arrays():
    """Eight input layers that share one hidden matrix: its loops take products, arguments and sums of each."""

    def f(x):
        layers = [tpc.dense(x, name=f"e{k}", space="s") for k in range(8)]
        parts = [tpc.relu(tpc.dense(tpc.relu(h), name="w")) for h in layers]
        return tpc.readout(sum(parts[1:], parts[0]), CLASSES, name="readout")

    return Problem(tpc.trace(f), count=40, batch=3)


def test_loops_of_many_arrays(backend, exact):
    problem = many_arrays()
    assert max(len(loop.arguments) for loop in native_module(problem.lowered).loops) >= 16
    assert error(problem.run(backend, "float32"), problem.exact()) < 5 * exact()


# --- 16-bit storage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize(("storage", "unit"), [("bfloat16", 2**-8), ("float16", 2**-11)])
@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_storage_of_16_bits_rounds_nothing_but_the_atoms(programs_dir, backend, exact, name, storage, unit, momentum):
    problem = Problem(tpc.load(programs_dir / f"{name}.py", classes=CLASSES), rank=40, momentum=momentum)
    found = problem.run(backend, "float32", storage)
    assert error(found, Rounded(problem, storage).exact()) < exact(storage)
    assert 1e-5 < error(found, problem.exact()) < 4 * unit


# --- training --------------------------------------------------------------------------------------------------------

STEPS = {
    "plain": {},
    "momentum and decay": {"momentum": 0.9, "weight_decay": 0.05},
    "clipped": {"clip": 0.1, "clip_mode": "param"},
    "clipped globally": {"clip": 0.2, "clip_mode": "global", "loss": "mse"},
}
FOLDED = {"mode": "folded", "fold": FoldOptions(window=64)}
SAMPLED = {"mode": "folded", "fold": FoldOptions(window=64, points=40)}
KINDS = {"exact": {}, "folded": FOLDED, "sampled": SAMPLED}


def train(models, steps, seed=3, **options):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        x, y = rng.standard_normal((10, DIM)), rng.integers(0, CLASSES, 10)
        for model in models:
            model.step(x, y, **{"lr": 0.2, **options})
    return np.random.default_rng(seed + 1).standard_normal((200, DIM))


@pytest.mark.parametrize("options", STEPS)
@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_trajectories_follow_numpy(programs_dir, backend, name, options):
    limit = tpc.compile(tpc.load(programs_dir / f"{name}.py", classes=CLASSES))
    wide, single, own = (
        limit.build(DIM, 9, backend=b, dtype=d)
        for b, d in (("numpy", "float64"), ("numpy", "float32"), (backend.NAME, "float32"))
    )
    x = train([wide, single, own], 25, **STEPS[options])
    rounding = np.abs(single.predict(x) - wide.predict(x)).max()
    assert np.abs(own.predict(x) - wide.predict(x)).max() < 10 * rounding + 1e-6


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("mode", KINDS)
def test_fifty_steps_with_everything(programs_dir, backend, mode, storage):
    """Logits against NumPy in float32: 1e-3 of the largest in float32, 2e-2 with 16 bits."""
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES))
    kind = KINDS[mode]
    wanted = limit.build(DIM, 9, seed=1, **kind)
    found = limit.build(DIM, 9, seed=1, backend=backend.NAME, storage=storage, **kind)
    before = wanted.state()
    for name, value in plain(found.state()).items():  # the same seeds give the same initial state
        np.testing.assert_allclose(value, before[name], rtol=0 if storage == "float32" else 2**-8, err_msg=name)
    options = {"clip": 0.5, "weight_decay": 0.01, "lr_mult": {"readout": 2.0}}
    train([wanted, found], 30, **options)
    x = train([wanted, found], 20, seed=5, momentum=0.8, **options)
    logits = wanted.predict(x)
    close = (1e-3 if storage == "float32" else 2e-2) * np.abs(logits).max()
    assert np.abs(found.predict(x) - logits).max() < close
    assert found.atoms == wanted.atoms
    assert found.remainders == pytest.approx(wanted.remainders, rel=0.05)


@pytest.mark.parametrize("phi", [tpc.erf, tpc.abs, tpc.gelu], ids=["erf", "abs", "gelu"])
@pytest.mark.parametrize("points", [0, 40])
def test_folded_nonlinearities(backend, phi, points):
    """Profiles that depend on the length of rows; degrees that vanish."""
    limit, fold = tpc.compile(network(phi)), FoldOptions(degree=3, window=32, points=points)
    wanted, found = (limit.build(DIM, 7, backend=b, mode="folded", fold=fold) for b in ("numpy", backend.NAME))
    x = train([wanted, found], 12, lr=0.05)
    logits = wanted.predict(x)
    assert np.abs(found.predict(x) - logits).max() < 1e-3 * np.abs(logits).max()
    assert found.remainders == pytest.approx(wanted.remainders, rel=1e-3)


def test_the_same_steps_give_the_same_bits(programs_dir, backend):
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES))
    models = [limit.build(DIM, 9, backend=backend.NAME) for _ in range(2)]
    train(models, 5)
    for name, value in models[0].state().items():
        np.testing.assert_array_equal(models[1].state()[name], value)


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", KINDS)
def test_a_run_starts_on_one_backend_and_goes_on_on_another(programs_dir, backend, tmp_path, mode, storage):
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES))
    kind = KINDS[mode]
    options = {"momentum": 0.5, "clip": 0.5}
    for first, second in ((backend.NAME, "numpy"), ("numpy", backend.NAME), (backend.NAME, backend.NAME)):
        model = limit.build(DIM, 9, backend=first, storage=storage, **kind)
        train([model], 15, **options)
        model.save(tmp_path / "model.npz")
        again = tpc.Model.load(tmp_path / "model.npz", backend=second)
        for name, value in model.state().items():
            np.testing.assert_array_equal(again.state()[name], value, err_msg=name)
        x = train([model, again], 10, seed=8, **options)
        close = 0 if first == second else 1e-3 if storage == "float32" else 2e-2
        np.testing.assert_allclose(again.predict(x), model.predict(x), rtol=0, atol=close)


def test_not_a_number_is_passed_on(programs_dir, backend):
    problem = mlp(programs_dir)
    problem.columns["hidden1"][1]["A"][7] = np.nan
    assert np.isnan(problem.run(backend, "float32")["loss"])
    problem = mlp(programs_dir)
    problem.x[1] = np.inf
    with np.errstate(all="ignore"):
        assert np.isnan(problem.run(backend, "float32")["loss"])


def test_a_step_that_diverges_changes_nothing(programs_dir, backend):
    model = tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES)).build(DIM, 9, backend=backend.NAME)
    train([model], 2)
    before = model.state()
    x, y = np.full((4, DIM), 1e30), np.zeros(4, dtype=int)
    with pytest.raises(DivergedError, match="the step was not taken"):
        model.step(x, y, lr=0.1, clip=1.0)
    for name, value in model.state().items():
        np.testing.assert_array_equal(value, before[name])
