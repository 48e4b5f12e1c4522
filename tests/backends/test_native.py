"""Native loops against NumPy in float64: networks, losses, batches, ranks, segments, momentum, storage, threads."""

import os
import re
import signal
import threading
import time

import numpy as np
import pytest
from generators import networks, traced
from hypothesis import given, settings
from threadpoolctl import threadpool_info, threadpool_limits

import tpc
from backends import blocks, native_backend, native_build, native_loops, numpy_backend, powers
from backends.blocks import threads
from backends.native_powers import half
from tpc.errors import UsageError
from tpc.lower.lowered import lower
from tpc.lower.native_module import c_source, native_module
from tpc.runtime.initial import shape_of
from tpc.runtime.model import Model

DIM, CLASSES = 6, 3
EXACT = 5e-6  # of an array's largest entry: what float32 leaves of it


def network(phi, hidden=2):
    def f(x):
        h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
        for k in range(1, hidden):
            h = tpc.dense(phi(h), name=f"hidden{k}") + 0.5 * tpc.bias(f"hidden{k}")
        return tpc.readout(phi(h), CLASSES, name="readout")

    f.__name__ = "network"
    return tpc.trace(f)


class Problem:
    """One limit with random atoms, the same on every backend."""

    def __init__(self, program, *, rank=7, count=300, batch=8, loss="cross_entropy", momentum=False, seed=0):
        self.model = Model(tpc.compile(program), DIM, rank, dtype="float64")
        self.lowered = lower(self.model.limit.graph(loss), momentum)
        self.momentum = momentum
        rng = np.random.default_rng(seed)
        self.arrays = {
            u.state.name: 0.5 * rng.standard_normal(shape_of(u.state.axes, self.model.sizes, rank))
            for u in self.model.graph.accumulated
        }
        self.columns = {}
        for s in self.model.graph.stores:
            widths = self.model.widths(s)
            drawn = {n: rng.standard_normal((count, *w)) for n, w in widths.items()}
            for n in drawn:
                if n == "A":
                    drawn[n] /= np.sqrt(max(1, count))
                elif n.startswith("B"):
                    drawn[n] /= np.linalg.norm(drawn[n], axis=1, keepdims=True)
            self.columns[s.name] = widths, drawn
        self.x = rng.standard_normal((batch, DIM))
        self.y = rng.uniform(0.1, 1, (batch, self.model.classes))
        self.y /= self.y.sum(axis=1, keepdims=True)

    def state(self, backend, dtype, storage=None, rows=64):
        state = {n: backend.array(a, dtype) for n, a in self.arrays.items()}
        for k, (name, (widths, drawn)) in enumerate(self.columns.items()):
            atoms = backend.new_atoms(widths, dtype, self.momentum, storage, rows)
            middle = len(drawn["A"]) // 2
            atoms.extend({n: v[:middle] for n, v in drawn.items()}, 0.5, 0.1)
            atoms.extend({n: v[middle:] for n, v in drawn.items()}, -1.5 - k, 0.2)
            state[name] = atoms
        return state

    def run(self, backend, dtype, storage=None, rows=64, function="gradients"):
        state = self.state(backend, dtype, storage, rows)
        module = backend.compile_module(self.lowered)
        x, y = (backend.array(a, dtype) for a in (self.x, self.y))
        if function == "predict":
            return module.predict(state, x)
        out = module.gradients(state, x, y)
        arguments = [{"x": x, "y": y}.get(key, out.get(key)) for key in module.NORM_ARGUMENTS]
        return {**out, **{f"norm:{n}": v for n, v in module.norms(state, *arguments).items()}}

    def exact(self, **options):
        return self.run(numpy_backend, "float64", **options)

    def native(self, storage=None, **options):
        return self.run(native_backend, "float32", storage, **options)


def error(found, wanted):
    """The largest difference, in units of the largest entry of each array or 1e-3."""
    assert found.keys() == wanted.keys()
    worst = 0.0
    for name, value in wanted.items():
        got, value = np.asarray(found[name]), np.asarray(value)
        assert got.shape == value.shape, name
        assert got.ndim == 0 or got.dtype == np.float32, name
        worst = max(worst, float(np.abs(got - value).max(initial=0) / max(1e-3, np.abs(value).max(initial=0))))
    return worst


@pytest.fixture
def thread_count():
    workers = threads()
    before = workers.count
    yield workers.set
    workers.set(before)


