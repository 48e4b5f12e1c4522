"""What is the native loops' own: vectors of every length, threads, room for arrays, folded matrices, the text."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import tpc
from backends import native_build, native_loops, powers
from backends import threads as pool
from backends.native_powers import halves
from backends.threads import threads
from tests.support.loops import CLASSES, EXACT, Problem, Rounded, error, network
from tpc.errors import UsageError
from tpc.lower.lowered import lower
from tpc.lower.native_module import c_source, native_module


@pytest.fixture
def thread_count():
    workers = threads()
    before = workers.count
    yield workers.set
    workers.set(before)


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [8, 40])
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rank", [15, 17, 31, 32, 48])
def test_ranks(rank, storage, batch):
    problem = Problem(network(tpc.erf), rank=rank, count=41, batch=batch)
    stored = Rounded(problem, storage)
    assert error(problem.native(storage), stored.exact()) < 5 * EXACT


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
    workers = pool._Threads()  # which knows every BLAS that is loaded by now
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
        pool._Threads()


def test_the_number_of_threads_is_chosen(monkeypatch):
    for text, count in (("3", 3), ("", pool._cores()), ("0", pool._cores())):
        monkeypatch.setenv("TPC_THREADS", text)
        assert pool._Threads().count == count


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
            for found, whole in (halves(matrix, g), halves(wide, g), halves(matrix.astype(np.float64), g)):
                assert found.dtype == whole.dtype == np.float32
                np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max())
                np.testing.assert_allclose(whole, np.einsum("bkr,br->bk", found, g), atol=1e-5 * np.abs(wanted).max())
        for one, several in zip(halves(matrix, g[0]), halves(matrix, g[:1]), strict=True):  # one latent for all samples
            np.testing.assert_array_equal(one, several[0])


# --- training --------------------------------------------------------------------------------------------------------

# --- the text --------------------------------------------------------------------------------------------------------


def test_source_is_reproducible_and_complete(programs_dir):
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py"))
    lowered = lower(limit.graph("cross_entropy"))
    source = c_source(lowered)
    assert source == c_source(lowered) == native_module(lower(limit.graph("cross_entropy"))).c
    for loop in native_module(lowered).loops:
        assert f"TPC_DEV void {loop.name}_element(" in source
        assert f"TPC_API int {loop.name}(const tpc_call *call)" in source


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