@pytest.fixture(autouse=True)
def compiled_natively(monkeypatch):
    """No test here may pass because NumPy ran instead."""

    def refuse(reason):
        raise AssertionError(reason)

    monkeypatch.setattr(native_backend, "_warn", refuse)


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_programs(programs_dir, name, momentum, loss):
    problem = Problem(tpc.load(programs_dir / f"{name}.py", classes=CLASSES), loss=loss, momentum=momentum)
    loops = native_module(problem.lowered)
    assert "over_blocks" not in loops.python
    assert len(loops.loops) >= 6
    assert error(problem.native(), problem.exact()) < EXACT


NONLINEARITIES = {
    "relu": tpc.relu, "erf": tpc.erf, "gelu": tpc.gelu, "abs": tpc.abs, "leaky_relu": tpc.leaky_relu, "sin": tpc.sin,
    "cos": tpc.cos, "exp": lambda h: tpc.exp(0.3 * h), "identity": tpc.identity,
    "square": lambda h: 0.3 * tpc.relu(h) ** 2, "cubic": lambda h: h - 0.1 * h**3,
}  # fmt: skip


RANK_BY_RANK = ("identity", "cubic")  # whose linear part is summed as Aᵀ B, a matrix without samples


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("name", NONLINEARITIES)
def test_nonlinearities(name, momentum):
    problem = Problem(network(NONLINEARITIES[name]), momentum=momentum)
    source = native_module(problem.lowered).python
    assert "native[" in source
    assert ("over_blocks" in source) == (name in RANK_BY_RANK)
    assert error(problem.native(), problem.exact()) < 5 * EXACT


def test_tables_stay_with_numpy():
    problem = Problem(network(tpc.tanh), batch=5)
    source = native_module(problem.lowered).python
    assert "over_blocks" in source
    assert error(problem.native(), problem.exact()) < 1e-5


def test_loops_of_both_kinds_keep_their_products_apart():
    """A layer of relu beside one of tanh: products are kept natively, by blocks, or computed again."""

    def f(x):
        h = tpc.dense(x, name="embed")
        h = tpc.dense(tpc.relu(h), name="hidden1")
        return tpc.readout(tpc.tanh(h), CLASSES, name="readout")

    problem = Problem(tpc.trace(f))
    source = native_module(problem.lowered).python
    assert "over_blocks" in source
    assert "native[" in source
    assert error(problem.native(), problem.exact()) < 1e-5


@settings(max_examples=12)
@given(networks())
def test_random_networks(source):
    problem = Problem(traced(source), count=70)
    wanted = problem.exact()
    single = problem.run(numpy_backend, "float32")
    rounding = error(single, wanted)  # NumPy's own in float32
    assert error(problem.native(), wanted) < 10 * rounding + EXACT


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 8, 9, 33, 128, 300])
@pytest.mark.parametrize("momentum", [False, True])
def test_batches(programs_dir, batch, momentum):
    problem = Problem(
        tpc.load(programs_dir / "mlp.py", classes=CLASSES), batch=batch, count=200, rank=20, momentum=momentum
    )
    assert error(problem.native(), problem.exact()) < EXACT


@pytest.mark.parametrize("batch", [8, 40])
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rank", [1, 2, 7, 15, 16, 17, 31, 32, 33, 48, 50])
def test_ranks(rank, storage, batch):
    problem = Problem(network(tpc.erf), rank=rank, count=41, batch=batch)
    stored = Rounded(problem, storage)
    assert error(problem.native(storage), stored.exact()) < 5 * EXACT


@pytest.mark.parametrize("count", [0, 1, 2, 3, 63, 64, 65, 1000])
@pytest.mark.parametrize("batch", [3, 40])
def test_numbers_of_atoms(programs_dir, count, batch):
    problem = Problem(tpc.load(programs_dir / "mlp.py", classes=CLASSES), count=count, batch=batch)
    assert error(problem.native(), problem.exact()) < EXACT
    assert error(problem.native(function="predict"), problem.exact(function="predict")) < EXACT


def test_one_class_one_latent():
    def f(x):
        return tpc.readout(tpc.relu(tpc.dense(x, name="embed")), 1, name="readout")

    problem = Problem(tpc.trace(f), rank=1, count=10, loss="mse")
    assert error(problem.native(), problem.exact()) < EXACT


def test_loops_of_more_than_64_arrays():
    """Eight input layers that share one hidden matrix: its loops take products, arguments and sums of each."""

    def f(x):
        layers = [tpc.dense(x, name=f"e{k}", space="s") for k in range(8)]
        parts = [tpc.relu(tpc.dense(tpc.relu(h), name="w")) for h in layers]
        return tpc.readout(sum(parts[1:], parts[0]), CLASSES, name="readout")

    problem = Problem(tpc.trace(f), count=40, batch=3)
    rooms = [int(n) for n in re.findall(r"void \*taken\[(\d+)\]", c_source(problem.lowered))]
    assert max(rooms) > 64
    assert error(problem.native(), problem.exact()) < 5 * EXACT


@pytest.mark.parametrize("batch", [8, 40])
@pytest.mark.parametrize("name", ["mlp", "resmlp", "erf"])
def test_products_that_are_not_kept_are_computed_again(programs_dir, monkeypatch, name, batch):
    program = network(tpc.erf) if name == "erf" else tpc.load(programs_dir / f"{name}.py", classes=CLASSES)
    problem = Problem(program, batch=batch, momentum=True)
    monkeypatch.setattr(native_loops, "FUSED_BATCH", batch)
    kept = problem.native()
    monkeypatch.setattr(native_loops, "FUSED_BATCH", 0)
    monkeypatch.setattr(native_loops, "KEEP_SHARE", 0)
    again = problem.native()
    for key, value in kept.items():
        np.testing.assert_array_equal(again[key], value)


# --- 16-bit storage --------------------------------------------------------------------------------------------------


class Rounded:
    """A problem whose atoms are those that a 16-bit store holds."""

    def __init__(self, problem, storage):
        self.problem, self.storage = problem, storage

    def exact(self):
        problem, columns = self.problem, {}
        for name, (widths, drawn) in problem.columns.items():
            atoms = native_backend.new_atoms(widths, "float32", False, self.storage)
            atoms.extend(drawn)
            columns[name] = widths, {n: atoms.column(n).astype(np.float64) for n in drawn}
        kept, problem.columns = problem.columns, columns
        try:
            return problem.exact()
        finally:
            problem.columns = kept


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize(("storage", "unit"), [("bfloat16", 2**-8), ("float16", 2**-11)])
@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_storage_of_16_bits_rounds_nothing_but_the_atoms(programs_dir, name, storage, unit, momentum):
    problem = Problem(tpc.load(programs_dir / f"{name}.py", classes=CLASSES), rank=40, momentum=momentum)
    found = problem.native(storage)
    assert error(found, Rounded(problem, storage).exact()) < EXACT
    assert 1e-5 < error(found, problem.exact()) < 4 * unit


# --- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [8, 40])
def test_threads_change_nothing_but_rounding(programs_dir, monkeypatch, thread_count, batch):
    monkeypatch.setattr(native_loops, "THREAD_WORK", 1)
    problem = Problem(tpc.load(programs_dir / "mlp.py", classes=CLASSES), count=3000, batch=batch, rank=20)
    wanted = problem.exact()
    for count in (1, 2, 3):
        thread_count(count)
        first, again = problem.native(), problem.native()
        assert error(first, wanted) < EXACT
        for name, value in first.items():
            np.testing.assert_array_equal(again[name], value)  # never on timing


def blas_threads():
    return {i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"}


def test_blas_keeps_to_one_thread_until_the_last_is_done():
    workers = blocks._Threads()  # which knows every BLAS that is loaded by now
    inside, leave = threading.Event(), threading.Event()

    def other():
        with workers.alone():
            inside.set()
            leave.wait(10)

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        assert before == {2}
        second = threading.Thread(target=other)
        with workers.alone(), workers.alone():
            second.start()
            assert inside.wait(10)
            assert blas_threads() == {1}
        assert blas_threads() == {1}  # the second is not done
        leave.set()
        second.join()
        with workers.alone():
            assert blas_threads() == {1}
        assert blas_threads() == before


def test_a_forked_process_has_threads_of_its_own(thread_count):
    thread_count(2)
    threads().run([lambda: 1, lambda: 2])  # the pool has started
    child = os.fork()
    if child == 0:
        found = 1
        try:
            workers = threads()
            workers.set(2)
            found = 0 if workers.run([lambda: 1, lambda: 2]) == [1, 2] else 2
        finally:
            os._exit(found)
    for _ in range(100):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError("the forked process waits for threads it does not have")
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("text", ["abc", "-1", "1.5"])
def test_a_number_of_threads_that_is_none(monkeypatch, text):
    monkeypatch.setenv("TPC_THREADS", text)
    with pytest.raises(UsageError, match=f"TPC_THREADS, 0 for all cores, got '{text}'"):
        blocks._Threads()


def test_the_number_of_threads_is_chosen(monkeypatch):
    for text, count in (("3", 3), ("", blocks._cores()), ("0", blocks._cores())):
        monkeypatch.setenv("TPC_THREADS", text)
        assert blocks._Threads().count == count


# --- folded matrices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [*range(1, 36), 64])
def test_half(rank):
    rng = np.random.default_rng(rank)
    for outer in (1, 3):
        matrix = rng.standard_normal((outer, rank * (rank + 1) // 2)).astype(np.float32)
        wide = np.repeat(matrix, 2, axis=1)[:, ::2]  # the same numbers, not next to each other
        for batch in (1, 7, 8, 9):
            g = rng.standard_normal((batch, rank)).astype(np.float32)
            wanted = powers.half(matrix.astype(np.float64), g.astype(np.float64))
            for found in (half(matrix, g), half(wide, g), half(matrix.astype(np.float64), g)):
                assert found.dtype == np.float32
                np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max())
        np.testing.assert_array_equal(half(matrix, g[0]), half(matrix, g[:1])[0])  # one latent for all samples


# --- training --------------------------------------------------------------------------------------------------------

STEPS = {
    "plain": {},
    "momentum and decay": {"momentum": 0.9, "weight_decay": 0.05},
    "clipped": {"clip": 0.1, "clip_mode": "param"},
    "clipped globally": {"clip": 0.2, "clip_mode": "global", "loss": "mse"},
}


@pytest.mark.parametrize("options", STEPS)
@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_trajectories_follow_numpy(programs_dir, name, options):
    limit = tpc.compile(tpc.load(programs_dir / f"{name}.py", classes=CLASSES))
    exact, single, native = (
        limit.build(DIM, 9, backend=b, dtype=d)
        for b, d in (("numpy", "float64"), ("numpy", "float32"), ("native", "float32"))
    )
    rng = np.random.default_rng(3)
    for _ in range(25):
        x, y = rng.standard_normal((10, DIM)), rng.integers(0, CLASSES, 10)
        for model in (exact, single, native):
            model.step(x, y, lr=0.2, **STEPS[options])
    x = rng.standard_normal((500, DIM))
    rounding = np.abs(single.predict(x) - exact.predict(x)).max()
    assert np.abs(native.predict(x) - exact.predict(x)).max() < 10 * rounding + 1e-6


def test_the_same_steps_give_the_same_bits(programs_dir):
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES))
    models = [limit.build(DIM, 9, backend="native") for _ in range(2)]
    rng = np.random.default_rng(3)
    for _ in range(5):
        x, y = rng.standard_normal((10, DIM)), rng.integers(0, CLASSES, 10)
        for model in models:
            model.step(x, y, lr=0.2)
    for name, value in models[0].state().items():
        np.testing.assert_array_equal(models[1].state()[name], value)


# --- the text --------------------------------------------------------------------------------------------------------


def test_source_is_reproducible_and_complete(programs_dir):
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py"))
    lowered = lower(limit.graph("cross_entropy"))
    source = c_source(lowered)
    assert source == c_source(lowered) == native_module(lower(limit.graph("cross_entropy"))).c
    for loop in native_module(lowered).loops:
        assert f"TPC_DEV void {loop.name}_element(" in source
        assert f"TPC_API int {loop.name}(const tpc_call *call)" in source


def test_not_a_number_is_passed_on(programs_dir):
    problem = Problem(tpc.load(programs_dir / "mlp.py", classes=CLASSES))
    problem.columns["hidden1"][1]["A"][7] = np.nan
    assert np.isnan(problem.native()["loss"])
    problem = Problem(tpc.load(programs_dir / "mlp.py", classes=CLASSES))
    problem.x[1] = np.inf
    with np.errstate(all="ignore"):
        assert np.isnan(problem.native()["loss"])


# --- machines --------------------------------------------------------------------------------------------------------

MACHINES = {"least": (), "avx2": ("-mavx2", "-mfma", "-mf16c"), "avx2 without halves": ("-mavx2", "-mfma", "-mno-f16c")}


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("machine", MACHINES)
def test_other_lengths_of_a_vector(programs_dir, monkeypatch, machine, storage):
    if machine != "least" and "avx2" not in cpu_flags():
        return  # nothing to run it on
    monkeypatch.setattr(native_build, "MACHINE", (MACHINES[machine],))
    for rank in (3, 8, 19):
        problem = Problem(tpc.load(programs_dir / "mlp.py", classes=CLASSES), rank=rank, batch=12, count=150)
        assert error(problem.native(storage), Rounded(problem, storage).exact()) < EXACT


def cpu_flags():
    return native_build._cpu().split()
